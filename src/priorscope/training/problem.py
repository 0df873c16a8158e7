"""What a real training is asked to do, checked in full before any work starts: inputs, labels, loss, recorded steps."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import log_softmax
from torch.utils._pytree import tree_map

from ..data.inputs import Inputs, check_inputs, count, encode, leaves
from ..errors import DataError, ModelError, NotCoveredError, PriorscopeError, RatesError
from ..network.initialization import resolve_rates
from ..network.stateless import check_mode
from .training import Training

RECORDED = 50
"""How many steps are recorded by default."""


@dataclass(frozen=True)
class Objective:
    """A loss and its targets: "half_sse" ½Σ(f−y)², "mse" the mean of (f−y)², "cross_entropy" the mean of −log p(y).

    targets: (n, o), or (n,) classes for cross-entropy.
    """

    loss: str
    targets: Tensor

    def __call__(self, outputs: Float[Tensor, "*s n o"]) -> Float[Tensor, "*s"]:
        """The loss of each network's outputs."""
        if self.loss == "cross_entropy":
            rows = torch.arange(len(self.targets), device=self.targets.device)
            return -log_softmax(outputs, -1)[..., rows, self.targets].mean(-1)
        squares = (outputs - self.targets).square()
        return squares.sum((-2, -1)) / 2 if self.loss == "half_sse" else squares.mean((-2, -1))

    def take(self, index: Tensor) -> "Objective":
        """The same loss on some of the points."""
        return Objective(self.loss, self.targets[index])


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
    model: nn.Module, x: Inputs, y: Tensor, training: Training, rates: Any, record: Inputs | None, at: Any
) -> Problem:
    """Checks everything that a real training of this model needs."""
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
    x = cast_inputs(model, x)
    versions = [leaf._version for leaf in leaves(x)]
    with torch.no_grad():
        outputs = run_model(model, x)
        again = run_model(model, x)
    if [leaf._version for leaf in leaves(x)] != versions:
        raise ModelError(_name(model), "changes its input in place", "Set inplace=False in its first layer")
    if not bool(torch.isfinite(outputs).all()):
        raise ModelError(_name(model), "has outputs that are NaN or infinite before training", "Initialise it anew")
    if float((outputs - again).abs().max()) > 1e4 * torch.finfo(outputs.dtype).eps * float(outputs.abs().max()):
        raise ModelError(_name(model), "gives different outputs when called twice", "Remove what is random in it")
    if record is not None:
        record = cast_inputs(model, record)
        with torch.no_grad():
            run_model(model, record, "record")
    return Problem(x, Objective(training.loss, _targets(y, outputs, training)), record, resolved, steps)


_FLOW_REMEDY = "Give learning_rate and steps; small steps follow the flow, with time = learning_rate · steps"


def trained_rates(model: nn.Module, rates: Any) -> dict[str, float]:
    """{parameter name: c}, where something is trained and nothing frozen is given a rate."""
    resolved = resolve_rates(model, rates)
    for name, parameter in model.named_parameters():
        if resolved[name] > 0 and not parameter.requires_grad:
            cause = f"has the rate {resolved[name]}, but is frozen (requires_grad=False)"
            raise RatesError(f"`{name}`", cause, "Give it the rate 0, or set requires_grad=True")
    if not any(resolved.values()):
        raise RatesError(_name(model), "has no parameter with a rate above 0", "Unfreeze one, or give it a rate")
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


def cast_inputs(model: nn.Module, x: Inputs) -> Inputs:
    """A copy of x on the model's device; its floating tensors in the model's dtype."""
    reference = next((p for p in model.parameters() if p.is_floating_point()), None)
    if reference is None:
        return x

    def cast(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        dtype = reference.dtype if leaf.is_floating_point() else leaf.dtype
        return leaf.detach().to(reference.device, dtype, copy=True)

    return tree_map(cast, x)


def run_model(model: nn.Module, x: Inputs, name: str = "x") -> Float[Tensor, "n o"]:
    """model(x) with one axis of outputs."""
    try:
        outputs = model(x)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, PriorscopeError):
            raise
        cause = f"does not run on {name} ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        raise ModelError(_name(model), cause, "Check the shape and dtype of the inputs") from error
    return as_rows(outputs, count(x), _name(model))


def as_rows(outputs: Any, points: int, place: str) -> Float[Tensor, "n o"]:
    """A network's outputs as (n, o)."""
    if not isinstance(outputs, Tensor):
        cause = f"returns a {type(outputs).__name__}, not a tensor"
        raise ModelError(place, cause, "Wrap it in a module that returns the outputs alone")
    if outputs.ndim == 0 or outputs.shape[0] != points:
        cause = f"returns the shape {tuple(outputs.shape)} for {points} points"
        raise ModelError(place, cause, "Give a model whose outputs have one row per point")
    return outputs.reshape(points, -1)


def _targets(y: Tensor, outputs: Float[Tensor, "n o"], training: Training) -> Tensor:
    points, width = outputs.shape
    labels = encode(y, points, classes=width if width > 1 else None)
    if labels.outputs != width:
        columns = "columns" if labels.classes is None else "classes"
        cause = f"has {labels.outputs} {columns}, the model {width} outputs"
        raise DataError("y", cause, f"Give y of shape ({points}, {width}), or a model with {labels.outputs} outputs")
    if training.loss != "cross_entropy":
        return labels.values.to(outputs)
    if labels.classes is None:
        raise DataError("y", "holds no classes, which cross_entropy needs", "Give integers 0..C-1, as (n,)")
    return labels.values.argmax(1).to(outputs.device)


def _name(model: nn.Module) -> str:
    return f"the model ({type(model).__name__})"
