"""A kernel with coupled outputs, made of explicit features: the oracle knows everything about it."""

import torch
from torch import Tensor

from priorscope.kernels import Kernel, Origin


class Features(Kernel):
    """Θ = J Jᵀ, J(x) = tanh of a fixed random linear map: (n, o, p)."""

    origin = Origin("empirical ntk", {"w": 0.5})
    coupled = True

    def __init__(self, inputs: int, outputs: int, parameters: int):
        generator = torch.Generator().manual_seed(3)
        self.map = torch.randn(inputs, outputs, parameters, generator=generator, dtype=torch.float64)

    def features(self, x: Tensor) -> Tensor:
        return torch.tanh(torch.einsum("nd,dop->nop", x.double(), self.map)).to(x.dtype)

    def tensor4(self, x1, x2):
        return torch.einsum("iap,jbp->iajb", self.features(x1), self.features(x1 if x2 is None else x2))

    def matrix(self, x1, x2):
        return torch.einsum("iaja->ij", self.tensor4(x1, x2)) / self.map.shape[1]

    def variances(self, x):
        return self.matrix(x, None).diagonal()
