"""An experiment is one file and one claim: run(config) -> Outcome, its figure, its pass criteria.

Exact criteria hold always; statistical ones count only in a full run, and are reported in every run.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from ..errors import DataError
from ..results import Result

RELATIONS: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


APART = 10**9
"""Between the first seeds of two runs; more than all seeds of any experiment span."""


@dataclass(frozen=True)
class Config:
    """How to run: all networks or few, from which seed, with progress bars or without.

    keep: a folder in which an experiment that takes long keeps what it has, to go on from when it is started again.
    """

    full: bool = False
    seed: int = 0
    progress: bool = False
    keep: Path | None = None

    def first(self, seed: int) -> int:
        """An experiment's first seed of networks; another `seed` of the run has none of them."""
        return seed + APART * self.seed


@dataclass(frozen=True)
class Criterion:
    """A measured value against its threshold."""

    name: str
    value: float
    relation: Literal["<=", ">="]
    threshold: float
    exact: bool = True

    @property
    def holds(self) -> bool:
        return RELATIONS[self.relation](self.value, self.threshold)

    def __str__(self) -> str:
        kind = "exact" if self.exact else "statistical"
        mark = "pass" if self.holds else "FAIL"
        return f"{mark}  {self.name}: {self.value:.4g} {self.relation} {self.threshold:.4g} ({kind})"


@dataclass(frozen=True)
class Outcome(Result):
    """What an experiment measured: criteria, every number that its figure needs, and notes in words."""

    criteria: tuple[Criterion, ...]
    numbers: dict[str, Any]
    notes: tuple[str, ...] = ()

    def passed(self, full: bool) -> bool:
        """Whether all criteria that count hold."""
        return all(criterion.holds for criterion in self.criteria if criterion.exact or full)


@dataclass(frozen=True)
class Experiment:
    name: str
    claim: str
    source: str
    run: Callable[[Config], Outcome]
    draw: Callable[[Outcome], Figure]


EXPERIMENTS: dict[str, Experiment] = {}


def experiment(
    name: str, claim: str, source: str, draw: Callable[[Outcome], Figure]
) -> Callable[[Callable[[Config], Outcome]], Callable[[Config], Outcome]]:
    """Registers `run(config) -> Outcome` under a name, with its claim, the source of its criterion, and its figure."""

    def register(run: Callable[[Config], Outcome]) -> Callable[[Config], Outcome]:
        EXPERIMENTS[name] = Experiment(name, claim, source, run, draw)
        return run

    return register


def find(name: str) -> Experiment:
    if name not in EXPERIMENTS:
        raise DataError(f"the experiment {name!r}", "is not known", f"Choose one of {', '.join(sorted(EXPERIMENTS))}")
    return EXPERIMENTS[name]
