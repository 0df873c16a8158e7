"""Twelve small tasks with two answers: two rules agree on every training point, and differ on every test point.

Eight are made of formulas, four of real tables, where the second rule is the split of one column at its median: the
column that follows the classes best. Nothing about them was chosen by what networks do on them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.named import named
from ..errors import DataError

TRAIN, TEST, SEED = 10, 12, 100


@dataclass(frozen=True, eq=False)
class Task:
    """name; training points and labels ±1; test points, and the labels of both rules there."""

    name: str
    x: Float[Tensor, "n d"]
    y: Float[Tensor, " n"]
    x_new: Float[Tensor, "m d"]
    answers: dict[str, Float[Tensor, " m"]]


Pool = tuple[Tensor, Tensor, Tensor]
"""Points (N, d), and the labels ±1 of both rules, (N,)."""


def _sign(values: Tensor) -> Tensor:
    return torch.where(values >= 0, 1.0, -1.0).to(torch.float64)


def _circle(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Callable[[Any], Pool]:
    def pool(generator: torch.Generator) -> Pool:
        a = torch.rand(400, generator=generator, dtype=torch.float64) * (2 * torch.pi)
        return torch.stack([a.cos(), a.sin()], 1), _sign(first(a)), _sign(second(a))

    return pool


def _normal(
    scales: list[float], first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]
) -> Callable[[Any], Pool]:
    def pool(generator: torch.Generator) -> Pool:
        x = torch.randn(400, len(scales), generator=generator, dtype=torch.float64)
        return x * torch.tensor(scales, dtype=torch.float64), _sign(first(x)), _sign(second(x))

    return pool


def _boolean(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Callable[[Any], Pool]:
    def pool(generator: torch.Generator) -> Pool:
        x = torch.tensor(list(product((-1.0, 1.0), repeat=5)), dtype=torch.float64)
        return x, _sign(first(x)), _sign(second(x))

    return pool


def _real(name: str, classes: tuple[int, int]) -> Callable[[Any], Pool]:
    def pool(generator: torch.Generator) -> Pool:
        data = named(name)
        chosen = (data.y == classes[0]) | (data.y == classes[1])
        x = data.x[chosen].flatten(1).to(torch.float64)
        first = torch.where(data.y[chosen] == classes[1], 1.0, -1.0).to(torch.float64)
        splits = _sign(x - x.median(0).values - 1e-9)
        follows = splits.T @ first / len(first)
        column = int(follows.abs().argmax())
        spread = x.std(0)
        x = (x - x.mean(0)) / torch.where(spread > 0, spread, 1.0)
        return x, first, splits[:, column] * follows[column].sign()

    return pool


POOLS: dict[str, Callable[[Any], Pool]] = {
    "circle: one wave or three": _circle(lambda a: a.cos(), lambda a: (3 * a).cos()),
    "circle: two directions": _circle(lambda a: a.cos(), lambda a: (a - 1).cos()),
    "plane: two equal features": _normal([1.0, 1.0], lambda x: x[:, 0], lambda x: x[:, 1]),
    "plane: the second is larger": _normal([1.0, 3.0], lambda x: x[:, 0], lambda x: x[:, 1]),
    "eight inputs: one or the rest": _normal([1.0] * 8, lambda x: x[:, 0], lambda x: x[:, 1:].sum(1)),
    "four inputs: line or product": _normal([1.0] * 4, lambda x: x[:, 0], lambda x: x[:, 1] * x[:, 2]),
    "bits: majority or the first": _boolean(lambda x: x.sum(1), lambda x: x[:, 0]),
    "bits: parity of two or the third": _boolean(lambda x: x[:, 0] * x[:, 1], lambda x: x[:, 2]),
    "iris: species or a median": _real("iris", (1, 2)),
    "wine: cultivar or a median": _real("wine", (0, 1)),
    "tumours: kind or a median": _real("breast_cancer", (0, 1)),
    "digits 3 and 5 or a pixel": _real("digits", (3, 5)),
}


def tasks(seed: int = 0) -> list[Task]:
    """All of them; another seed draws other points."""
    return [_task(name, pool, SEED + 1000 * seed + i) for i, (name, pool) in enumerate(POOLS.items())]


def _task(name: str, pool: Callable[[Any], Pool], seed: int) -> Task:
    generator = torch.Generator().manual_seed(seed)
    x, first, second = pool(generator)
    order = torch.randperm(len(x), generator=generator)
    x, first, second = x[order], first[order], second[order]
    agree = first == second
    halves = [torch.nonzero(agree & (first == sign))[: TRAIN // 2, 0] for sign in (1, -1)]
    train, test = torch.cat(halves), torch.nonzero(~agree)[:TEST, 0]
    if len(train) < TRAIN or len(test) < 2:
        raise DataError(f"the task {name!r}", "has too few points", "Choose rules that agree and differ more often")
    return Task(name, x[train], first[train], x[test], {"A": first[test], "B": second[test]})
