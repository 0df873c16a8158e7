"""Scores of attention, q kᵀ before they are scaled: what the scale says about their limit."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .moments import Moments, Refused
from .start import Data

SOFTMAX_REMEDY = (
    "Scale the scores by 1/d with one layer for queries and keys (their limit is then not random), or use EmpiricalNTK"
)


@dataclass(frozen=True, eq=False)
class Scores:
    """q kᵀ of d coordinates, for q and k that are one value (tied), or independent ones.

    Scaled by 1/d it is not random in the limit: E[q_a k_b], the covariance of q for tied ones, and 0 for independent
    ones. Source: Hron et al. 2020 (2006.10540); Yang 2019 (1902.04760).
    """

    q: Moments
    tied: bool
    shape: tuple[int, ...]

    def scaled(self, factor: float) -> Data:
        """factor · q kᵀ in the limit; Refused for another scale than ±1/d."""
        d = self.q.shape[-1]
        if math.isclose(abs(factor), 1 / d, rel_tol=1e-6) and d > 1:
            return self._limit(math.copysign(1.0, factor))
        if math.isclose(abs(factor), d**-0.5, rel_tol=1e-6):
            raise Refused(
                "has scores q k/√d, which stay random (Gaussian, shared by all coordinates) in the limit, so that no "
                "closed rule holds",
                SOFTMAX_REMEDY,
            )
        raise Refused(
            f"scales the scores of {d} coordinates by {factor:.4g}, where a limit is known for 1/d = {1 / d:.4g} alone",
            SOFTMAX_REMEDY,
        )

    def _limit(self, sign: float) -> Data:
        q = self.q
        sides = (q, None) if not q.between else (q.own or (None, None))
        if not q.pairs or sides[0] is None:
            raise Refused("needs the moments between all pairs of positions", "Give q positions: (n, positions, d)")
        x1, x2 = (None if side is None else sign * self._of(side) for side in sides)
        assert x1 is not None
        return Data(x1, x2, q.gram, same=q.same)

    def _of(self, q: Moments) -> Tensor:
        *groups, _, _ = self.shape
        k = q.nngp if self.tied else torch.zeros_like(q.nngp)
        points, positions = len(k), q.positions[-1]
        if not groups:
            return k if self.shape[-1] == positions else k.new_zeros(points, *self.shape)
        return _heads(k, self.shape)


def _heads(k: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(n, *groups, P, P) of (n, groups P, groups P): positions within one group."""
    *groups, rows, columns = shape
    count = math.prod(groups)
    blocks = k.reshape(len(k), count, rows, count, k.shape[-1] // count)
    return blocks.diagonal(dim1=1, dim2=3).movedim(-1, 1).reshape(len(k), *groups, rows, columns)


def attended(a: Data, v: Moments, shape: Any) -> Moments:
    """A(x) v with a matrix that is a function of the data: K ↦ A(x) K A(x')ᵀ, and so Θ.

    Args:
        a: (n, *groups, P', P). v: of positions (*groups, P) with its coordinates last. shape: of the outcome.

    Source: Hron et al. 2020 (2006.10540).
    """
    if not bool(a.x1.any()):
        raise Refused(
            "multiplies by a matrix that is 0: scores of independent queries and keys, scaled by 1/d, vanish",
            "Use one layer for queries and keys, or a softmax",
        )
    a1 = _one_matrix(a.x1, v)
    a2 = a1 if a.x2 is None else _one_matrix(a.x2, v)
    first, second = (v, v) if v.own is None else v.own

    def own(m: Tensor, values: Moments) -> Tensor:
        return torch.einsum("iab,ibd,iad->ia", m, values.nngp, m)

    def both(values: Tensor) -> Tensor:
        if not v.between:
            return torch.einsum("iab,ibd,icd->iac", a1, values, a1)
        return torch.einsum("iab,ijbd,jcd->ijac", a1, values, a2)

    v1 = own(a1, first)
    v2 = own(a2, second) if v.between else v1
    after = v.replace(v1=v1, v2=v2, nngp=both(v.nngp), tangent=both(v.tangent), deviation=None, shape=tuple(shape))
    gap = ((after.rows + after.columns) / 2 - after.nngp).clamp_min(0)
    if not v.between:
        gap = gap - torch.diag_embed(gap.diagonal(dim1=-2, dim2=-1))
    return after.replace(gap=gap)


def _one_matrix(a: Tensor, v: Moments) -> Tensor:
    """(n, groups P', groups P), one block for each group."""
    *groups, positions = v.positions
    if a.shape[-1] != positions or tuple(a.shape[1:-2]) not in (tuple(groups), ()):
        raise Refused(
            f"multiplies a matrix of shape {tuple(a.shape[1:])} with points of shape {v.shape}", "Give both one shape"
        )
    count, rows = math.prod(groups), a.shape[-2]
    blocks = a.expand(len(a), *groups, rows, positions) if a.ndim > 3 or not groups else a[:, None]
    blocks = blocks.reshape(len(a), -1, rows, positions).expand(len(a), count, rows, positions)
    one = torch.eye(count, dtype=a.dtype, device=a.device)
    matrix = torch.einsum("igab,gh->igahb", blocks, one)
    return matrix.reshape(len(a), count * rows, count * positions)
