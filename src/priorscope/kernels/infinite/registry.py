"""Which function derives which node: rules (any layer) and duals (pointwise functions), keyed by module class or
torch function.

A key that is a class serves that class and subclasses with the same `forward`, and only modules without hooks: a
subclass with its own forward, a hooked or a parametrized module is opened instead, and seen by its torch functions.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ...network.watching import is_hooked


class Expectations(NamedTuple):
    """What a dual gives for (u, v) ~ N(0, [[v1, k], [k, v2]]).

    nngp: E[φ(u)φ(v)]. derivative: E[φ'(u)φ'(v)]. gap: (E[φ(u)²] + E[φ(v)²])/2 − nngp where it is known without
    cancellation, else None. error: a bound of the relative error, 0 for closed forms. deviation:
    √(E[φ(u)²] E[φ(v)²]) − |nngp|, where it was given before φ and is known without cancellation, else None.
    """

    nngp: Tensor
    derivative: Tensor
    gap: Tensor | None = None
    error: float = 0.0
    deviation: Tensor | None = None


class Estimated(NamedTuple):
    """What a rule without a closed form returns: its value, and a bound of its relative error."""

    value: Any
    error: float


@dataclass(frozen=True)
class Rule:
    """A registered rule: `function(layer, *arguments, init)`; layer is the module, or the watched node of a call."""

    function: Callable[..., Any]
    name: str
    source: str
    pairs: bool = False


@dataclass(frozen=True)
class Dual:
    """A registered dual: `function(k, v1, v2[, gap[, deviation]], **settings)`.

    scalar: φ itself, where it is not the module or torch function that the dual is registered for.
    """

    function: Callable[..., Any]
    name: str
    source: str
    wants: tuple[str, ...]
    settings: tuple[str, ...]
    odd: bool
    scalar: Callable[[Tensor], Tensor] | None = None


RULES: dict[Any, Rule | Dual] = {}
FALLBACKS: dict[str, Callable[..., Any]] = {}
"""What may stand in where a node has no rule, if the user asks for it: `f(limit, **options)` makes a KernelPair."""


def rule(*keys: Any, pairs: bool = False, name: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers an infinite-width rule for module classes or torch functions.

    The function is called as `f(layer, *arguments, init=init, **keywords)`: layer is the module (or, for a torch
    function, the watched call); arguments are `Moments` where they depend on the input; init answers
    `init.variances(layer)` and `init.rates_of(layer)`. It returns the Moments after the layer.

    Args:
        keys: module classes (nn.Linear) or torch functions (F.linear).
        pairs: whether it needs the moments between all pairs of positions of its input (pooling does).
        name: for `explain`; left out, that of the function.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        entry = Rule(function, name or _title(function), _source(function), pairs)
        RULES.update(dict.fromkeys(keys, entry))
        return function

    return register


def dual(
    *keys: Any, settings: tuple[str, ...] = (), odd: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers E[φ(u)φ(v)] and E[φ'(u)φ'(v)] of a pointwise function φ.

    The function is called as `f(k, v1, v2)`, with a fourth argument `gap` = (v1 + v2)/2 − k (and a fifth,
    `deviation` = √(v1 v2) − |k|, or None) if it has one of that name. It must work elementwise for any shapes that
    broadcast. It returns (nngp, derivative), and may add the gap after φ: `Expectations`.

    Args:
        keys: module classes (nn.GELU) or torch functions (F.gelu).
        settings: names of the settings that it takes, as keywords; read from the module's attributes, or from the
            torch function's arguments after the first, in this order.
        odd: φ(−u) = −φ(u), so that the mean stays zero.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        names = inspect.signature(function).parameters
        wants = tuple(name for name in ("gap", "deviation") if name in names)
        entry = Dual(function, _title(function), _source(function), wants, settings, odd)
        RULES.update(dict.fromkeys(keys, entry))
        return function

    return register


def fallback(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers what stands in for rules that are missing, under the name that users give as `fallback=`."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        FALLBACKS[name] = function
        return function

    return register


def find(target: Any) -> Rule | Dual | None:
    """The rule or dual of a module or torch function; None where there is none."""
    if not isinstance(target, nn.Module):
        return RULES.get(target)
    if is_changed(target):
        return None
    for kind in type(target).__mro__:
        if kind in RULES:
            own: Any = type(target).forward
            return RULES[kind] if own is getattr(kind, "forward", None) else None
    return None


def is_changed(module: nn.Module) -> bool:
    """Whether hooks or parametrizations may make the module's call differ from its class's forward."""
    return is_hooked(module) or is_parametrized(module)


CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.TransformerEncoder, nn.TransformerEncoderLayer)
"""Torch's own modules that are opened, and seen by the modules inside."""


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is read as a whole: it has a rule, or it is torch's own layer, which errors should name."""
    if find(module) is not None:
        return True
    own = type(module).__module__.startswith("torch.nn.modules")
    return own and not isinstance(module, CONTAINERS) and not is_changed(module)


def _title(function: Callable[..., Any]) -> str:
    return function.__name__.replace("_", " ").strip()


def _source(function: Callable[..., Any]) -> str:
    text = inspect.getdoc(function) or ""
    return " ".join(text.partition("Source:")[2].split()).rstrip(".")
