"""One network, really trained: `train` runs torch's own optimizer on a copy of the model and records its outputs."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from ..data.inputs import Inputs, take
from ..errors import PriorscopeWarning
from ..network.function import outputs_of, place_of
from ..results import Result, live
from .optimizer import is_sgd, make_optimizer, set_rate
from .problem import Problem, gradients, prepare
from .training import Training


@dataclass(frozen=True, eq=False)
class Run(Result):
    """A really trained network.

    steps: (r,), the recorded steps: the first is the start, the last is the end.
    outputs: (r, m, o), at the recorded inputs, in the model's dtype.
    losses: (r,), the training's loss on all training points.
    distance: (r,), ‖c^(−1/2)(θ − θ₀)‖ over the trained parameters.
    relative_distance: (r,), the same over ‖c^(−1/2)θ₀‖.
    rates: {parameter name: c}.
    converged_at, diverged_at: the step at which `until_loss` was reached, or the loss was no longer finite.
    model: the trained copy, at the end.
    """

    steps: Int[Tensor, " r"]
    outputs: Float[Tensor, "r m o"]
    losses: Float[Tensor, " r"]
    distance: Float[Tensor, " r"]
    relative_distance: Float[Tensor, " r"]
    rates: dict[str, float]
    converged_at: int | None = None
    diverged_at: int | None = None
    model: nn.Module | None = live()


def train(
    model: nn.Module,
    x: Inputs,
    y: Tensor,
    training: Training,
    rates: Any = None,
    record: Inputs | None = None,
    at: Any = None,
    seed: int = 0,
    progress: bool = False,
    watch: Callable[[int, nn.Module], None] | None = None,
) -> Run:
    """Really trains a copy of a network, and records what it computes on the way.

    θ ← θ − ηₖ (c · ∂L/∂θ + λ (θ − target)),   with momentum as torch.optim.SGD has it

    Weight decay λ is not multiplied by the rates c, so that function space closes. Another optimizer gets one
    parameter group per rate, with the learning rate η·c. Parameters with c = 0 are left out. The layers stay in the
    mode that they are in.

    Args:
        x: n inputs, which go into model(x) for a tensor, model(*x) for a tuple or list, model(**x) for a dictionary;
            floating ones are cast to the model's dtype.
        y: (n,), (n, o), or (n,) integer classes: one-hot − 1/C for squared losses, classes for cross-entropy, whose
            loss is the mean over the points, as torch's is.
        training: discrete steps (learning_rate and steps). Mini-batches are drawn without replacement, epoch by
            epoch; the last one of an epoch may be smaller. `until_loss` looks at the loss on all points: at every
            step for full batch, at recorded steps for mini-batches.
        rates: None (all 1), {parameter name: c}, an Initialization, or a limit.
        record: m inputs whose outputs are recorded; None records x.
        at: steps to record besides the first and the last; default 50, log-spaced.
        seed: of the order of mini-batches.
        progress: shows a bar.
        watch: called at each recorded step, with the step and the network as it then is (not a copy).

    Returns:
        Run: steps (r,), outputs (r, m, o), losses (r,), model. A training that diverges ends there with a warning;
        its record ends at the last recorded step whose loss was finite, its model is what it had become.

    Raises:
        NotCoveredError: gradient flow; momentum or weight decay with another optimizer than SGD.
        DataError: inputs, labels or steps that do not fit.
        ModelError: BatchNorm or dropout in training mode; a model that does not run.
        RatesError: rates that do not fit the model.

    >>> net = nn.Linear(1, 1)
    >>> x = torch.tensor([[-1.0], [0.0], [1.0]])
    >>> run = train(net, x, 2 * x[:, 0], Training(learning_rate=0.3, steps=200))
    >>> round(run.model.weight.item(), 4)
    2.0
    """
    problem = prepare(model, x, y, training, rates, record, at)
    network = copy.deepcopy(model)
    learner = _Learner(network, problem.rates, training)
    recorder = _Recorder(problem, learner, watch)
    ending = _descend(problem, learner, recorder, training, seed, progress)
    if "diverged_at" in ending:
        warnings.warn(
            f"train: the loss is not finite at step {ending['diverged_at']}; the record ends at step "
            f"{recorder.steps[-1]}. Give a smaller learning_rate.",
            PriorscopeWarning,
            stacklevel=2,
        )
    return recorder.finish(ending)


def _descend(
    problem: Problem, learner: "_Learner", recorder: "_Recorder", training: Training, seed: int, progress: bool
) -> dict[str, int]:
    """Trains to the end; returns how it ended early, if it did."""
    end, due = problem.steps[-1], set(problem.steps)
    batches = None
    if training.batch_size is not None and training.batch_size < problem.points:
        batches = batches_of(problem.points, training.batch_size, seed)
    with tqdm(total=end, disable=not progress, desc="training", leave=False) as bar:
        for step in range(end + 1):
            loss = None
            if batches is None or step in due:
                with torch.set_grad_enabled(batches is None):
                    outputs = outputs_of(learner.network, problem.x)
                    loss = problem.objective(outputs)
                value = float(loss.detach())
                if not math.isfinite(value):
                    return {"diverged_at": step}
                reached = training.until_loss is not None and value <= training.until_loss
                if reached or step in due:
                    recorder.record(step, outputs, value)
                if reached:
                    return {"converged_at": step}
            if step == end:
                break
            if batches is not None:
                index = next(batches)
                loss = problem.objective.take(index)(outputs_of(learner.network, take(problem.x, index)))
                if not math.isfinite(float(loss.detach())):
                    return {"diverged_at": step}
            assert loss is not None
            learner.step(loss, step)
            bar.update()
    return {}


def batches_of(points: int, size: int, seed: int) -> Iterator[Tensor]:
    """Indices of mini-batches without end: a new order every epoch."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(points, generator=generator).split(size)


