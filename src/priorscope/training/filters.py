"""What training does to one mode of the kernel, in closed form or by its exact recursion.

In a mode with the Gram eigenvalue λ, the labels' part of y − f is multiplied by r(λ, t), and φ = (1 − r)/λ, the
*filter*, takes labels to weights: f_t(x) = f₀(x) + K(x, X) V φ Vᵀ (y − f₀). With s the loss's scale (1 for half_sse,
2/(n·o) for mse), w the weight decay and μ = sλ + w, the weights' own offset in the mode shrinks by q:

- gradient flow: q = e^(−μt), for infinite time 0;
- plain descent: q = Π (1 − ηₖμ), (1 − ημ)ᵏ at a constant rate;
- momentum, as torch.optim.SGD has it: v ← βv + μq, q ← q − ηₖv; Nesterov's q ← q − ηₖ(μq + βv).

Then φ = s (1 − q)/μ and r = (w + sλq)/μ: decay to the start ends in ridge regression with the ridge w/s. At μ = 0 the
filter is its limit: s·t for the flow, sη·k for plain descent. Decay to zero adds the divided difference of q between
w and μ (`pull`). Mini-batches are here by their mean, in which s is that of an epoch's step (`Training.mean_scale`).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count as counting
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import DataError, PriorscopeError
from .training import Training

HALF = 0.5

Scale = float | tuple[float, ...]
"""s; several numbers are those of an epoch's steps, over and over."""


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
    if training.schedule is not None and value > training.end:
        cause = f"is {at}, and the schedule of this training has {int(training.end)} steps"
        raise DataError("at", cause, "Give steps up to its end, or a longer schedule")
    return value


def residual(
    values: Float[Tensor, " r"], at: float, training: Training, scale: Scale, correction: float = 0.0
) -> Float[Tensor, " r"]:
    """r(λ, t): what multiplies the labels' part of y − f in each mode.

    Args:
        values: (r,), Gram eigenvalues.
        at: time for the flow, steps for descent.
        training: the flow or a descent.
        scale: s, of the loss (`training.mean_scale`).
        correction: η of the descent whose first-order correction the flow carries: its rates are μ(1 + ημ/2).
    """
    return residuals(values, [at], training, scale, correction)[0]


def weights_filter(
    values: Float[Tensor, " r"], at: float, training: Training, scale: Scale, correction: float = 0.0
) -> Float[Tensor, " r"]:
    """φ = (1 − r(λ, t))/λ, accurate for small λt, with its limit at λ = 0. Arguments as those of `residual`."""
    return weights_filters(values, [at], training, scale, correction)[0]


def residuals(
    values: Float[Tensor, " r"], times: Sequence[float], training: Training, scale: Scale, correction: float = 0.0
) -> Float[Tensor, "t r"]:
    """`residual` at several times."""
    w = training.weight_decay
    if _closed(training, scale):
        mu = float(scale) * values + w  # type: ignore[arg-type]
        left = torch.stack([_left(mu, t, training, correction) for t in times])
        return left + w * torch.stack([_learned(mu, t, training, correction) for t in times]) if w else left
    return _along(values, times, training, scale, lambda s: w, start=1.0)


def weights_filters(
    values: Float[Tensor, " r"], times: Sequence[float], training: Training, scale: Scale, correction: float = 0.0
) -> Float[Tensor, "t r"]:
    """`weights_filter` at several times."""
    if _closed(training, scale):
        s = float(scale)  # type: ignore[arg-type]
        mu = s * values + training.weight_decay
        return torch.stack([s * _learned(mu, t, training, correction) for t in times])
    return _along(values, times, training, scale, lambda s: s, start=0.0)


def shrinkage(
    values: Float[Tensor, " r"], times: Sequence[float], training: Training, scale: Scale, correction: float = 0.0
) -> Float[Tensor, "t r"]:
    """q(μ, t): what is left of the weights' own offset in each mode; at λ = 0, of directions that no label moves."""
    if _closed(training, scale):
        mu = float(scale) * values + training.weight_decay  # type: ignore[arg-type]
        return torch.stack([_left(mu, t, training, correction) for t in times])
    return _along(values, times, training, scale, lambda s: 0.0, start=1.0)


