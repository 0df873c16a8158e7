"""Boolean functions of a few ±1 bits, split into training and test points, and the labelings of the test points."""

import itertools
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .small_tasks import Task, nearest_one


def bits(count: int) -> Float[Tensor, "n d"]:
    """All 2^count inputs, each bit ±1."""
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=count)), dtype=torch.float64)


def _coins(x: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(2, (len(x),), generator=generator) * 2 - 1).to(x)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "first bit": lambda x: x[:, 0],
    "majority": lambda x: (x.sum(1) + 0.5 * x[:, 0]).sign(),
    "majority of the first three": lambda x: x[:, :3].sum(1).sign(),
    "second bit if the first, else the third": lambda x: torch.where(x[:, 0] > 0, x[:, 1], x[:, 2]),
    "two bits differ": lambda x: -x[:, 0] * x[:, 1],
    "parity of three": lambda x: x[:, :3].prod(1),
    "first and second, or third": lambda x: torch.maximum(torch.minimum(x[:, 0], x[:, 1]), x[:, 2]),
    "weights 1 to d": lambda x: ((x * torch.arange(1, x.shape[1] + 1).to(x)).sum(1) + 0.5).sign(),
    "exactly two": lambda x: torch.where((x > 0).sum(1) == 2, 1.0, -1.0).to(x),
    "coins 1": lambda x: _coins(x, 1),
    "coins 2": lambda x: _coins(x, 2),
    "coins 3": lambda x: _coins(x, 3),
}
"""{name: inputs (n, d) -> labels (n,), each ±1}. Majority: the first bit decides a tie."""


def split(inputs: int, train: int, seed: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " m"]]:
    """Which inputs are trained on, and which are tested."""
    order = torch.randperm(inputs, generator=torch.Generator().manual_seed(seed))
    return order[:train], order[train:]


def labelings(points: int) -> Float[Tensor, "l m"]:
    """All 2^m labelings of m points, ±1; the l-th is that of code l."""
    codes = torch.arange(2**points)[:, None]
    return ((codes >> torch.arange(points)) & 1).to(torch.float64) * 2 - 1


def codes(functions: Float[Tensor, "s m"]) -> Int[Tensor, " s"]:
    """Which labeling each function realises by its signs."""
    return ((functions > 0).to(torch.int64) << torch.arange(functions.shape[1])).sum(1)


def counts(functions: Float[Tensor, "s m"]) -> Int[Tensor, " l"]:
    """How many of the functions realise each labeling."""
    return torch.bincount(codes(functions), minlength=2 ** functions.shape[1])


def boolean_task(function: str, dimension: int, train: int, seed: int, hidden: int = 1) -> Task:
    """A: the function. B: the label of the nearest training point, the first of several as near."""
    x, y = bits(dimension), FUNCTIONS[function](bits(dimension))
    trained, tested = split(len(x), train, seed)
    nearest = nearest_one(y[trained], x[trained], x[tested])
    name = f"{function}, {dimension} bits, split {seed}"
    return Task(name, x[trained], y[trained], x[tested], y[tested], nearest, hidden)
