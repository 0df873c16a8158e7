"""Functions along training: what a network that is its own linearisation does, at any time, on any points."""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..beliefs.coupling import GivenKernel, Operator, check_kernel, labelled, on_labels, restored
from ..data.inputs import Inputs, Labels, count
from ..errors import DataError, PriorscopeWarning
from ..kernels.frozen import takes_kernel_on_data
from ..kernels.pair import KernelPair
from ..network.function import check_module, initial_function
from ..results import Result, live
from .filters import check_at, check_one_mean, check_training, half_lives, residual, step_limit, weights_filter
from .training import Training

Times = float | Sequence[float] | Tensor


@dataclass(frozen=True, eq=False)
class Trajectory(Result):
    """f_t = f₀ + K(x, X) g_t(K) (y − f₀(X)), where g_t(λ) = (1 − r(λ, t))/λ is the training's filter.

    Args:
        labels: the data's labels, as the mathematics takes them.
        training: how it is trained.
        values: (r,), Gram eigenvalues of the modes that are learned, descending. Operator eigenvalues are values / n.
        target: (n, o), float64: y − f₀(X), what is to be learned.
        squares: (r,), its square in each mode, ‖vᵢᵀ(y − f₀(X))‖²; which vectors span equal values does not matter.
        off_modes: ½‖·‖² of the part of y − f₀(X) that lies on null modes, and is never learned.
        fingerprint: (p, n), by which it knows its kernel again.
        outputs: "independent", "coupled", or "trace kernel, ..." with the reason.
        notes: what a reader should know.
        kernel: the kernel on its data. It is not saved: give it when loading.
        start: the network at the start, a copy; None for f₀ = 0. Not saved either.
    """

    labels: Labels
    training: Training
    values: Float[Tensor, " r"]
    target: Float[Tensor, "n o"]
    squares: Float[Tensor, " r"]
    off_modes: float
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
            at: time for the flow (may be infinite), whole steps for descent; None for the training's end. Several
                values give a leading axis.

        Returns:
            (m,) or (m, o), like y.
        """
        operator = self._operator
        times, several = self._times(at)
        filters = torch.stack([weights_filter(self.values, t, self.training, self._scale) for t in times])
        vectors = operator.eigen.vectors[:, : len(self.values)]
        learned = filters[:, :, None] * (vectors.T @ operator.fold(self.target))
        outputs = operator.unfold(operator.cross(x_new) @ vectors @ learned)
        if not self.starts_at_zero:
            if self.start is None:
                cause = "this trajectory was loaded without the network that it starts from"
                raise DataError("Trajectory", cause, "Give it: Trajectory.load(path, kernel=..., start=model)")
            outputs = outputs + initial_function(self.start, x_new, self.labels.outputs)
        outputs = self.labels.restore(outputs)
        return outputs if several else outputs[0]

    def influence(self, x_new: Inputs, at: float | None = None) -> Float[Tensor, "..."]:
        """The dual weights of training: how much each label moves each prediction by then, K(x, X) g_t(K).

        Args:
            x_new: m points.
            at: one time or step; None for the training's end.

        Returns:
            (m, n); (m, o, n, o) where outputs are coupled. For infinite time these are K(x, X) K⁻¹.
        """
        operator = self._operator
        time = self.training.end if at is None else check_at(self.training, at)
        modes = operator.eigen.vectors[:, : len(self.values)]
        filters = weights_filter(self.values, time, self.training, self._scale)
        weights = (operator.cross(x_new) @ modes * filters) @ modes.T
        if operator.coupled:
            o = self.labels.outputs
            weights = weights.reshape(len(weights) // o, o, -1, o)
        return weights.to(self.labels.dtype)

    def losses(self, at: Times | None = None) -> Float[Tensor, "*t"]:
        """The training loss, in the training's own loss. Arguments as in a call."""
        times, several = self._times(at)
        left = torch.stack([residual(self.values, t, self.training, self._scale) for t in times])
        half_squares = left.square() @ self.squares / 2 + self.off_modes
        losses = (self._scale * half_squares).to(self.labels.dtype)
        return losses if several else losses[0]

    def residuals(self, at: Times | None = None) -> Float[Tensor, "..."]:
        """What is left to learn of each mode, as a share of its start: (r,), with a leading axis for several `at`."""
        times, several = self._times(at)
        left = torch.stack([residual(self.values, t, self.training, self._scale) for t in times]).to(self.labels.dtype)
        return left if several else left[0]

    @cached_property
    def half_lives(self) -> Float[Tensor, " r"]:
        """When each mode's residual has halved, in the unit of `at`; infinite for modes that never do.

        ln 2/λ for the flow on half_sse; −ln 2/ln|1 − ηλ| for plain descent; with momentum the first whole step
        where at most half is left.
        """
        return half_lives(self.values, self.training, self._scale).to(self.labels.dtype)

    @property
    def step_limit(self) -> float:
        """The learning rate, for the training's own loss, beyond which descent diverges."""
        return step_limit(self.values, self.training, self._scale)

    @property
    def _scale(self) -> float:
        return self.training.loss_scale(*self.labels.values.shape)

    @cached_property
    def _operator(self) -> Operator:
        remedy = "Give it: Trajectory.load(path, kernel=kernel.on(x))"
        return on_labels(restored(self.kernel, self.fingerprint, "Trajectory", remedy), self.labels)

    def _times(self, at: Times | None) -> tuple[list[float], bool]:
        if at is None:
            return [self.training.end], False
        if isinstance(at, (int, float, str)) or getattr(at, "ndim", 1) == 0:
            return [check_at(self.training, at)], False
        times = [check_at(self.training, t) for t in at]  # type: ignore[union-attr]
        if not times:
            raise DataError("at", "is empty", "Give at least one time, or None for the training's end")
        return times, True


