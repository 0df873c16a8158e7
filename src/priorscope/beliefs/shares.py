"""Which training points, and which groups of them, a prediction comes from: cosines, dual weights, contributions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import DataError
from ..results import Result
from .grouping import members, names_of


@dataclass(frozen=True, eq=False)
class GroupShares(Result):
    """What each group of training points has to do with each new point.

    Args:
        factor: what the groups differ in ("animal", "background").
        names: of the g groups, in the order of their first appearance.
        sizes: (g,), the number of training points of each.
        weights: (m, g), the sum of the group's dual weights.
        absolute: (m, g), the sum of their sizes.
        mean_cosine, max_cosine: (m, g), over the group's points.
        contributions: (m, g) or (m, g, o), what the group's labels add to the prediction; None without labels.
    """

    factor: str
    names: tuple[str, ...]
    sizes: Int[Tensor, " g"]
    weights: Float[Tensor, "m g"]
    absolute: Float[Tensor, "m g"]
    mean_cosine: Float[Tensor, "m g"]
    max_cosine: Float[Tensor, "m g"]
    contributions: Float[Tensor, "m g *o"] | None = None

    @property
    def carriers(self) -> tuple[str, ...]:
        """The group that carries each prediction: its contribution goes furthest in the direction of their sum.

        The direction is the sign of the sum; of several outputs, it is the output where the sum is largest.

        Raises:
            DataError: where no labels were given.
        """
        if self.contributions is None:
            raise DataError("GroupShares", "has no labels, so no group carries a prediction", "Give y to similar")
        total = self.contributions.sum(1)
        if total.ndim == 1 or total.shape[-1] == 1:
            towards = self.contributions.reshape(len(total), -1) * total.reshape(-1, 1).sign()
        else:
            best = total.argmax(1)
            towards = self.contributions[torch.arange(len(best), device=best.device), :, best]
        return tuple(self.names[i] for i in towards.argmax(1).tolist())


@dataclass(frozen=True, eq=False)
class Similar(Result):
    """Whom a network takes new points for, and whose labels move its predictions: two different things.

    f(x) = f₀(x) + Σ_i w_i(x) (y_i − f₀(x_i)); the terms of the sum are the contributions.

    Args:
        cosine: (m, n), the normalised kernel k(x, x_i)/√(k(x, x) k(x_i, x_i)).
        weights: (m, n), the dual weights w_i(x). They can be negative and need not sum to 1. Where outputs are
            coupled, the mean over outputs of how much a label moves its own output.
        groups: {factor: n names}; empty without groups.
        contributions: (m, n) or (m, n, o), like y; None without labels. Of coupled outputs, all that a point's
            labels add to each output.
        start: (m,) or (m, o), f₀(x), where a network to start from was given.
    """

    cosine: Float[Tensor, "m n"]
    weights: Float[Tensor, "m n"]
    groups: dict[str, tuple[str, ...]]
    contributions: Float[Tensor, "m n *o"] | None = None
    start: Float[Tensor, "m *o"] | None = None

    @property
    def prediction(self) -> Float[Tensor, "m *o"]:
        """f(x), (m,) or (m, o).

        Raises:
            DataError: where no labels were given.
        """
        if self.contributions is None:
            raise DataError("Similar", "has no labels, so it predicts nothing", "Give y to similar")
        moved = self.contributions.sum(1)
        return moved if self.start is None else moved + self.start

    def by(self, factor: str | None = None) -> GroupShares:
        """The same by group.

        Args:
            factor: one of `groups`; None where there is one alone.

        Raises:
            DataError: a factor that was not given, or none where there are several.
        """
        known = ", ".join(self.groups) or "none"
        if factor is None and len(self.groups) == 1:
            factor = next(iter(self.groups))
        if factor not in self.groups:
            raise DataError(f"by({'' if factor is None else repr(factor)})", f"the factors are: {known}", "Name one")
        rows = members(self.groups[factor])
        put = None if self.contributions is None else _sums(self.contributions, rows)
        return GroupShares(
            factor,
            tuple(rows),
            torch.tensor([len(r) for r in rows.values()]),
            _sums(self.weights, rows),
            _sums(self.weights.abs(), rows),
            torch.stack([self.cosine[:, r].mean(1) for r in rows.values()], 1),
            torch.stack([self.cosine[:, r].amax(1) for r in rows.values()], 1),
            put,
        )


def factors_of(groups: Any, n: int) -> dict[str, tuple[str, ...]]:
    """{factor: n names} of what users give: n names (the factor "group"), a mapping of several, or None."""
    if groups is None:
        return {}
    if not isinstance(groups, Mapping):
        return {"group": names_of(groups, n)}
    if not groups:
        raise DataError("groups", "is empty", "Give {factor: n names}, or None")
    return {str(factor): names_of(names, n, f"groups[{factor!r}]") for factor, names in groups.items()}


def _sums(values: Float[Tensor, "m n *o"], rows: Mapping[str, Int[Tensor, " k"]]) -> Float[Tensor, "m g *o"]:
    return torch.stack([values[:, r.to(values.device)].sum(1) for r in rows.values()], 1)
