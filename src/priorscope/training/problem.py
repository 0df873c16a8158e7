"""What a real training is asked to do, checked in full before any work starts: inputs, labels, loss, recorded steps."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..data.inputs import Inputs, check_inputs, encode, leaves, loaded
from ..errors import DataError, ModelError, NotCoveredError, RatesError
from ..network.function import cast, check_mode, outputs_of, place_of
from ..network.initialization import resolve_rates
from .filters import check_training
from .objective import Objective
from .training import Training

RECORDED = 50
"""How many steps are recorded by default."""


@dataclass(frozen=True)
class Problem:
    """A checked training problem, in the dtype and on the device of the model.

    record: the inputs whose outputs are recorded; None are the training inputs themselves.
    rates: {parameter name: c}. steps: the steps to record, the first and the last included.
    """

    x: Inputs
    objective: Objective
    record: Inputs | None
    rates: dict[str, float]
    steps: tuple[int, ...]

    @property
    def points(self) -> int:
        return len(self.objective.targets)


def prepare(
    model: nn.Module, x: Inputs, y: Tensor, training: Any, rates: Any, record: Inputs | None, at: Any
) -> Problem:
    """Checks everything that a real training of this model needs."""
    training = check_training(training, "train")
    if training.is_flow:
        raise NotCoveredError(
            f"Training(time={training.time})", "is gradient flow, which no real training runs", _FLOW_REMEDY
        )
    check_inputs(x)
    if record is not None:
        check_inputs(record, "record")
    check_mode(model)
    resolved = trained_rates(model, rates)
    steps = recorded_steps(training, at)
    x = cast(loaded(x), model.parameters(), copy=True)
    versions = [leaf._version for leaf in leaves(x)]
    with torch.no_grad():
        first = outputs_of(model, x, name="x")
        again = outputs_of(model, x, name="x")
    if [leaf._version for leaf in leaves(x)] != versions:
        raise ModelError(place_of(model), "changes its input in place", "Set inplace=False in its first layer")
    if not bool(torch.isfinite(first).all()):
        raise ModelError(place_of(model), "has outputs that are NaN or infinite before training", "Initialise it anew")
    if float((first - again).abs().max()) > 1e4 * torch.finfo(first.dtype).eps * float(first.abs().max()):
        raise ModelError(place_of(model), "gives different outputs when called twice", "Remove what is random in it")
    if record is not None:
        record = cast(loaded(record), model.parameters(), copy=True)
        with torch.no_grad():
            outputs_of(model, record, name="record")
    return Problem(x, _objective(y, first, training), record, resolved, steps)


_FLOW_REMEDY = "Give learning_rate and steps; small steps follow the flow, with time = learning_rate · steps"


def trained_rates(model: nn.Module, rates: Any) -> dict[str, float]:
    """{parameter name: c}, where something is trained and nothing frozen is given a rate."""
    resolved = resolve_rates(model, rates)
    for name, parameter in model.named_parameters():
        if resolved[name] > 0 and not parameter.requires_grad:
            cause = f"has the rate {resolved[name]}, but is frozen (requires_grad=False)"
            raise RatesError(f"`{name}`", cause, "Give it the rate 0, or set requires_grad=True")
    if not any(resolved.values()):
        raise RatesError(place_of(model), "has no parameter with a rate above 0", "Unfreeze one, or give it a rate")
    return resolved


def recorded_steps(training: Training, at: Any = None) -> tuple[int, ...]:
    """The steps to record, ascending: those asked for (default 50, log-spaced), the first and the last."""
    end = int(training.end)
    if at is None:
        spaced = np.geomspace(1, end, RECORDED - 1) if end > 0 else np.zeros(0)
        return tuple(sorted({0, end, *(int(step) for step in spaced.round())}))
    try:
        wanted = [float(step) for step in (at if isinstance(at, Iterable) else [at])]
    except (TypeError, ValueError):
        raise DataError("at", f"is {at!r}", f"Give whole numbers from 0 to {end}") from None
    bad = [step for step in wanted if not (0 <= step <= end and step == int(step))]
    if bad:
        raise DataError("at", f"names the step {bad[0]:g}", f"Give whole numbers from 0 to {end}")
    return tuple(sorted({0, end, *(int(step) for step in wanted)}))


def _objective(y: Tensor, start: Float[Tensor, "n o"], training: Training) -> Objective:
    points, width = start.shape
    labels = encode(y, points, classes=width if width > 1 else None)
    if labels.outputs != width:
        columns = "columns" if labels.classes is None else "classes"
        cause = f"has {labels.outputs} {columns}, the model {width} outputs"
        raise DataError("y", cause, f"Give y of shape ({points}, {width}), or a model with {labels.outputs} outputs")
    return Objective.of(training.loss, labels, start)


def gradients(loss: Tensor, parameters: list[Tensor], place: str) -> tuple[Tensor, ...]:
    """∂loss/∂θ of each parameter, 0 where the loss does not depend on it."""
    try:
        return torch.autograd.grad(loss, parameters, materialize_grads=True)
    except RuntimeError as error:
        cause = f"has no gradient ({str(error).splitlines()[0]})"
        raise ModelError(place, cause, "Let its outputs depend on its parameters, without detach or no_grad") from error
