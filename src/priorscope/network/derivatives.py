"""Products of a network's Jacobian with vectors, J t and Jᵀ u, without the Jacobian J = ∂f/∂θ itself."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp


def forward_product(
    function: Callable[[dict[str, Tensor]], Any], point: Mapping[str, Tensor], tangent: Mapping[str, Tensor]
) -> tuple[Any, Any]:
    """(f(θ), J t) in one pass by forward-mode differentiation.

    Args:
        function: {parameter name: tensor} -> tensors, in the sense of torch.func.
        point: θ. tangent: t, for the same names, in the same shapes.
    """
    _load_forward_derivatives()
    value, slope = jvp(function, (dict(point),), (dict(tangent),))[:2]
    return value, slope


def backward_product(
    outputs: Float[Tensor, "n o"], parameters: Sequence[Tensor], cotangent: Float[Tensor, "n o"], keep: bool = False
) -> list[Tensor]:
    """Jᵀ u, one tensor for each parameter, by plain autograd; zeros where the outputs do not depend on it.

    Args:
        outputs: with the graph that made them. keep: whether that graph is needed again.
    """
    if not outputs.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    grads = torch.autograd.grad(outputs, list(parameters), cotangent, retain_graph=keep, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g.to_dense() for p, g in zip(parameters, grads, strict=True)]


def twice_backward_product(
    outputs: Float[Tensor, "n o"], parameters: Sequence[Tensor], tangent: Sequence[Tensor]
) -> Float[Tensor, "n o"]:
    """J t by two backward passes: g(u) = Jᵀ u is linear in u, and the gradient of ⟨g(u), t⟩ in u is J t.

    It serves modules without forward derivatives; their backward pass must itself be differentiable.
    """
    if not outputs.requires_grad:
        return torch.zeros_like(outputs)
    u = torch.zeros_like(outputs, requires_grad=True)
    grads = torch.autograd.grad(outputs, list(parameters), u, create_graph=True, allow_unused=True)
    terms = [(g * t).sum() for g, t in zip(grads, tangent, strict=True) if g is not None and g.requires_grad]
    if not terms:
        return torch.zeros_like(outputs)
    (product,) = torch.autograd.grad(torch.stack(terms).sum(), u, allow_unused=True)
    return torch.zeros_like(outputs) if product is None else product


@cache
def _load_forward_derivatives() -> None:
    # The first jvp of a process loads torch's own derivatives through torch.jit.script, which torch deprecates aloud.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        jvp(torch.clone, (torch.zeros(1),), (torch.zeros(1),))
