"""The answer to `compare`: which of several candidate generalisations a trained network takes."""

from dataclasses import dataclass
from html import escape

from torch import Tensor

from ..results import Result

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Verdict(Result):
    """Which of several candidate labellings of the test points a trained network takes.

    nearest: probability that this candidate is the nearest to the network in the joint test labels; sums to 1.
    realised: probability that the network realises it: at every test point it is at least as near to it as to
        every other candidate; for classes: the same argmax; for candidates that are all ±1: the same sign.
    neither: 1 − the sum of `realised`.
    agreement: expected share of test points at which the network has the candidate's class or sign, or is at least
        as near to it as to every other candidate.
    per_point: (m,) each: the probability that it does so at this test point.
    log_density: of the candidate under the trained ensemble; None for one given network, and where there is none.
    intervals: 99 % intervals of what was sampled, {"realised": {name: (low, high)}, ...}: of Clopper and Pearson, or
        of `rare_probability` where the notes say so.
    rule: by what a candidate is realised. kept: the test points compared. deterministic: one given network's verdict.
    trust: how far the verdict deserves belief, in [0, 1] (`ps.trust`); None where it has none.
    trust_reason: what that means in words; or why there is none.
    notes: what was decided on the way, in words.
    """

    nearest: dict[str, float]
    realised: dict[str, float]
    neither: float
    agreement: dict[str, float]
    per_point: dict[str, Tensor]
    log_density: dict[str, float] | None
    intervals: dict[str, dict[str, Interval]]
    rule: str
    kept: Tensor
    deterministic: bool
    notes: tuple[str, ...]
    trust: float | None = None
    trust_reason: str = "not assessed: it needs a pair from infinite_width"

    @property
    def probability(self) -> dict[str, float]:
        """An alias of `nearest`."""
        return self.nearest

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.nearest)

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The verdict as a table of words, its head first."""
        head = ("", "nearest", "realised", "99 % interval", "agreement", "log-density")
        body = []
        for name in self.names:
            low_high = self.intervals.get("realised", {}).get(name)
            density = "" if self.log_density is None else f"{self.log_density[name]:.2f}"
            numbers = (f"{self.nearest[name]:.3g}", f"{self.realised[name]:.3g}", interval_text(low_high))
            body.append((name, *numbers, f"{self.agreement[name]:.3g}", density))
        low_high = self.intervals.get("neither", {}).get("neither")
        return head, *body, ("neither", "", f"{self.neither:.3g}", interval_text(low_high), "", "")

    def _repr_html_(self) -> str:
        score = "" if self.trust is None else f"{self.trust:.2f}: "
        told = (f"trust {score}{self.trust_reason}", *self.notes)
        notes = "".join(f"<li>{escape(note)}</li>" for note in told)
        return f"{html_table('Verdict', self.rows())}<ul>{notes}</ul>"


def interval_text(interval: Interval | None) -> str:
    """[low, high], or nothing."""
    return "" if interval is None else f"[{interval[0]:.3g}, {interval[1]:.3g}]"


def html_table(caption: str, rows: tuple[tuple[str, ...], ...]) -> str:
    """Rows of text, the head first and names in the first column, as a table."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        f"<tr><th style='text-align:left'>{escape(row[0])}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows[1:]
    )
    return f"<table><caption>{escape(caption)}</caption><tr>{head}</tr>{body}</table>"
