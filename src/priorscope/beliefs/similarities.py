"""Two similarities of the same inputs side by side: by a kernel, and by features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.inputs import Inputs, check_inputs, count
from ..errors import DataError
from ..kernels.classical import Linear
from ..kernels.own import PrecomputedKernel
from ..results import Result
from .coupling import GivenKernel, check_kernel
from .grouping import Difference, Grouping, difference, grouping, rank_correlation
from .similarity import cosine


@dataclass(frozen=True, eq=False)
class Similarities(Result):
    """Two similarities of the same inputs.

    Args:
        kernel: (n, n), Θ_ij/√(Θ_ii Θ_jj).
        features: (n, n), the cosine φ_i·φ_j/(‖φ_i‖ ‖φ_j‖).
        rank_correlation: Spearman's, between both, over all pairs.
        groups: n names, or None; and then there is nothing of the following.
        kernel_grouping, feature_grouping: how well each puts the inputs of a group together.
        difference: the kernel's mean average precision minus the features', with its standard error over groups.
    """

    kernel: Float[Tensor, "n n"]
    features: Float[Tensor, "n n"]
    rank_correlation: float
    groups: tuple[str, ...] | None = None
    kernel_grouping: Grouping | None = None
    feature_grouping: Grouping | None = None
    difference: Difference | None = None


def similarities(kernel: GivenKernel, x: Inputs, features: Any, groups: Sequence[str] | None = None) -> Similarities:
    """How similar inputs are by a kernel, and by features; and which of the two puts inputs of one group together.

    Args:
        kernel: a kernel; of coupled outputs, the trace kernel.
        x: n inputs, at least 2.
        features: (n, d) or (n, ...), a representation of each.
        groups: n names, or None.

    Raises:
        DataError: fewer than 2 inputs, or features and groups that do not fit them.

    With the features of the kernel itself both are the same:

    >>> x = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    >>> both = similarities(Linear(), x, x)
    >>> torch.equal(both.kernel, both.features), round(both.rank_correlation, 12)
    (True, 1.0)
    """
    n = count(check_inputs(x))
    if n < 2:
        raise DataError("x", f"has {n} input", "Give at least 2, to be compared")
    if not isinstance(features, Tensor) or features.ndim < 2 or len(features) != n:
        shape = f"has shape {tuple(features.shape)}" if isinstance(features, Tensor) else "is no tensor"
        raise DataError("features", f"{shape} for {n} inputs", f"Give ({n}, d)")
    check_inputs(features, "features")
    if groups is not None and len(groups) != n:
        raise DataError("groups", f"has {len(groups)} names for {n} inputs", "Give one each")
    by_features = cosine(Linear(), features.flatten(1))
    second = None if groups is None else grouping(by_features, groups)  # first, as it says what is wrong with groups
    # One Gram matrix: the diagonal of an empirical kernel costs as much as a good part of it.
    matrix = check_kernel(kernel, "similarities")(x).detach()
    by_kernel = cosine(PrecomputedKernel(matrix), torch.arange(n, device=matrix.device))
    correlation = rank_correlation(by_kernel, by_features)
    if groups is None or second is None:
        return Similarities(by_kernel, by_features, correlation)
    first = grouping(by_kernel, groups)
    gap = difference(first, second, groups)
    return Similarities(by_kernel, by_features, correlation, tuple(groups), first, second, gap)
