"""Torch's functions that give each point another shape and keep its entries."""

import torch
from torch import Tensor

RESHAPES = frozenset(
    (
        *(torch.reshape, Tensor.reshape, Tensor.view, torch.flatten, Tensor.flatten, torch.ravel, Tensor.ravel),
        *(torch.squeeze, Tensor.squeeze, torch.unsqueeze, Tensor.unsqueeze, torch.unflatten, Tensor.unflatten),
    )
)