def pull(
    values: Float[Tensor, " r"], times: Sequence[float], training: Training, scale: Scale, correction: float = 0.0
) -> Float[Tensor, "t r"]:
    """(q(w, t) − q(μ, t))/λ: how much less than freely the weights decay to zero, seen by the data's weights.

    Without a difference of nearly equal numbers; its limit at λ = 0.
    """
    w = training.weight_decay
    if not training.is_flow:
        return _pull_along(values, times, training, scale)
    s, rows = float(scale), []  # type: ignore[arg-type]
    # The rates μ(1 + ημ/2) differ by sλ times this factor.
    factor = s * (1 + correction * (s * values / 2 + w))
    free = w * (1 + correction * w / 2)
    for t in times:
        if math.isinf(t):
            rows.append(torch.where(values > 0, 1 / values, math.inf) if free == 0 else torch.zeros_like(values))
            continue
        learned = -torch.expm1(-factor * values * t) / torch.where(values > 0, values, 1.0)
        rows.append(math.exp(-free * t) * torch.where(values > 0, learned, factor * t))
    return torch.stack(rows)


def step_limit(values: Float[Tensor, " r"], training: Training, scale: Scale) -> float:
    """The learning rate beyond which descent diverges: 2/(sλ_max + w).

    Heavy ball 2(1 + β)/(sλ_max + w), Nesterov 2(1 + β)/((1 + 2β)(sλ_max + w)). Of an epoch's unlike steps the largest
    s counts: beyond the limit that step grows, and the epoch may. Arguments as those of `residual`.

    Source: Polyak 1964 (heavy ball).
    """
    largest = max(_cycle(scale)) * (float(values.max()) if len(values) else 0.0) + training.weight_decay
    beta = training.momentum
    factor = 2 * (1 + beta) / (1 + 2 * beta) if training.nesterov else 2 * (1 + beta)
    return factor / largest if largest > 0 else math.inf


def impulses(values: Float[Tensor, " r"], steps: int, training: Training, scale: Scale) -> Float[Tensor, "steps r"]:
    """How far a unit of descent's gradient at step k has moved the weights of each mode by `steps`, for every k.

    ηₖ Π (1 − ηⱼμ) over the later steps for plain descent; with momentum by its recursion, backwards.
    """
    beta, rows = training.momentum, []
    row = torch.zeros(len(values), 1, 2).to(values)
    row[:, :, 0] = 1
    paces = list(_paces(training, scale, steps))
    for eta, s in reversed(paces):
        kick = torch.tensor([eta * (1 + beta) if training.nesterov else eta, -1.0]).to(values)
        rows.append((row @ kick)[:, 0])
        row = row @ _step({0: [s * values + training.weight_decay, 0.0]}, 2, values, eta, training)
    return torch.stack(rows[::-1]) if rows else torch.zeros(0, len(values)).to(values)


def half_lives(
    values: Float[Tensor, " r"], training: Training, scale: Scale, correction: float = 0.0
) -> Float[Tensor, " r"]:
    """When each mode's residual has halved, in the unit of `at`; infinite for modes that never come to rest below it.

    With τ = (sλ − w)/(2sλ), ½ without weight decay: −ln τ/μ for the flow; ln τ/ln|1 − ημ| for plain descent at a
    constant rate; else the first whole step with |r| ≤ ½ (of a schedule, up to its end). Plain descent with weight
    decay beside ημ > 1 is of these, too: r swings around w/μ, and an odd step may halve it before an even one.
    """
    if training.schedule is not None or isinstance(scale, tuple):
        return _first_half_of_schedule(values, training, scale)
    strength, w = scale * values, training.weight_decay
    mu = strength + w
    rests = (strength - w) / (2 * strength) if w else torch.full_like(values, HALF)
    rests = torch.where(rests > 0, rests, math.nan)
    if training.is_flow:
        when = -rests.log() / (mu * (1 + correction * mu / 2))
    elif training.momentum:
        return _first_half(values, training, scale)
    else:
        decay = _log_size(training.rate_at(0) * mu, 1)
        when = torch.where(decay < 0, rests.log() / decay, math.inf)
        if w:
            swings = training.rate_at(0) * mu > 1
            when = torch.where(swings & (decay < 0), _first_half_of_swings(w / mu, decay), when)
    return torch.where(rests.isnan() | (strength <= 0), math.inf, when)


