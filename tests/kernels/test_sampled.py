"""Kernels by sampling, where a node has no rule: against loops over networks, the exact limit, their own errors."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import priorscope as ps
from priorscope.errors import DataError, NoRuleError, RatesError
from priorscope.kernels import SampledKernel
from tests.cases import mlp
from tests.oracles import ntk_by_loop

INIT = ps.Initialization(1.8, 0.2, "ntk")


class Pooled(nn.Module):
    """Linear layers around a maximum over windows of one entry, which changes nothing and has no rule."""

    def __init__(self, width, outputs=2, head=True):
        super().__init__()
        self.first, self.last = nn.Linear(3, width), nn.Linear(width, outputs)
        self.head = head

    def forward(self, x):
        h = F.max_pool1d(self.first(x).relu()[:, None], 1)[:, 0]
        return self.last(h) if self.head else F.max_pool1d(self.last(h)[:, None], 1)[:, 0]


def sampled(model, init=INIT, **options):
    return ps.infinite_width(init.apply_(model, seed=7), init, fallback="monte-carlo", **options)


def test_rules_are_used_where_they_exist():
    x = torch.randn(4, 3)
    model = mlp(3, 16, 2)
    pair, exact = sampled(model), ps.infinite_width(model, INIT)
    assert torch.equal(pair.ntk(x), exact.ntk(x))
    assert torch.equal(pair.nngp.diagonal(x), exact.nngp.diagonal(x))
    assert not pair.ntk.standard_errors(x, x[:2]).any()
    assert str(pair.explain()) == str(exact.explain())


@pytest.mark.parametrize("head", [True, False])
def test_it_is_a_mean_over_drawn_networks(head):
    x1, x2 = torch.randn(3, 3), torch.randn(2, 3)
    model = Pooled(6, head=head)
    pair = sampled(model, samples=5, seed=20)
    with pytest.warns(ps.PriorscopeWarning, match="max_pool1d.*estimated from 5 networks"):
        found = pair(x1, x2)
    rates = INIT.rates(model)
    before = [p.clone() for p in model.parameters()]
    ntks, nngps = [], []
    for seed in range(20, 25):
        drawn = INIT.apply_(Pooled(6, head=head), seed)
        ntks.append(torch.einsum("ikjk->ij", ntk_by_loop(drawn, x1, x2, rates)) / 2)
        hidden = [drawn.first(x).relu() for x in (x1, x2)]
        outputs = [drawn(x) for x in (x1, x2)]
        given_all_below = 1.8 * hidden[0] @ hidden[1].T / 6 + 0.2
        nngps.append(given_all_below if head else outputs[0] @ outputs[1].T / 2)
    for matrix, errors, each in (
        (found.ntk, pair.ntk.standard_errors(x1, x2), torch.stack(ntks)),
        (found.nngp, pair.nngp.standard_errors(x1, x2), torch.stack(nngps).detach()),
    ):
        torch.testing.assert_close(matrix, each.mean(0), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(errors, each.std(0) / 5**0.5, rtol=1e-8, atol=1e-12)
    assert all(torch.equal(p, was) for p, was in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("parameterization", ["standard", "ntk"])
def test_it_tends_to_the_exact_limit(parameterization):
    init = ps.Initialization(1.8, 0.2, parameterization)
    x = torch.randn(4, 3)
    pair = sampled(Pooled(256), init, samples=30)
    exact = ps.infinite_width(init.apply_(mlp(3, 256, 2), 0), init)
    with pytest.warns(ps.PriorscopeWarning, match="estimated"):
        found = pair(x)
    for name in ("nngp", "ntk"):
        errors = getattr(pair, name).standard_errors(x)
        off = getattr(found, name) - getattr(exact, name)(x)
        assert float((off.abs() / errors).max()) < 4
        wrong = getattr(found, name) - 1.2 * getattr(exact, name)(x)
        assert float((wrong.abs() / errors).max()) > 8


def test_four_times_the_networks_halve_the_errors():
    x = torch.randn(6, 3)
    errors = []
    for samples in (15, 60):
        pair = sampled(Pooled(16), samples=samples)
        with pytest.warns(ps.PriorscopeWarning, match="estimated"):
            errors.append(pair.ntk.standard_errors(x).mean())
    assert 1.5 < float(errors[0] / errors[1]) < 2.7


def test_it_is_one_kernel_whatever_it_is_asked_for():
    x = torch.randn(5, 3)
    pair = sampled(Pooled(8), samples=10)
    with pytest.warns(ps.PriorscopeWarning, match="estimated"):
        whole = pair(x)
    part = pair.ntk(x[:2], x[2:])
    torch.testing.assert_close(part, whole.ntk[:2, 2:], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(pair.nngp.diagonal(x[1:3]), whole.nngp.diagonal()[1:3], rtol=1e-12, atol=1e-12)
    assert float(torch.linalg.eigvalsh(whole.ntk).min()) > -1e-12
    assert isinstance(pair.ntk, SampledKernel)
    assert pair.ntk.origin.rates == INIT.rates(Pooled(8))
    assert pair.nngp(x.float()).dtype == torch.float32
    post = ps.GaussianProcess(pair.nngp, noise=0.1).condition(x, torch.randn(5, 2))
    assert post(torch.randn(3, 3)).mean.shape == (3, 2)


def test_explain_says_what_was_sampled_and_why():
    pair = sampled(Pooled(8), samples=10)
    with pytest.warns(ps.PriorscopeWarning, match="estimated"):
        pair(torch.randn(2, 3))
    text = str(pair.explain())
    assert [w in text for w in ("max_pool1d", "monte-carlo", "10 networks", "seeds 0 to 9", "O(1/width)")] == [True] * 5


def test_measured_variances_go_with_the_layers():
    model = INIT.apply_(Pooled(8), seed=0)
    law = ps.Initialization.measured(model, "ntk")
    pair = ps.infinite_width(model, law, fallback="monte-carlo", samples=4)
    with pytest.warns(ps.PriorscopeWarning, match="estimated"):
        found = pair(torch.randn(3, 3))
    assert torch.isfinite(found.ntk).all()


def test_never_by_default_and_bad_options():
    x = torch.randn(2, 3)
    model = INIT.apply_(Pooled(8), 0)
    with pytest.raises(NoRuleError, match="max_pool1d"):
        ps.infinite_width(model, INIT)(x)
    with pytest.raises(DataError, match="'monte-carlo'"):
        ps.infinite_width(model, INIT, fallback="guess")
    with pytest.raises(DataError, match="at least 2"):
        ps.infinite_width(model, INIT, fallback="monte-carlo", samples=1)


def test_parameters_without_a_law_are_not_taken_as_given():
    model = Pooled(8)
    model.scale = nn.Parameter(torch.randn(8))
    init = ps.Initialization(2.0, 0.1)
    with pytest.warns(ps.PriorscopeWarning, match="no law"):
        pair = sampled(model, init)
    with pytest.warns(ps.PriorscopeWarning, match="estimated"), pytest.raises(RatesError, match="`scale`"):
        pair(torch.randn(2, 3))


def test_frozen_networks_have_no_ntk():
    model = INIT.apply_(Pooled(8), 0).requires_grad_(False)
    pair = ps.infinite_width(model, INIT, fallback="monte-carlo", samples=4)
    with pytest.warns(ps.PriorscopeWarning, match="estimated"):
        found = pair(torch.randn(2, 3))
    assert not found.ntk.any()
    assert (found.nngp.diagonal() > 0).all()
