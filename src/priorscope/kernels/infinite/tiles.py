"""A kernel matrix cut into tiles that go through the whole network one by one, so that memory is bounded."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...errors import MemoryBudgetError

DEFAULT_MEMORY = 2**30
FAST_NUMBERS = 2**19
"""Numbers of one layer in a tile beyond which larger tiles are slower, since they leave the cache."""


class Tile(NamedTuple):
    """rows, columns: of the matrix. gram: the columns begin with the rows themselves."""

    rows: slice
    columns: slice
    gram: bool


def check_memory(memory: Any) -> int:
    """The budget in bytes.

    Raises:
        MemoryBudgetError: it is no positive whole number.
    """
    if memory is None:
        return DEFAULT_MEMORY
    if isinstance(memory, bool) or not isinstance(memory, int) or memory <= 0:
        raise MemoryBudgetError("memory", f"is {memory!r}", "Give a positive number of bytes, or None for 1 GiB")
    return memory


class Need(NamedTuple):
    """pair: bytes that a pair of points takes at most on its way. layer: numbers that it takes in one layer. result:
    bytes of its entries in both finished matrices."""

    pair: int
    layer: int
    result: int


def check_result(n: int, m: int, memory: int) -> None:
    """Raises:
    MemoryBudgetError: both finished matrices, in single precision, are larger than the budget.
    """
    least = 2 * n * m * 4
    if least > memory:
        raise MemoryBudgetError(
            "the infinite-width kernels",
            f"of {n} and {m} points take at least {least} bytes as matrices, more than memory={memory}",
            "Give more memory=, or ask for fewer points at once",
        )


def tiles(n: int, m: int, gram: bool, need: Need, memory: int) -> Iterator[Tile]:
    """The tiles of an (n, m) matrix; of a Gram matrix those that cover its upper half.

    Raises:
        MemoryBudgetError: the matrices and one pair do not fit into the budget.
    """
    least = n * m * need.result + need.pair
    if least > memory:
        raise MemoryBudgetError(
            "the infinite-width kernels",
            f"take {n * m * need.result} bytes as matrices and {need.pair} for a pair of points on its way, more than "
            f"memory={memory}",
            f"Give memory={least} or more, or ask for fewer points at once",
        )
    entries = max(1, min((memory - n * m * need.result) // need.pair, FAST_NUMBERS // need.layer))
    columns = min(m, max(math.isqrt(entries), entries // n))
    rows = min(n, entries // columns)
    if gram:
        # Tiles on the diagonal are square, so that points meet themselves there.
        rows = min(rows, columns)
    for start in range(0, n, rows):
        end = min(start + rows, n)
        for first in range(start if gram else 0, m, columns):
            yield Tile(slice(start, end), slice(first, min(first + columns, m)), gram and first == start)
