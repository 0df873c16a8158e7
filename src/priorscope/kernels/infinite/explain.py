"""How a limit was derived, as a table: node, rule, variances, rates, source."""

from dataclasses import dataclass
from html import escape

from .propagate import Step

HEADS = ("node", "rule", "σ_w²", "σ_b²", "rates c", "source")


@dataclass(frozen=True)
class Explanation:
    """The steps of the last call, in order, what computed them (`path`), and what the rates mean for the limit; printed
    as a table and lines below it."""

    steps: tuple[Step, ...]
    path: str = ""
    rates: str = ""

    @property
    def notes(self) -> list[str]:
        """The lines below the table."""
        return [note for note in (self.path, self.rates) if note]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        return [
            (
                step.node,
                step.rule,
                _number(step.weight_variance),
                _number(step.bias_variance),
                ", ".join(map(_number, step.rates)),
                step.source,
            )
            for step in self.steps
        ]

    def __str__(self) -> str:
        table = [HEADS, *self.rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(HEADS))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        return "\n".join([*lines, *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def line(cells: tuple[str, ...], tag: str) -> str:
            inner = "".join(f"<{tag} style='text-align:left'>{escape(cell)}</{tag}>" for cell in cells)
            return f"<tr>{inner}</tr>"

        table = f"<table>{line(HEADS, 'th')}{''.join(line(row, 'td') for row in self.rows)}</table>"
        return table + "".join(f"<p>{escape(note)}</p>" for note in self.notes)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
