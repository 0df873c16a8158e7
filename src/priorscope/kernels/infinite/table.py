"""The table of all rules and duals, read from the registry: layers, equation, source."""

import inspect
from typing import Any, NamedTuple

from torch import nn
from torch.overrides import resolve_name

from .registry import RULES, Dual, Rule

SHOWN = 6
"""Names of one rule that are shown; spellings of the same function (in place, methods, operators) are many."""


class Entry(NamedTuple):
    """One rule: what it is for, what it does, where that comes from."""

    layers: tuple[str, ...]
    kind: str
    equation: str
    source: str


def entries() -> list[Entry]:
    """Every rule and dual that is registered, once each, in the order of registration."""
    keys: dict[int, list[Any]] = {}
    found: dict[int, Rule | Dual] = {}
    for key, entry in RULES.items():
        keys.setdefault(id(entry), []).append(key)
        found[id(entry)] = entry
    return [
        Entry(
            tuple(sorted(set(map(name_of, keys[i])), key=_simplest_first)),
            "dual" if isinstance(entry, Dual) else "all pairs of positions" if entry.pairs else "rule",
            _equation(entry),
            entry.source,
        )
        for i, entry in found.items()
    ]


def markdown() -> str:
    """The table as Markdown."""
    lines = ["| layers and functions | kind | equation | source |", "|---|---|---|---|"]
    for entry in entries():
        shown = ", ".join(f"`{name}`" for name in entry.layers[:SHOWN])
        more = f" and {len(entry.layers) - SHOWN} more" if len(entry.layers) > SHOWN else ""
        cells = (shown + more, entry.kind, entry.equation, entry.source)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _simplest_first(name: str) -> tuple[bool, bool, str]:
    # Sets of keys have no order of their own.
    return not name.startswith("nn."), name.startswith("Tensor.") or name.startswith("operator."), name


def name_of(key: Any) -> str:
    """A key of the registry as users write it."""
    if inspect.isclass(key):
        return (
            f"nn.{key.__name__}"
            if issubclass(key, nn.Module) and key.__module__.startswith("torch.nn")
            else key.__name__
        )
    name = resolve_name(key) or getattr(key, "__qualname__", None) or str(key)
    for long, short in (
        ("torch.nn.functional.", "F."),
        ("torch._C._nn.", "F."),
        ("torch.Tensor.", "Tensor."),
        ("_operator.", "operator."),
    ):
        name = name.replace(long, short)
    return name


def _equation(entry: Rule | Dual) -> str:
    text = inspect.getdoc(entry.function) or ""
    return " ".join(text.partition("Source:")[0].split()).rstrip(".")