@takes_kernel_on_data
def trajectory(
    kernel: GivenKernel,
    x: Inputs,
    y: Tensor,
    training: Any = Training(),
    start: Any = None,
) -> Trajectory:
    """The function that training reaches at every time, in closed form.

    f_t(x) = f₀(x) + K(x, X) g_t(K) (y − f₀(X)). It is exact for a network linear in its parameters, whose kernel
    does not move.

    Args:
        kernel: the NTK (of a pair, its ntk), or `kernel.on(x)` (and then x is left out).
        x: n points.
        y: (n,) or (n, o), or integer classes (n,), which become one-hot − 1/C; C is the model's number of outputs,
            where the kernel is of a model with several. For independent outputs, any multiple of the model's is
            several sets of labels at once.
        training: a `Training`; gradient flow to the end by default.
        start: the network that training starts from; None for f₀ = 0. It is copied.

    Returns:
        A `Trajectory`: call it with points, and with times or steps.

    Raises:
        NotCoveredError: for a training that predictions do not cover.
        PriorscopeError: for a training that is none.
        DataError: where y does not match x, the kernel's outputs or those of `start`.
        ModelError: a `start` that does not run, or is in the wrong mode.

    A PriorscopeWarning says when the learning rate is beyond the limit; the diverging curve is exact.
    Source: Lee et al. 2019 (1902.06720); Polyak 1964 for the heavy ball.

    >>> from priorscope.kernels import RBF
    >>> x, y = torch.linspace(0, 1, 3)[:, None], torch.tensor([1.0, 0.0, 2.0])
    >>> path = trajectory(RBF(0.2), x, y)
    >>> bool(torch.allclose(path(x), y, atol=1e-4)), path(x, at=0.0).tolist()
    (True, [0.0, 0.0, 0.0])
    """
    training = check_training(training, "trajectory")
    data = check_kernel(kernel.ntk if isinstance(kernel, KernelPair) else kernel, "trajectory").on(x)
    training.require_covered(count(x))
    labels, operator = labelled(data, y)
    check_one_mean(training, labels.outputs, data.outputs(data.x))
    target, copied = labels.values, None
    if start is not None:
        copied = copy.deepcopy(check_module(start, "start"))
        target = target - initial_function(copied, data.x, labels.outputs)
    eigen, folded = operator.eigen, operator.fold(target)
    squares = (eigen.vectors[:, : eigen.rank].T @ folded).square().sum(1)
    # Not ‖·‖² − ‖·‖²: the difference of two nearly equal numbers.
    off = float((eigen.vectors[:, eigen.rank :].T @ folded).square().sum()) / 2
    values = eigen.values[: eigen.rank]
    path = Trajectory(
        labels,
        training,
        values,
        target,
        squares,
        off,
        data.fingerprint,
        operator.note,
        notes_on(training),
        start is None,
        data,
        copied,
    )
    warn_beyond_limit(training, path.step_limit)
    return path


def warn_beyond_limit(training: Training, limit: float) -> None:
    """A PriorscopeWarning where the learning rate is beyond the limit."""
    if training.learning_rate is not None and training.learning_rate > limit:
        warnings.warn(
            f"learning_rate={training.learning_rate:g} is beyond the limit {limit:.4g} of this kernel: descent "
            "diverges, and the prediction with it. Use a smaller one.",
            PriorscopeWarning,
            stacklevel=4,
        )


def notes_on(training: Training) -> tuple[str, ...]:
    """What a reader of a prediction of this training should know."""
    if training.until_loss is None:
        return ()
    return (f"predicted at {training.steps} steps; until_loss={training.until_loss:g} ends only a real training early",)
