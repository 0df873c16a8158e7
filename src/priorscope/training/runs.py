"""Many networks, really trained together: `train_many` stacks networks of one architecture, one for each seed."""

import copy
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from ..data.inputs import Inputs
from ..errors import DataError, MemoryBudgetError, ModelError, NotCoveredError, PriorscopeWarning
from ..network.function import outputs_of
from ..results import Result
from .optimizer import is_sgd
from .problem import Problem, prepare
from .stack import Stack, bytes_per_network, copies
from .training import Training

DEFAULT_MEMORY = 2_000_000_000
"""Bytes that the networks trained at one time may take by default."""

CACHED = 64_000_000
"""On a CPU, networks are trained so many at a time that they fit into this many bytes, near a last-level cache.
100 networks of width 512 took 0.07 s a step so, 0.35 s all at once (two quiet cores)."""

NEVER = -1


@dataclass(frozen=True, eq=False)
class Runs(Result):
    """Many really trained networks of one architecture.

    seeds: (s,). steps: (r,), the recorded steps: the first is the start, the last is the end.
    outputs: (s, r, m, o), at the recorded inputs. losses: (s, r), the training's loss on all training points.
    converged_at, diverged_at: (s,), the step at which each network reached `until_loss`, or its loss was no longer
        finite; −1 where it did not. A converged network stays as it is from then on; of a diverged one all later
        records are NaN.
    rates: {parameter name: c}.
    """

    seeds: Int[Tensor, " s"]
    steps: Int[Tensor, " r"]
    outputs: Float[Tensor, "s r m o"]
    losses: Float[Tensor, "s r"]
    converged_at: Int[Tensor, " s"]
    diverged_at: Int[Tensor, " s"]
    rates: dict[str, float]

    @property
    def final(self) -> Float[Tensor, "s m o"]:
        """The outputs of every network at the end."""
        return self.outputs[:, -1]


def train_many(
    make_model: Callable[[int], nn.Module],
    seeds: int | Iterable[int],
    x: Inputs,
    y: Tensor,
    training: Training,
    rates: Any = None,
    record: Inputs | None = None,
    at: Any = None,
    progress: bool = False,
    memory: int | None = None,
) -> Runs:
    """Really trains one network for each seed, many at a time; what `train` gives for each of them.

    Args:
        make_model: seed -> an initialised model; one architecture for all seeds.
        seeds: the seeds, or their number (0, 1, …).
        x: n inputs. y: (n,), (n, o), or (n,) integer classes, as in `train`.
        training: full-batch SGD. With `until_loss` each network stops at the step at which it has reached it.
        rates: as in `train`, the same for all networks.
        record: m inputs whose outputs are recorded; None records x.
        at: steps to record besides the first and the last; default 50, log-spaced.
        progress: shows a bar.
        memory: bytes that the networks trained at one time may take; default 2 GB. On a CPU fewer are trained at a
            time where they then fit into its cache, which is faster.

    Returns:
        Runs: steps (r,), outputs (s, r, m, o), losses (s, r), converged_at (s,).

    Raises:
        NotCoveredError: gradient flow, mini-batches, another optimizer than SGD.
        ModelError: networks that cannot be stacked; BatchNorm or dropout in training mode.
        MemoryBudgetError: one network alone needs more than `memory`.
        DataError, RatesError: as in `train`.

    >>> def make(seed):
    ...     torch.manual_seed(seed)
    ...     return nn.Linear(1, 1)
    >>> x = torch.tensor([[-1.0], [0.0], [1.0]])
    >>> runs = train_many(make, 4, x, 2 * x[:, 0], Training(learning_rate=0.3, steps=200))
    >>> bool(torch.allclose(runs.final[..., 0], 2 * x[:, 0], atol=1e-4))
    True
    """
    numbers = _seeds(seeds)
    first = make_model(numbers[0])
    problem = prepare(first, x, y, training, rates, record, at)
    _require_stackable(training, problem.points)
    size = min(len(numbers), _fitting(first, problem, training, DEFAULT_MEMORY if memory is None else memory))
    template = copy.deepcopy(first)
    # Lazily, so that only one chunk of networks exists at a time.
    networks = copies(chain([first], (make_model(seed) for seed in numbers[1:])))
    parts: list[tuple[Tensor, ...]] = []
    with tqdm(total=len(numbers) * problem.steps[-1], disable=not progress, desc="training", leave=False) as bar:
        while chunk := list(islice(networks, size)):
            stack = Stack(template, chunk, problem.rates, training)
            if not parts:
                _certify(stack, template, problem)
            parts.append(_run(stack, problem, training, bar))
    outputs, losses, converged, diverged = (torch.cat(columns) for columns in zip(*parts, strict=True))
    _warn_of_divergence(numbers, diverged)
    steps = torch.tensor(problem.steps)
    return Runs(torch.tensor(numbers), steps, outputs, losses, converged, diverged, dict(problem.rates))


def _seeds(seeds: int | Iterable[int]) -> list[int]:
    numbers = list(range(seeds)) if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if not numbers:
        raise DataError("seeds", "names no network", "Give at least one seed, or a number of networks")
    return numbers