class _Learner:
    """The copy that is trained: one step of its optimizer, and how far it has moved."""

    def __init__(self, network: nn.Module, rates: Mapping[str, float], training: Training):
        self.network, self.rates = network, rates
        self.parameters = {name: p for name, p in network.named_parameters() if rates[name] > 0}
        self.start = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.training = training
        self.optimizer = make_optimizer(self.parameters, rates, training)
        self.decay = training.weight_decay if is_sgd(training) else 0.0
        self.decay_to_start = training.decay_to == "start"

    def step(self, loss: Tensor, step: int) -> None:
        set_rate(self.optimizer, self.training, step)
        slopes = gradients(loss, list(self.parameters.values()), place_of(self.network))
        for (name, parameter), gradient in zip(self.parameters.items(), slopes, strict=True):
            if self.decay:
                value = parameter.detach()
                away = value - self.start[name] if self.decay_to_start else value
                # The group's learning rate is η·c: the quotient keeps the decay free of c.
                gradient = gradient + (self.decay / self.rates[name]) * away
            parameter.grad = gradient
        self.optimizer.step()
        self.optimizer.zero_grad()

    def distance(self) -> tuple[float, float]:
        """‖c^(−1/2)(θ − θ₀)‖ and the same over ‖c^(−1/2)θ₀‖."""
        moved = size = 0.0
        for name, parameter in self.parameters.items():
            start = self.start[name].double()
            moved += float((parameter.detach().double() - start).square().sum()) / self.rates[name]
            size += float(start.square().sum()) / self.rates[name]
        relative = (moved / size) ** 0.5 if size > 0 else (math.inf if moved > 0 else 0.0)
        return moved**0.5, relative


@dataclass(frozen=True)
class _Recorder:
    """What is recorded at some of the steps."""

    problem: Problem
    learner: _Learner
    watch: Callable[[int, nn.Module], None] | None = None
    steps: list[int] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    distances: list[tuple[float, float]] = field(default_factory=list)

    def record(self, step: int, outputs: Tensor, loss: float) -> None:
        if self.problem.record is not None:
            with torch.no_grad():
                outputs = outputs_of(self.learner.network, self.problem.record, name="record")
        self.steps.append(step)
        self.outputs.append(outputs.detach().clone())
        self.losses.append(loss)
        self.distances.append(self.learner.distance())
        if self.watch is not None:
            self.watch(step, self.learner.network)

    def finish(self, ending: dict[str, int]) -> Run:
        dtype = self.outputs[0].dtype
        moved, relative = zip(*self.distances, strict=True)
        return Run(
            torch.tensor(self.steps),
            torch.stack(self.outputs),
            torch.tensor(self.losses, dtype=dtype),
            torch.tensor(moved, dtype=dtype),
            torch.tensor(relative, dtype=dtype),
            dict(self.problem.rates),
            model=self.learner.network,
            **ending,
        )
