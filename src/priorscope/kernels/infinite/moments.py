"""What flows through an infinitely wide network: the second moments of one layer's coordinates between all pairs."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .deviation import after_affine, after_sum, root


class Refused(Exception):  # noqa: N818 (a rule's no, which propagate turns into an error with its place)
    """A rule's answer where no exact rule exists: cause and remedy; the place is filled in where it is called."""

    def __init__(self, cause: str, remedy: str):
        super().__init__(cause, remedy)
        self.cause, self.remedy = cause, remedy


@dataclass(frozen=True, eq=False)
class Moments:
    """The state of one node, for points x1 (n1) and x2 (n2); or for x against itself, point by point (n).

    A point's value has one axis of coordinates, over which moments are means, and P positions (none, for a vector).

    nngp: (n1, n2) mean over coordinates of h(x1) h(x2); with positions (n1, n2, P), the same position at both points,
        or (n1, n2, P, P), all pairs of positions ("pairs"). Of points with themselves (n,), (n, P) or (n, P, P).
    v1, v2: (n1,), (n2,) variances; (n1, P), (n2, P) with positions.
    gap: like nngp, (v1 + v2)/2 − nngp, carried from layer to layer: the difference itself has lost its digits at
        nearly equal points.
    tangent: like nngp, the NTK so far.
    deviation: like nngp, √(v1 v2) − |nngp|, carried where some pairs are nearly opposite, or nearly parallel with
        different lengths; else None.
    shape: of one point's value. channel: which of its axes has the coordinates; the others are the positions.
    between: of two sets of points, or of each point with itself. pairs: of all pairs of positions.
    own: with pairs, and between two sets: the moments of the points of each set with themselves.
    gains: c, where gains of single coordinates made c·nngp of the tangent; NaN where that is no multiple any more.
    gram: rows are the first columns, so that the leading diagonal holds points against themselves.
    same: the other pairs of points that coincide, as indices of rows and of columns.
    layers: names of the weights whose randomness makes the coordinates; none for the input itself.
    reads: names of weights that each coordinate depends on beside those: what a depthwise layer reads.
    alike: any part of the coordinates has these moments; not so where unlike ones were put side by side.
    gaussian: the coordinates are independent Gaussians (a linear layer's outputs, and sums of these).
    mean_zero: the coordinates have mean zero.
    """

    nngp: Float[Tensor, "*pairs"]
    v1: Float[Tensor, "n1 *positions"]
    v2: Float[Tensor, "n2 *positions"]
    gap: Float[Tensor, "*pairs"]
    tangent: Float[Tensor, "*pairs"]
    shape: tuple[int, ...]
    deviation: Float[Tensor, "*pairs"] | None = None
    gram: bool = False
    same: tuple[Tensor, Tensor] | None = None
    layers: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()
    alike: bool = True
    gaussian: bool = False
    mean_zero: bool = False
    channel: int = 0
    between: bool = True
    pairs: bool = False
    own: "tuple[Moments, Moments] | None" = None
    gains: Any = 0.0

    @property
    def positions(self) -> tuple[int, ...]:
        """The axes of one point's value that are not the coordinates."""
        return self.shape[: self.channel] + self.shape[self.channel + 1 :]

    def moved(self, positions: tuple[int, ...], coordinates: int | None = None) -> dict[str, Any]:
        """`shape` for other positions, or another number of coordinates, with the channel where it is."""
        size = self.shape[self.channel] if coordinates is None else coordinates
        return {"shape": (*positions[: self.channel], size, *positions[self.channel :])}

    @property
    def depends_on(self) -> frozenset[str]:
        """All weights that each coordinate depends on by itself."""
        return self.layers | self.reads

    @property
    def is_input(self) -> bool:
        """Whether no randomness has come in yet: the data themselves, at most scaled."""
        return not self.layers

    @property
    def rows(self) -> Tensor:
        """v1, to broadcast against nngp."""
        return self.along_rows(self.v1)

    @property
    def columns(self) -> Tensor:
        """v2, to broadcast against nngp."""
        return self.along_columns(self.v2)

    @property
    def less(self) -> Tensor:
        """1 − correlation in float64, from the gap, which has its digits where the correlation has lost them; 1 where a
        variance is 0."""
        r1, r2 = root(self.rows.double()), root(self.columns.double())
        size = r1 * r2
        short = self.gap.double() - (r1 - r2).square() / 2
        return torch.where(size > 0, short / torch.where(size > 0, size, 1.0), 1.0).clamp(0, 2)

    def along_rows(self, values: Tensor) -> Tensor:
        """Values like v1, to broadcast against nngp."""
        values = values[..., None] if self.pairs else values
        return values[:, None] if self.between else values

    def along_columns(self, values: Tensor) -> Tensor:
        """Values like v2, to broadcast against nngp."""
        values = values[..., None, :] if self.pairs else values
        return values[None] if self.between else values

    def replace(self, **changes: Any) -> "Moments":
        return dataclasses.replace(self, **changes)

    def affine(self, weight: Any, bias: Any) -> "Moments":
        """Moments of W h + b: K ↦ σ_w² K + σ_b², the gap ↦ σ_w² gap. The tangent is the caller's."""
        after = self.replace(
            nngp=weight * self.nngp + bias,
            v1=weight * self.v1 + bias,
            v2=weight * self.v2 + bias,
            gap=weight * self.gap,
        )
        if self.deviation is None:
            return after
        moved = after_affine(self.nngp, self.rows, self.columns, self.deviation, weight, bias)
        return after.replace(deviation=moved)

    def scaled(self, factor: float) -> "Moments":
        """Moments of factor · h."""
        square = factor * factor
        return self.affine(square, 0.0).replace(tangent=square * self.tangent)

    def plus(self, other: "Moments") -> "Moments":
        """Moments of h + g, where their coordinates are uncorrelated; else Refused says why."""
        if self.is_input or other.is_input:
            raise Refused(
                "adds the input itself, whose coordinates are not random and whose width does not grow, so that the "
                "sum has no infinite-width limit",
                "Send the input through a linear layer first, or use EmpiricalNTK",
            )
        shared = common(self.layers, other.layers)
        if shared:
            raise Refused(
                f"adds two functions of the same random outputs (of `{min(shared)}`), which are correlated",
                "Put a linear layer into one branch, or use EmpiricalNTK",
            )
        if not (self.mean_zero or other.mean_zero):
            raise Refused(
                "adds two branches of which neither has mean zero, so that their product does not vanish",
                "End one branch with a linear layer, or use EmpiricalNTK",
            )
        if self.shape != other.shape or self.channel != other.channel:
            raise Refused(
                f"adds values of different shapes, {self.shape} and {other.shape}", "Give both branches one shape"
            )
        total = self.replace(
            nngp=self.nngp + other.nngp,
            v1=self.v1 + other.v1,
            v2=self.v2 + other.v2,
            gap=self.gap + other.gap,
            tangent=self.tangent + other.tangent,
            deviation=None,
            layers=self.layers | other.layers,
            reads=self.reads | other.reads,
            alike=self.alike and other.alike,
            gaussian=self.gaussian and other.gaussian,
            mean_zero=self.mean_zero and other.mean_zero,
            gains=merged(self.gains, other.gains),
        )
        if self.deviation is None or other.deviation is None:
            return total
        both = ((self, self.deviation), (other, other.deviation))
        parts = [(m.nngp, root(m.rows), root(m.columns), deviation) for m, deviation in both]
        return total.replace(deviation=after_sum(parts, total.nngp, total.rows, total.columns))


