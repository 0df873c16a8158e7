"""A layer given by its kernel alone: the user's own κ(⟨x, y⟩, |x|, |y|) in place of E[φ(u)φ(v)]."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..deviation import root
from ..moments import Refused
from ..registry import Expectations, dual

NEARBY, JUMP = 1e-4, 0.1


def kernel_map(*keys: Any, settings: tuple[str, ...] = (), odd: bool = False) -> Callable[[Any], Any]:
    """Registers κ(inner, norm1, norm2) as what a layer does to the covariance: K ↦ κ, Θ ↦ Θ · ∂κ/∂inner.

    inner is E[uv] (the inner product over the number of coordinates), norm1 and norm2 are √E[u²] and √E[v²]; κ works
    elementwise for shapes that broadcast, with torch functions. ∂κ/∂inner is E[φ'φ'] of every φ that has this κ
    (Price's theorem), by autograd. A point with itself has κ(v, √v, √v), and the derivative must be right there too:
    arccos has none at 1, and a clamp makes it 0.

    Args:
        keys: the module classes or torch functions that stand for it; what they compute on finite networks is theirs.
        settings: names of attributes that κ takes as keywords, as of `dual`.
        odd: whether the layer's outputs have mean zero where its inputs do.

    Source: Daniely, Frostig and Singer 2016 (1602.05897), dual activations; Price 1958.

    The normalised exponential keeps each point's own variance:

    >>> from torch import nn
    >>> from priorscope import Initialization, infinite_width
    >>> class NormalizedExp(nn.Module):
    ...     def forward(self, x):
    ...         return x
    >>> @kernel_map(NormalizedExp)
    ... def normalized_exp(inner, norm1, norm2):
    ...     size = norm1 * norm2
    ...     return size * torch.exp(inner / size - 1)
    >>> model = nn.Sequential(nn.Linear(2, 8, bias=False), NormalizedExp(), nn.Linear(8, 1, bias=False))
    >>> init = Initialization(1.0, 0.0)
    >>> k = infinite_width(init.apply_(model, seed=0), init).nngp(torch.eye(2))
    >>> bool(torch.isclose(k[0, 1] / k[0, 0], torch.exp(torch.tensor(-1.0))))
    True
    """

    def register(kappa: Any) -> Any:
        def mapped(k: Any, v1: Any, v2: Any, **given: Any) -> Expectations:
            keep = torch.is_grad_enabled() and any(part.requires_grad for part in (k, v1, v2))
            norm1, norm2 = root(v1), root(v2)
            with torch.enable_grad():
                # Its own tensor: a point with itself passes its variance as k, whose norms must not move with it.
                inner = k * torch.ones_like(k) if keep and k.requires_grad else k.detach().clone().requires_grad_()
                value = kappa(inner, norm1, norm2, **given)
                slope = None
                if isinstance(value, Tensor) and value.requires_grad:
                    (slope,) = torch.autograd.grad(value.sum(), inner, create_graph=keep, allow_unused=True)
            if not isinstance(value, Tensor) or slope is None or not value.is_floating_point():
                raise Refused(
                    "has a kernel map that does not depend on the inner product by torch functions",
                    "Compute it from its first argument with torch functions",
                )
            bad = int((~(torch.isfinite(value) & torch.isfinite(slope))).sum())
            if bad:
                raise Refused(
                    f"has a kernel map that is not finite, or whose derivative is not, at {bad} pairs",
                    "Define it at coinciding and at zero points too (torch.where)",
                )
            if k is v1:
                _check_slope(kappa, k.detach(), norm1.detach(), slope.detach(), given)
            return Expectations(value if keep else value.detach(), slope if keep else slope.detach())

        mapped.__name__ = kappa.__name__
        mapped.__doc__ = kappa.__doc__
        dual(*keys, settings=settings, odd=odd)(mapped)
        return kappa

    return register


def _check_slope(kappa: Any, v: Tensor, norm: Tensor, slope: Tensor, given: dict[str, Any]) -> None:
    """Refuses a derivative at coinciding points that is not the limit of that beside them."""
    with torch.enable_grad():
        inner = (v * (1 - NEARBY)).requires_grad_()
        (beside,) = torch.autograd.grad(kappa(inner, norm, norm, **given).sum(), inner)
    if bool(((slope - beside).abs() > JUMP * beside.abs().max()).any()):
        raise Refused(
            "has a kernel map whose derivative at coinciding points is not the limit of that beside them",
            "Write it without arccos and clamps there: θ = 2 atan2(√(1 − c), √(1 + c))",
        )
