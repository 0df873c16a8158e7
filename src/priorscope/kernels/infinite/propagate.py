"""Sends moments through a watched graph, node by node, by the registered rules; knows no layer itself."""

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from ...errors import NoRuleError
from ...network.function import class_name
from ...network.initialization import number
from ...network.watching import Graph, Node, Ref
from .fused import entry as fused_entry
from .fusion import Fused, fuse
from .gains import through
from .joint import expected, joint
from .law import Law
from .lifetimes import last_uses
from .moments import Moments, Refused, with_own, with_variances
from .registry import Dual, Estimated, Expectations, Rule, find
from .scores import Scores
from .shape_calls import RESHAPES
from .shortcut import shortcut
from .start import Data

CASTS = frozenset((Tensor.to, Tensor.type_as))


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
    layer: Any
    reads_input: bool


class Passed(NamedTuple):
    """end: the moments of the graph's output. steps: what was done on the way. alive: the most numbers that were kept
    at once. largest: the numbers of the largest node."""

    end: Moments
    steps: list[Step]
    alive: int
    largest: int


def propagate(graph: Graph, law: Law, start: list[Data]) -> Passed:
    """The moments of the graph's output, and what was done on the way; `start`: the model's inputs, in their order.

    Moments are of all pairs of positions as far as a node downstream needs them, and per position elsewhere; they are
    dropped once no node asks for them any more.

    Raises:
        NoRuleError: at the first node without an exact rule, by its place.
    """
    _refuse_reuse(graph)
    values: dict[int, Any] = {}
    steps: list[Step] = []
    in_front = before_pairs(graph)
    inputs = [node.index for node in graph.nodes if node.kind == "input"]
    output = graph.output
    outputs = {ref.node.index for ref in tree_flatten(output)[0] if isinstance(ref, Ref)}
    fused, inside = fuse(graph)
    last, alive, largest = last_uses(graph), 0, 0
    for node in graph.needed():
        if node.index in inside:
            continue
        if node.kind == "input":
            values[node.index] = dataclasses.replace(start[inputs.index(node.index)], pairs=node.index in in_front)
        elif not node.data:
            values[node.index] = node
        else:
            pairs = node.index in in_front
            value = _apply(node, law, values, steps, fused.get(node.index), pairs)
            values[node.index] = value if pairs else _per_position(value)
            sizes = {index: _numbers(kept) for index, kept in values.items()}
            alive, largest = max(alive, sum(sizes.values())), max(largest, sizes[node.index])
            done = [index for index in sizes if sizes[index] and last[index] <= node.index and index not in outputs]
            for index in done:
                del values[index]
    if not isinstance(output, Ref):
        cause = f"is a {type(output).__name__}, of which no part was chosen"
        raise NoRuleError("the output of the model", cause, "Choose one: readout=lambda out: out[0]")
    try:
        result = _value(output, values)
    except Refused as refused:
        raise NoRuleError("the output of the model", refused.cause, refused.remedy) from None
    if not isinstance(result, Moments) or result.is_input:
        cause = "gives no tensor that random layers make from the input"
        raise NoRuleError(
            "the output of the model", cause, "Return one tensor made by linear layers, or use EmpiricalNTK"
        )
    if result.v1.ndim > 1:
        cause = f"has {len(result.shape) + 1} axes, points of shape {result.shape}"
        raise NoRuleError("the output of the model", cause, "Flatten or pool them inside the model, to (n, outputs)")
    if not bool(torch.isfinite(result.v1).all() & torch.isfinite(result.v2).all()):
        cause = f"has moments too large for {result.v1.dtype}"
        raise NoRuleError("the output of the model", cause, "Make the inputs or the variances smaller, or use float64")
    return Passed(result, steps, alive, largest)