def common(first: frozenset[str], second: frozenset[str]) -> set[str]:
    """The weights that two values share; of a layer that was cut into pieces, `name[10:20]` stands for those rows,
    and `name[?]` for some in another order."""
    return {a for a in first for b in second if _overlap(a, b)}


def _overlap(first: str, second: str) -> bool:
    (a, _, rows), (b, _, others) = first.partition("["), second.partition("[")
    if a != b or ":" not in rows or ":" not in others:
        return a == b
    (start, end), (low, high) = (map(int, part.rstrip("]").split(":")) for part in (rows, others))
    return start < high and low < end


def times(a: Moments, b: Moments) -> Moments:
    """Moments of the product of two independent branches: K_a K_b and Θ_a K_b + K_a Θ_b; else Refused says why.

    A branch with a single position (a gate of channels) multiplies every position of the other."""
    if a.is_input or b.is_input:
        raise Refused("multiplies by the input itself, whose coordinates are not random", "Use EmpiricalNTK")
    if shared := common(a.depends_on, b.depends_on):
        cause = f"multiplies two functions of the same random outputs (of `{min(shared)}`), which are correlated"
        raise Refused(cause, "Give each branch its own linear layer, or use EmpiricalNTK")
    a, b = (b, a) if math.prod(a.positions) < math.prod(b.positions) else (a, b)
    gate = a.moved((1,) * len(a.positions))["shape"]
    if b.shape not in (a.shape, gate) or a.channel != b.channel:
        raise Refused(
            f"multiplies values of different shapes, {a.shape} and {b.shape}",
            "Give both one shape, or one of them the shape of a gate, with a single position",
        )
    if a.pairs != b.pairs:
        raise Refused(
            "multiplies positions by a gate whose axes of positions were dropped in between, and its moments with them",
            "Keep them: x.mean((2, 3), keepdim=True), or nn.AdaptiveAvgPool2d(1), then 1x1 convolutions",
        )
    half, other = (a.rows + a.columns) / 2, (b.rows + b.columns) / 2
    spread = (a.rows - a.columns) * (b.rows - b.columns) / 4
    return a.replace(
        nngp=a.nngp * b.nngp,
        v1=a.v1 * b.v1,
        v2=a.v2 * b.v2,
        gap=(spread + half * b.gap + other * a.gap - a.gap * b.gap).clamp_min(0),
        tangent=a.tangent * b.nngp + a.nngp * b.tangent,
        deviation=None,
        layers=a.layers | b.layers,
        reads=a.reads | b.reads,
        alike=a.alike and b.alike,
        gaussian=False,
        mean_zero=a.mean_zero or b.mean_zero,
        gains=merged(a.gains, b.gains),
    )


