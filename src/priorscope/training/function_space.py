"""How a network that is its own linearisation is trained under any differentiable loss: it has r weights.

K = V Λ Vᵀ on the data, so Φ = V Λ^½ are r features whose kernel is K, and f(X) = f₀(X) + Φβ, f(x) = f₀(x) +
K(x, X) α with the dual weights α = V Λ^(−½) β. Training moves β as it moves any linear model:

- gradient flow: β' = −(Φᵀ ∂L/∂f + w β), stiff as the modes' rates are far apart: by a solver that turns implicit;
- SGD, step by step as torch has it: g = Φᵀ ∂L/∂f + w β, v ← μ v + g, β ← β − η v (Nesterov: g + μ v).

In β the Jacobian is symmetric, null modes are absent, and an error of β is one of f(x) by at most √k(x, x) of it.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count as counting

import numpy as np
import torch
from jaxtyping import Float
from scipy.integrate import solve_ivp
from torch import Tensor

from ..beliefs.coupling import Operator
from ..data.inputs import Inputs
from ..errors import NotCoveredError
from ..linalg.memory import check_memory
from .objective import Objective, name_of
from .training import Training

RELATIVE, ABSOLUTE = 1e-10, 1e-10
"""Tolerances of the flow's solver: of β relatively, and of the functions in units of the labels' or outputs' size."""
CALLS = 30_000
"""Slopes that the flow's solver may ask for; 1,500 are usual for a long flow."""
SETTLED = 1e-9
"""A flow has ended where the way to the loss's minimum, by Newton's step, is this share of the functions' size."""
GONE = 1e-6
"""And where the gradient is this share of what it was: without curvature, Newton's step says nothing."""
ROUNDING = 1e-12
"""What a gradient may keep of what it is a unit of the functions' size away from the minimum."""
DECADES = 14
"""How many times the horizon of a flow to the end is made ten times as long."""


@dataclass(frozen=True, eq=False)
class Features:
    """Φ = V Λ^½ of a kernel on its data."""

    operator: Operator

    @property
    def size(self) -> int:
        """How many numbers β holds."""
        return len(self.roots) * self.columns

    @property
    def columns(self) -> int:
        return 1 if self.operator.coupled else self.operator.outputs

    @cached_property
    def vectors(self) -> Float[Tensor, "k r"]:
        return self.operator.eigen.vectors[:, : self.operator.eigen.rank]

    @cached_property
    def roots(self) -> Float[Tensor, " r"]:
        return self.operator.eigen.values[: self.operator.eigen.rank].sqrt()

    @cached_property
    def matrix(self) -> Float[Tensor, "k r"]:
        """Φ, acting on one column of β."""
        return (self.vectors * self.roots).contiguous()

    def outputs(self, beta: Float[Tensor, "*s r c"]) -> Float[Tensor, "*s n o"]:
        """Φβ."""
        return self.operator.unfold(self.matrix @ beta)

    def slope(self, gradient: Float[Tensor, "*s n o"]) -> Float[Tensor, "*s r c"]:
        """Φᵀ ∂L/∂f."""
        folded = gradient.flatten(-2)[..., None] if self.operator.coupled else gradient
        return self.matrix.T @ folded

    def extend(self, x_new: Inputs, beta: Float[Tensor, "*s r c"]) -> Float[Tensor, "*s m o"]:
        """K(x_new, X) α: what training adds to the function at new points."""
        return self.operator.unfold(self.operator.cross(x_new) @ (self.vectors / self.roots) @ beta)

    def dual(self, beta: Float[Tensor, "*s r c"]) -> Float[Tensor, "*s n o"]:
        """α = V Λ^(−½) β."""
        return self.operator.unfold((self.vectors / self.roots) @ beta)

    @cached_property
    def directions(self) -> Float[Tensor, "n o d"]:
        """∂f(X)/∂β for all of β at once, d = r·c."""
        o, c = self.operator.outputs, self.columns
        check_memory(8 * len(self.matrix) * c * self.size, f"the Jacobian of {len(self.matrix)} points × {o} outputs")
        if self.operator.coupled:
            return self.matrix.reshape(-1, o, self.size)
        return torch.kron(self.matrix, torch.eye(o).to(self.matrix)).reshape(-1, o, self.size)

    def zeros(self, *starts: int) -> Float[Tensor, "*s r c"]:
        return self.matrix.new_zeros(*starts, len(self.roots), self.columns)


