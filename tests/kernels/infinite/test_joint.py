"""Functions of several Gaussian values: closed forms where there are some, and brute sampling of the Gaussians."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from priorscope import Initialization, infinite_width
from priorscope.errors import NoRuleError
from priorscope.kernels.infinite.moments import Moments
from priorscope.kernels.infinite.shortcut import Shortcut
from tests.kernels.infinite.layers import Written
from tests.oracles import ntk_by_loop
from tests.statistics import BootstrappedMean, TwoWidths

INIT = Initialization(1.5, 0.1, parameterization="ntk")
POINTS = torch.randn(5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
POINTS[3] = -POINTS[0]
POINTS[4] = POINTS[1] * (1 + 1e-6)


def network(written: Callable[..., Tensor], width: int = 8) -> nn.Module:
    """head(written(a, b, c)), where a and b are linear in x and c is linear in relu(a)."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        a, b = m.a(x), m.b(x)
        return m.head(written(a, b, m.c(torch.relu(a))))

    parts = {name: nn.Linear(4, width) for name in "ab"}
    made = Written(forward, **parts, c=nn.Linear(width, width), head=nn.Linear(width, 1))
    return INIT.apply_(made, 0).double()


def before(x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """K and Θ of a, b and c, by the closed forms of their layers."""
    k = 1.5 * x @ x.T / x.shape[1] + 0.1
    after, slope = relu(k)
    return [(k, k), (k, k), (1.5 * after + 0.1, 1.5 * (k * slope + after) + 0.1)]


def relu(k: Tensor) -> tuple[Tensor, Tensor]:
    size = (k.diagonal()[:, None] * k.diagonal()[None]).sqrt()
    theta = (k / size).clamp(-1, 1).arccos()
    return size * (theta.sin() + (math.pi - theta) * theta.cos()) / (2 * math.pi), (math.pi - theta) / (2 * math.pi)


def stated_error(limit) -> float:
    return max(step.error for step in limit.explain().steps)


def test_two_relus_have_their_closed_form():
    """E[(relu a + relu b)(relu a' + relu b')]: two arc-cosine kernels, and the product of the means twice."""
    limit = infinite_width(network(lambda a, b, c: torch.relu(a) + torch.relu(b)), INIT)
    found = limit(POINTS)
    (k, tangent), _, _ = before(POINTS)
    each, slope = relu(k)
    mean = (k.diagonal() / (2 * math.pi)).sqrt()
    nngp = 2 * each + 2 * mean[:, None] * mean[None]
    ntk = 2 * tangent * slope
    error = stated_error(limit)
    assert 0 < error < 0.01
    for ours, exact in ((found.nngp, 1.5 * nngp + 0.1), (found.ntk, 1.5 * (ntk + nngp) + 0.1)):
        assert (ours - exact).abs().max() <= 2 * error * exact.abs().max()
        assert torch.equal(ours, ours.T)


FUNCTIONS = {
    "identity shortcut behind a ReLU": lambda a, b, c: torch.relu(torch.relu(a) + c),
    "two such blocks": lambda a, b, c: torch.relu(torch.relu(torch.relu(a) + b) + c),
    "a gate behind a sum": lambda a, b, c: torch.tanh(a * torch.sigmoid(b) + c),
    "a sum of Gaussians and one of its terms": lambda a, b, c: torch.relu(a + b) * torch.sigmoid(a),
    "the larger of two": lambda a, b, c: torch.maximum(b, c),
    "leaky, scaled": lambda a, b, c: 0.5 * F.leaky_relu(c + 0.3 * F.leaky_relu(a, 0.2), 0.1),
    "the smaller side": lambda a, b, c: -torch.relu(a.abs() - c),
}
EXACT = ("identity shortcut behind a ReLU", "leaky, scaled", "the smaller side")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_expectations_are_those_of_sampled_gaussians(name):
    """E[φφ'] and Σ Θ_i E[∂_iφ ∂_iφ'] over 4·10⁵ draws of the Gaussian values at all points together."""
    function = FUNCTIONS[name]
    limit = infinite_width(network(function), INIT)
    found = limit(POINTS)
    generator = torch.Generator().manual_seed(0)
    draws, values = 400_000, []
    for k, _ in before(POINTS):
        factor = torch.linalg.cholesky(k + 1e-12 * torch.eye(len(k), dtype=k.dtype))
        normal = torch.randn(draws, len(k), generator=generator, dtype=torch.float64)
        values.append((normal @ factor.T).requires_grad_())
    out = function(*values)
    slopes = torch.autograd.grad(out.sum(), values, allow_unused=True)
    out = out.detach()
    nngp, noise = out.T @ out / draws, (out.square().T @ out.square() / draws).sqrt() / draws**0.5
    ntk = 1.5 * nngp + 0.1
    for slope, (_, tangent) in zip(slopes, before(POINTS), strict=True):
        if slope is not None:
            ntk = ntk + 1.5 * tangent * (slope.T @ slope / draws)
    allowed = 6 * 1.5 * noise.max() + stated_error(limit) * found.ntk.abs().max()
    assert (found.nngp - 1.5 * nngp - 0.1).abs().max() <= allowed
    assert (found.ntk - ntk).abs().max() <= allowed
    assert allowed < 0.05 * found.ntk.abs().max()
    assert (stated_error(limit) == 0) == (name in EXACT)
    assert name not in EXACT or "Plackett" in str(limit.explain())


def test_nearly_equal_points_keep_their_digits():
    x = torch.tensor([[0.3, -1.0, 0.5, 2.0]], dtype=torch.float64)
    pair = torch.cat([x, x * (1 + 1e-7), x])
    k = infinite_width(network(FUNCTIONS["two such blocks"]), INIT).nngp(pair)
    distance = (k[0, 0] + k[1, 1]) / 2 - k[0, 1]
    assert k[0, 2] == k[0, 0]
    assert distance.abs() < 1e-12 * k[0, 0]
    without_bias = Initialization(1.5, 0.0)
    model = without_bias.apply_(network(FUNCTIONS["two such blocks"]), 0)
    zero = infinite_width(model, without_bias)(torch.zeros_like(pair))
    assert bool(torch.isfinite(zero.nngp).all() & torch.isfinite(zero.ntk).all())


def test_float32_and_blocks_agree_with_float64():
    model = network(FUNCTIONS["identity shortcut behind a ReLU"])
    limit = infinite_width(model, INIT)
    whole, single = limit(POINTS), infinite_width(model.float(), INIT)(POINTS.float())
    assert single.nngp.dtype == torch.float32
    assert torch.allclose(single.ntk.double(), whole.ntk, atol=1e-6 * float(whole.ntk.max()))
    cross = limit(POINTS, POINTS[:2])
    assert torch.allclose(cross.ntk, whole.ntk[:, :2], atol=1e-12 * float(whole.ntk.max()))
    assert torch.allclose(limit.ntk.diagonal(POINTS), whole.ntk.diagonal(), rtol=1e-12)


class Block(nn.Module):
    """relu(x + conv(relu(conv(x)))): the shortcut is the block's own input."""

    def __init__(self, width: int):
        super().__init__()
        self.a, self.b = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.b(torch.relu(self.a(x))))