def merged(*gains: Any) -> Any:
    """`gains` of a combination of branches."""
    return 0.0 if all(isinstance(c, (int, float)) and c == 0 for c in gains) else math.nan


def with_outside(m: Moments) -> Moments:
    """The same moments with one more position, the last, at which every value is 0: what padding adds."""

    def padded(values: Tensor, axes: int) -> Tensor:
        return F.pad(values, (0, 1) * axes)

    axes = 2 if m.pairs else 1
    after = m.replace(
        nngp=padded(m.nngp, axes),
        tangent=padded(m.tangent, axes),
        v1=padded(m.v1, 1),
        v2=padded(m.v2, 1),
        gap=padded(m.gap, axes),
        deviation=None if m.deviation is None else padded(m.deviation, axes),
    )
    if not m.pairs:
        return after
    # Between 0 and a value the gap is half of the value's variance.
    size = m.v1.shape[-1]
    outside = torch.arange(size + 1, device=m.v1.device) == size
    either = outside[:, None] | outside[None]
    return after.replace(gap=torch.where(either, (after.rows + after.columns) / 2, after.gap))


def with_variances(values: Tensor, variances: Tensor, m: Moments) -> Tensor:
    """Values between pairs of points, with the variances where a point, and a position, meets itself.

    Args:
        values: like m.nngp. variances: like m.v1; of a Gram block, its leading rows.
    """
    if not m.between and not m.pairs:
        return variances
    if m.between and not m.gram and m.same is None:
        return values
    if values.requires_grad or variances.requires_grad:
        values = values.clone()
    if not m.between:
        diagonal = values.diagonal(dim1=-2, dim2=-1)
        diagonal.copy_(_at(diagonal, variances))
        return values
    for rows, columns in _coinciding(m):
        if m.pairs:
            at = torch.arange(variances.shape[-1], device=values.device)
            index: Any = (rows[:, None], columns[:, None], at, at)
        else:
            index = (rows, columns)
        values[index] = _at(values[index], variances[rows])
    return values


def _at(values: Tensor, exact: Tensor) -> Tensor:
    """The exact values, with the derivatives of what they replace: those by either of two points that coincide."""
    return values.clone() + (exact - values).detach() if values.requires_grad else exact


def with_own(m: Moments) -> Moments:
    """Moments of pairs of positions where, between points that coincide, they are those of the point with itself."""
    if m.own is None or (not m.gram and m.same is None):
        return m
    first, changed = m.own[0], {}
    for name in ("nngp", "gap", "tangent"):
        values = getattr(m, name).clone()
        for rows, columns in _coinciding(m):
            values[rows, columns] = _at(values[rows, columns], getattr(first, name)[rows])
        changed[name] = values
    return m.replace(**changed)


def _coinciding(m: Moments) -> list[tuple[Tensor, Tensor]]:
    """Indices of rows and columns of the points that meet themselves."""
    found = [] if m.same is None else [m.same]
    if m.gram:
        diagonal = torch.arange(min(m.nngp.shape[:2]), device=m.nngp.device)
        found.append((diagonal, diagonal))
    return found
