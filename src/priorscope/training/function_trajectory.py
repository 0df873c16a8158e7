"""Functions along training under cross-entropy or a loss of the user's own, whose modes do not learn alone."""

import copy
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..beliefs.coupling import GivenKernel, Operator, labelled, on_labels, restored
from ..data.inputs import Inputs, Labels
from ..errors import DataError, NotCoveredError
from ..kernels.on_data import OnData
from ..network.function import check_module, initial_function
from ..results import Result, live
from . import filters
from .function_space import Features, descend, flow, largest_curvature
from .objective import Objective
from .prediction import Times, check_start, moments, notes_on, warn_beyond_limit
from .training import Training


@dataclass(frozen=True, eq=False)
class FunctionTrajectory(Result):
    """f_t(x) = f₀(x) + K(x, X) α_t, where the dual weights follow the loss: α' = −∂L/∂f(f₀(X) + K α) for the flow.

    Descent is step by step that of torch.optim.SGD. What belongs to one mode alone (residuals, half-lives) has no
    meaning here, and raises.

    Args:
        labels: the data's labels, as the mathematics takes them.
        training: how it is trained.
        values: (r,), Gram eigenvalues of the kernel's modes, descending. Operator eigenvalues are values / n.
        begun: (n, o), float64: f₀(X).
        curvature: λ_max(K) times the largest curvature of the loss: for cross-entropy at most ½/n wherever the outputs
            are; for a loss of the user's own that of ∂²L/∂f² at the start, seen through the kernel.
        fingerprint: (p, n), by which it knows its kernel again.
        outputs: "independent", "coupled", or "trace kernel, ..." with the reason.
        notes: what a reader should know.
        kernel: the kernel on its data. It is not saved: give it when loading.
        start: the network at the start, a copy; None for f₀ = 0. Not saved either.

    Source: Lee et al. 2019 (1902.06720), for the dynamics of outputs under cross-entropy.

    >>> from priorscope import trajectory
    >>> from priorscope.kernels import RBF
    >>> x, y = torch.linspace(0, 1, 3)[:, None], torch.tensor([0, 1, 0])
    >>> path = trajectory(RBF(0.2), x, y, Training(loss="cross_entropy", time=100.0))
    >>> path(x).argmax(1).tolist(), bool(path.losses() < path.losses(1.0))
    ([0, 1, 0], True)
    >>> bool(path.dual_weights().sum(1).abs().max() < 1e-6)  # no class gains what no other loses
    True
    """

    labels: Labels
    training: Training
    values: Float[Tensor, " r"]
    begun: Float[Tensor, "n o"]
    curvature: float
    fingerprint: Float[Tensor, "p n"]
    outputs: str
    notes: tuple[str, ...] = ()
    starts_at_zero: bool = True
    kernel: GivenKernel = live()
    start: nn.Module | None = live()

    def __call__(self, x_new: Inputs, at: Times | None = None) -> Float[Tensor, "..."]:
        """The function at new points.

        Args:
            x_new: m points.
            at: time for the flow, whole steps for descent; None for the training's end. Several values give a leading
                axis.

        Returns:
            (m,) or (m, o), like y.

        Raises:
            NotCoveredError: an infinite time, where the loss has no finite minimiser.
        """
        times, several = moments(self.training, at)
        outputs = self._features.extend(x_new, self._states(times))
        if not self.starts_at_zero:
            outputs = outputs + initial_function(self._start, x_new, self.labels.outputs)
        outputs = self.labels.restore(outputs)
        return outputs if several else outputs[0]

    def losses(self, at: Times | None = None) -> Float[Tensor, "*t"]:
        """The training loss, without what weight decay adds. Arguments as in a call."""
        times, several = moments(self.training, at)
        losses = self._objective(self.begun + self._features.outputs(self._states(times))).to(self.labels.dtype)
        return losses if several else losses[0]

    def dual_weights(self, at: Times | None = None) -> Float[Tensor, "..."]:
        """α_t, (n,) or (n, o), like y: what each training point adds to the function is K(x, xᵢ) αᵢ."""
        times, several = moments(self.training, at)
        weights = self.labels.restore(self._features.dual(self._states(times)))
        return weights if several else weights[0]

    @property
    def step_limit(self) -> float:
        """The learning rate beyond which descent may diverge: 2/(`curvature` + w), with momentum as for squared losses.

        Plain descent on cross-entropy converges below it; of a loss of the user's own it is the limit at the start.
        """
        return filters.step_limit(torch.tensor([self.curvature], dtype=torch.float64), self.training, 1.0)

    @property
    def half_lives(self) -> NoReturn:
        """Raises: modes do not decay alone."""
        self._no_modes("half_lives")

    def residuals(self, at: Times | None = None) -> NoReturn:
        """Raises: modes do not decay alone."""
        self._no_modes("residuals")

    def influence(self, x_new: Inputs, at: float | None = None) -> NoReturn:
        """Raises: predictions are not linear in the labels."""
        self._no_modes("influence")

    def noise(self, x_new: Inputs, at: float | None = None) -> NoReturn:
        """Raises: mini-batches are predicted for squared losses only."""
        raise NotCoveredError(f"{_NAME}.noise", "is of squared losses", "Train networks with ps.train_many")

    def as_flow(self, order: int = 0) -> NoReturn:
        """Raises: give the flow as a training of its own."""
        remedy = "Give trajectory a Training(loss=..., time=learning_rate·steps)"
        raise NotCoveredError(f"{_NAME}.as_flow", "is of squared losses", remedy)

    def _no_modes(self, name: str) -> NoReturn:
        cause = f"has no meaning for {self.training.loss_name}, under which no mode learns alone"
        raise NotCoveredError(f"{_NAME}.{name}", cause, "Use .losses(at), .dual_weights(at) or path(x, at)")

    def _states(self, times: list[float]) -> Float[Tensor, "t r c"]:
        missing = [t for t in dict.fromkeys(times) if t not in self._known]
        for t in missing:
            check_end(self.training, t)
        if missing:
            given = (self._features, self.begun, self._objective)
            if self.training.is_flow:
                found = flow(*given, self.training.weight_decay, missing)
            else:
                found = descend(*given, self.training, [int(t) for t in missing])
            self._known.update(zip(missing, found, strict=True))
        return torch.stack([self._known[t] for t in times])

    @cached_property
    def _start(self) -> nn.Module:
        if self.start is None:
            cause = "this trajectory was loaded without the network that it starts from"
            raise DataError(_NAME, cause, f"Give it: {_NAME}.load(path, kernel=..., start=model)")
        check_start(self.start, self._operator.data.x, self.begun, _NAME)
        return self.start

    @cached_property
    def _known(self) -> dict[float, Tensor]:
        """β at the times that were asked for before."""
        return {}

    @cached_property
    def _objective(self) -> Objective:
        return Objective.of(self.training.loss, self.labels, self.begun)

    @cached_property
    def _features(self) -> Features:
        return Features(self._operator)

    @cached_property
    def _operator(self) -> Operator:
        remedy = f"Give it: {_NAME}.load(path, kernel=kernel.on(x))"
        return on_labels(restored(self.kernel, self.fingerprint, _NAME, remedy), self.labels)


