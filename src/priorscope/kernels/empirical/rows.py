"""Rows of the Jacobian, ∂f_a(x_i)/∂θ, for some points, some outputs and some parameters.

Two ways with one signature: `vectorized` by torch.func over all points at once, and `looped`, plain autograd through
the module itself, one point at a time. Both run inside `snapshot.installed()`.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp, vmap
from torch.utils._pytree import tree_flatten, tree_unflatten

from ...data.inputs import Inputs, count, take
from ...network.snapshot import Snapshot

Rows = Callable[[Snapshot, Inputs, slice, Sequence[str]], list[Tensor]]
"""(snapshot, x, outputs, names) -> for each parameter (s, k, its entries), contiguous, for s points and k outputs."""


def vectorized(snapshot: Snapshot, x: Inputs, outputs: slice, names: Sequence[str]) -> list[Tensor]:
    """By vmap over points of vmap over outputs of vjp; raises whatever torch.func raises where it cannot."""
    entries, structure = tree_flatten(x)
    is_tensor = [isinstance(entry, Tensor) for entry in entries]
    chosen = {name: snapshot.values[name] for name in names}

    def one(tensors: list[Tensor]) -> Any:
        given = iter(tensors)
        point: Any = tree_unflatten(
            [next(given) if moves else entry for entry, moves in zip(entries, is_tensor, strict=True)], structure
        )
        out, back = vjp(lambda values: snapshot.single(values, point), chosen)  # type: ignore[misc]
        units = torch.eye(out.shape[0], dtype=out.dtype, device=out.device)[outputs]
        return vmap(lambda unit: back(unit)[0])(units)

    with warnings.catch_warnings():
        # An operation without a batching rule is looped over by vmap: slower, and right.
        warnings.filterwarnings("ignore", message="There is a performance drop")
        grads = vmap(one)([entry for entry, moves in zip(entries, is_tensor, strict=True) if moves])
    # One at a time, so that only one gradient exists in two layouts.
    return [
        grads.pop(name).flatten(2).contiguous() if snapshot.values[name].ndim else grads.pop(name)[..., None]
        for name in names
    ]


def looped(snapshot: Snapshot, x: Inputs, outputs: slice, names: Sequence[str]) -> list[Tensor]:
    """By one backward pass of plain autograd for each point and output."""
    parameters = [snapshot.parameter(name) for name in names]
    result: list[Tensor] = []
    for i in range(count(x)):
        with torch.enable_grad():
            entries = snapshot.outputs(take(x, slice(i, i + 1)))[0].unbind()
        chosen = range(*outputs.indices(len(entries)))
        if not result:
            result = [p.new_zeros(count(x), len(chosen), p.numel()) for p in parameters]
        for row, a in enumerate(chosen):
            if not entries[a].requires_grad:
                continue
            grads = torch.autograd.grad(entries[a], parameters, retain_graph=row < len(chosen) - 1, allow_unused=True)
            for target, grad in zip(result, grads, strict=True):
                if grad is not None:
                    target[i, row] = grad.reshape(-1)
    return [target.detach() for target in result]
