"""Which networks the fast path covers, and what it does for them: a watched graph as a list of instructions.

Anything that is not listed here, and anything that the rules would refuse, makes `compiled` give its reason instead;
the rules then do the work, or raise.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ....network.initialization import number
from ....network.watching import Graph, Node, Ref
from ..duals.piecewise import absolute_value, leaky_relu, relu
from ..law import Law
from ..propagate import Step, before_pairs, of_data, step
from ..registry import Dual, Rule, find
from ..rules.arithmetic import sum_of_branches
from ..rules.convolution import convolution, offsets
from ..rules.identity import dropout, identity
from ..rules.linear import linear
from ..rules.normalization import batch_norm
from ..rules.pooling import mean, pooling, pooling_function
from ..rules.shapes import flatten, reshape
from ..start import Data
from .bend import Pieces

MOST_CHANNELS = 64
"""Of an input with positions: its moments come from a plain loop over channels."""


ON_A_LINE = "points that are nearly opposite, or nearly parallel with different lengths, and no bias"
"""What the loops' gap has too few digits for."""


class Uncovered(Exception):  # noqa: N818 (the reason, in words for `explain`)
    """Why the fast path steps aside."""


class Taps(NamedTuple):
    """Patches that keep the positions: (first offset, distance, number) of what is summed, by axis."""

    rows: tuple[int, int, int]
    columns: tuple[int, int, int]
    circular: bool


@dataclass(frozen=True, eq=False)
class Patches:
    """A convolution's geometry: `index` as `rules.convolution.offsets` gives it; `rows`, `across` (of the output's rows
    and columns), `padded` (the columns with what surrounds them) by axis; steps: (kernel, stride, dilation, left pad,
    output width) along a row; width: columns of what it reads; taps: where the positions stay."""

    index: Any
    rows: Any
    across: Any
    padded: Any
    steps: tuple[int, int, int, int, int]
    width: int
    taps: Taps | None


@dataclass(eq=False)
class Instruction:
    """kind: "start", "dense", "sums" (both with φ after it, where `pieces` is there), "bend", "pool", "flat",
    "same positions" or "add". law: σ_w², σ_b², c_w·fan_in, c_b. grid: rows and columns of the output's positions.
    windows: of pooling, the positions in each; windows_of_rows, windows_of_columns: where each position is in one at
    most, the number of the window that a row, and a column, is in (−1: none)."""

    kind: str
    inputs: tuple[int, ...]
    output: int
    law: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    pieces: Pieces | None = None
    patches: Patches | None = None
    grid: tuple[int, int] = (1, 1)
    windows: Any | None = None
    windows_of_rows: Any | None = None
    windows_of_columns: Any | None = None
    scale: float = 1.0
    pairs: bool = False

    @property
    def positions(self) -> int:
        return prod(self.grid)


@dataclass(frozen=True, eq=False)
class Program:
    """data: what enters the first random layer (points, channels, P), or (points, features) without positions."""

    data: Data
    instructions: list[Instruction]
    steps: list[Step]
    has_positions: bool

    @property
    def begins_without_bias(self) -> bool:
        """Whether layers that read the data keep the angles between them."""
        start = self.instructions[0].output
        return any(start in one.inputs and one.law[1] == 0 for one in self.instructions[1:])


@dataclass(frozen=True)
class Value:
    """What is known of a node's output beside its moments; as in Moments."""

    register: int
    shape: tuple[int, ...]
    pairs: bool
    gaussian: bool
    mean_zero: bool
    layers: frozenset[str] = field(default_factory=frozenset)
    channel: int = 0

    @property
    def positions(self) -> tuple[int, ...]:
        return self.shape[: self.channel] + self.shape[self.channel + 1 :]


def compiled(graph: Graph, law: Law, start: Data) -> Program:
    """The program of a graph on these data.

    Raises:
        Uncovered: with the reason.
    """
    return _Compiler(graph, law, start).program()