def _closed(training: Training, scale: Scale) -> bool:
    """Whether q and φ depend on μ alone: all steps are alike."""
    return training.schedule is None and not isinstance(scale, tuple)


def _left(mu: Float[Tensor, " r"], at: float, training: Training, correction: float) -> Float[Tensor, " r"]:
    """q(μ, t), where all steps are alike."""
    if training.is_flow:
        rate = mu * (1 + correction * mu / 2)
        return torch.where(mu > 0, torch.exp(-rate * at), 1.0) if at > 0 else torch.ones_like(mu)
    if training.momentum:
        step = _step({0: [mu, 0.0]}, 2, mu, training.rate_at(0), training)
        return _power(step, int(at))[:, 0, 0]
    x = training.rate_at(0) * mu
    sign = torch.where((x > 1) & (int(at) % 2 == 1), -1.0, 1.0)
    return sign * torch.exp(_log_size(x, int(at)))


def _learned(mu: Float[Tensor, " r"], at: float, training: Training, correction: float) -> Float[Tensor, " r"]:
    """(1 − q(μ, t))/μ, where all steps are alike, with its limit at μ = 0."""
    safe = torch.where(mu == 0, 1.0, mu)
    if training.is_flow:
        rate = safe * (1 + correction * safe / 2)
        decayed = -torch.expm1(-rate * at) / safe if at > 0 else torch.zeros_like(mu)
        return torch.where(mu > 0, decayed, at)
    eta = training.rate_at(0)
    if training.momentum:
        # 1 − q obeys the recursion of q with a drive: no difference of nearly equal numbers.
        step = _step({0: [mu, 0.0, -1.0]}, 3, mu, eta, training)
        return _power(step, int(at))[:, 0, 2]
    x = eta * mu
    left = _left(mu, at, training, correction)
    learned = torch.where(x < 1, -torch.expm1(_log_size(x, int(at))), 1 - left)
    return torch.where(mu == 0, eta * at, learned / safe)


def _along(
    values: Float[Tensor, " r"],
    times: Sequence[float],
    training: Training,
    scale: Scale,
    drive: Callable[[float], float],
    start: float,
) -> Float[Tensor, "t r"]:
    """A position that starts at `start` and descends by the slope μ·position − drive, at several numbers of steps."""

    def step(eta: float, s: float) -> Tensor:
        return _step({0: [s * values + training.weight_decay, 0.0, -drive(s)]}, 3, values, eta, training)

    return _states(step, [start, 0.0, 1.0], values, times, training, scale)


def _pull_along(
    values: Float[Tensor, " r"], times: Sequence[float], training: Training, scale: Scale
) -> Float[Tensor, "t r"]:
    w = training.weight_decay

    def step(eta: float, s: float) -> Tensor:
        slopes: dict[int, list[Any]] = {0: [s * values + w, 0.0, -s, 0.0], 2: [0.0, 0.0, w, 0.0]}
        return _step(slopes, 4, values, eta, training)

    return _states(step, [0.0, 0.0, 1.0, 0.0], values, times, training, scale)


def _step(
    slopes: dict[int, list[Any]], size: int, like: Float[Tensor, " r"], eta: float, training: Training
) -> Float[Tensor, "r d d"]:
    """One step of torch's SGD as a matrix on each mode's state.

    slopes: {place of a position: its slope as a row on the state}; each position's velocity follows it in the state.
    """
    beta = training.momentum
    matrix = torch.eye(size).to(like).repeat(len(like), 1, 1)
    for place, row in slopes.items():
        slope = torch.stack([torch.as_tensor(entry).to(like).expand(like.shape) for entry in row], -1)
        velocity = slope.clone()
        velocity[:, place + 1] += beta
        matrix[:, place + 1] = velocity
        matrix[:, place] -= eta * (slope + beta * velocity if training.nesterov else velocity)
    return matrix


