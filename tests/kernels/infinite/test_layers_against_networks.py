"""The mean tangent kernel of networks drawn by `init.apply_` against the limit, for every kind of layer."""

import warnings

import pytest
import torch
from torch.func import functional_call, jacrev

from priorscope import Initialization
from priorscope.errors import PriorscopeWarning
from priorscope.kernels.infinite import infinite_width
from tests.kernels.infinite.layers import ARCHITECTURES, NAMED, points
from tests.statistics import BootstrappedMean, TwoWidths

DRAWS = 4000
WIDTHS = (24, 96)
WIDER = {"class token": 4, "relu attention, 1/d": 4}  # scores whose mean is off by as much as 10/width
FAST = ("softmax attention, 1/d", "position encodings", "graph", "embedding", "gated channels")


def drawn(name: str, width: int, seed: int, init: Initialization):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PriorscopeWarning)
        return init.apply_(ARCHITECTURES[name](width).eval(), seed)


def kernels(name: str, width: int, networks: int) -> torch.Tensor:
    """(s, entries) of J diag(c) Jᵀ, by autograd."""
    init, x, found = Initialization(1.5, 0.1, "ntk"), points(name), []
    for seed in range(networks):
        model = drawn(name, width, seed, init)
        rates = init.rates(model, **NAMED.get(name, {}))
        values = dict(model.named_parameters())
        rows = jacrev(lambda v, model=model: functional_call(model, v, (x,))[:, 0])(values)
        found.append(sum(rates[key] * j.detach().flatten(1) @ j.detach().flatten(1).T for key, j in rows.items()))
    rows, columns = torch.triu_indices(len(x), len(x))
    return torch.stack(found)[:, rows, columns]


def law(name: str, width: int, variance: float = 1.5) -> torch.Tensor:
    init = Initialization(variance, 0.1, "ntk")
    model = drawn(name, width, 0, init)
    kernel = infinite_width(model, init, rates=init.rates(model, **NAMED.get(name, {}))).ntk(points(name))
    return kernel[tuple(torch.triu_indices(*kernel.shape))]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("networks", [30, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in ARCHITECTURES])
def test_the_mean_kernel_of_networks_is_the_limit(name, networks):
    narrow, wide = (WIDER.get(name, 1) * width for width in WIDTHS)
    means = {w: BootstrappedMean.of(kernels(name, w, networks), DRAWS, seed=0) for w in (narrow, wide)}
    at = {w: means[w].statistic(law(name, w)) for w in (narrow, wide)}
    criterion = TwoWidths(name, narrow, wide, at[narrow], at[wide], means[wide].quantile)
    off = float((means[wide].mean - law(name, wide)).norm() / law(name, wide).norm())
    print(f"{criterion}; relative deviation of the mean {off:.3f}")
    assert criterion.passes, criterion
    assert criterion.refutes(means[wide].statistic(law(name, wide, 3.0)))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_all_layouts_agree(name):
    init, x = Initialization(1.5, 0.1), points(name, 3)
    x = torch.cat([x, x[1:2]])
    model = drawn(name, 16, 0, init)
    limit = infinite_width(model, init, rates=init.rates(model))
    for gram, kernel in zip(limit(x), (limit.nngp, limit.ntk), strict=True):
        assert torch.equal(gram, gram.T)
        torch.testing.assert_close(kernel(x[:2], x), gram[:2], rtol=1e-10, atol=0)
        torch.testing.assert_close(kernel.diagonal(x), gram.diagonal(), rtol=1e-10, atol=0)
        torch.testing.assert_close(gram[1], gram[3], rtol=1e-7, atol=0)
        assert float(gram[1, 3]) == pytest.approx(float(gram[1, 1]), rel=1e-12)
        assert float(torch.linalg.eigvalsh(gram)[0]) > -1e-9 * float(gram.max())