def _numbers(value: Any) -> int:
    """How many numbers a value between pairs keeps."""
    parts = [part for part in tree_flatten(value)[0] if isinstance(part, Moments)]
    own = sum(_numbers(side) for part in parts for side in part.own or ())
    return own + sum((3 + (part.deviation is not None)) * part.nngp.numel() for part in parts)


def before_pairs(graph: Graph) -> set[int]:
    """The nodes that a node depends on which needs all pairs of positions."""
    found: set[int] = set()
    for node in reversed(list(graph.needed())):
        entry = find(node.target) if node.kind in ("module", "call") else None
        if node.index in found or (isinstance(entry, Rule) and entry.pairs):
            found |= {ref.node.index for ref in node.refs}
    return found


def _value(ref: Ref, values: dict[int, Any]) -> Any:
    """What a reference stands for: a node's value, or one of several."""
    value = values[ref.node.index]
    for part in ref.part:
        if not isinstance(value, (tuple, dict)) or not isinstance(part, int):
            raise Refused("uses a part of another node's output", "Use EmpiricalNTK")
        value = value[part]
    if value is None:
        raise Refused("is given weights of attention, which stay random in the limit", "Use its first output alone")
    return value


def _per_position(value: Any) -> Any:
    """Moments of pairs of positions, of which only equal ones are needed from here on."""
    if isinstance(value, Data):
        return dataclasses.replace(value, pairs=False)
    if isinstance(value, tuple):
        return tuple(map(_per_position, value))
    if not isinstance(value, Moments) or not value.pairs:
        return value

    def diagonal(x: Any) -> Any:
        return None if x is None else x.diagonal(dim1=-2, dim2=-1)

    changed = {name: diagonal(getattr(value, name)) for name in ("nngp", "gap", "tangent", "deviation")}
    return value.replace(**changed, pairs=False, own=None)


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


def _apply(node: Node, law: Law, values: dict[int, Any], steps: list[Step], fused: Fused | None, pairs: bool) -> Any:
    entry = find(node.target)
    pairs = pairs or (isinstance(entry, Rule) and entry.pairs)

    def given(leaf: Any) -> Any:
        # An operand that others need all pairs of may meet one that none does: both come per position.
        value = _value(leaf, values) if isinstance(leaf, Ref) else leaf
        return value if pairs else _per_position(value)

    try:
        if fused is not None:
            return _fused(node, fused, law, given(Ref(fused.root)), steps)
        args, kwargs = tree_map(given, (node.args, node.kwargs))
        if node.target in CASTS and args and isinstance(args[0], Node):
            return args[0]  # a constant, of the dtype and device of the data
        inputs = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, (Data, Moments))]
        if not node.parameters and inputs and all(isinstance(value, Data) for value in inputs):
            return of_data(node, args, kwargs)
        if entry is None:
            raise Refused("no infinite-width rule", _remedy(node))
        if node.kind == "module" and kwargs:
            bound = inspect.signature(node.target.forward).bind(*args, **kwargs)
            args, kwargs = bound.args, bound.kwargs
        result, error = _ruled(entry, node, law, args, kwargs)
    except Refused as refused:
        several = joint(node, values)
        if several is None:
            place = _without_rule(node) if entry is None else node.place
            raise NoRuleError(place, refused.cause, refused.remedy) from None
        return _joint(node, several, law, [given(Ref(root)) for root in several.roots], steps)
    if not isinstance(result, (Moments, Data, Scores, tuple)):
        raise NoRuleError(node.place, f"its rule gave a {type(result).__name__}", "Return Moments from the rule")
    steps.append(step(node, entry, law, error, any(_is_input(value) for value in inputs)))
    return result


def _fused(node: Node, fused: Fused, law: Law, value: Any, steps: list[Step]) -> Any:
    """A scalar function of the data, or of a value that random layers make."""
    if isinstance(value, Data):
        return value.map(fused)
    if not isinstance(value, Moments):
        raise Refused("is not applied to a value that depends on the input", "Use EmpiricalNTK")
    entry = fused_entry(fused)
    result, error = _ruled(entry, node, law, (value,), {})
    steps.append(step(node, entry, law, error, _is_input(value)))
    return result


