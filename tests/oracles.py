"""The slow, obvious ways."""

import torch
from torch import Tensor, nn


def jacobian_by_loop(model: nn.Module, x: Tensor, rates: dict[str, float] | None = None) -> Tensor:
    """(n, o, p): one backward pass of plain autograd per sample and output, columns times the root of their rate."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for i in range(len(x)):
        out = model(x[i : i + 1]).reshape(-1)
        for entry in out:
            grads = torch.autograd.grad(entry, parameters, retain_graph=True, allow_unused=True)
            row = [
                (torch.zeros_like(p) if g is None else g).flatten() * (1.0 if rates is None else rates[name]) ** 0.5
                for name, p, g in zip(names, parameters, grads, strict=True)
            ]
            rows.append(torch.cat(row))
    jacobian = torch.stack(rows)
    return jacobian.reshape(len(x), -1, jacobian.shape[1])


def ntk_by_loop(model: nn.Module, x1: Tensor, x2: Tensor, rates: dict[str, float] | None = None) -> Tensor:
    """(n1, o, n2, o) = J diag(c) Jᵀ."""
    return torch.einsum("iap,jbp->iajb", jacobian_by_loop(model, x1, rates), jacobian_by_loop(model, x2, rates))
