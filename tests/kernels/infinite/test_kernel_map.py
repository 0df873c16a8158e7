"""The user's own kernel map: derivatives, coinciding points, refusals."""

import pytest
import torch
from torch import nn

from priorscope import Initialization
from priorscope.errors import NoRuleError
from priorscope.kernels.infinite import infinite_width, kernel_map
from priorscope.kernels.infinite.registry import RULES

INIT = Initialization(1.5, 0.1)


class Own(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return self.scale * torch.exp(x)


@pytest.fixture
def network():
    yield INIT.apply_(nn.Sequential(nn.Linear(3, 8), Own(2.0), nn.Linear(8, 8), Own(), nn.Linear(8, 1)), 0)
    RULES.pop(Own, None)


def test_the_map_of_a_known_activation(network):
    @kernel_map(Own, settings=("scale",))
    def exponential(inner, norm1, norm2, scale):
        return scale**2 * torch.exp(inner + (norm1**2 + norm2**2) / 2)

    x, z = torch.randn(4, 3) / 3, torch.randn(3, 3) / 3
    mapped = infinite_width(network, INIT)
    found = [*mapped(x, z), *mapped(x)]
    RULES.pop(Own)
    fused = infinite_width(network, INIT)
    for a, b in zip([*fused(x, z), *fused(x)], found, strict=True):
        assert float((a - b).abs().max()) <= 1e-11 * float(a.abs().max())


def test_it_is_differentiable(network):
    @kernel_map(Own, settings=("scale",))
    def cubic(inner, norm1, norm2, scale):
        return scale * inner**3 + norm1 * norm2 * inner

    limit = infinite_width(network, INIT)
    x = torch.randn(3, 3).requires_grad_()
    z = torch.randn(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, z: tuple(limit(x, z)), (x, z), fast_mode=True)
    assert torch.autograd.gradcheck(lambda x: tuple(limit(x)), (x,), fast_mode=True)


def test_what_is_not_finite_or_does_not_depend_on_the_inner_product_raises():
    for kappa, cause in (
        (lambda inner, norm1, norm2: torch.acos(inner / (norm1 * norm2)), "not finite|coinciding points"),
        (lambda inner, norm1, norm2: norm1 * norm2, "does not depend on the inner product"),
    ):
        try:
            kernel_map(Own)(kappa)
            model = INIT.apply_(nn.Sequential(nn.Linear(3, 8), Own(), nn.Linear(8, 1)), 0)
            with pytest.raises(NoRuleError, match=cause):
                infinite_width(model, INIT)(torch.randn(3, 3))
        finally:
            RULES.pop(Own)


def test_an_arc_cosine_without_a_derivative_at_coinciding_points_raises(network):
    @kernel_map(Own)
    def relu(inner, norm1, norm2):
        size = norm1 * norm2
        theta = torch.acos((inner / size).clamp(-1 + 1e-12, 1 - 1e-12))
        return size * (torch.sin(theta) + (torch.pi - theta) * torch.cos(theta)) / (2 * torch.pi)

    with pytest.raises(NoRuleError, match="derivative at coinciding points"):
        infinite_width(network, INIT)(torch.randn(5, 3))


def test_the_normalized_exponential(network):
    @kernel_map(Own)
    def normalized(inner, norm1, norm2):
        return norm1 * norm2 * torch.exp(inner / (norm1 * norm2) - 1)

    x = torch.randn(5, 3)
    answer = infinite_width(network[:3], INIT)(x)
    k = 1.5 * x @ x.T / 3 + 0.1
    size = k.diagonal().sqrt().outer(k.diagonal().sqrt())
    assert torch.allclose(answer.nngp, 1.5 * size * torch.exp(k / size - 1) + 0.1)