def _joint(node: Node, function: Fused, law: Law, roots: list[Moments], steps: list[Step]) -> Moments:
    """A function of several Gaussian values, where no rule for their combination holds."""
    number_of = f"function of {len(roots)} Gaussian values"
    errors: list[float] = []

    def expectation(call: Any, *moments: Moments, init: Law) -> Moments:
        result, error = expected(function, list(moments), init.is_standard)
        errors.append(error)
        return result

    try:
        source = "Sobol sequences; Owen 1998" if shortcut(function) is None else "Plackett 1954; Tallis 1961"
        entry = Rule(expectation, number_of, source)
        result, _ = _ruled(entry, node, law, tuple(roots), {})
    except Refused as refused:
        raise NoRuleError(node.place, refused.cause, refused.remedy) from None
    steps.append(step(node, entry, law, max(errors), False))
    return result


def _is_input(value: Any) -> bool:
    return isinstance(value, Data) or (isinstance(value, Moments) and value.is_input)


def _ruled(entry: Rule | Dual, node: Node, law: Law, args: Any, kwargs: Any) -> tuple[Any, float]:
    """The rule applied between the points and, where pairs of positions are kept, to each set of points with itself."""
    result, error = _once(entry, node, law, args, kwargs)
    if not isinstance(result, (Moments, tuple)):
        return result, error
    owners = [v for v in tree_flatten((args, kwargs))[0] if isinstance(v, (Data, Moments))]
    if not any((isinstance(v, Data) and v.pairs and v.x2 is not None) or getattr(v, "own", None) for v in owners):
        return result, error

    def side(i: int) -> Any:
        def own(value: Any) -> Any:
            if isinstance(value, Data):
                return value.own(i)
            return value.own[i] if isinstance(value, Moments) and value.own is not None else value

        return _once(entry, node, law, *tree_map(own, (args, kwargs)))[0]

    return _with_sides(result, side(0), side(1)), error


def _with_sides(result: Any, first: Any, second: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(_with_sides(*parts) for parts in zip(result, first, second, strict=True))
    if not isinstance(result, Moments):
        return result
    result = result.replace(v1=first.v1, v2=second.v1, own=(first, second) if result.pairs else None)
    nothing = torch.zeros_like(result.v1)
    return with_own(
        result.replace(
            nngp=with_variances(result.nngp, result.v1, result), gap=with_variances(result.gap, nothing, result)
        )
    )


def _once(entry: Rule | Dual, node: Node, law: Law, args: Any, kwargs: Any) -> tuple[Any, float]:
    if isinstance(entry, Rule):
        result = entry.function(node.target if node.kind == "module" else node, *args, init=law, **kwargs)
        return result if isinstance(result, Estimated) else (result, 0.0)
    function = node.target if entry.scalar is None else entry.scalar
    return _pointwise(entry, function, *_bind(entry, node, args, kwargs), law.is_standard)


def of_data(node: Node, args: Any, kwargs: Any) -> Any:
    """What the module does to the data before any random layer, done to them."""
    data = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Data)]
    points = next(ref.node.shape for ref in node.refs if ref.node.data)
    if node.target in RESHAPES and len(data) == 1 and isinstance(points, tuple) and node.shape[:1] == points[:1]:
        return data[0].map(lambda x: x.reshape(len(x), *node.shape[1:]))

    def run(*x: Tensor) -> Any:
        waiting = list(x)

        def given(value: Any) -> Any:
            if isinstance(value, Data):
                return waiting.pop(0).clone()
            return _constant(value, x[0]) if isinstance(value, Node) else value

        positional, keyword = tree_map(given, (args, kwargs))
        try:
            return node.target(*positional, **keyword)
        except Exception as error:
            cause = f"cannot be repeated for other points ({type(error).__name__}: {error})"
            raise Refused(cause, "Apply it to the data before the model, or use EmpiricalNTK") from error

    return data[0].map(run, *data[1:])


