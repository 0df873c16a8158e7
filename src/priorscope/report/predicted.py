"""Question 3: what it will predict. Loss and accuracy against training, beside a really trained network."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..beliefs.process import GaussianProcess
from ..plot import style
from ..training.noise import has_noise
from ..training.trajectory import trajectory
from .answer import Answer, Picture, percent
from .study import Study

NETWORKS = 100
"""Networks sampled from the ensemble for its band."""


@dataclass(frozen=True)
class Curves:
    """Scores at the recorded steps: (r,) each, or (r, s) for s sampled networks; accuracies are None in regression."""

    train_loss: Any
    test_loss: Any
    train_accuracy: Any
    test_accuracy: Any


def scores(study: Study, outputs: Tensor) -> Curves:
    """Mean squared error per point, and accuracy for classes, of outputs (r, ..., n + m, o) at all points."""
    n, labels, held_out = study.n, study.points.labels, study.points.test_labels
    train, test = outputs[..., :n, :], outputs[..., n:, :]

    def loss(values: Tensor, targets: Tensor) -> Tensor:
        return (values - targets).square().sum(-1).mean(-1) / 2

    def accuracy(values: Tensor, targets: Tensor) -> Tensor | None:
        if labels.classes is None:
            return None
        return (values.argmax(-1) == targets.argmax(-1)).to(torch.float64).mean(-1)

    return Curves(
        loss(train, labels.values),
        loss(test, held_out.values),
        accuracy(train, labels.values),
        accuracy(test, held_out.values),
    )


def predicted(study: Study) -> Answer:
    real = scores(study, study.run.outputs.to(torch.float64))
    steps = study.run.steps
    mean_outputs = study.path(study.points.both, at=steps).to(torch.float64)  # (r, n + m, o)
    mean = scores(study, mean_outputs)
    networks = None if study.limit is None else _networks(study, mean_outputs)
    shown = mean if networks is None else _map(networks, lambda values: values.median(-1).values)
    caption = "Dots: the really trained network. Lines: predicted before training"
    caption += (
        ", from the network's own kernel and start."
        if networks is None
        else f" (the median network); bands: 95 % of the networks that this initialization draws ({NETWORKS} sampled)."
    )
    numbers = {"steps": steps, "real": vars(real), "predicted": vars(shown), "mean_function": vars(mean)}
    if networks is not None:
        numbers["band"] = vars(_map(networks, _quantiles))
    picture = Picture("predicted", caption, _figure(steps, real, shown, networks))
    return Answer("What will it predict?", _sentences(study, real, shown, networks), (picture,), numbers)


def _networks(study: Study, mean_outputs: Tensor) -> Curves:
    """The scores of networks sampled from the ensemble: f_t = f_0 + A_t (y − f_0(X)), with f_0 from the NNGP.

    A_t f_0(X) is the trajectory towards the labels f_0(X), so all networks are one trajectory with many outputs.
    """
    assert study.limit is not None
    n, o = study.n, study.points.labels.outputs
    start = GaussianProcess(study.limit.nngp).prior(study.points.both)
    f0 = start.sample(NETWORKS * o, seed=study.seed).to(torch.float64).T  # (n + m, s·o)
    # As many outputs as all networks have would change the scale of a mean loss; half_sse has none.
    covered = study.covered
    # The mean over mini-batches of a mean loss is that of full batch.
    training = replace(covered, batch_size=None).on_half_sse(n, o) if covered.loss == "mse" else covered
    forgotten = trajectory(study.kernel, study.points.x, f0[:n], training)(study.points.both, at=study.run.steps)
    curves = []
    for mean, forgotten_by_then in zip(mean_outputs, forgotten, strict=True):
        moved = (f0 - forgotten_by_then).T.reshape(NETWORKS, o, -1).mT
        curves.append(scores(study, mean + moved))
    return Curves(*(_stack([getattr(curve, name) for curve in curves]) for name in vars(curves[0])))


def _stack(values: list[Tensor | None]) -> Tensor | None:
    return None if values[0] is None else torch.stack([value for value in values if value is not None])


def _map(curves: Curves, function: Callable[[Tensor], Any]) -> Curves:
    return Curves(*(None if value is None else function(value) for value in vars(curves).values()))


def _sentences(study: Study, real: Curves, shown: Curves, networks: Curves | None) -> tuple[str, ...]:
    if study.outside:
        opening = (
            f"This training ({', '.join(study.outside)}) is outside the theory of this page: the network is trained "
            f"so for real, and the prediction is of plain full-batch descent of {int(study.covered.end)} steps."
        )
    else:
        opening = f"The training: {study.last_step} steps of {_kind(study)} with learning rate {_rate(study)}."
        if has_noise(study.covered, study.n):
            opening += " The curves are of its mean over the order of the batches."
    points = f"On {len(study.points.x_test)} held-out points"
    if real.test_accuracy is not None and shown.test_accuracy is not None:
        expected, found = percent(float(shown.test_accuracy[-1])), percent(float(real.test_accuracy[-1]))
        band = "" if networks is None else f" (95 % of networks: {_range(networks.test_accuracy, percent)})"
        verdict = f"{points} it predicts an accuracy of {expected}{band}; the trained network reaches {found}."
    else:
        band = "" if networks is None else f" (95 % of networks: {_range(networks.test_loss, '{:.3g}'.format)})"
        verdict = (
            f"{points} it predicts a loss of {float(shown.test_loss[-1]):.3g}{band}; "
            f"the trained network reaches {float(real.test_loss[-1]):.3g}."
        )
    return opening, verdict


def _kind(study: Study) -> str:
    if not has_noise(study.covered, study.n):
        return "full-batch descent"
    return f"descent in mini-batches of {study.covered.batch_size}"


def _rate(study: Study) -> str:
    t = study.training
    return t.stated_rate if t.schedule is not None else f"{t.rate_at(0):.3g}"


def _range(networks: Tensor | None, written: Callable[[float], str]) -> str:
    assert networks is not None
    low, high = _quantiles(networks[-1])
    return f"{written(float(low))} to {written(float(high))}"


def _quantiles(samples: Tensor) -> tuple[Tensor, Tensor]:
    """The middle 95 % over the last axis."""
    low, high = torch.quantile(samples, torch.tensor([0.025, 0.975], dtype=samples.dtype), dim=-1)
    return low, high


def _figure(steps: Tensor, real: Curves, shown: Curves, networks: Curves | None) -> Figure:
    has_accuracy = real.train_accuracy is not None
    figure, axes = plt.subplots(
        1, 1 + has_accuracy, figsize=(4.4 + 3.8 * has_accuracy, 3.4), squeeze=False, layout="constrained"
    )
    _panel(axes[0][0], steps, real, shown, networks, "loss", "loss per point, ½‖f − y‖²")
    axes[0][0].set_yscale("log")
    if has_accuracy:
        _panel(axes[0][1], steps, real, shown, networks, "accuracy", "accuracy")
    return figure


def _panel(
    ax: Axes, steps: Tensor, real: Curves, shown: Curves, networks: Curves | None, score: str, label: str
) -> None:
    style.axes(ax, xlabel="training step", ylabel=label)
    ax.set_xscale("symlog", linthresh=1)
    at = style.array(steps)
    for which, colour, marker in (("train", style.BLUE, "o"), ("test", style.VERMILION, "s")):
        name = f"{which}_{score}"
        if networks is not None:
            low, high = _quantiles(getattr(networks, name))
            ax.fill_between(at, style.array(low), style.array(high), color=colour, alpha=0.2, lw=0)
        ax.plot(at, style.array(getattr(shown, name)), color=colour, lw=1.6, label=f"{which}, predicted")
        ax.plot(at, style.array(getattr(real, name)), marker, color=colour, ms=3.5, label=f"{which}, real")
    style.legend(ax)
