"""One value read per position by one branch and in all pairs of positions by another."""

import torch
from torch import Tensor, nn

from priorscope import Initialization
from priorscope.kernels.infinite import infinite_width

INIT = Initialization(2.0, 0.1, parameterization="ntk")


class Branches(nn.Module):
    """l(a + b), flattened; with `pooled` also m(the mean of relu(a))."""

    def __init__(self, pooled: bool):
        super().__init__()
        self.a, self.b = (nn.Conv2d(2, 8, 3, padding=1) for _ in range(2))
        self.l, self.m = nn.Linear(72, 1), nn.Linear(8, 1)
        self.pooled = pooled

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        flat = self.l((a + b).flatten(1))
        return flat + self.m(torch.relu(a).mean((2, 3))) if self.pooled else flat


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.m = nn.Conv2d(2, 8, 3, padding=1), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.m(torch.relu(self.a(x)).mean((2, 3)))


def test_a_branch_that_is_pooled_elsewhere_is_added_position_by_position():
    """With as many points as positions, where (n1, n2, P, P) and (n1, n2, P) would broadcast."""
    x = torch.randn(9, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both, flat, pooled = (
        infinite_width(INIT.apply_(m, 0).double(), INIT)(x) for m in (Branches(True), Branches(False), Pooled())
    )
    assert torch.allclose(both.nngp, flat.nngp + pooled.nngp, rtol=1e-12)
    assert torch.allclose(both.ntk, flat.ntk + pooled.ntk, rtol=1e-12)
