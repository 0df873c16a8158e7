"""One layer of the expansion in 1/width, for two points at once.

Given the layer below, the units of a layer are independent Gaussians of one random covariance G, and their tangent
kernel has one random mean Θ. Both are means over the units below, so that they keep a covariance of order 1/width;
the delta method carries means and covariances of s = (G, Θ) from layer to layer. Two more tensors of that order are
followed: how the tangent kernel of a unit hangs on the unit's own value, and the squares of what two units share.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ....linalg.products import Means, Products, Term

ENTRIES = ((0, 0), (0, 1), (1, 1))
"""The entries of a symmetric 2 × 2 matrix, by the two points."""
WEIGHTS = (0.5, 1.0, 0.5)
"""∂E[ψ]/∂G over an entry is its weight times E[∂∂ψ] (Price 1958)."""


class Layer(NamedTuple):
    """A random linear layer: G ↦ bias + weight·mean(φφ), Θ ↦ rate_bias + mean(rate·φφ + weight·φ'φ'Θ) over `width`
    units below; rate: c_w·fan_in."""

    weight: float
    bias: float
    rate: float
    rate_bias: float
    width: int


@dataclass(frozen=True)
class Expansion:
    """Of p pairs of points, at one layer, s = (G11, G12, G22, Θ11, Θ12, Θ22).

    limit: s at infinite width. shift: E[s] − limit. covariance: of s.
    leading, for each entry (a, b) of Θ and two points γ, δ: E[Σ_kl V_k^γ M_kl(a, b) V_l^δ], where a unit i has
    Θ_ii = S + Σ_kl W_ik M_kl W_il, and its value the derivatives V_k/Var[W] by W_ik.
    shared, for each entry (a, b): E[Θ_ij(a, b)²] and E[Θ_ij(a, b) Θ_ij(b, a)] of two units i ≠ j.
    All but the limit are of order 1/width.
    """

    limit: Float[Tensor, "p 6"]
    shift: Float[Tensor, "p 6"]
    covariance: Float[Tensor, "p 6 6"]
    leading: Float[Tensor, "p 3 2 2"]
    shared: Float[Tensor, "p 3 2"]

    @classmethod
    def at_first(cls, limit: Float[Tensor, "p 6"]) -> "Expansion":
        """At the first random layer, whose G and Θ are not random."""
        p = len(limit)
        zeros = [limit.new_zeros(p, *shape) for shape in ((6,), (6, 6), (3, 2, 2), (3, 2))]
        return cls(limit, *zeros)

    def after(self, layer: Layer, products: Products) -> "Expansion":
        """At the next layer, φ between; `products` are of this layer's limit."""
        ends, start = [], 0
        for means in products.parts():
            step = _Step(self, layer, means, start)
            ends.append(step.after())
            start += len(step.at.limit)
        return Expansion(*(torch.cat(parts) for parts in zip(*(one.tensors() for one in ends), strict=True)))

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in the order of the fields."""
        return self.limit, self.shift, self.covariance, self.leading, self.shared


class _Step:
    """The next layer for the pairs from `start` on that the means are of."""

    def __init__(self, state: Expansion, layer: Layer, means: Means, start: int):
        self.layer, self.means = layer, means
        some = slice(start, start + len(self.mean((), ())))
        self.at = Expansion(*(part[some] for part in state.tensors()))
        self.tangent = self.at.limit[:, 3:]
        self.values = self._stack(lambda e: self.mean(e, ()))
        self.slopes = self._stack(lambda e: self.mean((), e))

    def mean(self, values: tuple[int, ...], slopes: tuple[int, ...], by: tuple[int, ...] = ()) -> Float[Tensor, " p"]:
        """E[∂(Π φ(z_a) Π φ'(z_b))], a, b and the derivatives by the points named."""
        first, second = (Term(values.count(point), slopes.count(point), by.count(point)) for point in (0, 1))
        return self.means.mean(first, second)

    def after(self) -> Expansion:
        w, b, rate, rate_bias, _ = self.layer
        limit = torch.cat([b + w * self.values, rate_bias + rate * self.values + w * self.tangent * self.slopes], 1)
        jacobian = self.jacobian()
        covariance = jacobian @ self.at.covariance @ jacobian.mT + self.noise()
        shift = (jacobian @ self.at.shift[..., None])[..., 0] + self.curvature()
        return Expansion(limit, shift, (covariance + covariance.mT) / 2, self.leading(), self.shared())

    def jacobian(self) -> Float[Tensor, "p 6 6"]:
        """Of the next s by s."""
        w, _, rate, _, _ = self.layer
        values, slopes = (self._gradients(which) for which in ("values", "slopes"))
        by_covariance = torch.cat([w * values, rate * values + w * self.tangent[..., None] * slopes], 1)
        by_tangent = torch.cat([torch.zeros_like(values), torch.diag_embed(w * self.slopes)], 1)
        return torch.cat([by_covariance, by_tangent], 2)

    def noise(self) -> Float[Tensor, "p 6 6"]:
        """The covariance of the mean over independent units."""
        w, _, rate, _, width = self.layer
        both = self._table(lambda e, f: self.mean(e + f, ())) - self.values[:, :, None] * self.values[:, None]
        mixed = self._table(lambda e, f: self.mean(e, f)) - self.values[:, :, None] * self.slopes[:, None]
        slopes = self._table(lambda e, f: self.mean((), e + f)) - self.slopes[:, :, None] * self.slopes[:, None]
        mixed = mixed * w * self.tangent[:, None]
        slopes = slopes * w**2 * self.tangent[:, None] * self.tangent[:, :, None]
        across = w * (rate * both + mixed)
        corner = rate**2 * both + rate * (mixed + mixed.mT) + slopes
        return torch.cat([torch.cat([w**2 * both, across], 2), torch.cat([across.mT, corner], 2)], 1) / width

    def curvature(self) -> Float[Tensor, "p 6"]:
        """Half the second derivatives of the next s times the covariance of s, and what hangs on the unit itself."""
        w, _, rate, _, _ = self.layer
        spread, across = self.at.covariance[:, :3, :3], self.at.covariance[:, 3:, :3]
        values, slopes = (self._bend(which, spread) for which in ("values", "slopes"))
        with_tangent = (self._gradients("slopes") * across).sum(2)
        own = self._stack(lambda e: sum(self._hangs(e, g, d) for g in (0, 1) for d in (0, 1)))
        return torch.cat([w * values, rate * values + w * (self.tangent * slopes + with_tangent + own)], 1)

    def leading(self) -> Float[Tensor, "p 3 2 2"]:
        w, width = self.layer.weight, self.layer.width
        turns = torch.stack(
            [self.mean((alpha,), (a,), (gamma,)) for a in (0, 1) for alpha in (0, 1) for gamma in (0, 1)], 1
        ).reshape(-1, 2, 2, 2)  # a, alpha, gamma
        found = []
        for e, (a, b) in enumerate(ENTRIES):
            same = torch.stack([self.mean((g, d), (a, b)) for g in (0, 1) for d in (0, 1)], 1).reshape(-1, 2, 2)
            carried = turns[:, a] @ self.at.leading[:, e] @ turns[:, b].mT
            found.append(w**2 * (same * self.tangent[:, e, None, None] / width + carried))
        return torch.stack(found, 1)

    def shared(self) -> Float[Tensor, "p 3 2"]:
        w, width = self.layer.weight, self.layer.width
        same = self._stack(lambda e: self.mean((), e + e)) * self.tangent.square() / width
        straight = self._stack(lambda e: self.mean((), (e[0], e[0])) * self.mean((), (e[1], e[1])))
        crossed = self.slopes.square()
        return w**2 * (same[..., None] + torch.stack([straight, crossed], 2) * self.at.shared)

    def _hangs(self, e: tuple[int, int], gamma: int, delta: int) -> Tensor:
        return self.at.leading[:, ENTRIES.index(e), gamma, delta] * self.mean((), e, (gamma, delta))

    def _gradients(self, which: str) -> Float[Tensor, "p 3 3"]:
        """By the entries of G, of the means of φφ or of φ'φ'."""
        return self._table(lambda e, f: WEIGHTS[ENTRIES.index(f)] * self._of(which, e, f))

    def _bend(self, which: str, spread: Float[Tensor, "p 3 3"]) -> Float[Tensor, "p 3"]:
        def one(e: tuple[int, int]) -> Tensor:
            second = self._table(lambda f, g: self._of(which, e, f + g))
            scale = torch.tensor(WEIGHTS, dtype=spread.dtype)
            return (second * scale[:, None] * scale * spread).sum((1, 2)) / 2

        return self._stack(one)

    def _of(self, which: str, e: tuple[int, ...], by: tuple[int, ...]) -> Tensor:
        return self.mean(e, (), by) if which == "values" else self.mean((), e, by)

    @staticmethod
    def _stack(one) -> Float[Tensor, "p 3"]:  # type: ignore[no-untyped-def]
        return torch.stack([one(e) for e in ENTRIES], 1)

    @staticmethod
    def _table(one) -> Float[Tensor, "p 3 3"]:  # type: ignore[no-untyped-def]
        return torch.stack([torch.stack([one(e, f) for f in ENTRIES], 1) for e in ENTRIES], 1)