def _require_stackable(training: Training, points: int) -> None:
    outside = None
    if training.batch_size is not None and training.batch_size < points:
        outside = f"batch_size={training.batch_size}"
    elif not is_sgd(training):
        outside = f"optimizer={training.optimizer!r}"
    if outside:
        cause = "is not full-batch SGD, which is what stacked networks are trained with"
        raise NotCoveredError(f"Training({outside})", cause, "Train the networks one by one: ps.train in a loop")


def _fitting(model: nn.Module, problem: Problem, training: Training, memory: int) -> int:
    """How many networks may be trained at one time."""
    needed = bytes_per_network(model, lambda: outputs_of(model, problem.x), training)
    if needed > memory:
        cause = f"needs {needed / 1e9:.3g} GB for one network, {memory / 1e9:.3g} GB are allowed"
        raise MemoryBudgetError("train_many", cause, "Give a larger `memory`, or fewer points")
    if next(model.parameters()).device.type == "cpu":
        memory = min(memory, max(CACHED, needed))
    return memory // max(needed, 1)


def _certify(stack: Stack, model: nn.Module, problem: Problem) -> None:
    """Raises where the first network computes something else in the stack than alone."""
    with torch.no_grad():
        stacked, alone = stack(problem.x)[0], outputs_of(model, problem.x)
    eps = torch.finfo(alone.dtype).eps
    gap, size = float((stacked - alone).abs().max()), float(alone.abs().max())
    if not gap <= 1e4 * eps * max(size, 1e-3):
        raise ModelError(
            f"train_many({type(model).__name__})",
            f"computes something else in a stack than alone (largest difference {gap:.2g})",
            "Train the networks one by one: ps.train in a loop",
        )


def _run(stack: Stack, problem: Problem, training: Training, bar: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Trains one stack to the end: outputs (s, r, m, o), losses (s, r), converged_at and diverged_at (s,)."""
    film = _Film(stack, problem)
    for step in range(problem.steps[-1] + 1):
        outputs = stack(problem.x)
        losses = problem.objective(outputs)
        now = losses.detach()
        finite = torch.isfinite(now)
        reached = now <= training.until_loss if training.until_loss is not None else torch.zeros_like(finite)
        ended = reached | ~finite
        some_ended = bool(ended.any())
        film.record(step, outputs.detach(), now, finite, reached, some_ended)
        if step == problem.steps[-1] or (some_ended and bool(ended.all())):
            break
        # Before any network is forgotten: the losses' graph belongs to all of them.
        stack.descend(losses, step)
        bar.update(len(film.going))
        if some_ended:
            stack.keep(~ended)
            film.going = film.going[~ended.cpu()]
    return film.outputs, film.losses, film.converged, film.diverged


class _Film:
    """The records of the networks of one stack. going: which of them the stack still holds."""

    def __init__(self, stack: Stack, problem: Problem):
        self.stack, self.problem = stack, problem
        size, records = stack.size, len(problem.steps)
        with torch.no_grad():
            shown = stack(problem.x if problem.record is None else problem.record)
        self.outputs = shown.new_full((size, records, *shown.shape[1:]), torch.nan)
        self.losses = shown.new_full((size, records), torch.nan)
        self.converged = torch.full((size,), NEVER)
        self.diverged = torch.full((size,), NEVER)
        self.going = torch.arange(size)
        self.due = {step: place for place, step in enumerate(problem.steps)}

    def record(
        self, step: int, outputs: Tensor, losses: Tensor, finite: Tensor, reached: Tensor, some_ended: bool
    ) -> None:
        if step not in self.due and not some_ended:
            return
        finite, reached = finite.cpu(), reached.cpu()
        if self.problem.record is not None and (step in self.due or bool(reached.any())):
            with torch.no_grad():
                outputs = self.stack(self.problem.record)
        if step in self.due:
            place = self.due[step]
            self.outputs[self.going[finite], place] = outputs[finite]
            self.losses[self.going[finite], place] = losses[finite]
        if some_ended:
            if bool(reached.any()):  # else these are outputs at x, and not at the recorded inputs
                later = next(place for at, place in self.due.items() if at >= step)
                self.outputs[self.going[reached], later:] = outputs[reached][:, None]
                self.losses[self.going[reached], later:] = losses[reached][:, None]
            self.converged[self.going[reached]] = step
            self.diverged[self.going[~finite]] = step


def _warn_of_divergence(seeds: list[int], diverged: Tensor) -> None:
    which = [seed for seed, step in zip(seeds, diverged.tolist(), strict=True) if step != NEVER]
    if which:
        first = int(diverged[diverged != NEVER].min())
        shown = ", ".join(str(seed) for seed in which[:4]) + (f" and {len(which) - 4} more" if len(which) > 4 else "")
        warnings.warn(
            f"train_many: the loss of the networks of seeds {shown} is not finite (first at step {first}); their later "
            "records are NaN. Give a smaller learning_rate.",
            PriorscopeWarning,
            stacklevel=3,
        )