class ResNet(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.stem = nn.Conv2d(2, width, 3, padding=1)
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(torch.relu(self.stem(x))).mean((2, 3)))


@pytest.mark.parametrize("networks", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_networks_with_post_activation_blocks_have_the_limit_s_kernel(networks):
    x = torch.randn(2, 2, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    kernels = {}
    for width in (16, 64):
        models = [INIT.apply_(ResNet(width), seed).double() for seed in range(networks)]
        found = torch.stack([ntk_by_loop(model, x, x, INIT.rates(model))[:, 0, :, 0] for model in models])
        kernels[width] = found[:, [0, 0, 1], [0, 1, 1]]
    means = {width: BootstrappedMean.of(found, 4000, seed=0) for width, found in kernels.items()}

    def law(variance: float) -> Tensor:
        init = Initialization(variance, 0.1, parameterization="ntk")
        return infinite_width(init.apply_(ResNet(4), 0).double(), init).ntk(x)[[0, 0, 1], [0, 1, 1]]

    at = {width: mean.statistic(law(1.5)) for width, mean in means.items()}
    criterion = TwoWidths("post-activation ResNet", 16, 64, at[16], at[64], means[64].quantile)
    print(criterion)
    assert criterion.passes, criterion
    assert criterion.refutes(means[64].statistic(law(2.5)))


def test_dependent_values_are_refused_by_name():
    def flipped(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return torch.relu(torch.relu(a) + a.flip(1))

    with pytest.raises(NoRuleError, match="correlated"):
        infinite_width(network(flipped), INIT)(POINTS)


def test_kernels_that_are_sampled_and_to_be_differentiated_are_refused():
    limit = infinite_width(network(FUNCTIONS["two such blocks"]), INIT)
    with pytest.raises(NoRuleError, match="several Gaussian values"):
        limit.nngp(POINTS.clone().requires_grad_())


def test_gradients_through_a_shortcut():
    limit = infinite_width(network(FUNCTIONS["identity shortcut behind a ReLU"]), INIT)
    x, z = POINTS[:2].clone().requires_grad_(), POINTS[1:3].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, z: tuple(limit(x, z)), (x, z), fast_mode=True)
    assert torch.autograd.gradcheck(lambda x: tuple(limit(x)), (x,), fast_mode=True)


def test_a_shortcut_without_a_kink_is_the_relu_of_a_sum():
    """relu(z + g) by orthants, and by its own closed form: to 1e-10, at nearly equal and opposite points too."""
    x = torch.cat([POINTS, POINTS[:1] + 1e-4, POINTS[:1] * 0.5])
    (k, tangent), _, _ = before(x)
    v = k.diagonal()
    m = Moments(k, v, v, (v[:, None] + v[None]) / 2 - k, tangent, (8,), gaussian=True, mean_zero=True)
    form = Shortcut(1, 0, (1.0, 0.0), (1.0, 1.0))
    product, by_z, by_g = form.products([m, m])
    value, slope = relu(2 * k)
    assert torch.allclose(product, value, rtol=1e-9, atol=1e-10)
    assert torch.allclose(by_z, slope, atol=1e-7)
    assert torch.equal(by_z, by_g)
    own = form.powers([v, v])
    assert torch.allclose(own[0], v, rtol=1e-14)
    assert torch.allclose(own[1], torch.full_like(v, 0.5))


@pytest.mark.parametrize(
    ("written", "cause"),
    [
        (lambda a, b, c: a / b, "comes to 0"),
        (lambda a, b, c: (a * a + b).log(), "comes to 0"),
        (lambda a, b, c: torch.exp(4 * a * b), "sampling does not reach"),
        (lambda a, b, c: torch.relu(a.relu() + b).to(torch.int64) * b, "whole numbers"),
    ],
)
def test_expectations_that_do_not_exist_are_refused(written, cause):
    with pytest.raises(NoRuleError, match=cause):
        infinite_width(network(written), INIT)(POINTS)


def test_explain_names_it_with_its_error():
    limit = infinite_width(network(FUNCTIONS["two such blocks"]), INIT)
    limit(POINTS)
    assert "function of 3 Gaussian values, quadrature, error ≤" in str(limit.explain())