def descend(
    features: Features, start: Float[Tensor, "*s n o"], objective: Objective, training: Training, steps: Sequence[int]
) -> Float[Tensor, "t *s r c"]:
    """β after each of some numbers of steps, for one start or for many at once.

    Args:
        start: f₀ on the data.
        training: SGD.
        steps: in any order.
    """
    beta, wanted, kept = features.zeros(*start.shape[:-2]), set(steps), {}
    velocity = None
    for step in range(max(steps) + 1):
        if step in wanted:
            kept[step] = beta
        if step == max(steps):
            break
        gradient = features.slope(objective.gradient(start + features.outputs(beta)))
        if training.weight_decay:
            gradient = gradient + training.weight_decay * beta
        if training.momentum:
            velocity = gradient if velocity is None else training.momentum * velocity + gradient
            gradient = gradient + training.momentum * velocity if training.nesterov else velocity
        beta = beta - training.rate_at(step) * gradient
    return torch.stack([kept[step] for step in steps])


def flow(
    features: Features, start: Float[Tensor, "n o"], objective: Objective, decay: float, times: Sequence[float]
) -> Float[Tensor, "t r c"]:
    """β of gradient flow at some times, to about 1e-8 of the functions' size.

    Args:
        start: f₀ on the data.
        decay: w, of weight decay to the start.
        times: in any order; infinite for the end, where the loss has a finite minimiser.

    Raises:
        NotCoveredError: a flow that does not come to an end; a loss that the solver cannot follow.

    Source: Petzold 1983, for the method (LSODA).
    """
    return _Flow(features, start, objective, decay).at(times)


