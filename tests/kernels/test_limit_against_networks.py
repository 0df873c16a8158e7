"""The mean kernel of networks drawn by `init.apply_` against the infinite-width NTK, by tests/statistics.py.

In "standard" every run takes the kernels of all networks from `EmpiricalNTK`; in "ntk" from one vectorised autograd
call, which the first few of `EmpiricalNTK` must equal, and from `EmpiricalNTK` alone in the slow test.
"""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, stack_module_state, vmap

import priorscope as ps
from tests.cases import mlp
from tests.statistics import BootstrappedMean, TwoWidths

DRAWS = 4000
CHUNK = 25
WIDTHS = (64, 256)


class ResidualNetwork(nn.Module):
    """h = Wx, h + V relu(h), and a read-out of its relu."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.branch, self.last = nn.Linear(3, width), nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, x):
        h = self.first(x)
        return self.last((h + self.branch(h.relu())).relu())


ARCHITECTURES = {
    "two layers, relu": lambda width: mlp(3, width, 1),
    "three layers, gelu": lambda width: mlp(3, width, width, 1, activation=nn.GELU),
    "residual": ResidualNetwork,
}
LONG = ("three layers, gelu", "residual")


def initialization(parameterization: str, weight_variance: float = 2.0) -> ps.Initialization:
    return ps.Initialization(weight_variance, 0.1, parameterization)


def points() -> Tensor:
    return torch.randn(3, 3, generator=torch.Generator().manual_seed(3))


def upper(matrices: Tensor) -> Tensor:
    """The entries of symmetric matrices, once each."""
    rows, columns = torch.triu_indices(*matrices.shape[-2:])
    return matrices[..., rows, columns]


def grams(name: str, width: int, networks: int) -> dict[str, Tensor]:
    """{parameter name: (s, n, n)}: JJᵀ of each parameter of each drawn network, with plain autograd."""
    make, init, x = ARCHITECTURES[name], initialization("standard"), points()
    template, parts = make(width), []

    def jacobian(values):
        return jacrev(lambda v: functional_call(template, v, x)[:, 0])(values)

    for start in range(0, networks, CHUNK):
        seeds = range(start, min(start + CHUNK, networks))
        stacked, _ = stack_module_state([init.apply_(make(width), seed) for seed in seeds])
        rows = vmap(jacobian)(stacked)
        parts.append({key: torch.einsum("sip,sjp->sij", j.flatten(2), j.flatten(2)) for key, j in rows.items()})
    return {key: torch.cat([part[key] for part in parts]).detach() for key in parts[0]}


def by_autograd(name: str, parameterization: str, width: int, networks: int) -> Tensor:
    rates = initialization(parameterization).rates(ARCHITECTURES[name](width))
    return upper(sum(rates[key] * gram for key, gram in grams(name, width, networks).items()))


def by_empirical_ntk(name: str, parameterization: str, width: int, networks: int) -> Tensor:
    model, init = ARCHITECTURES[name](width), initialization(parameterization)
    kernels = [ps.EmpiricalNTK(init.apply_(model, seed), rates=init)(points()) for seed in range(networks)]
    return upper(torch.stack(kernels))


def limit(name: str, width: int, init: ps.Initialization) -> Tensor:
    """The limit's entries; in "standard" on the scale of this width."""
    return upper(ps.infinite_width(init.apply_(ARCHITECTURES[name](width), 0), init).ntk(points()))


def off(mean: BootstrappedMean, law: Tensor) -> float:
    """‖mean − law‖ / ‖law‖ over the entries."""
    return float((mean.mean - law).norm() / law.norm())


def check(name: str, parameterization: str, samples: dict[int, Tensor]) -> None:
    narrow, wide = samples
    laws = {width: limit(name, width, initialization(parameterization)) for width in samples}
    means = {width: BootstrappedMean.of(samples[width], DRAWS, seed=0) for width in samples}
    criterion = TwoWidths(
        f"{name}, {parameterization}",
        narrow,
        wide,
        means[narrow].statistic(laws[narrow]),
        means[wide].statistic(laws[wide]),
        means[wide].quantile,
    )
    relative = {width: float((samples[width] / laws[width] - 1).square().mean().sqrt()) for width in samples}
    of_mean = {width: off(means[width], laws[width]) for width in samples}
    noise = {width: float(means[width].error.norm() / laws[width].norm()) for width in samples}
    print(f"{criterion}; relative deviation of a network {relative}, of the mean {of_mean}, from sampling {noise}")
    assert criterion.passes, criterion
    wrong = limit(name, wide, initialization(parameterization, 2.3))
    assert criterion.refutes(means[wide].statistic(wrong))
    # The mean's own deviation is O(1/width), beyond three standard errors of sampling.
    bound = 3 * noise[wide] + of_mean[narrow] * narrow / wide
    assert of_mean[wide] < bound < off(means[wide], wrong)
    drowned = of_mean[narrow] < 2 * noise[narrow]
    assert drowned or of_mean[wide] < of_mean[narrow]
    # 1/√width is what the central limit theorem says of one network.
    assert relative[wide] < 1.3 * (narrow / wide) ** 0.5 * relative[narrow]


@pytest.mark.parametrize("parameterization", ["standard", pytest.param("ntk", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in ARCHITECTURES])
def test_the_mean_of_empirical_ntk_over_200_networks_is_the_limit(name, parameterization):
    check(name, parameterization, {width: by_empirical_ntk(name, parameterization, width, 200) for width in WIDTHS})


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_mean_kernel_by_autograd_is_the_limit(name):
    samples = {width: by_autograd(name, "ntk", width, 200) for width in WIDTHS}
    for width in WIDTHS:
        ours = by_empirical_ntk(name, "ntk", width, 2)
        torch.testing.assert_close(ours, samples[width][:2], rtol=1e-10, atol=0)
    check(name, "ntk", samples)
