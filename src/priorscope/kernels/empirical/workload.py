"""What is to be computed, in integers, from what one run shows: the step from tapping to planning."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import torch
from torch import Tensor

from .factors import Form
from .tapping import Account, Lookup, Use

Way = Literal["grams", "jacobian"]


@dataclass(frozen=True)
class Share:
    """One parameter's part of the work at one point, in integers.

    name: of the parameter. entries: of the parameter. kind: "outer" (activations and signals), "lookup" (ids and
    signals), "own" (autograd gives its Jacobian). groups, positions, inputs, signals: g, R, p, q of all its uses.
    uses: how many there are. grams: whether they may be kept apart (all of one kind). bias, bias_entries: of the bias
    that has the same uses and no other, which is one more activation, 1, of each.
    """

    name: str
    entries: int
    kind: Literal["outer", "lookup", "own"]
    groups: int = 1
    positions: int = 1
    inputs: int = 0
    signals: int = 0
    uses: int = 1
    grams: bool = True
    why: str = ""
    bias: str | None = None
    bias_entries: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,) if self.bias is None else (self.name, self.bias)

    @property
    def size(self) -> int:
        return self.entries + self.bias_entries

    def ways(self, form: Form) -> tuple[Way, ...]:
        if self.kind == "own" or not self.grams or form == "features":
            return ("jacobian",)
        return ("grams", "jacobian")

    def kept(self, way: Way, outputs: int) -> int:
        """Numbers that one point's part consists of."""
        if way == "jacobian":
            return outputs * self.size
        rows = self.groups * self.positions
        ids = 2 * self.positions if self.kind == "lookup" else rows * self.inputs
        return ids + outputs * rows * self.signals

    def making(self, way: Way, outputs: int) -> int:
        """Flops to make it from activations and signals."""
        if way == "grams" or self.kind != "outer":
            return 0
        return 2 * outputs * self.groups * self.positions * self.inputs * self.signals

    def pair(self, way: Way, outputs: int, form: Form) -> int:
        """Flops of one pair of points."""
        squared = outputs**2 if form == "blocks" else outputs
        if way == "jacobian":
            return 2 * squared * self.size
        return 2 * self.groups * self.positions**2 * (self.inputs + squared * self.signals)


@dataclass(frozen=True)
class Workload:
    """What is to be computed, in integers.

    n1, n2: points. same: a Gram matrix, whose symmetry is used. outputs: o. shares: of every parameter that is
    differentiated. element: bytes of one number. accumulator: bytes of one number of the results and products.
    activations: bytes that one point's forward pass keeps for the backward pass. probes: numbers in all outputs of
    structured uses of one point. forward_flops, backward_flops: of one point (and one output). held: bytes that are
    in use all the time. positions: the most rows that one point gives to a matrix product.
    vectorized: whether all points of a tile run at once. layers: how many results there are.
    """

    form: Form
    n1: int
    n2: int
    same: bool
    outputs: int
    shares: tuple[Share, ...]
    element: int
    accumulator: int = 0
    activations: int = 0
    probes: int = 0
    forward_flops: int = 0
    backward_flops: int = 0
    held: int = 0
    positions: int = 1
    vectorized: bool = True
    layers: int = 1

    @property
    def one_sided(self) -> bool:
        return self.form in ("diagonal", "features")

    @property
    def number(self) -> int:
        return self.accumulator or self.element

    @property
    def result_bytes(self) -> int:
        entries = {
            "trace": self.n1 * self.n2 * self.layers,
            "per output": self.n1 * self.n2 * self.outputs,
            "blocks": self.n1 * self.n2 * self.outputs**2,
            "diagonal": self.n1,
            "features": self.n1 * self.outputs * sum(share.size for share in self.shares),
        }
        return entries[self.form] * self.number


def workload(
    seen: Account,
    values: Mapping[str, Tensor],
    form: Form,
    points: tuple[int, int],
    same: bool,
    layers: Mapping[str, str],
    vectorized: bool,
) -> Workload:
    """The work of one call.

    Args:
        values: of all parameters. points: n1, n2. same: a Gram matrix.
        layers: {parameter that is differentiated: its layer}. vectorized: whether all points of a tile run at once.
    """
    shares = _shares(seen, {name: values[name].numel() for name in layers}, layers)
    positions = [share.positions // share.uses for share in shares if share.kind == "outer"]
    element = max(torch.finfo(values[name].dtype).bits // 8 for name in layers)
    return Workload(
        form=form,
        n1=points[0],
        n2=points[1],
        same=same,
        outputs=seen.outputs,
        shares=shares,
        element=element,
        activations=seen.activations,
        probes=sum(prod(use.dy) for use in seen.uses),
        forward_flops=seen.forward_flops,
        backward_flops=seen.backward_flops,
        # The snapshot and, while two points are certified, autograd's gradient and the rebuilt one.
        held=3 * sum(value.numel() * value.element_size() for value in values.values()),
        positions=max(positions, default=1),
        vectorized=vectorized,
        layers=len(set(layers.values())),
    )


def _shares(seen: Account, entries: Mapping[str, int], layers: Mapping[str, str]) -> tuple[Share, ...]:
    """The work of all parameters; those that no output depends on have none."""
    shares: list[Share] = []
    riders: set[str] = set()
    for name in entries:
        used = [seen.uses[i] for i in seen.of(name)]
        if name in seen.left:
            shares.append(Share(name, entries[name], "own"))
        elif used:
            share = _structured(name, entries[name], used)
            bias = used[0].bias
            # A bias of just these uses is one more activation of each.
            if (
                bias is not None
                and bias in entries
                and all(use.rule.bias_is_one for use in used)
                and seen.biases(bias) == seen.of(name)
                and layers[bias] == layers[name]
            ):
                share = replace(share, bias=bias, bias_entries=entries[bias])
                riders.add(bias)
            shares.append(share)
        elif seen.biases(name):
            shares.append(Share(name, entries[name], "own", uses=len(seen.biases(name)), why="sums of signals"))
    if not shares:  # a kernel of zeros
        name = next(iter(entries))
        shares.append(Share(name, entries[name], "own", why="no output depends on any parameter"))
    return tuple(share for share in shares if share.name not in riders)


def _structured(name: str, entries: int, used: list[Use]) -> Share:
    shapes = [use.rule.shape(use.x, use.dy) for use in used]
    groups, _, inputs, signals = shapes[0]
    kinds = {
        (isinstance(use.rule, Lookup), use.rule.flipped, shape[0], *shape[2:])
        for use, shape in zip(used, shapes, strict=True)
    }
    return Share(
        name=name,
        entries=entries,
        kind="lookup" if isinstance(used[0].rule, Lookup) and len(kinds) == 1 else "outer",
        groups=groups,
        positions=sum(shape[1] for shape in shapes),
        inputs=inputs,
        signals=signals,
        uses=len(used),
        grams=len(kinds) == 1,
        why="" if len(kinds) == 1 else "uses of several kinds",
    )
