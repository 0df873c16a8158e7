"""Networks of one architecture, really trained together by any elementwise optimizer, whose weights can be looked at.

`ps.train_many` is full-batch SGD and keeps functions alone. Here each network may have mini-batches of its own, and
torch's other optimizers run on the stacked weights: they treat every entry by itself, so that each network is trained
as it would be alone. Optimizers that look at a whole tensor's norm do not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import NotCoveredError
from ..network.function import call
from ..training.optimizer import is_sgd, make_optimizer
from ..training.run import batches_of
from ..training.stack import Stack, copies
from ..training.training import Training

ELEMENTWISE = ("sgd", "adadelta", "adagrad", "adam", "adamax", "adamw", "asgd", "nadam", "radam", "rmsprop", "rprop")
"""Optimizers that treat every entry by itself. Others look at a whole tensor, which in a stack is of all networks."""
Weights = dict[str, Tensor]
"""{parameter name: (s, ...)}, of s networks."""


@dataclass(frozen=True)
class Together:
    """What s networks became.

    start, end: their weights, before and after. outputs: (s, m), at the recorded points, of each network when it had
    reached `until_loss`, else at the end. initial: (s, m), before. steps: (s,), when that was, −1 where it never was.
    losses: (s,), half_sse on all points at that moment.
    """

    start: Weights
    end: Weights
    outputs: Float[Tensor, "s m"]
    initial: Float[Tensor, "s m"]
    steps: Int[Tensor, " s"]
    losses: Float[Tensor, " s"]


def train_together(
    networks: Sequence[nn.Module],
    x: Float[Tensor, "n d"],
    y: Float[Tensor, " n"],
    training: Training,
    rates: dict[str, float],
    record: Float[Tensor, "m d"],
    seeds: Sequence[int] = (),
) -> Together:
    """Trains networks with one output on half_sse.

    Args:
        networks: of one architecture.
        rates: {parameter name: c}.
        seeds: of each network's order of mini-batches; that of `ps.train(seed=)`.

    Raises:
        NotCoveredError: a flow, another loss, an optimizer that is not one of ELEMENTWISE by name.
    """
    _check(training)
    stack = Stack(networks[0], copies(networks), rates, training)
    start = {name: values.detach().clone() for name, values in stack.trained.items()}
    optimizer = None if is_sgd(training) else make_optimizer(_parameters(stack), rates, training)
    masks = _masks(len(y), training, seeds)
    s = stack.size
    steps = torch.full((s,), -1)
    losses = torch.full((s,), torch.nan, dtype=torch.float64)
    with torch.no_grad():
        initial = stack(record)[..., 0]
    outputs = initial.clone()
    for step in range(int(training.end) + 1):
        errors = (stack(x)[..., 0] - y).square()
        whole = errors.detach().sum(1) / 2
        last = step == training.end
        reached = whole <= training.until_loss if training.until_loss is not None else torch.zeros(s, dtype=torch.bool)
        new = (steps < 0) & (reached | last)
        if bool(new.any()):
            with torch.no_grad():
                outputs[new] = stack(record)[new, :, 0]
            losses[new] = whole[new].to(torch.float64)
            steps[new & reached] = step
        if last or bool((steps >= 0).all()):
            break
        batch = errors.sum(1) / 2 if masks is None else (next(masks).to(errors) * errors).sum(1) / 2
        if optimizer is None:
            stack.descend(batch, step)
        else:
            optimizer.zero_grad()
            batch.sum().backward()
            optimizer.step()
    end = {name: values.detach() for name, values in stack.trained.items()}
    return Together(start, end, outputs, initial, steps, losses)


def watch_together(
    networks: Sequence[nn.Module],
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "s n"],
    training: Training,
    rates: dict[str, float],
) -> Float[Tensor, "s t n"]:
    """The outputs of networks at their training points, at every step of full-batch SGD; each has labels of its own."""
    _check(training)
    stack, watched = Stack(networks[0], copies(networks), rates, training), []
    for step in range(int(training.end) + 1):
        outputs = stack(x)[..., 0]
        watched.append(outputs.detach())
        if step < training.end:
            stack.descend((outputs - y).square().sum(1) / 2, step)
    return torch.stack(watched, 1)


def _check(training: Training) -> None:
    outside = {
        "is a flow": training.is_flow,
        f"has the loss {training.loss}": training.loss != "half_sse",
        f"has the optimizer {training.optimizer}": training.optimizer not in ELEMENTWISE,
    }
    for cause in (cause for cause, holds in outside.items() if holds):
        remedy = "Give half_sse and an elementwise optimizer, or train one by one: ps.train in a loop"
        raise NotCoveredError("train_together", cause, remedy)


def _parameters(stack: Stack) -> dict[str, nn.Parameter]:
    """The stack's weights as parameters, which an optimizer then moves in place."""
    stack.trained = {name: nn.Parameter(values.detach()) for name, values in stack.trained.items()}
    return dict(stack.trained)  # type: ignore[arg-type]


def _masks(points: int, training: Training, seeds: Sequence[int]) -> Iterator[Float[Tensor, "s n"]] | None:
    """Of each step: 1 where a network's mini-batch holds a point, else 0; None for full batch."""
    if training.batch_size is None or training.batch_size >= points:
        return None
    orders = [batches_of(points, training.batch_size, seed) for seed in seeds]

    def forever() -> Iterator[Tensor]:
        while True:
            mask = torch.zeros(len(orders), points)
            for row, order in zip(mask, orders, strict=True):
                row[next(order)] = 1
            yield mask

    return forever()


def tangent_kernels(
    template: nn.Module, weights: Weights, rates: dict[str, float], x: Float[Tensor, "n d"]
) -> Float[Tensor, "s n n"]:
    """J diag(c) Jᵀ of each network, with the weights that are given; by torch's own reverse differentiation."""

    def outputs(values: Weights) -> Tensor:
        return call(template, values, x)[:, 0]

    def one(values: Weights) -> Tensor:
        kernel = torch.zeros(len(x), len(x)).to(x)
        for name, slope in torch.func.jacrev(outputs)(values).items():
            flat = slope.flatten(1)
            kernel = kernel + rates[name] * flat @ flat.T
        return kernel

    size = len(next(iter(weights.values())))
    with torch.no_grad():  # jacrev differentiates all the same, and keeps no graph
        return torch.stack([one({name: values[i] for name, values in weights.items()}) for i in range(size)])


def distances(result: Together, rates: dict[str, float]) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"]]:
    """‖c^(−1/2)(θ − θ₀)‖ of each network, and the same over ‖c^(−1/2)θ₀‖."""
    moved, size = (torch.zeros(len(result.outputs), dtype=torch.float64) for _ in range(2))
    for name, start in result.start.items():
        moved += (result.end[name] - start).double().square().flatten(1).sum(1) / rates[name]
        size += start.double().square().flatten(1).sum(1) / rates[name]
    return moved.sqrt(), (moved / size).sqrt()