class _Compiler:
    def __init__(self, graph: Graph, law: Law, start: Data):
        self.graph, self.law, self.start = graph, law, start
        self.values: dict[int, Any] = {}
        self.instructions: list[Instruction] = []
        self.steps: list[Step] = []
        self.data: Data | None = None
        self.has_positions = False
        self.readers = Counter(ref.node.index for node in graph.needed() for ref in node.refs)
        self.registers = 0

    def program(self) -> Program:
        in_front = before_pairs(self.graph)
        seen: set[str] = set()
        for node in self.graph.needed():
            if node.kind == "input":
                self.values[node.index] = Data(self.start.x1, self.start.x2, self.start.gram, node.index in in_front)
                continue
            if not node.data:
                self.values[node.index] = node
                continue
            if seen & node.parameters:
                raise Uncovered("weights are used more than once")
            seen |= node.parameters
            value = self.node(node)
            if node.index not in in_front:
                if isinstance(value, Data):
                    value = Data(value.x1, value.x2, value.gram, False)
                elif value.pairs:
                    value = self.add("same positions", value, pairs=False)
            self.values[node.index] = value
        output = self.graph.output
        end = self.values.get(output.node.index) if isinstance(output, Ref) and not output.part else None
        if not isinstance(end, Value) or self.data is None or end.positions:
            raise Uncovered("the output is not one vector of random layers")
        if self.instructions[-1].output != end.register:
            raise Uncovered("the output is not what was made last")
        return Program(self.data, self.instructions, self.steps, self.has_positions)

    def node(self, node: Node) -> Any:
        entry = find(node.target)
        if any(ref.part for ref in node.refs):
            raise Uncovered(f"{node.place} uses a part of another node's output")
        args, kwargs = tree_map(
            lambda leaf: self.values[leaf.node.index] if isinstance(leaf, Ref) else leaf, (node.args, node.kwargs)
        )
        inputs = [self.values[ref.node.index] for ref in node.refs if ref.node.data]
        if len(inputs) == 1 and isinstance(inputs[0], Data) and not node.parameters:
            return of_data(node, args, kwargs)
        value = self.ruled(node, entry, args, kwargs)
        if value is None:
            raise Uncovered(f"{node.place} is not among its operations")
        self.steps.append(step(node, entry, self.law, 0.0, any(isinstance(v, Data) for v in inputs)))  # type: ignore[arg-type]
        return value

    def ruled(self, node: Node, entry: Rule | Dual | None, args: Any, kwargs: Any) -> Value | None:
        function = None if entry is None else entry.function
        if isinstance(entry, Dual) and function in (relu, leaky_relu, absolute_value):
            return self.bend(node, entry, args, kwargs)
        if function is sum_of_branches and len(args) == 2 and not kwargs:
            return self.sum(*args)
        if not args or (kwargs and function is not mean):
            return None
        if function is convolution:
            return self.convolution(node, args[0])
        if function is linear:
            return self.linear(node, args[0])
        value = args[0]
        if not isinstance(value, Value):
            return None
        if function is identity or (function is dropout and not (node.target.training and node.target.p > 0)):
            return value
        if function in (flatten, reshape) and len(node.shape) == 2 and node.shape[0] == node.refs[0].node.shape[0]:
            return self.flat(node, value)
        if function is batch_norm:
            return self.norm(node, value)
        if function is pooling:
            return self.pooled(value, node.target)
        if function is pooling_function:
            return self.pooled(value, lambda x: node.target(x, *args[1:]))
        if function is mean:
            return self.mean(node, value, *args[1:], **kwargs)
        return None

    def add(self, kind: str, *values: Value, **what: Any) -> Value:
        """Appends an instruction; the value after it is like the first one."""
        first = values[0]
        self.registers += 1
        pairs = what.get("pairs", first.pairs)
        what = {"grid": _grid(first.positions), **what, "pairs": pairs}
        self.instructions.append(Instruction(kind, tuple(v.register for v in values), self.registers, **what))
        return replace(first, register=self.registers, pairs=pairs)

    def begin(self, data: Data, channel: int) -> Value:
        """The data's own moments."""
        if self.data is not None:
            raise Uncovered("two random layers read the data")
        x1, x2 = (_rows(x, channel) for x in (data.x1, data.x1 if data.x2 is None else data.x2))
        self.has_positions = x1.ndim == 3
        if self.has_positions and x1.shape[1] > MOST_CHANNELS:
            raise Uncovered(f"the data have more than {MOST_CHANNELS} channels")
        self.data = Data(x1, x2, data.gram, data.pairs)
        pairs = data.pairs and self.has_positions
        self.registers += 1
        positions = data.shape[:channel] + data.shape[channel + 1 :]
        self.instructions.append(Instruction("start", (), self.registers, grid=_grid(positions), pairs=pairs))
        return Value(self.registers, data.shape, pairs, False, False, channel=channel)

    def random(self, node: Node, value: Any, channel: int) -> tuple[Value, tuple[float, float, float, float]]:
        layer = node.target
        start = self.begin(value, channel) if isinstance(value, Data) else value
        if not isinstance(start, Value):
            raise Uncovered(f"{node.place} reads something else than moments")
        w, b = map(number, self.law.variances(layer))
        cw, cb = map(number, self.law.rates_of(layer))
        return start, (w, b, cw * prod(layer.weight.shape[1:]), cb)

    def gaussian(self, value: Value, node: Node, shape: tuple[int, ...], channel: int, alone: bool = False) -> Value:
        """alone: of one channel each, Gaussian times Gaussian."""
        name = frozenset([self.law.name(node.target)])
        return Value(value.register, shape, value.pairs, not alone, True, name, channel)

    def linear(self, node: Node, value: Any) -> Value:
        shape = value.shape if isinstance(value, (Data, Value)) else ()
        last = len(shape) - 1
        if last < 0 or (isinstance(value, Value) and value.channel != last):
            raise Uncovered(f"{node.place} does not sum over the coordinates")
        start, law = self.random(node, value, last)
        made = self.add("dense", start, law=law)
        return self.gaussian(made, node, (*shape[:-1], node.target.out_features), last)

    def convolution(self, node: Node, value: Any) -> Value:
        layer = node.target
        axes = len(layer.kernel_size)
        if axes > 2 or len(getattr(value, "shape", ())) != axes + 1 or getattr(value, "channel", 0) != 0:
            raise Uncovered(f"{node.place} has more than two axes of positions, or other channels than the first axis")
        if layer.groups > 1 and isinstance(value, Data):
            raise Uncovered(f"{node.place} reads the input in groups of channels")
        before = tuple(value.shape[1:])
        patches, after = _patches(layer, before)
        start, law = self.random(node, value, 0)
        made = self.add("sums", start, law=law, patches=patches, grid=_grid(after))
        alone = layer.groups > 1 and layer.weight.shape[1] == 1
        return self.gaussian(made, node, (layer.out_channels, *after), 0, alone)

    def norm(self, node: Node, value: Value) -> Value:
        """BatchNorm with its first statistics: a scaling."""
        layer = node.target
        gain, bias = layer.weight, layer.bias
        if layer.training or layer.running_mean is None or value.channel != 0:
            raise Uncovered(f"{node.place} depends on the batch, or normalises another axis than the coordinates'")
        mean, variance = layer.running_mean, layer.running_var
        constant = [variance] if gain is None else [variance, gain]
        if bool((mean != 0).any()) or any(bool((v != v[0]).any()) for v in constant):
            raise Uncovered(f"{node.place} has statistics or gains that were trained")
        factor, cb = float((variance[0] + layer.eps).rsqrt()) ** 2, 0.0
        if gain is not None:
            if bool((bias != 0).any()) or number(self.law.rate(gain)) != 0:
                raise Uncovered(f"{node.place} has gains that learn, or biases that were trained")
            factor, cb = factor * float(gain.detach()[0]) ** 2, number(self.law.rate(bias))
        return self.add("dense", value, law=(factor, 0.0, 0.0, cb))

    def bend(self, node: Node, entry: Dual, args: Any, kwargs: Any) -> Value:
        value = args[0] if args else kwargs.get("input")
        if not isinstance(value, Value) or not value.gaussian:
            raise Uncovered(f"{node.place} is not applied to Gaussian values")
        slope = node.target.negative_slope if hasattr(node.target, "negative_slope") else 0.01
        if node.kind == "call":
            slope = kwargs.get("negative_slope", args[1] if len(args) > 1 else 0.01)
            if len(args) > 2 or set(kwargs) - {"input", "negative_slope", "inplace"}:
                raise Uncovered(f"{node.place} has settings that are not among its operations")
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise Uncovered(f"{node.place} has a slope that is no number")
        left, right, at_zero = {
            relu: (0.0, 1.0, 0.0),
            leaky_relu: (slope, 1.0, slope),
            absolute_value: (-1.0, 1.0, 0.0),
        }[entry.function]
        pieces = Pieces(left * right, (right - left) ** 2, left == -right, (left + right) / 2, at_zero)
        if pieces.even and entry.function is not absolute_value:
            raise Uncovered(f"{node.place} has a slope of -1")
        last, source = self.instructions[-1], node.refs[0].node.index
        alone = self.readers[source] == 1 and last.output == value.register
        if alone and last.pieces is None and last.kind in ("dense", "sums"):
            last.pieces = pieces
            return replace(value, gaussian=False, mean_zero=False)
        return replace(self.add("bend", value, pieces=pieces), gaussian=False, mean_zero=False)

    def sum(self, a: Any, b: Any) -> Value:
        if not isinstance(a, Value) or not isinstance(b, Value) or a.layers & b.layers:
            raise Uncovered("a sum is not one of two branches of different random layers")
        if (
            (a.shape, a.channel) != (b.shape, b.channel)
            or not (a.mean_zero or b.mean_zero)
            or a.pairs != b.pairs
            or not (a.layers and b.layers)
        ):
            raise Uncovered("a sum is not one of equal shapes, or neither branch has mean zero")
        gaussian, mean_zero = a.gaussian and b.gaussian, a.mean_zero and b.mean_zero
        return replace(self.add("add", a, b), gaussian=gaussian, mean_zero=mean_zero, layers=a.layers | b.layers)

    def flat(self, node: Node, value: Value) -> Value:
        if prod(node.shape[1:]) != prod(value.shape) or value.pairs:
            raise Uncovered(f"{node.place} is no flattening of each point")
        if not value.positions:
            return value
        one = prod(value.positions) == 1
        rows, columns = _grid(value.positions)
        all_in_one = {"windows_of_rows": np.zeros(rows, int), "windows_of_columns": np.zeros(columns, int)}
        made = self.add("flat", value, grid=(1, 1), scale=1 / (rows * columns), **all_in_one)
        return replace(made, shape=(prod(value.shape),), gaussian=one and value.gaussian, channel=0)

    def pooled(self, value: Value, function: Any) -> Value:
        if not value.pairs or value.channel != 0:
            raise Uncovered("pooling without pairs of positions, or of another axis than behind the channels")
        size = prod(value.positions)
        out = function(torch.eye(size, dtype=torch.float64).reshape(size, 1, *value.positions))
        return self.windowed(value, out.reshape(size, -1).T, tuple(out.shape[2:]))

    def windowed(self, value: Value, matrix: Tensor, positions: tuple[int, ...]) -> Value:
        chosen, scale = matrix != 0, float(matrix.max())
        counts = chosen.sum(1)
        if bool((counts != counts[0]).any()) or bool((matrix[chosen] != scale).any()):
            raise Uncovered("pooling whose windows have unequal weights")
        windows = chosen.nonzero()[:, 1].reshape(len(matrix), -1).numpy()
        by_axis = _by_axis(chosen, _grid(value.positions), _grid(positions))
        made = self.add("pool", value, windows=windows, scale=scale, grid=_grid(positions), **by_axis)
        channel, size = value.channel, value.shape[value.channel]
        return replace(made, shape=(*positions[:channel], size, *positions[channel:]))

    def mean(self, node: Node, value: Value, dim: Any = None, keepdim: bool = False, **other: Any) -> Value:
        d = len(value.shape)
        axes = sorted(axis % (d + 1) for axis in ([dim] if isinstance(dim, int) else list(dim or [])))
        if not value.pairs or other or d < 2 or axes != [i + 1 for i in range(d) if i != value.channel]:
            raise Uncovered(f"{node.place} is no mean over all positions")
        size = prod(value.positions)
        one = (1,) * len(value.positions)
        made = self.windowed(value, torch.full((1, size), 1 / size, dtype=torch.float64), one)
        if keepdim:
            return made
        return replace(made, shape=(value.shape[value.channel],), channel=0)


