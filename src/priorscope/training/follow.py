"""`follow`: a real training run beside its prediction, step by step, so that one sees when the theory fails.

Early in training the kernel at the start describes the network. Where it turns (most towards the target), functions
leave their predicted course; the kernel at the end then often describes the trained network better than the first.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..data.inputs import Inputs, check_inputs, count, encode, equal, take
from ..errors import DataError, NotCoveredError
from ..kernels.empirical import EmpiricalNTK
from ..kernels.own import PrecomputedKernel
from ..kernels.pair import KernelPair
from ..network.initialization import check_same_rates
from ..results import Result
from .band import outside
from .drift import KernelDrift, kernel_drift
from .ensemble import trained_ensemble
from .problem import recorded_steps, trained_rates
from .run import train
from .training import Training
from .trajectory import trajectory

KERNEL_POINTS = 100
"""Points on which the kernel is followed."""
RECORDED = 12
"""How many steps are followed by default."""


@dataclass(frozen=True, eq=False)
class Course(Result):
    """A real training run beside what the network's first kernel predicts, at r recorded steps.

    steps: (r,), the start and the end among them. losses: (r,), the training's loss on all training points.
    drift: (r,), ‖K_t − K₀‖_F / ‖K₀‖_F of the network's own kernel. turn: (r,), 1 − its cosine to K₀.
    alignment: (r,), yᵀKy / (‖K‖_F ‖y‖²): how much of the kernel lies along the target.
    moved: (r,), the root mean square of f_t − f₀ at the points of x_new.
    unpredicted: (r,), the root mean square of f_t − f_t, predicted, from the network's own start and first kernel.
    outside: (r,), the share of the outputs outside the ensemble's 99 % band; None without a pair.
    before_kernel, after_kernel: root mean square distance of kernel regression, f₀ + K(x_new, X) K⁻¹ (y − f₀), with
        the kernel of the start and of the end, from the trained network.
    notes: what a reader should know.
    """

    steps: Int[Tensor, " r"]
    losses: Float[Tensor, " r"]
    drift: Float[Tensor, " r"]
    turn: Float[Tensor, " r"]
    alignment: Float[Tensor, " r"]
    moved: Float[Tensor, " r"]
    unpredicted: Float[Tensor, " r"]
    outside: Float[Tensor, " r"] | None
    before_kernel: float
    after_kernel: float
    notes: tuple[str, ...] = ()

    @property
    def share(self) -> Float[Tensor, " r"]:
        """Of what training did to the functions, the share that was not predicted; 0 where nothing moved."""
        return torch.where(self.moved > 0, self.unpredicted / self.moved, 0.0)

    def fails_at(self, share: float = 0.25) -> int | None:
        """The first recorded step at which more than this share of what training did was not predicted; or None."""
        over = torch.nonzero(self.share > share)
        return int(self.steps[over[0]]) if len(over) else None


def follow(
    model: nn.Module,
    x: Inputs,
    y: Tensor,
    training: Training,
    x_new: Inputs,
    *,
    pair: Any = None,
    rates: Any = None,
    at: Any = None,
    seed: int = 0,
) -> Course:
    """Really trains a copy of a network, and compares it with its prediction at several steps of the run.

    Args:
        model: the network at its start.
        x, y: n training points and their labels, (n,), (n, o), or integer classes.
        training: discrete steps that predictions cover.
        x_new: m points at which functions are compared.
        pair: the limit of the network, on x's kind of points: its ensemble's 99 % band is then followed too.
        rates: as in `train`; by default those of the pair, or 1.
        at: steps to record besides the first and the last; default 12, log-spaced.
        seed: of the order of mini-batches.

    Returns:
        A `Course`.

    Raises:
        NotCoveredError: gradient flow, and trainings that predictions do not cover.
        RatesError: rates that are not the pair's.
        DataError: x_new among the training points alone, or inputs and labels that do not fit.

    Source: Baratin et al. 2021 (2008.00938) for the alignment (here without centring); Fort et al. 2020 (2010.15110)
    for the kernel's drift; Long 2021 (2105.10585) for the after kernel.

    A linear network is its own linearisation:

    >>> net = nn.Linear(2, 1)
    >>> x, y = torch.eye(2), torch.tensor([1.0, -1.0])
    >>> course = follow(net, x, y, Training(learning_rate=0.1, steps=20), torch.tensor([[1.0, 1.0], [3.0, 0.0]]))
    >>> bool(course.unpredicted.max() < 1e-5) and bool(course.drift.max() < 1e-6)
    True
    """
    check_inputs(x)
    check_inputs(x_new, "x_new")
    if equal(x, x_new):
        raise DataError("x_new", "are the training points themselves", "Give other points, where functions can differ")
    if pair is not None and not isinstance(pair, KernelPair):
        raise DataError("pair", f"is a {type(pair).__name__}", "Give infinite_width(model), or None")
    if pair is not None and rates is None:
        rates = pair
    resolved = trained_rates(model, rates)
    if pair is not None:
        check_same_rates(resolved, pair.ntk.origin.rates, "rates and the pair")
    if training.loss not in ("half_sse", "mse"):
        cause = "is not squared: no kernel at the start gives its end in closed form"
        raise NotCoveredError(f"Training(loss={training.loss!r})", cause, 'Use "half_sse" or "mse"')
    training.require_covered()
    if at is None and not training.is_flow:
        at = _spaced(training)
    targets = encode(y, count(x)).values[:KERNEL_POINTS]
    watched = _Kernels(take(x, slice(KERNEL_POINTS)), targets, resolved)
    run = train(model, x, y, training, resolved, x_new, at, seed, watch=watched)
    steps = [int(step) for step in run.steps]
    kernel = EmpiricalNTK(model, resolved)
    path = trajectory(kernel, x, y, training, start=model)
    real = run.outputs.to(torch.float64)
    predicted = path(x_new, at=steps).to(torch.float64).reshape(real.shape)
    changes = watched.changes
    notes = (*path.notes, f"the kernel on {count(watched.x)} points")
    if run.diverged_at is not None:
        notes += (f"the real training diverged at step {run.diverged_at}",)
    assert run.model is not None
    after = EmpiricalNTK(run.model, resolved)
    return Course(
        steps=run.steps,
        losses=run.losses,
        drift=_column(c.relative for c in changes),
        turn=_column(c.distance for c in changes),
        alignment=_column(c.target_after for c in changes),
        moved=_rms(real - real[0]),
        unpredicted=_rms(real - predicted),
        outside=None if pair is None else _outside(pair, x, y, x_new, training, steps, real),
        before_kernel=_regressed(kernel, model, x, y, x_new, real[-1]),
        after_kernel=_regressed(after, model, x, y, x_new, real[-1]) if run.diverged_at is None else math.inf,
        notes=notes,
    )


class _Kernels:
    """The network's own kernel at the recorded steps, beside that of the start."""

    def __init__(self, x: Inputs, y: Float[Tensor, "n o"], rates: dict[str, float]):
        self.x, self.rates = x, rates
        self.target = y if bool(y.any()) else None
        self.changes: list[KernelDrift] = []
        self.first: PrecomputedKernel | None = None

    def __call__(self, step: int, network: nn.Module) -> None:
        now = PrecomputedKernel(EmpiricalNTK(network, self.rates)(self.x).detach())
        self.first = self.first or now
        self.changes.append(kernel_drift(self.first, now, torch.arange(count(self.x)), self.target))


