"""What training does to one mode of the kernel, in closed form or by its exact recursion.

In a mode with the Gram eigenvalue λ, the residual y − f is multiplied by r(λ, t), and (1 − r)/λ, the *filter*, takes
labels to weights: f_t(x) = f₀(x) + K(x, X) V (1 − r)/λ Vᵀ (y − f₀). With s the loss's scale (1 for half_sse, 2/(n·o)
for mse):

- gradient flow: r = e^(−sλt), for infinite time 0;
- plain descent: r = (1 − ηsλ)ᵏ;
- heavy ball, as torch.optim.SGD has it: r_{k+1} = (1 + β − ηsλ) r_k − β r_{k−1}, r_0 = 1, r_1 = 1 − ηsλ.

At λ = 0 the filter is its limit: s·t for the flow, ηs·k for plain descent.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import DataError, PriorscopeError
from .training import Training

HALF = 0.5


def check_training(training: Any, place: str) -> Training:
    """The training itself, or a PriorscopeError that says what was given instead."""
    if not isinstance(training, Training):
        raise PriorscopeError(
            place, f"was given a {type(training).__name__} as its training", "Give a Training(...), or leave it out"
        )
    return training


def check_one_mean(training: Training, outputs: int, model_outputs: int | None) -> None:
    """Raises DataError where several sets of labels would share one mean loss: its scale would be of all of them."""
    if training.loss == "mse" and model_outputs is not None and outputs != model_outputs:
        raise DataError(
            "y",
            f"has {outputs} outputs, several sets of the model's {model_outputs}: they have no common mean loss",
            "Give one set, or training.on_half_sse(points, outputs), the same training on half_sse",
        )


def check_at(training: Training, at: object) -> float:
    """A time of the flow (0 to infinity) or a whole number of steps, or a DataError."""
    try:
        value = float(at)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    if not value >= 0:
        raise DataError("at", f"is {at}", "Give a number of at least 0")
    if not training.is_flow and value != math.floor(min(value, 1e18)):
        raise DataError(
            "at", f"is {at}, and this training has steps", "Give whole steps, or a Training() without steps"
        )
    return value


def residual(values: Float[Tensor, " r"], at: float, training: Training, scale: float) -> Float[Tensor, " r"]:
    """r(λ, t): what multiplies y − f in each mode.

    Args:
        values: (r,), Gram eigenvalues.
        at: time for the flow, steps for descent.
        training: flow, plain descent or heavy ball.
        scale: s, of the loss (`training.loss_scale`).
    """
    if training.is_flow:
        return torch.where(values > 0, torch.exp(-scale * values * at), 1.0) if at > 0 else torch.ones_like(values)
    x = _rate(training) * scale * values
    if training.momentum:
        state = _power(_companion(x, training.momentum), int(at))
        return state[:, 0, 0] + state[:, 0, 1]
    sign = torch.where((x > 1) & (int(at) % 2 == 1), -1.0, 1.0)
    return sign * torch.exp(_log_size(x, int(at)))


def weights_filter(values: Float[Tensor, " r"], at: float, training: Training, scale: float) -> Float[Tensor, " r"]:
    """(1 − r(λ, t))/λ, accurate for small λt, with its limit at λ = 0. Arguments as those of `residual`."""
    if training.is_flow:
        safe = torch.where(values > 0, values, 1.0)
        decayed = -torch.expm1(-scale * safe * at) / safe if at > 0 else torch.zeros_like(values)
        return torch.where(values > 0, decayed, scale * at)
    step = _rate(training) * scale
    x = step * values
    if training.momentum:
        # s_k = (1 - r_k)/x obeys the recursion of r with 1 added: no difference of nearly equal numbers.
        inhomogeneous = torch.zeros(*x.shape, 3, 3, dtype=x.dtype, device=x.device)
        inhomogeneous[..., :2, :2] = _companion(x, training.momentum)
        inhomogeneous[..., 0, 2] = inhomogeneous[..., 2, 2] = 1
        return step * _power(inhomogeneous, int(at))[..., 0, 2]
    safe = torch.where(values == 0, 1.0, values)
    learned = torch.where(x < 1, -torch.expm1(_log_size(x, int(at))), 1 - residual(values, at, training, scale))
    return torch.where(values == 0, step * at, learned / safe)


def step_limit(values: Float[Tensor, " r"], training: Training, scale: float) -> float:
    """The learning rate beyond which descent diverges: 2/(sλ_max), heavy ball 2(1 + β)/(sλ_max).

    Arguments as those of `residual`.

    Source: Polyak 1964 (heavy ball).
    """
    largest = float(values.max()) if len(values) else 0.0
    return 2 * (1 + training.momentum) / (scale * largest) if largest > 0 else math.inf


def half_lives(values: Float[Tensor, " r"], training: Training, scale: float) -> Float[Tensor, " r"]:
    """When each mode's residual has halved, in the unit of `at`; infinite for modes that never do.

    ln 2/(sλ) for the flow; −ln 2/ln|1 − ηsλ| for plain descent; with momentum the first whole step with |r| ≤ ½.
    """
    if training.is_flow:
        return math.log(2) / (scale * values)
    x = _rate(training) * scale * values
    if not training.momentum:
        decay = _log_size(x, 1)
        return torch.where(decay < 0, -math.log(2) / decay, math.inf)
    return _first_half(x, training.momentum)


def _rate(training: Training) -> float:
    assert training.learning_rate is not None
    return training.learning_rate


def _log_size(x: Float[Tensor, " r"], k: int) -> Float[Tensor, " r"]:
    """k log|1 − x|; log1p keeps the digits of a small x."""
    if k == 0:
        return torch.zeros_like(x)
    return k * torch.where(x < 1, torch.log1p(-x.clamp(max=1)), torch.log((x - 1).clamp_min(0)))


def _companion(x: Float[Tensor, " r"], momentum: float) -> Float[Tensor, "r 2 2"]:
    """Takes (r_k, r_{k−1}) one step further. From (1, 1), a step gives r_1 = 1 − x, as torch has it."""
    first = torch.stack([1 + momentum - x, torch.full_like(x, -momentum)], -1)
    second = torch.tensor([1.0, 0.0]).to(x).expand(len(x), 2)
    return torch.stack([first, second], -2)


def _power(matrix: Float[Tensor, "r d d"], k: int) -> Float[Tensor, "r d d"]:
    """matrixᵏ by repeated squaring, where roots of the recursion may coincide and closed forms break."""
    result = torch.eye(matrix.shape[-1]).to(matrix).expand_as(matrix)
    while k:
        if k & 1:
            result = result @ matrix
        matrix, k = matrix @ matrix, k >> 1
    return result


def _first_half(x: Float[Tensor, " r"], momentum: float) -> Float[Tensor, " r"]:
    """The first k with |r_k| ≤ ½. Oscillating modes get there soon, so step by step; others never return: bisect."""
    result = torch.full_like(x, math.inf)
    converges = (x > 0) & (x < 2 * (1 + momentum))
    oscillates = converges & ((1 + momentum - x).square() < 4 * momentum)
    result[oscillates] = _first_half_by_steps(x[oscillates], momentum)
    monotone = converges & ~oscillates
    result[monotone] = _first_half_by_bisection(x[monotone], momentum)
    return result


def _first_half_by_steps(x: Float[Tensor, " r"], momentum: float) -> Float[Tensor, " r"]:
    result = torch.full_like(x, math.inf)
    now, before, k = torch.ones_like(x), torch.ones_like(x), 0
    while bool(result.isinf().any()):
        now, before, k = (1 + momentum - x) * now - momentum * before, now, k + 1
        result = torch.where((now.abs() <= HALF) & result.isinf(), float(k), result)
    return result


def _first_half_by_bisection(x: Float[Tensor, " r"], momentum: float) -> Float[Tensor, " r"]:
    ladder = [_companion(x, momentum)]
    while bool((_last(ladder[-1]) > HALF).any()) and len(ladder) < 60:
        ladder.append(ladder[-1] @ ladder[-1])
    state = torch.eye(2).to(x).expand(len(x), 2, 2)
    steps = torch.zeros_like(x)
    for j, power in reversed(list(enumerate(ladder))):
        further = power @ state
        stays = _last(further) > HALF
        state = torch.where(stays[:, None, None], further, state)
        steps = steps + stays * 2.0**j
    return steps + 1


def _last(state: Float[Tensor, "r 2 2"]) -> Float[Tensor, " r"]:
    return (state[:, 0, 0] + state[:, 0, 1]).abs()
