"""What of a training the fit of the score has never seen: said in words, and counted neither for nor against it."""

from collections.abc import Iterator, Mapping
from typing import Any

from ...data.inputs import count
from ...kernels.infinite.limit import Limit
from ...training.noise import has_noise
from ...training.training import Training
from .draws import widths
from .features import Prediction
from .score import Score

ROUNDING = 1e-9
"""Of a feature, beside the end of its fitted range."""


def layers(limit: Limit) -> tuple[str, ...]:
    """What a network is made of, once each, as the limit's rules name it: "linear", "relu", "convolution", ..."""
    # What stands behind the comma is how the rule was computed.
    return tuple(sorted({step.rule.partition(",")[0] for step in limit.explain().steps}))


def kind(prediction: Prediction) -> dict[str, Any]:
    """What a fit says of each of its cases, so that others can be seen to lie beyond them."""
    limit = prediction.limit
    return {"points": count(prediction.x), "hidden layers": len(widths(limit.model)), "layers": list(layers(limit))}


def span(kinds: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    """The kinds of all fitted cases as one: the most of each, and all layers. steps: of their descents."""
    most = {name: max(each[name] for each in kinds) for name in ("points", "hidden layers")}
    return {"steps": steps, **most, "layers": sorted({layer for each in kinds for layer in each["layers"]})}


def unseen(
    prediction: Prediction, score: Score, features: Mapping[str, float], seen: Mapping[str, Any]
) -> tuple[str, ...]:
    """A note for each way in which a prediction lies beyond all cases of the fit.

    Args:
        seen: the `span` of the fit.
    """
    return (
        *_of_training(prediction.training, count(prediction.x), seen),
        *_of_networks(prediction, seen),
        *_of_features(score, features),
    )


def _of_training(training: Training, points: int, seen: Mapping[str, Any]) -> Iterator[str]:
    if training.is_flow:
        yield f"gradient flow: fitted on descents of {seen['steps']} steps alone"
    elif training.end > seen["steps"]:
        yield f"{int(training.end)} steps: fitted on {seen['steps']}"
    if training.schedule is not None:
        yield "a schedule of learning rates: fitted on constant ones alone"
    if has_noise(training, points):
        yield "mini-batches: fitted on full batches alone"
    if training.nesterov:
        yield "Nesterov's momentum: fitted on plain momentum alone"
    if training.weight_decay:
        yield "weight decay: fitted without any"


def _of_networks(prediction: Prediction, seen: Mapping[str, Any]) -> Iterator[str]:
    own = kind(prediction)
    if own["points"] > seen["points"]:
        yield f"{own['points']} training points: fitted on at most {seen['points']}"
    if own["hidden layers"] > seen["hidden layers"]:
        yield f"{own['hidden layers']} hidden layers: fitted on at most {seen['hidden layers']}"
    new = [layer for layer in own["layers"] if layer not in seen["layers"]]
    if new:
        yield f"no fitted task had {', '.join(new)}: fitted on fully connected networks of {', '.join(seen['layers'])}"


def _of_features(score: Score, features: Mapping[str, float]) -> Iterator[str]:
    for name, high in score.high.items():
        if features[name] > high + ROUNDING:
            yield f"the feature {name!r} is {features[name]:.3g}, fitted on {score.low[name]:.3g} to {high:.3g}"
