"""`Collection`: inputs that a person can look at (pictures, sentences, points), with names and maybe groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor

from ..errors import DataError

T = TypeVar("T")


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell different ones apart.

    >>> distinct_names([Path("a/x"), Path("b/x"), Path("a/x")])
    ['a/x', 'b/x', 'a/x']
    """
    different = set(paths)
    for length in range(1, max((len(path.parts) for path in different), default=0) + 1):
        names = {path: "/".join(path.parts[-length:]) for path in different}
        if len(set(names.values())) == len(different):
            break
    return [names[path] for path in paths]


Kind = Literal["pictures", "sentences", "points"]


@dataclass(frozen=True)
class Collection:
    """Inputs as people see them.

    items: pictures as (n, 3, size, size) bytes, sentences as n strings, or points as (n, ...) numbers. names: one
    each. groups: the group of each, or None where the source says nothing of groups. notes: what was done, in words.
    """

    name: str
    kind: Kind
    items: Tensor | tuple[str, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.items) < 2:
            raise DataError(self.name, f"has {len(self.items)} of the {self.kind}", "Give at least 2, to be compared")
        for what in (self.names, self.groups):
            if what is not None and len(what) != len(self.items):
                raise DataError(self.name, f"has {len(what)} names for {len(self.items)} inputs", "Give one each")

    def __len__(self) -> int:
        return len(self.items)

    def at_most(self, points: int) -> "Collection":
        """At most so many of the inputs; a note says how many.

        Without groups they are evenly spread. With groups, as many of each, evenly spread, and at least two: where
        there are too many groups for that, some of them are taken.
        """
        n = len(self)
        if points < 2:
            raise DataError("the number of inputs", f"is {points}", "Ask for at least 2")
        if n <= points:
            return self
        if self.groups is None:
            chosen = _spread(list(range(n)), points)
        else:
            members = [[i for i in range(n) if self.groups[i] == group] for group in dict.fromkeys(self.groups)]
            members = _spread(members, max(1, min(len(members), points // 2)))
            chosen = sorted(i for group in members for i in _spread(group, points // len(members)))
        items = self.items[chosen] if isinstance(self.items, Tensor) else tuple(self.items[i] for i in chosen)
        return Collection(
            self.name,
            self.kind,
            items,
            tuple(self.names[i] for i in chosen),
            None if self.groups is None else tuple(self.groups[i] for i in chosen),
            (*self.notes, f"{len(chosen)} of the {n} {self.kind}, evenly spread, were taken"),
        )

    def by_group(self) -> Tensor:
        """(n,), an order of the inputs in which those of a group stand together, groups as they first appear."""
        if self.groups is None:
            return torch.arange(len(self))
        first: dict[str, int] = {}
        for group in self.groups:
            first.setdefault(group, len(first))
        return torch.tensor([first[group] for group in self.groups]).argsort(stable=True)


def _spread(things: list[T], number: int) -> list[T]:
    """So many of the things at most, evenly spread."""
    return things if len(things) <= number else [things[i * len(things) // number] for i in range(number)]
