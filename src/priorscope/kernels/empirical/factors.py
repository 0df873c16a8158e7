"""One parameter's part of the Jacobian at some points, and the kernels that two such parts make.

`Outer` keeps the rows of activations and signals, ∂f/∂w = Σ_r s_r ⊗ a_r, and makes kernels from their Grams,
Σ_{r,r'} (a_r·a'_r')(s_r·s'_r'); `Lookup` is the same with ids for activations; `Dense` keeps the entries themselves.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Form = Literal["trace", "blocks", "per output", "diagonal", "features"]

SCRATCH = 2**21
"""Entries of a Gram between positions that exist at once; larger ones are made piece by piece."""


class Factor(ABC):
    """A parameter's part of J at m points and k outputs."""

    @property
    @abstractmethod
    def points(self) -> int: ...

    @abstractmethod
    def product(self, other: "Factor", form: Form, ones: float = 0.0) -> Tensor:
        """J J'ᵀ: "trace" (m, m') summed over outputs; "per output" (k, m, m'); "blocks" (m, k, m', k').

        ones: this much for a bias in the same uses, whose activations are all 1.
        """

    @abstractmethod
    def squares(self, ones: float = 0.0) -> Float[Tensor, " m"]:
        """Σ over outputs of |J|², the diagonal of the trace form."""

    @abstractmethod
    def dense(self, entries: int) -> Float[Tensor, "m k e"]:
        """J itself, for a parameter of so many entries."""

    @abstractmethod
    def tensors(self) -> list[Tensor]: ...

    @abstractmethod
    def like(self, tensors: list[Tensor]) -> "Factor":
        """The same kind of factor from other tensors."""

    def take(self, points: slice) -> "Factor":
        return self.like([t[points] for t in self.tensors()])


@dataclass(frozen=True, eq=False)
class Dense(Factor):
    jacobian: Float[Tensor, "m k e"]

    @property
    def points(self) -> int:
        return len(self.jacobian)

    def product(self, other: Factor, form: Form, ones: float = 0.0) -> Tensor:
        assert isinstance(other, Dense)
        a, b = self.jacobian, other.jacobian
        if form == "trace":
            return a.flatten(1) @ b.flatten(1).T
        if form == "per output":
            return a.transpose(0, 1) @ b.permute(1, 2, 0)
        return (a.flatten(0, 1) @ b.flatten(0, 1).T).view(*a.shape[:2], *b.shape[:2])

    def squares(self, ones: float = 0.0) -> Float[Tensor, " m"]:
        flat = self.jacobian.flatten(1)
        return torch.linalg.vector_norm(flat, dim=1).square()

    def dense(self, entries: int) -> Float[Tensor, "m k e"]:
        return self.jacobian

    def tensors(self) -> list[Tensor]:
        return [self.jacobian]

    def like(self, tensors: list[Tensor]) -> "Factor":
        return Dense(*tensors)


