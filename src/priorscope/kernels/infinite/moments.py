"""What flows through an infinitely wide network: the second moments of one layer's coordinates between all pairs."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class Refused(Exception):  # noqa: N818 (a rule's no, which propagate turns into an error with its place)
    """A rule's answer where no exact rule exists: cause and remedy; the place is filled in where it is called."""

    def __init__(self, cause: str, remedy: str):
        super().__init__(cause, remedy)
        self.cause, self.remedy = cause, remedy


@dataclass(frozen=True, eq=False)
class Moments:
    """The state of one node, for points x1 (n1) and x2 (n2); or for x against itself, point by point (n).

    nngp: (n1, n2) mean over coordinates of h(x1) h(x2); or (n,), and then v1 = v2 = nngp.
    v1, v2: (n1,), (n2,) variances.
    gap: like nngp, (v1 + v2)/2 − nngp, carried from layer to layer: the difference itself has lost its digits at
        nearly equal points.
    tangent: like nngp, the NTK so far.
    opposition: like nngp, √(v1 v2) + nngp, carried where some pairs are nearly opposite; else None.
    shape: of one point's value.
    gram: rows are the first columns, so that the leading diagonal holds points against themselves.
    layers: names of the weights whose randomness makes the coordinates; none for the input itself.
    gaussian: the coordinates are independent Gaussians (a linear layer's outputs, and sums of these).
    mean_zero: the coordinates have mean zero.
    """

    nngp: Float[Tensor, "*pairs"]
    v1: Float[Tensor, " n1"]
    v2: Float[Tensor, " n2"]
    gap: Float[Tensor, "*pairs"]
    tangent: Float[Tensor, "*pairs"]
    shape: tuple[int, ...]
    opposition: Float[Tensor, "*pairs"] | None = None
    gram: bool = False
    layers: frozenset[str] = frozenset()
    gaussian: bool = False
    mean_zero: bool = False

    @property
    def is_input(self) -> bool:
        """Whether no randomness has come in yet: the data themselves, at most scaled."""
        return not self.layers

    @property
    def rows(self) -> Tensor:
        """v1, to broadcast against nngp."""
        return self.v1[:, None] if self.nngp.ndim == 2 else self.v1

    @property
    def columns(self) -> Tensor:
        """v2, to broadcast against nngp."""
        return self.v2[None] if self.nngp.ndim == 2 else self.v2

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
        if self.opposition is None:
            return after
        # √((σ_w² v1 + σ_b²)(σ_w² v2 + σ_b²)) − σ_w² √(v1 v2) without its difference: all terms are positive.
        before, size = weight * root(self.rows) * root(self.columns), root(after.rows) * root(after.columns)
        total = (size + before).clamp_min(torch.finfo(size.dtype).tiny)
        excess = bias * (weight * (self.rows + self.columns) + bias) / total
        return after.replace(opposition=weight * self.opposition + excess + bias)

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
        shared = self.layers & other.layers
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
        if self.shape != other.shape:
            raise Refused(
                f"adds values of different shapes, {self.shape} and {other.shape}", "Give both branches one shape"
            )
        return self.replace(
            nngp=self.nngp + other.nngp,
            v1=self.v1 + other.v1,
            v2=self.v2 + other.v2,
            gap=self.gap + other.gap,
            tangent=self.tangent + other.tangent,
            opposition=self._opposition_with(other),
            layers=self.layers | other.layers,
            gaussian=self.gaussian and other.gaussian,
            mean_zero=self.mean_zero and other.mean_zero,
        )

    def _opposition_with(self, other: "Moments") -> Tensor | None:
        if self.opposition is None or other.opposition is None:
            return None
        a1, a2, b1, b2 = (root(v) for v in (self.rows, self.columns, other.rows, other.columns))
        total = root(self.rows + other.rows) * root(self.columns + other.columns) + a1 * a2 + b1 * b2
        excess = (a1 * b2 - a2 * b1).square() / total.clamp_min(torch.finfo(total.dtype).tiny)
        return self.opposition + other.opposition + excess


def root(x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """√x, and 0 with derivative 0 where x is not positive."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)


def with_diagonal(matrix: Tensor, diagonal: Tensor) -> Tensor:
    """The matrix with another leading diagonal; in place where autograd does not look."""
    if matrix.requires_grad or diagonal.requires_grad:
        return torch.diagonal_scatter(matrix, diagonal)
    matrix.diagonal().copy_(diagonal)
    return matrix