def _rows(x: Tensor, channel: int) -> Tensor:
    """(n, features), or (n, channels, P)."""
    return x if x.ndim == 2 else x.movedim(channel + 1, 1).flatten(2).contiguous()


def _grid(positions: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns; one row of what has one axis only."""
    return (prod(positions[:-1]), positions[-1]) if positions else (1, 1)


def _by_axis(chosen: Tensor, before: tuple[int, int], after: tuple[int, int]) -> dict[str, Any]:
    """The windows of rows and of columns, where windows do not overlap and are made of both."""
    if bool((chosen.sum(0) > 1).any()):
        return {}
    found = torch.where(chosen.any(0), chosen.int().argmax(0), -1).reshape(before)
    rows = torch.where(found.amax(1) < 0, -1, found.amax(1) // after[1])
    columns = torch.where(found.amax(0) < 0, -1, found.amax(0) % after[1])
    both = torch.where((rows[:, None] < 0) | (columns < 0), -1, rows[:, None] * after[1] + columns)
    if not torch.equal(both, found):
        return {}
    return {"windows_of_rows": rows.numpy(), "windows_of_columns": columns.numpy()}


def _patches(layer: Any, positions: tuple[int, ...]) -> tuple[Patches, tuple[int, ...]]:
    pads = tuple(layer._reversed_padding_repeated_twice)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    if mode not in ("constant", "circular") or min(pads) < 0:
        raise Uncovered(f"padding mode {layer.padding_mode!r}")
    kernel, stride, dilation = (tuple(v) for v in (layer.kernel_size, layer.stride, layer.dilation))
    index, after = offsets(positions, kernel, stride, dilation, pads, mode)
    across, _ = offsets(positions[-1:], kernel[-1:], stride[-1:], dilation[-1:], pads[:2], mode)
    padded, _ = offsets(positions[-1:], (1,), (1,), (1,), pads[:2], mode)
    rows = torch.zeros(1, 1, dtype=torch.long)
    if len(positions) == 2:
        rows, _ = offsets(positions[:1], kernel[:1], stride[:1], dilation[:1], pads[2:], mode)
    steps = (kernel[-1], stride[-1], dilation[-1], pads[0], after[-1])
    maps = index.numpy(), rows.numpy(), across.numpy(), padded[0].numpy()
    taps = None
    if after == positions and set(stride) == {1}:
        axes = [(-pad, apart, count) for pad, apart, count in zip(reversed(pads[::2]), dilation, kernel, strict=True)]
        taps = Taps(axes[0] if len(axes) == 2 else (0, 1, 1), axes[-1], mode == "circular")
    return Patches(*maps, steps, positions[-1], taps), after