@dataclass(frozen=True, eq=False)
class Outer(Factor):
    activations: Float[Tensor, "m g R p"]
    signals: Float[Tensor, "m k g R q"]
    flipped: bool = False

    @property
    def points(self) -> int:
        return len(self.activations)

    def product(self, other: Factor, form: Form, ones: float = 0.0) -> Tensor:
        assert isinstance(other, Outer)
        return _grams(self, other, form, _inner(self.activations, other.activations, ones))

    def squares(self, ones: float = 0.0) -> Float[Tensor, " m"]:
        a, s = self.activations, self.signals
        if a.shape[2] == 1:
            return ((a.square().sum(-1)[..., 0] + ones) * s.square().sum((1, 4))[..., 0]).sum(1)
        merged = s.permute(0, 2, 3, 1, 4).flatten(3)  # (m, g, R, k q)
        result = a.new_empty(len(a))
        step = max(1, SCRATCH // (a.shape[1] * a.shape[2] ** 2))
        for i in range(0, len(a), step):
            part, rows = a[i : i + step], merged[i : i + step]
            result[i : i + step] = ((part @ part.mT + ones) * (rows @ rows.mT)).sum((1, 2, 3))
        return result

    def dense(self, entries: int) -> Float[Tensor, "m k e"]:
        a, s = self.activations, self.signals
        (m, g, _, p), (_, k, _, _, q) = a.shape, s.shape
        rows = s.permute(0, 2, 1, 4, 3).reshape(m, g, k * q, -1) @ a  # (m, g, k q, p)
        rows = rows.view(m, g, k, q, p).transpose(1, 2)  # (m, k, g, q, p)
        return (rows.mT if self.flipped else rows).reshape(m, k, -1)

    def tensors(self) -> list[Tensor]:
        return [self.activations, self.signals]

    def like(self, tensors: list[Tensor]) -> "Factor":
        return Outer(tensors[0], tensors[1], self.flipped)


@dataclass(frozen=True, eq=False)
class Ids(Factor):
    """The part of a table whose rows are looked up by ids."""

    ids: Int[Tensor, "m R"]
    signals: Float[Tensor, "m k 1 R q"]

    @property
    def points(self) -> int:
        return len(self.ids)

    def product(self, other: Factor, form: Form, ones: float = 0.0) -> Tensor:
        assert isinstance(other, Ids)

        def equal(a: slice, b: slice) -> Tensor:
            first, second = self.ids[a].flatten(), other.ids[b].flatten()
            return (first[:, None] == second).to(self.signals.dtype)[None]

        return _grams(self, other, form, equal)

    def squares(self, ones: float = 0.0) -> Float[Tensor, " m"]:
        rows = self.signals[:, :, 0].transpose(1, 2).flatten(2)  # (m, R, k q)
        result = rows.new_empty(len(rows))
        step = max(1, SCRATCH // rows.shape[1] ** 2)
        for i in range(0, len(rows), step):
            ids, part = self.ids[i : i + step], rows[i : i + step]
            result[i : i + step] = ((ids[:, :, None] == ids[:, None]) * (part @ part.mT)).sum((1, 2))
        return result

    def dense(self, entries: int) -> Float[Tensor, "m k e"]:
        m, k, _, _, q = self.signals.shape
        result = self.signals.new_zeros(m, k, entries // q, q)
        index = self.ids[:, None, :, None].expand(m, k, -1, q)
        return result.scatter_add_(2, index, self.signals[:, :, 0]).flatten(2)

    def tensors(self) -> list[Tensor]:
        return [self.ids, self.signals]

    def like(self, tensors: list[Tensor]) -> "Factor":
        return Ids(tensors[0], tensors[1])


def _inner(a: Tensor, b: Tensor, ones: float) -> Callable[[slice, slice], Tensor]:
    """What gives Grams of activations (g, i R, j R'), for slices of points."""

    def gram(i: slice, j: slice) -> Tensor:
        first, second = a[i].transpose(0, 1).flatten(1, 2), b[j].transpose(0, 1).flatten(1, 2)
        return (first @ second.mT).add_(ones) if ones else first @ second.mT

    return gram


def _grams(first: Outer | Ids, second: Outer | Ids, form: Form, gram: Callable[[slice, slice], Tensor]) -> Tensor:
    """Σ over groups and positions of the Gram of activations times that of signals, piece by piece."""
    s, t = first.signals, second.signals
    (m, k, g, r, _), (n, h, _, u, _) = s.shape, t.shape
    wide = {"trace": 1, "per output": k, "blocks": k * h}[form] + 1
    rows = max(1, min(m, n, int((SCRATCH / (wide * g * r * u)) ** 0.5)))
    columns = max(1, min(n, SCRATCH // (wide * g * r * u * rows)))
    shape = {"trace": (m, n), "per output": (k, m, n), "blocks": (m, k, n, h)}[form]
    result = s.new_empty(shape)
    for i0 in range(0, m, rows):
        i = slice(i0, min(i0 + rows, m))
        left = _arranged(s[i], form)
        for j0 in range(0, n, columns):
            j = slice(j0, min(j0 + columns, n))
            a, b = gram(i, j), _arranged(t[j], form)
            x, y = i.stop - i0, j.stop - j0
            if form == "trace":
                result[i, j] = (a * (left @ b.mT)).view(g, x, r, y, u).sum((0, 2, 4))
            elif form == "per output":
                both = (left @ b.mT).mul_(a)  # (k, g, x r, y u)
                result[:, i, j] = both.view(k, g, x, r, y, u).sum((1, 3, 5))
            else:
                both = (left @ b.mT).view(g, x, k, r, y, h, u)
                both.mul_(a.view(g, x, 1, r, y, 1, u))
                result[i, :, j] = both.sum((0, 3, 6))
    return result


def _arranged(signals: Tensor, form: Form) -> Tensor:
    """(m, k, g, R, q) as the rows of a matrix product: (g, m R, k q), (k, g, m R, q) or (g, m k R, q)."""
    if form == "trace":
        return signals.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    if form == "per output":
        return signals.permute(1, 2, 0, 3, 4).flatten(2, 3)
    return signals.permute(2, 0, 1, 3, 4).flatten(1, 3)
