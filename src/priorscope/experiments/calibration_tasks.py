"""Twenty-four small tasks that nothing was built on: Boolean functions, regressions on the circle, rows of tables."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..data.named import named
from .boolean_tasks import boolean_task
from .small_tasks import Task, nearest_one

BOOLEAN: tuple[tuple[str, int, int, int, int], ...] = (
    ("first bit", 4, 10, 11, 1),
    ("majority of the first three", 5, 20, 12, 1),
    ("second bit if the first, else the third", 6, 40, 13, 2),
    ("parity of three", 4, 12, 14, 1),
    ("first and second, or third", 5, 16, 15, 2),
    ("weights 1 to d", 6, 32, 16, 1),
    ("coins 2", 5, 24, 17, 1),
    ("coins 3", 4, 10, 18, 2),
)
"""Function, bits, training points, seed of the split, hidden layers."""
CIRCLE: tuple[tuple[int, int, float, int, int, str], ...] = (
    (6, 1, 1.0, 21, 1, "relu"),
    (8, 2, 1.0, 22, 1, "relu"),
    (10, 2, 0.5, 23, 2, "relu"),
    (12, 3, 1.0, 24, 1, "relu"),
    (8, 1, 2.0, 25, 1, "tanh"),
    (10, 3, 0.7, 26, 2, "tanh"),
    (14, 4, 1.0, 27, 1, "relu"),
    (9, 2, 1.5, 28, 2, "relu"),
)
"""Training points, frequency, amplitude, seed, hidden layers, activation."""
ROWS: tuple[tuple[str, int, int, int, int, int], ...] = (
    ("iris", 1, 2, 16, 31, 1),
    ("iris", 1, 2, 30, 32, 2),
    ("wine", 0, 1, 12, 33, 1),
    ("wine", 1, 2, 20, 34, 2),
    ("breast_cancer", 0, 1, 20, 35, 1),
    ("breast_cancer", 0, 1, 40, 36, 2),
    ("digits", 3, 8, 16, 37, 1),
    ("digits", 4, 9, 24, 38, 1),
)
"""Table, the class that is −1 and the one that is +1, training points, seed of the rows, hidden layers."""
PROBES, NEW_ROWS = 32, 100


def described() -> list[dict[str, Any]]:
    """All tasks as the cases name them."""
    names: tuple[tuple[str, tuple[str, ...], tuple[Any, ...]], ...] = (
        ("boolean", ("function", "bits", "train", "seed", "hidden layers"), BOOLEAN),
        ("circle", ("train", "frequency", "amplitude", "seed", "hidden layers", "activation"), CIRCLE),
        ("rows", ("table", "class of -1", "class of +1", "train", "seed", "hidden layers"), ROWS),
    )
    return [{"kind": kind, **dict(zip(keys, row, strict=True))} for kind, keys, rows in names for row in rows]


def makers() -> list[Callable[[], Task]]:
    """One function without arguments for each task, in the order of `described`."""
    booleans = [lambda row=row: boolean_task(*row) for row in BOOLEAN]
    circles = [lambda row=row: circle_task(*row) for row in CIRCLE]
    return [*booleans, *circles, *(lambda row=row: rows_task(*row) for row in ROWS)]


def circle_task(train: int, frequency: int, amplitude: float, seed: int, hidden: int, activation: str) -> Task:
    """Regression on amplitude·cos(frequency·angle + phase) at random angles. A: the function's signs at an even grid.

    B: the sign of the nearest training label.
    """
    generator = torch.Generator().manual_seed(seed)
    angles = torch.rand(train, generator=generator, dtype=torch.float64) * 2 * math.pi
    phase = float(torch.rand(1, generator=generator, dtype=torch.float64)) * 2 * math.pi
    # The grid is turned a little, so that no probe is a zero of the function.
    probes = (torch.arange(PROBES, dtype=torch.float64) + 0.37) * 2 * math.pi / PROBES
    x, x_new = (torch.stack([a.cos(), a.sin()], 1) for a in (angles, probes))
    y, truth = (amplitude * torch.cos(frequency * a + phase) for a in (angles, probes))
    name = f"circle, frequency {frequency}, {train} points, {activation}, seed {seed}"
    return Task(name, x, y, x_new, truth.sign(), nearest_one(y.sign(), x, x_new), hidden, activation)


def rows_task(table: str, negative: int, positive: int, train: int, seed: int, hidden: int) -> Task:
    """Two classes of a table, in units of the training rows' deviations. A: the classes of other rows.

    B: the class of the nearest training row. Rows that are equal are taken once.
    """
    data = named(table)
    chosen = (data.y == negative) | (data.y == positive)
    together = torch.cat([data.x[chosen].flatten(1), data.y[chosen, None].to(torch.float64)], 1).unique(dim=0)
    order = torch.randperm(len(together), generator=torch.Generator().manual_seed(seed))
    taken = together[order[: train + NEW_ROWS]]
    x, labels = taken[:, :-1], torch.where(taken[:, -1] == positive, 1.0, -1.0).to(torch.float64)
    x = _standardised(x, train)
    name = f"{table}, {negative} against {positive}, {train} rows, seed {seed}"
    nearest = nearest_one(labels[:train], x[:train], x[train:])
    return Task(name, x[:train], labels[:train], x[train:], labels[train:], nearest, hidden)


def _standardised(x: Tensor, train: int) -> Tensor:
    """Each column less its mean over the training rows, over its deviation; columns constant there are left out."""
    mean, deviation = x[:train].mean(0), x[:train].std(0)
    varies = deviation > 1e-9
    return ((x - mean) / deviation)[:, varies].clamp(-4, 4)
