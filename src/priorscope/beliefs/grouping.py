"""How well a similarity puts inputs of one group together, and how alike two similarities are: by their ranks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor

from ..errors import DataError
from ..results import Result


@dataclass(frozen=True, eq=False)
class Grouping(Result):
    """How well a similarity puts inputs of one group together.

    Args:
        nearest: share of inputs whose most similar other input is of their own group.
        mean_average_precision: mean over inputs of the average precision of their own group among all others, most
            similar first; 1 where every input has its own group before all others.
        average_precision: (n,), of each input; NaN for one that is alone in its group, which counts nowhere.
        chance_nearest, chance_precision: what a random order gives on average.
    """

    nearest: float
    mean_average_precision: float
    average_precision: Float[Tensor, " n"]
    chance_nearest: float
    chance_precision: float


def grouping(similarity: Tensor, groups: Sequence[str]) -> Grouping:
    """How well a similarity puts inputs of one group together.

    AP_i = (1/R_i) Σ_k [k-th most similar is of i's group] · (share of i's group among the first k), R_i the number
    of others in i's group; in a random order, E[AP] = (H + (R − 1)/(N − 1) · (N − H))/N with N = n − 1 and
    H = Σ_{k≤N} 1/k. Of equal similarities, the earlier input counts as nearer.

    Args:
        similarity: (n, n), larger is more similar; the diagonal is not looked at.
        groups: n names.

    Raises:
        DataError: shapes that do not fit; every input is alone in its group; a single group.

    Source: Manning, Raghavan and Schütze 2008, section 8.4.

    >>> s = torch.tensor([[1.0, 0.9, 0.1], [0.9, 1.0, 0.2], [0.1, 0.2, 1.0]])
    >>> grouping(s, ["a", "a", "b"]).mean_average_precision
    1.0
    """
    codes, n = _codes(groups), len(groups)
    if similarity.shape != (n, n):
        raise DataError("the similarity", f"has shape {tuple(similarity.shape)} for {n} groups", f"Give ({n}, {n})")
    order = neighbours(similarity)
    own = (codes[order] == codes[:, None]).to(torch.float64)
    others = own.sum(1)
    if not bool(others.any()) or bool((others == n - 1).all()):
        raise DataError("groups", "are all alone, or all one", "Give at least two groups, one of at least two inputs")
    rank = torch.arange(1, n, dtype=torch.float64)
    precision = (own * own.cumsum(1) / rank).sum(1) / others
    counted = others > 0
    harmonic, size = float((1 / rank).sum()), others[counted]
    chance = (harmonic + (size - 1) / max(n - 2, 1) * (n - 1 - harmonic)) / (n - 1)
    return Grouping(
        float(own[counted, 0].mean()),
        float(precision[counted].mean()),
        precision,
        float((size / (n - 1)).mean()),
        float(chance.mean()),
    )


def neighbours(similarity: Tensor) -> Int[Tensor, "n others"]:
    """(n, n − 1), the others of each input, most similar first; of equal ones the earlier first."""
    scores = similarity.detach().to(torch.float64).clone().fill_diagonal_(-torch.inf)
    return scores.argsort(dim=1, descending=True, stable=True)[:, :-1]


@dataclass(frozen=True)
class Difference(Result):
    """How much higher one mean average precision is than another, over the same inputs.

    Args:
        value: the mean over groups of the group's mean difference.
        standard_error: over groups, as inputs of one group are not independent; NaN for a single group.
    """

    value: float
    standard_error: float

    @property
    def clear(self) -> bool:
        """Whether the difference is at least twice its standard error."""
        return abs(self.value) >= 2 * self.standard_error and self.value != 0


def difference(first: Grouping, second: Grouping, groups: Sequence[str]) -> Difference:
    """How much higher the first's average precisions are than the second's, paired by input, clustered by group."""
    gaps = first.average_precision - second.average_precision
    codes = _codes(groups)
    means = [
        float(gaps[codes == code].mean()) for code in codes.unique() if not bool(gaps[codes == code].isnan().any())
    ]
    values = torch.tensor(means, dtype=torch.float64)
    error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return Difference(float(values.mean()), error)


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation between two similarities, over all pairs of different inputs.

    ρ = corr(rank(s_ij), rank(s'_ij)), i < j; equal values share their mean rank. NaN where one is constant.

    Args:
        first, second: (n, n), symmetric.

    Source: Spearman 1904; between similarity matrices, Kriegeskorte et al. 2008.
    """
    if first.ndim != 2 or first.shape != second.shape or first.shape[0] != first.shape[1]:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise DataError("the similarities", f"have shapes {shapes}", "Give two square matrices of one size")
    rows, columns = torch.triu_indices(len(first), len(first), offset=1)
    ranks = [
        torch.from_numpy(rankdata(s.detach().cpu()[rows, columns].to(torch.float64).numpy())) for s in (first, second)
    ]
    a, b = (r - r.mean() for r in ranks)
    scale = float(a.norm() * b.norm())
    return float(a @ b) / scale if scale > 0 else float("nan")


def names_of(groups: Any, n: int, place: str = "groups") -> tuple[str, ...]:
    """n names as a tuple of text; a tensor or array of classes are names too. A DataError where they do not fit."""
    groups = groups.tolist() if hasattr(groups, "tolist") else groups
    if isinstance(groups, str) or not isinstance(groups, Sequence) or len(groups) != n:
        given = f"has {len(groups)} names" if isinstance(groups, (list, tuple)) else f"is {groups!r}"
        raise DataError(place, f"{given} for {n} points", "Give one name each")
    return tuple(map(str, groups))


def members(names: Sequence[str]) -> dict[str, Int[Tensor, " k"]]:
    """The rows of each group, in the order of their first appearance."""
    codes = _codes(names)
    return {name: (codes == code).nonzero()[:, 0] for code, name in enumerate(dict.fromkeys(names))}


def _codes(groups: Sequence[str]) -> Int[Tensor, " n"]:
    names = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    return torch.tensor([names[group] for group in groups])
