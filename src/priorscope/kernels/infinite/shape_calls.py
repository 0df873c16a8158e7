"""Torch's functions by what they do to shapes: reshapes keep each point's entries, products contract two values."""

import torch
from torch import Tensor

RESHAPES = frozenset(
    (
        *(torch.reshape, Tensor.reshape, Tensor.view, torch.flatten, Tensor.flatten, torch.ravel, Tensor.ravel),
        *(torch.squeeze, Tensor.squeeze, torch.unsqueeze, Tensor.unsqueeze, torch.unflatten, Tensor.unflatten),
    )
)

PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.bmm, Tensor.bmm)