def _constant(node: Node, like: Tensor) -> Tensor:
    value = node.evaluated()
    return value.to(like) if value.is_floating_point() and like.is_floating_point() else value.to(like.device)


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
    if args and isinstance(args[0], Data):
        args = (args[0].moments(len(args[0].shape) - 1), *args[1:])
    if not args or not isinstance(args[0], Moments):
        raise Refused("is not applied to a value that depends on the input", "Use EmpiricalNTK")
    if any(isinstance(value, (Node, Moments)) for value in settings.values()):
        raise Refused("has a setting that is a tensor", "Give it a number, or use EmpiricalNTK")
    return args[0], settings


def _pointwise(
    entry: Dual, function: Any, m: Moments, settings: dict[str, Any], standard: bool
) -> tuple[Moments, float]:
    """Moments of φ(h), φ a pointwise function: the same expectations between points and of each point with itself."""
    if not m.gaussian:
        what = "the input itself" if m.is_input else "values that are not Gaussian"
        raise Refused(
            f"applies a pointwise function to {what}, where no closed rule holds",
            "Put a linear layer in front of it" + (", or apply it to the data" if m.is_input else ""),
        )

    def expect(k: Any, v1: Any, v2: Any, gap: Any, deviation: Any) -> tuple[Any, Any, Any, float, Any]:
        extra = {name: value for name, value in (("gap", gap), ("deviation", deviation)) if name in entry.wants}
        answer = entry.function(k, v1, v2, **extra, **settings)
        full = Expectations(*answer)
        return full.nngp, full.derivative, full.gap, full.error, full.deviation

    after: dict[str, Any] = {"deviation": None, "gaussian": False, "mean_zero": entry.odd and m.mean_zero}
    zero = torch.zeros_like(m.v1)
    own1, own_derivative, _, error, _ = expect(m.v1, m.v1, m.v1, zero, None)
    if not m.between and not m.pairs:
        end = m.replace(nngp=own1, v1=own1, v2=own1, gap=zero, tangent=m.tangent * own_derivative, **after)
        return through(m, end, own_derivative, function, settings, standard), error
    own2 = expect(m.v2, m.v2, m.v2, torch.zeros_like(m.v2), None)[0] if m.between else own1
    k, derivative, gap, error, deviation = expect(m.nngp, m.rows, m.columns, m.gap, m.deviation)
    if deviation is not None:
        after["deviation"] = with_variances(deviation, zero, m)
    end = m.replace(v1=own1, v2=own2, **after)
    if gap is None:
        gap = ((end.rows + end.columns) / 2 - k).clamp_min(0)
    derivative = with_variances(derivative, own_derivative, m)
    k, gap = with_variances(k, own1, m), with_variances(gap, zero, m)
    end = end.replace(nngp=k, gap=gap, tangent=m.tangent * derivative)
    return through(m, end, derivative, function, settings, standard), error


def step(node: Node, entry: Rule | Dual, law: Law, error: float, reads_input: bool) -> Step:
    layer: Any = None
    variances: tuple[float | None, float | None] = (None, None)
    rates: tuple[float, ...] = ()
    if node.parameters:
        parameters = [ref.node.value for ref in node.refs if ref.node.kind == "parameter"]
        if node.kind == "module":
            layer = law.layer_in(node.target)
        elif parameters:
            layer = law.owner(parameters[0])
        if layer is not None:
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
    if operation.endswith("_"):
        return "It changes a tensor in place: make a new one (torch.where, F.pad), or use EmpiricalNTK"
    instead = f"Use {REPLACEMENTS[operation]}, register" if operation in REPLACEMENTS else "Register"
    return f"{instead} one with @rule, or use EmpiricalNTK"
