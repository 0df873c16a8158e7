"""Sends moments through a watched graph, node by node, by the registered rules; knows no layer itself."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from ...errors import NoRuleError
from ...network.function import class_name
from ...network.initialization import number
from ...network.watching import Graph, Node, Ref
from .law import Law
from .moments import Moments, Refused, with_diagonal
from .registry import Dual, Expectations, Rule, find


@dataclass(frozen=True)
class Step:
    """What was done at one node, for `explain`."""

    node: str
    rule: str
    weight_variance: float | None
    bias_variance: float | None
    rates: tuple[float, ...]
    error: float
    source: str
    layer: nn.Module | None
    reads_input: bool


def propagate(graph: Graph, law: Law, start: Moments) -> tuple[Moments, list[Step]]:
    """The moments of the graph's output, and what was done on the way.

    Raises:
        NoRuleError: at the first node without an exact rule, by its place.
    """
    _refuse_reuse(graph)
    values: dict[int, Any] = {}
    steps: list[Step] = []
    for node in graph.needed():
        if node.kind == "input":
            values[node.index] = start
        elif not node.data:
            values[node.index] = node
        else:
            values[node.index] = _apply(node, law, values, steps)
    output = graph.output
    result = values.get(output.node.index) if isinstance(output, Ref) and not output.part else None
    if not isinstance(result, Moments) or result.is_input:
        cause = "gives no tensor that random layers make from the input"
        raise NoRuleError(
            "the output of the model", cause, "Return one tensor made by linear layers, or use EmpiricalNTK"
        )
    return result, steps


def _refuse_reuse(graph: Graph) -> None:
    first: dict[str, Node] = {}
    for node in graph.needed():
        for name in sorted(node.parameters) if node.data else ():
            if name in first:
                raise NoRuleError(
                    node.place,
                    f"uses `{name}`, which {first[name].place} uses too: reused and tied weights have no rule",
                    "Give every use its own layer, or use EmpiricalNTK",
                )
            first[name] = node


def _apply(node: Node, law: Law, values: dict[int, Any], steps: list[Step]) -> Moments:
    entry = find(node.target)
    if entry is None:
        raise NoRuleError(_without_rule(node), "no infinite-width rule", _remedy(node))
    try:
        if any(ref.part for ref in node.refs):
            raise Refused("uses a part of another node's output", "Use EmpiricalNTK")
        args, kwargs = tree_map(
            lambda leaf: values[leaf.node.index] if isinstance(leaf, Ref) else leaf, (node.args, node.kwargs)
        )
        if node.kind == "module" and kwargs:
            args, kwargs = inspect.signature(node.target.forward).bind(*args, **kwargs).args, {}
        error = 0.0
        layer = node.target if node.kind == "module" else node
        if isinstance(entry, Rule):
            result = entry.function(layer, *args, init=law, **kwargs)
        else:
            result, error = _pointwise(entry, *_bind(entry, node, args, kwargs))
    except Refused as refused:
        raise NoRuleError(node.place, refused.cause, refused.remedy) from None
    if not isinstance(result, Moments):
        raise NoRuleError(node.place, f"its rule gave a {type(result).__name__}", "Return Moments from the rule")
    steps.append(_step(node, entry, law, error, any(isinstance(m, Moments) and m.is_input for m in args)))
    return result


def _bind(entry: Dual, node: Node, args: Any, kwargs: Any) -> tuple[Moments, dict[str, Any]]:
    """The moments that a pointwise function is applied to, and its settings by name."""
    kwargs = dict(kwargs)
    if node.kind == "module":
        settings = {name: getattr(node.target, name) for name in entry.settings if hasattr(node.target, name)}
    else:
        names = [*entry.settings, "inplace"]
        settings = dict(zip(names, args[1:], strict=False))
        if not args:
            args = (kwargs.pop("input", None),)
        settings.update(kwargs)
        settings.pop("inplace", None)
        unknown = sorted(set(settings) - set(entry.settings))
        if unknown or len(args) > 1 + len(names):
            raise Refused(
                f"is called with {', '.join(unknown) or 'more arguments'} than its rule knows", "Leave it out"
            )
    if not args or not isinstance(args[0], Moments):
        raise Refused("is not applied to a value that depends on the input", "Use EmpiricalNTK")
    if any(isinstance(value, (Node, Moments)) for value in settings.values()):
        raise Refused("has a setting that is a tensor", "Give it a number, or use EmpiricalNTK")
    return args[0], settings


def _pointwise(entry: Dual, m: Moments, settings: dict[str, Any]) -> tuple[Moments, float]:
    """Moments of φ(h), φ a pointwise function: the same expectations between points and of each point with itself."""
    if not m.gaussian:
        what = "the input itself" if m.is_input else "values that are not Gaussian"
        raise Refused(
            f"applies a pointwise function to {what}, where no closed rule holds",
            "Put a linear layer in front of it" + (", or apply it to the data" if m.is_input else ""),
        )

    def expect(k: Any, v1: Any, v2: Any, gap: Any, opposition: Any) -> tuple[Any, Any, Any, float]:
        extra = {name: value for name, value in (("gap", gap), ("opposition", opposition)) if name in entry.wants}
        answer = entry.function(k, v1, v2, **extra, **settings)
        full = Expectations(*answer)
        return full.nngp, full.derivative, full.gap, full.error

    after = {"opposition": None, "gaussian": False, "mean_zero": entry.odd and m.mean_zero}
    zero = torch.zeros_like(m.v1)
    own1, own_derivative, _, error = expect(m.v1, m.v1, m.v1, zero, None)
    if m.nngp.ndim == 1:
        return m.replace(
            nngp=own1, v1=own1, v2=own1, gap=torch.zeros_like(own1), tangent=m.tangent * own_derivative, **after
        ), error
    own2 = expect(m.v2, m.v2, m.v2, torch.zeros_like(m.v2), None)[0]
    k, derivative, gap, error = expect(m.nngp, m.rows, m.columns, m.gap, m.opposition)
    if gap is None:
        gap = ((own1[:, None] + own2[None]) / 2 - k).clamp_min(0)
    if m.gram:
        k, gap = with_diagonal(k, own1), with_diagonal(gap, zero)
        derivative = with_diagonal(derivative, own_derivative)
    return m.replace(nngp=k, v1=own1, v2=own2, gap=gap, tangent=m.tangent * derivative, **after), error


def _step(node: Node, entry: Rule | Dual, law: Law, error: float, reads_input: bool) -> Step:
    layer: nn.Module | None = None
    variances: tuple[float | None, float | None] = (None, None)
    rates: tuple[float, ...] = ()
    if node.parameters:
        parameters = [ref.node.value for ref in node.refs if ref.node.kind == "parameter"]
        layer = node.target if node.kind == "module" else law.owner(parameters[0])
        if layer is not None and law.has(layer):
            w, b = law.variances(layer)
            has_bias = node.kind == "module" or len(parameters) > 1
            variances = (number(w), number(b) if has_bias else 0.0)
            rates = tuple(number(c) for c in law.rates_of(layer))
    place = f"{node.path} {node.operation}".strip() + (f" ({node.line})" if node.line and node.kind == "call" else "")
    name = entry.name if not error else f"{entry.name}, quadrature, error ≤ {error:.1g}"
    return Step(place, name, *variances, rates, error, entry.source, layer, reads_input)


def _without_rule(node: Node) -> str:
    return f"`{node.path or 'the model'}` is {node.operation}" if node.kind == "module" else node.place


REPLACEMENTS = {"nn.MaxPool1d": "nn.AvgPool1d", "nn.MaxPool2d": "nn.AvgPool2d", "nn.MaxPool3d": "nn.AvgPool3d"}


def _remedy(node: Node) -> str:
    operation = class_name(node.target) if node.kind == "module" else node.operation
    instead = f"Use {REPLACEMENTS[operation]}, register" if operation in REPLACEMENTS else "Register"
    return f"{instead} one with @rule, or use EmpiricalNTK"