def _states(
    step: Callable[[float, float], Float[Tensor, "r d d"]],
    start: list[float],
    like: Float[Tensor, " r"],
    times: Sequence[float],
    training: Training,
    scale: Scale,
) -> Float[Tensor, "t r"]:
    """The state's first entry after so many steps; equal steps by repeated squaring, a schedule's one by one."""
    first = torch.tensor(start).to(like).expand(len(like), len(start))[:, :, None]
    steps = [int(t) for t in times]
    if training.schedule is not None:
        found = {0: first} if 0 in steps else {}
        state = first
        for k, (eta, s) in enumerate(_paces(training, scale, max(steps)), 1):
            state = step(eta, s) @ state
            if k in steps:
                found[k] = state
        return torch.stack([found[k][:, 0, 0] for k in steps])
    epoch = [step(training.rate_at(0), s) for s in _cycle(scale)]
    whole = epoch[0]
    for matrix in epoch[1:]:
        whole = matrix @ whole
    rows = []
    for k in steps:
        state = _power(whole, k // len(epoch)) @ first
        for matrix in epoch[: k % len(epoch)]:
            state = matrix @ state
        rows.append(state[:, 0, 0])
    return torch.stack(rows)


def _paces(training: Training, scale: Scale, steps: int | None = None) -> Iterator[tuple[float, float]]:
    """(η, s) of each step."""
    cycle = _cycle(scale)
    numbers: Iterable[int] = counting() if steps is None else range(steps)
    for k in numbers:
        yield training.rate_at(k), cycle[k % len(cycle)]


def _cycle(scale: Scale) -> tuple[float, ...]:
    return scale if isinstance(scale, tuple) else (scale,)


def _log_size(x: Float[Tensor, " r"], k: int) -> Float[Tensor, " r"]:
    """k log|1 − x|; log1p keeps the digits of a small x."""
    if k == 0:
        return torch.zeros_like(x)
    return k * torch.where(x < 1, torch.log1p(-x.clamp(max=1)), torch.log((x - 1).clamp_min(0)))


def _power(matrix: Float[Tensor, "r d d"], k: int) -> Float[Tensor, "r d d"]:
    """matrixᵏ by repeated squaring, where roots of the recursion may coincide and closed forms break."""
    result = torch.eye(matrix.shape[-1]).to(matrix).expand_as(matrix)
    while k:
        if k & 1:
            result = result @ matrix
        matrix, k = matrix @ matrix, k >> 1
    return result


def _first_half_of_swings(floor: Float[Tensor, " r"], decay: Float[Tensor, " r"]) -> Float[Tensor, " r"]:
    """The first k with |floor + (1 − floor) q| ≤ ½ where q = (−1)ᵏ e^(k·decay): the first odd one, or even one."""
    odd = ((HALF + floor) / (1 - floor)).log() / decay
    even = ((HALF - floor).clamp_min(0) / (1 - floor)).log() / decay
    return torch.minimum(2 * ((odd.clamp_min(1) - 1) / 2).ceil() + 1, 2 * (even / 2).ceil())


def _first_half(values: Float[Tensor, " r"], training: Training, scale: float) -> Float[Tensor, " r"]:
    """The first k with |r_k| ≤ ½. Those that oscillate get there soon, mostly: step by step. Others fall: bisect.

    What oscillates and has not got there in so many steps is in one of two regimes, where bisection is right again.
    Complex roots: it turns so slowly that its first half turn still lasts, on which r only falls. A root near −1:
    what the other root adds is gone, or is of the same sign, and r only falls on the even steps, and on the odd ones.
    """
    w, beta, nesterov = training.weight_decay, training.momentum, training.nesterov
    strength = scale * values
    x = training.rate_at(0) * (strength + w)
    # The roots of the recursion of q have this sum and this product.
    total = (1 + beta) * (1 - x) if nesterov else 1 + beta - x
    product = beta * (1 - x) if nesterov else torch.full_like(x, beta)
    limit = 2 * (1 + beta) / (1 + 2 * beta) if nesterov else 2 * (1 + beta)
    halves = (strength > w) & (x < limit)
    # Real roots of one sign: |q| only falls, and so does |r| where it cannot change its sign, or has no floor.
    monotone = halves & (product > 0) & (total.square() >= 4 * product) & ((total > 0) | (w == 0))
    result = torch.full_like(x, math.inf)
    step = _step({0: [strength + w, 0.0, -w]}, 3, x, training.rate_at(0), training)
    result[monotone] = _first_half_by_bisection(step[monotone])
    others = halves & ~monotone
    result[others], last, before = _first_half_by_steps(step[others])
    later = others & result.isinf()
    still = later[others]
    complex_roots = (total.square() < 4 * product)[later]
    frequency = torch.atan2((4 * product - total.square()).clamp_min(0).sqrt(), total)[later]
    turning = _bisected(step[later], last[still], torch.where(complex_roots, math.pi / frequency - STEPS, 0.0))
    pairs = step[later] @ step[later]
    even, odd = _bisected(pairs, last[still]), _bisected(pairs, before[still])
    swinging = torch.minimum(STEPS + 2 * even, STEPS - 1 + 2 * odd)
    result[later] = torch.where(complex_roots, STEPS + turning, swinging)
    return result


START = (1.0, 0.0, 1.0)
"""Residual, velocity and drive before the first step."""


STEPS = 4096
"""Steps that are tried one by one."""


def _first_half_by_steps(step: Float[Tensor, "r 3 3"]) -> tuple[Float[Tensor, " r"], Tensor, Tensor]:
    """The first step at half, infinite where it is none of these; the last state tried, and the one before."""
    result = torch.full(step.shape[:1], math.inf).to(step)
    state = before = torch.tensor(START).to(step).expand(len(step), 3)[:, :, None]
    for k in range(1, STEPS + 1):
        if not bool(result.isinf().any()):
            break
        before, state = state, step @ state
        result = torch.where((state[:, 0, 0].abs() <= HALF) & result.isinf(), float(k), result)
    return result, state, before


def _first_half_by_bisection(step: Float[Tensor, "r 3 3"]) -> Float[Tensor, " r"]:
    return _bisected(step, torch.tensor(START).to(step).expand(len(step), 3)[:, :, None])


RUNGS = 60
"""Doublings of the steps that are tried: more steps than 2^60 are infinitely many."""


def _bisected(
    step: Float[Tensor, "r 3 3"], state: Float[Tensor, "r 3 1"], most: Float[Tensor, " r"] | None = None
) -> Float[Tensor, " r"]:
    """How many steps more to the first with |r| ≤ ½, where none beyond it is above.

    most: looks no further, and for r ≤ ½: a turn later r is below −½.
    """
    allowed = torch.full(step.shape[:1], math.inf).to(step) if most is None else most

    def above(state: Tensor) -> Tensor:
        left = state[:, 0, 0]
        return (left.abs() if most is None else left) > HALF

    ladder = [step]
    while len(ladder) < RUNGS:
        if not bool((above(ladder[-1] @ state) & (2.0 ** (len(ladder) - 1) <= allowed)).any()):
            break
        ladder.append(ladder[-1] @ ladder[-1])
    steps = torch.zeros(len(step)).to(step)
    for j, power in reversed(list(enumerate(ladder))):
        further = power @ state
        stays = above(further) & (steps + 2.0**j <= allowed)
        state = torch.where(stays[:, None, None], further, state)
        steps = steps + stays * 2.0**j
    return torch.where(steps < 2.0 ** (RUNGS - 1), steps + 1, math.inf)


def _first_half_of_schedule(values: Float[Tensor, " r"], training: Training, scale: Scale) -> Float[Tensor, " r"]:
    """The first whole step with |r| ≤ ½ up to the training's end."""
    end = int(training.end)
    result = torch.full_like(values, math.inf)
    if end:
        found = residuals(values, range(1, end + 1), training, scale).abs() <= HALF
        reached, first = found.max(0)
        result = torch.where(reached, (first + 1).to(values), result)
    return result