@dataclass(frozen=True, eq=False)
class _Flow:
    features: Features
    start: Float[Tensor, "n o"]
    objective: Objective
    decay: float

    def at(self, times: Sequence[float]) -> Float[Tensor, "t r c"]:
        finite = sorted({t for t in times if 0 < t < math.inf})
        found = {0.0: self._zero}
        if finite:
            found.update(zip(finite, self._solve(found[0.0], 0.0, finite), strict=True))
        if math.inf in times:
            last = max(found)
            found[math.inf] = self._end(found[last], last)
        beta = np.stack([found[t] for t in times])
        return torch.from_numpy(beta).to(self.start).reshape(len(times), *self.features.zeros().shape)

    def _solve(self, beta: np.ndarray, start: float, times: Sequence[float]) -> np.ndarray:
        """(t, d) at ascending times after `start`."""

        def slope(t: float, beta: np.ndarray) -> np.ndarray:
            if next(self._calls) >= CALLS:
                raise NotCoveredError(self._place, f"needs more than {CALLS} evaluations of the flow", _SMOOTH)
            return -self._gradient(beta)

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="lsoda")  # a failure raises below
            solved = solve_ivp(
                slope,
                (start, times[-1]),
                beta,
                method="LSODA",
                t_eval=times,
                jac=lambda t, beta: -self._hessian(beta),
                rtol=RELATIVE,
                atol=ABSOLUTE * self._size / self._root,
            )
        if not solved.success or not np.isfinite(solved.y).all():
            raise NotCoveredError(self._place, f"could not be followed by the solver ({solved.message})", _SMOOTH)
        return solved.y.T

    def _end(self, beta: np.ndarray, time: float) -> np.ndarray:
        """Where the flow ends: the gradient is gone, and Newton's way to the minimum is nothing."""
        horizon, first = max(time, self._pace(beta)), float(np.linalg.norm(self._gradient(self._zero)))
        for _ in range(DECADES):
            gradient, hessian = self._gradient(beta), self._hessian(beta)
            left = np.linalg.lstsq(hessian, -gradient, rcond=1e-15)[0]
            usual = self._usual(hessian)
            gone = float(np.linalg.norm(gradient)) <= GONE * max(first, usual)
            # A gradient outside the Hessian's range is one that Newton's step does not see.
            seen = float(np.linalg.norm(hessian @ left + gradient)) <= max(GONE * first, ROUNDING * usual)
            if gone and seen and self._largest(left) <= SETTLED * self._size:
                return beta + left
            try:
                beta, time, horizon = self._solve(beta, time, [time + horizon])[-1], time + horizon, 10 * horizon
            except NotCoveredError:
                break
        cause = f"has not come to an end by time {time:.3g}: the loss may have no finite or no smooth minimum"
        raise NotCoveredError(self._place, cause, "Give Training(time=...)")

    def _pace(self, beta: np.ndarray) -> float:
        """A time in which the flow gets somewhere: of its fastest mode, or of the way that it is on."""
        rate = float(np.linalg.norm(self._hessian(beta), 2)) if len(beta) else 0.0
        return 1 / max(rate, self._largest(self._gradient(beta)) / self._size, 1e-300)

    def _usual(self, hessian: np.ndarray) -> float:
        """The gradient where the functions are their own size away from a minimum."""
        return float(np.linalg.norm(hessian, 2)) * self._size / self._root if len(hessian) else 0.0

    def _largest(self, beta: np.ndarray) -> float:
        """Of the outputs that weights make, the largest."""
        return float(self.features.outputs(self._tensor(beta)).abs().max()) if len(beta) else 0.0

    def _gradient(self, beta: np.ndarray) -> np.ndarray:
        state = self._tensor(beta)
        slope = self.features.slope(self.objective.gradient(self.start + self.features.outputs(state)))
        return (slope + self.decay * state).flatten().cpu().numpy()

    def _hessian(self, beta: np.ndarray) -> np.ndarray:
        outputs = self.start + self.features.outputs(self._tensor(beta))
        curvature = self.objective.curvature(outputs, self.features.directions)
        return (curvature + self.decay * torch.eye(len(curvature)).to(curvature)).cpu().numpy()

    def _tensor(self, beta: np.ndarray) -> Tensor:
        return torch.from_numpy(beta).to(self.start).reshape(self.features.zeros().shape)

    @cached_property
    def _calls(self) -> Iterator[int]:
        """Slopes asked for so far, on the way to the end altogether."""
        return counting()

    @property
    def _zero(self) -> np.ndarray:
        return np.zeros(self.features.size)

    @cached_property
    def _root(self) -> float:
        """√k(x, x), the largest on the data: a unit of β is at most so much of f."""
        squares = self.features.matrix.square().sum(1)
        return max(float(squares.max()) ** 0.5, 1e-300)

    @cached_property
    def _size(self) -> float:
        """Of functions: the largest label or output at the start; logits of classes are of order 1."""
        targets = self.objective.targets
        largest = float(self.start.abs().max())
        return max(largest, float(targets.abs().max())) if targets.is_floating_point() else max(largest, 1.0)

    @property
    def _place(self) -> str:
        return f"gradient flow on {name_of(self.objective.loss)}"


_SMOOTH = "Give a shorter time or a smooth loss, or descent: learning_rate and steps"


def largest_curvature(features: Features, start: Float[Tensor, "n o"], objective: Objective) -> float:
    """λ_max(K) times the loss's largest curvature; where that is not known, the largest of ΦᵀHΦ at the start."""
    top = float(features.roots.max()) ** 2 if len(features.roots) else 0.0
    known = objective.largest_curvature(*start.shape)
    if known is not None:
        return top * known
    if not len(features.roots):
        return 0.0
    return float(torch.linalg.eigvalsh(objective.curvature(start, features.directions))[-1])