_NAME = "FunctionTrajectory"


def function_trajectory(data: OnData, y: Tensor, training: Training, start: Any) -> FunctionTrajectory:
    """The trajectory of a loss that is not squared; arguments as those of `trajectory`."""
    check_function_space(training, len(y) if isinstance(y, Tensor) else 0)
    labels, operator = labelled(data, y)
    check_one_set(training, labels, data)
    copied, begun = None, torch.zeros_like(labels.values)
    if start is not None:
        copied = copy.deepcopy(check_module(start, "start"))
        begun = initial_function(copied, data.x, labels.outputs)
    objective, features = Objective.of(training.loss, labels, begun), Features(operator)
    path = FunctionTrajectory(
        labels,
        training,
        operator.eigen.values[: operator.eigen.rank],
        begun,
        largest_curvature(features, begun, objective),
        data.fingerprint,
        operator.note,
        notes_on(training, len(begun)),
        start is None,
        data,
        copied,
    )
    warn_beyond_limit(training, path.step_limit, stacklevel=5)
    return path


def check_function_space(training: Training, points: int) -> None:
    """Raises NotCoveredError for what predictions cover for squared losses only."""
    check_end(training, training.end)
    place, only = f"Training(loss={training.loss_name}, ", "is predicted for half_sse and mse only"
    if len(training.batch_sizes(points)) > 1:
        remedy = "Predict full batch (batch_size=None), or train for real with ps.train"
        raise NotCoveredError(f"{place}batch_size={training.batch_size})", only, remedy)
    if training.decays_to_zero:
        raise NotCoveredError(f"{place}decay_to='zero')", only, 'Give decay_to="start", or train with ps.train')


def check_end(training: Training, time: float) -> None:
    """Raises NotCoveredError where the flow never comes to the end that it is asked for."""
    if time == math.inf and training.loss == "cross_entropy" and not training.weight_decay:
        cause = "has no finite minimiser, so that gradient flow has no end: outputs grow without bound"
        raise NotCoveredError("Training(loss='cross_entropy')", cause, "Give a time, learning_rate and steps, or decay")


def check_one_set(training: Training, labels: Labels, data: OnData) -> None:
    """Raises DataError where several sets of labels would share one loss."""
    own = data.outputs(data.x)
    if own is not None and own != labels.outputs:
        cause = f"has {labels.outputs} outputs, several sets of the model's {own}: they have no common loss"
        raise DataError("y", cause, "Give one set")
