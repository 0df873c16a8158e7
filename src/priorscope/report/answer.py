"""An answer: a question in plain words, two sentences, its pictures, its numbers."""

from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure with the name of its files, and what it shows in one sentence (also its alternative text)."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Answer:
    question: str
    sentences: tuple[str, ...]
    pictures: tuple[Picture, ...]
    numbers: dict[str, Any] = field(default_factory=dict)


def percent(share: float) -> str:
    """A share as whole percents, or with a digit where it is small; what rounding leaves of zero is zero."""
    if not share <= 10:
        return "more than 1000 %"
    return f"{100 * share:.0f} %" if share < 1e-6 or share >= 0.1 else f"{100 * share:.2g} %"
