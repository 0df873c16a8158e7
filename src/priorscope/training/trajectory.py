"""Functions along training: what a network that is its own linearisation does, at any time, on any points."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..beliefs.coupling import GivenKernel, Operator, check_kernel, labelled, on_labels, restored
from ..beliefs.gaussian import Gaussian
from ..data.inputs import Inputs, Labels, count
from ..errors import DataError, NotCoveredError, RatesError
from ..kernels.empirical import EmpiricalNTK
from ..kernels.frozen import takes_kernel_on_data
from ..kernels.on_data import OnData
from ..kernels.pair import KernelPair
from ..network.function import check_module, initial_function
from ..network.linearize import slope_along
from ..results import Result, live
from . import filters
from .filters import Scale, check_at, check_one_mean, check_training
from .function_trajectory import FunctionTrajectory, function_trajectory
from .noise import carried, has_noise, noise_covariance
from .prediction import Times, check_start, moments, notes_on, warn_beyond_limit
from .relinearise import SHARE, RelinearisedTrajectory, relinearised, same_values
from .training import Training


@dataclass(frozen=True, eq=False)
class Trajectory(Result):
    """f_t = f₀ + K(x, X) g_t(K) (y − f₀(X)), where g_t(λ) = (1 − r(λ, t))/λ is the training's filter.

    With weight decay to zero the weights shrink as a whole, too, freely by q: f_t gets (q − 1) h, h = J θ₀, and the
    data's weights, g_t(K) h less the divided difference of q. Mini-batches: this is their mean, to first order in the
    learning rate, and `noise` the law of what they add.

    Args:
        labels: the data's labels, as the mathematics takes them.
        training: how it is trained.
        values: (r,), Gram eigenvalues of the modes that are learned, descending. Operator eigenvalues are values / n.
        target: (n, o), float64: y − f₀(X), what is to be learned.
        squares: (r,), its square in each mode, ‖vᵢᵀ(y − f₀(X))‖²; which vectors span equal values does not matter.
        off_modes: ½‖·‖² of the part of y − f₀(X) that lies on null modes, and is never learned.
        fingerprint: (p, n), by which it knows its kernel again.
        outputs: "independent", "coupled", or "trace kernel, ..." with the reason: the curve is then that of outputs
            which do not disturb each other, and the step limit too large where they do.
        notes: what a reader should know.
        pulled: what weight decay to zero adds; None without it.
        correction: η of the descent whose first-order correction this flow carries (`as_flow`).
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
    pulled: "Pulled | None" = None
    correction: float = 0.0
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
        times, several = moments(self.training, at)
        vectors = operator.eigen.vectors[:, : len(self.values)]
        outputs = operator.unfold(operator.cross(x_new) @ vectors @ self._learned(times, vectors))
        if not self.starts_at_zero:
            start = self._start
            outputs = outputs + initial_function(start, x_new, self.labels.outputs)
            if self.pulled is not None:
                slope = slope_along(start, x_new, self.pulled.names)
                outputs = outputs + (self._free(times)[:, None, None] - 1) * slope
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
        weights = (operator.cross(x_new) @ modes * self._apply(filters.weights_filters, [time])[0]) @ modes.T
        if operator.coupled:
            o = self.labels.outputs
            weights = weights.reshape(len(weights) // o, o, -1, o)
        return weights.to(self.labels.dtype)

    def noise(self, x_new: Inputs, at: float | None = None) -> Gaussian:
        """The law of what the draw of mini-batches adds to the function at new points, to first order in η.

        Its mean is 0. Without mini-batches it is 0 altogether.

        Args:
            x_new: m points.
            at: a whole number of steps; None for the training's end.

        Returns:
            A `Gaussian` over (m,) or (m, o), like y; all values of it may depend on each other.

        It takes steps · n · (m·o)² operations.
        Source: the moments of a sum over a batch drawn without replacement.

        >>> from priorscope.kernels import RBF
        >>> x, y = torch.linspace(0, 1, 4)[:, None], torch.tensor([1.0, 0.0, 2.0, 1.0])
        >>> path = trajectory(RBF(0.2), x, y, Training(learning_rate=0.1, batch_size=2, steps=20))
        >>> bool(path.noise(x).variance.min() > 0), float(path.noise(x, at=0).variance.max())
        (True, 0.0)
        """
        operator, n = self._operator, len(self.target)
        time = self.training.end if at is None else check_at(self.training, at)
        mean = self.labels.restore(self.target.new_zeros(count(x_new), self.labels.outputs))
        if not has_noise(self.training, n) or time == 0:
            return Gaussian(mean, self.target.new_zeros(len(mean), len(mean)))
        steps = int(time)
        weights = carried(operator, operator.cross(x_new), self.values, steps, self.training, self._scale)
        left = self._residuals_at(range(steps))[..., None]
        sizes = self.training.batch_sizes(n)
        return Gaussian(mean, noise_covariance(weights, left.__getitem__, 1, steps, sizes, operator))

    def losses(self, at: Times | None = None) -> Float[Tensor, "*t"]:
        """The training loss, in the training's own loss, without what weight decay adds. Arguments as in a call.

        Of mini-batches it is the loss of the mean function: the mean loss is larger, by what `noise` adds.
        """
        times, several = moments(self.training, at)
        left = self._apply(filters.residuals, times)
        squares, off = left.square() @ self.squares, torch.tensor(2 * self.off_modes).to(left)
        if self.pulled is not None:
            # y − f is r (y − f₀) + (r − q) h in each mode; on null modes r is 1.
            pulled, free = left - self._apply(filters.shrinkage, times), 1 - self._free(times)
            squares = squares + 2 * (left * pulled) @ self.pulled.products + pulled.square() @ self.pulled.squares
            off = off + 2 * free * self.pulled.off_product + free.square() * self.pulled.off_square
        scale = self.training.loss_scale(*self.labels.values.shape)
        losses = (scale * (squares + off) / 2).to(self.labels.dtype)
        return losses if several else losses[0]

    def residuals(self, at: Times | None = None) -> Float[Tensor, "..."]:
        """What is left to learn of each mode, as a share of its start: (r,), with a leading axis for several `at`.

        With weight decay to zero: of the labels' part of it.
        """
        times, several = moments(self.training, at)
        left = self._apply(filters.residuals, times).to(self.labels.dtype)
        return left if several else left[0]

    def as_flow(self, order: int = 0) -> "Trajectory":
        """The gradient flow that plain descent of small steps approximates, at the time η · steps.

        Order 0 is the flow of the loss L: a step leaves it by O(η²), a training to a given time by O(η). Order 1 is
        that of L + (η/4)‖∇L‖², whose modes move at μ(1 + ημ/2): O(η³) and O(η²).

        Args:
            order: 0, or 1 for the implicit gradient regularisation.

        Returns:
            A `Trajectory` of gradient flow from the same start.

        Raises:
            NotCoveredError: momentum, mini-batches, a schedule, or a flow.

        Source: Barrett and Dherin 2021 (2009.11162).

        >>> from priorscope.kernels import RBF
        >>> x, y = torch.linspace(0, 1, 3)[:, None], torch.tensor([1.0, 0.0, 2.0])
        >>> path = trajectory(RBF(0.2), x, y, Training(learning_rate=0.01, steps=100))
        >>> gaps = [float((path.as_flow(order)(x) - path(x)).abs().max()) for order in (0, 1)]
        >>> gaps[1] < gaps[0] / 50
        True
        """
        if order not in (0, 1):
            raise DataError("order", f"is {order!r}", "Give 0 or 1")
        t = self.training
        if t.is_flow or t.momentum or t.schedule is not None or has_noise(t, len(self.target)):
            cause = "is not plain full-batch descent at one rate, whose flow this is"
            raise NotCoveredError("as_flow", cause, "Give Training(learning_rate=, steps=) alone, or with weight decay")
        rate = t.rate_at(0)
        flow = Training(loss=t.loss, weight_decay=t.weight_decay, decay_to=t.decay_to, time=rate * t.end)
        return replace(self, training=flow, correction=rate * order, notes=notes_on(flow, len(self.target)))

    @cached_property
    def half_lives(self) -> Float[Tensor, " r"]:
        """When each mode's residual has halved, in the unit of `at`; infinite for modes that never do.

        ln 2/λ for the flow on half_sse; −ln 2/ln|1 − ηλ| for plain descent; with momentum or a schedule the first
        whole step where at most half is left. Weight decay stops some modes before: see `filters.half_lives`.
        """
        found = filters.half_lives(self.values, self.training, self._scale, self.correction)
        return found.to(self.labels.dtype)

    @property
    def step_limit(self) -> float:
        """The learning rate, for the training's own loss, beyond which descent (of mini-batches, its mean) diverges.

        Of mini-batches of unlike sizes on half_sse: that of the largest; beyond it the mean may diverge, or not yet.
        """
        return filters.step_limit(self.values, self.training, self._scale)

    @property
    def _scale(self) -> Scale:
        return self.training.mean_scale(*self.labels.values.shape)

    @cached_property
    def _start(self) -> nn.Module:
        if self.start is None:
            cause = "this trajectory was loaded without the network that it starts from"
            raise DataError("Trajectory", cause, "Give it: Trajectory.load(path, kernel=..., start=model)")
        check_start(self.start, self._operator.data.x, self.labels.values - self.target, "Trajectory")
        return self.start

    @cached_property
    def _operator(self) -> Operator:
        remedy = "Give it: Trajectory.load(path, kernel=kernel.on(x))"
        return on_labels(restored(self.kernel, self.fingerprint, "Trajectory", remedy), self.labels)

    def _apply(self, filter: Callable[..., Tensor], times: Sequence[float], values: Tensor | None = None) -> Tensor:
        """A filter at several times, (t, r)."""
        return filter(self.values if values is None else values, times, self.training, self._scale, self.correction)

    def _free(self, times: Sequence[float]) -> Float[Tensor, " t"]:
        """q of directions that no label moves."""
        return self._apply(filters.shrinkage, times, torch.zeros(1).to(self.values))[:, 0]

    def _learned(self, times: Sequence[float], vectors: Float[Tensor, "k r"]) -> Float[Tensor, "t r c"]:
        """The data's weights in each mode."""
        target, operator = self.target, self._operator
        if self.pulled is not None:
            target = target + self.pulled.slope
        learned = self._apply(filters.weights_filters, times)[:, :, None] * (vectors.T @ operator.fold(target))
        if self.pulled is not None:
            less = self._apply(filters.pull, times)
            learned = learned - less[:, :, None] * (vectors.T @ operator.fold(self.pulled.slope))
        return learned

    def _residuals_at(self, steps: Sequence[int]) -> Float[Tensor, "t n o"]:
        """y − f at the data."""
        operator = self._operator
        vectors = operator.eigen.vectors[:, : len(self.values)]
        moved = operator.unfold(vectors @ (self.values[:, None] * self._learned(steps, vectors)))
        if self.pulled is not None:
            moved = moved + (self._free(steps)[:, None, None] - 1) * self.pulled.slope
        return self.target - moved


@dataclass(frozen=True, eq=False)
class Pulled(Result):
    """What weight decay to zero moves a function by: h = J θ₀, over the parameters that are trained.

    slope: (n, o), h at the data. names: of those parameters. products, squares: (r,), vᵢᵀ(y − f₀)·vᵢᵀh and ‖vᵢᵀh‖².
    off_product, off_square: the same on null modes, all together.
    """

    slope: Float[Tensor, "n o"]
    names: tuple[str, ...]
    products: Float[Tensor, " r"]
    squares: Float[Tensor, " r"]
    off_product: float
    off_square: float


@takes_kernel_on_data
def trajectory(
    kernel: GivenKernel,
    x: Inputs,
    y: Tensor,
    training: Any = Training(),
    start: Any = None,
    *,
    relinearise: int | None = None,
    share: float = SHARE,
) -> Trajectory | FunctionTrajectory | RelinearisedTrajectory:
    """The function that training reaches at every time, in closed form for squared losses.

    f_t(x) = f₀(x) + K(x, X) g_t(K) (y − f₀(X)). It is exact for a network linear in its parameters, whose kernel
    does not move: for the flow and for SGD with momentum (Nesterov's too), weight decay and schedules. Of mini-batches
    it is the mean to first order in the learning rate, and `.noise` the law of what their draw adds.

    Args:
        kernel: the NTK (of a pair, its ntk), or `kernel.on(x)` (and then x is left out).
        x: n points.
        y: (n,) or (n, o), or integer classes (n,), which become one-hot − 1/C; C is the model's number of outputs,
            where the kernel is of a model with several. For independent outputs, any multiple of the model's is
            several sets of labels at once.
        training: a `Training`; gradient flow to the end by default.
        start: the network that training starts from; None for f₀ = 0. It is copied.
        relinearise: k: `start` is really trained for a `share` of the steps, in k parts, and its kernel taken again;
            `kernel` is then its EmpiricalNTK, the training plain full-batch descent.
        share: of the steps, at least one for each part.

    Returns:
        A `Trajectory`: call it with points, and with times or steps. For cross-entropy and losses of your own a
        `FunctionTrajectory`, which is solved in function space; with `relinearise` a `RelinearisedTrajectory`.

    Raises:
        NotCoveredError: for a training that predictions do not cover; weight decay to zero without a `start`;
            gradient flow on cross-entropy to the end, which it does not have.
        PriorscopeError: for a training that is none.
        DataError: where y does not match x, the kernel's outputs or those of `start`; weight decay to zero, of a
            `start` whose weights are not those that its EmpiricalNTK was taken of.
        ModelError: a `start` that does not run, or is in the wrong mode.
        RatesError: weight decay to zero, of a `start` whose parameters are not those of the kernel's rates.

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
    if relinearise is None:
        return _predicted(data, y, training, start)
    return relinearised(data, y, training, start, relinearise, share, _predicted)


def _predicted(data: OnData, y: Tensor, training: Training, start: Any) -> Trajectory | FunctionTrajectory:
    training.require_covered(given_start=start is not None)
    if not training.is_squared:
        return function_trajectory(data, y, training, start)
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
    pulled = _pulled(copied, data, operator, folded) if training.decays_to_zero and copied is not None else None
    path = Trajectory(
        labels,
        training,
        values,
        target,
        squares,
        off,
        data.fingerprint,
        operator.note,
        notes_on(training, len(target)),
        start is None,
        pulled,
        0.0,
        data,
        copied,
    )
    warn_beyond_limit(training, path.step_limit, certain=not isinstance(path._scale, tuple))
    return path


def _pulled(start: nn.Module, data: OnData, operator: Operator, target: Float[Tensor, "k c"]) -> Pulled:
    """h = J θ₀ at the data, over the parameters that have a rate."""
    if isinstance(data.kernel, EmpiricalNTK) and not same_values(data.kernel, start):
        cause = "is not the network that the kernel is of, and weight decay to zero moves its very weights"
        raise DataError("start", cause, "Give EmpiricalNTK(start, rates=...), or decay_to='start'")
    rates, parameters = data.origin.rates, dict(start.named_parameters())
    if rates is not None and set(rates) != set(parameters):
        cause = f"has the parameters {', '.join(parameters)}; the kernel's rates are of {', '.join(rates)}"
        raise RatesError("start", cause, "Give the network that the kernel is of: weight decay moves its parameters")
    learns = {name: p.requires_grad if rates is None else rates[name] > 0 for name, p in parameters.items()}
    names = tuple(name for name in parameters if learns[name])
    slope = slope_along(start, data.x, names)
    eigen = operator.eigen
    seen, wanted = (eigen.vectors.T @ columns for columns in (operator.fold(slope), target))
    products, squares = (seen * wanted).sum(1), seen.square().sum(1)
    r = eigen.rank
    return Pulled(slope, names, products[:r], squares[:r], float(products[r:].sum()), float(squares[r:].sum()))
