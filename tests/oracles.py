"""The slow, obvious ways."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map


def jacobian_by_loop(
    model: nn.Module,
    x: Any,
    rates: dict[str, float] | None = None,
    readout: Callable[[Any], Tensor] | None = None,
) -> Tensor:
    """(n, o, p): one backward pass of plain autograd per sample and output, columns times the root of their rate."""
    learns = {name: p for name, p in model.named_parameters() if p.requires_grad}
    n = next(len(leaf) for leaf in tree_leaves(x) if isinstance(leaf, Tensor))
    rows = []
    for i in range(n):
        out = _called(model, _point(x, i))
        for entry in (out if readout is None else readout(out)).reshape(-1):
            grads: tuple[Tensor | None, ...] = (None,) * len(learns)
            if entry.requires_grad:
                grads = torch.autograd.grad(entry, list(learns.values()), retain_graph=True, allow_unused=True)
            rows.append(
                torch.cat(
                    [
                        (torch.zeros_like(p) if g is None else g.to_dense()).flatten()
                        * (1.0 if rates is None else rates[name]) ** 0.5
                        for (name, p), g in zip(learns.items(), grads, strict=True)
                    ]
                )
            )
    return torch.stack(rows).reshape(n, -1, rows[0].numel())


def ntk_by_loop(
    model: nn.Module,
    x1: Any,
    x2: Any,
    rates: dict[str, float] | None = None,
    readout: Callable[[Any], Tensor] | None = None,
) -> Tensor:
    """(n1, o, n2, o) = J diag(c) Jᵀ."""
    first, second = (jacobian_by_loop(model, x, rates, readout) for x in (x1, x2))
    return torch.einsum("iap,jbp->iajb", first, second)


def _point(x: Any, i: int) -> Any:
    return tree_map(lambda leaf: leaf[i : i + 1] if isinstance(leaf, Tensor) else leaf, x)


def _called(model: nn.Module, x: Any) -> Any:
    if isinstance(x, dict):
        return model(**x)
    return model(*x) if isinstance(x, (tuple, list)) else model(x)
