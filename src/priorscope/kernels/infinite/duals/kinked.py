"""Functions with kinks or jumps and no closed form, by quadrature split at them: ELU, hardtanh, softshrink, clamp, …"""

from collections.abc import Callable

import torch
from torch import Tensor

from ....linalg.kinked import kinked_pairs
from ..moments import Refused
from ..registry import Expectations
from .smooth import TOLERANCE


def by_panels(
    function: Callable[[Tensor], Tensor], kinks: list[float], k: Tensor, v1: Tensor, v2: Tensor, gap: Tensor
) -> Expectations:
    """E[φ(u)φ(v)] and E[φ'(u)φ'(v)] of a φ that is smooth between its kinks, to a relative error of 1e-9.

    φ' is that of the pieces, as autograd has it. Raises Refused where two orders of quadrature differ by more.
    """
    answer = kinked_pairs(function, kinks, v1, v2, gap, TOLERANCE, same=k is v1)
    finite = all(bool(torch.isfinite(part).all()) for part in answer[:3])
    if not finite or not answer.error <= TOLERANCE:
        largest = float(torch.maximum(v1.detach().max(), v2.detach().max()))
        what = f"differ by {answer.error:.1g}" if finite else "are not finite"
        raise Refused(
            f"is integrated numerically, and two orders of quadrature {what} at the variance {largest:.3g}",
            "Make the variances smaller (scale the inputs, or weight_variance), or use EmpiricalNTK",
        )
    return Expectations(answer.value.to(k.dtype), answer.slope.to(k.dtype), answer.gap.to(k.dtype), answer.error)