def _spaced(training: Training) -> list[int]:
    """So many of the steps that are recorded by default."""
    steps = recorded_steps(training)
    places = torch.linspace(0, len(steps) - 1, min(RECORDED, len(steps))).round().long().unique()
    return [steps[place] for place in places.tolist()]


def _outside(
    pair: KernelPair, x: Inputs, y: Tensor, x_new: Inputs, training: Training, steps: list[int], real: Tensor
) -> Tensor:
    ensemble = trained_ensemble(pair, x, y, training)
    return torch.stack([outside(ensemble(x_new, at=step), f) for step, f in zip(steps, real, strict=True)])


def _regressed(kernel: EmpiricalNTK, start: nn.Module, x: Inputs, y: Tensor, x_new: Inputs, end: Tensor) -> float:
    """Root mean square distance of f₀ + K(x_new, X) K⁻¹ (y − f₀) from the trained network's outputs."""
    found = trajectory(kernel, x, y, Training(), start=start)(x_new).to(torch.float64)
    return float(_rms((found.reshape(end.shape) - end)[None])[0])


def _rms(values: Float[Tensor, "r m o"]) -> Float[Tensor, " r"]:
    return values.square().mean((1, 2)).sqrt()


def _column(values: Any) -> Float[Tensor, " r"]:
    return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float64)
