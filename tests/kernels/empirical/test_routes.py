"""Modules that use other parameters at other points, that change their input, or that the plan must treat with care."""

import pytest
import torch
from torch import Tensor, nn

from priorscope.errors import ModelError, NotExactError
from priorscope.kernels.empirical import EmpiricalNTK
from tests.kernels.empirical.awkward.case import Net
from tests.oracles import ntk_by_loop


def assert_exact(model: nn.Module, x) -> EmpiricalNTK:
    kernel, expected = EmpiricalNTK(model), ntk_by_loop(model, x, x)
    scale = float(expected.abs().max())
    assert float((kernel.blocks(x) - expected).abs().max()) <= 1e-10 * scale
    trace = torch.einsum("iaja->ij", expected) / expected.shape[1]
    assert float((kernel(x) - trace).abs().max()) <= 1e-10 * scale
    assert float((kernel.diagonal(x) - trace.diagonal()).abs().max()) <= 1e-10 * scale
    return kernel


def tasks(*numbers: int) -> tuple[Tensor, Tensor]:
    return torch.randn(len(numbers), 4), torch.tensor(numbers)


def prompts(m, x, t):
    return m.last((x + torch.stack([m.table[i] for i in t.tolist()])).tanh())


def second_use(m, x, t):
    h = m.last(x.tanh())
    return torch.stack([h[i] + (m.last.weight.sum() if int(t[i]) else 0.0) for i in range(len(h))])


def heads(m, x, t):
    return torch.stack([m.heads[int(i)](row) for row, i in zip(x.tanh(), t, strict=True)])


@pytest.mark.parametrize("route", [(0, 1, 0), (0, 2, 0, 1, 0), (1, 1, 2), (0, 1, 2)])
@pytest.mark.parametrize("rule", [prompts, second_use, heads])
def test_points_that_go_other_ways_by_integers(rule, route):
    torch.manual_seed(0)
    table = nn.ParameterList(nn.Parameter(torch.randn(4)) for _ in range(3))
    three = nn.ModuleList(nn.Linear(4, 2) for _ in range(3))
    assert_exact(Net(rule, table=table, last=nn.Linear(4, 2), heads=three), tasks(*route))


def experts(m, x):
    out, chosen = torch.zeros_like(x), m.router(x).argmax(-1)
    for i, gain in enumerate(m.gains):
        index = (chosen == i).nonzero()[:, 0]
        if len(index):
            out = out.index_add(0, index, x[index] * gain)
    return m.last(out.tanh())


def test_points_that_go_to_other_experts():
    torch.manual_seed(1)
    gains = nn.ParameterList(nn.Parameter(torch.randn(4)) for _ in range(3))
    model = Net(experts, router=nn.Linear(4, 3), gains=gains, last=nn.Linear(4, 2))
    x = torch.randn(30, 4)
    chosen = model.router(x).argmax(-1)
    assert len(chosen.unique()) > 1
    ends = (chosen == chosen[0]).nonzero()[:, 0]
    assert_exact(model, x[: int(ends[-1]) + 1])  # the two points of the certificate go the same way


TRANSPOSED = {
    "1d": (lambda: nn.ConvTranspose1d(16, 16, 2), (16, 1)),
    "2d": (lambda: nn.ConvTranspose2d(12, 16, 3), (12, 1, 1)),
    "2d strided": (lambda: nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1), (8, 2, 2)),
    "3d grouped": (lambda: nn.ConvTranspose3d(4, 4, 2, stride=3, output_padding=1, groups=2, dilation=2), (4, 1, 2, 1)),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_biases_of_transposed_convolutions_by_grams(name, monkeypatch):
    for choice in ("_cheapest", "_smallest"):
        monkeypatch.setattr(f"priorscope.kernels.empirical.plan.{choice}", lambda share, work: share.ways(work.form)[0])
    torch.manual_seed(0)
    make, shape = TRANSPOSED[name]
    assert_exact(nn.Sequential(make(), nn.Tanh(), nn.Flatten()), torch.randn(3, *shape))


def test_the_certificate_looks_at_the_way_that_is_taken(monkeypatch):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(30, 30), nn.Tanh(), nn.Linear(30, 2)), torch.randn(5, 30)
    kernel = EmpiricalNTK(model)
    assert "Grams" in str(kernel.plan(x))
    from priorscope.kernels.empirical import factors

    right = factors._inner
    monkeypatch.setattr(factors, "_inner", lambda a, b, ones: right(a, 1.001 * b, ones))
    assert "by autograd" in str(kernel.plan(x))
    assert "rebuilt gradient" in kernel.plan(x).reason


@pytest.mark.parametrize(
    "first", [nn.ReLU(inplace=True), Net(lambda m, x: x.sub_(0.5).mul_(2)), Net(lambda m, x: x.clamp_(0, 1))]
)
def test_the_input_stays_as_it_is(first):
    model, x = nn.Sequential(first, nn.Linear(4, 2)), torch.randn(3, 4)
    before = x.clone()
    kernel = EmpiricalNTK(model)
    for call in (kernel, kernel.blocks, kernel.features, kernel.plan, kernel.layers):
        call(x[:3])
    assert torch.equal(x, before)


def test_arrays_and_sparse_gradients_reach_the_operator():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Flatten(), nn.Linear(6, 2))
    ids = torch.randint(5, (4, 2))
    dense = EmpiricalNTK(model).operator(ids.numpy()).dense("blocks")
    assert torch.allclose(dense, EmpiricalNTK(model).blocks(ids))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wrong_arguments_are_named():
    linear, x = nn.Linear(3, 2), torch.randn(2, 3)
    with pytest.raises(ModelError, match="TorchScript"):
        EmpiricalNTK(torch.jit.script(linear))
    with pytest.raises(ModelError, match="readout: is a int"):
        EmpiricalNTK(linear, readout=3)
    with pytest.raises(ModelError, match="the readout: fails on what the model returns"):
        EmpiricalNTK(linear, readout=lambda out: out[:, 5])(x)
    with pytest.raises(ValueError, match="memory: is '1GB'"):
        EmpiricalNTK(linear, memory="1GB")
    with pytest.raises(ValueError, match="parameters: is 3"):
        EmpiricalNTK(linear, parameters=3)
    for groups in ({}, ["weight"], "weight"):
        with pytest.raises(ValueError, match="groups: is"):
            EmpiricalNTK(linear).layers(x, groups=groups)
    with pytest.raises(ValueError, match="layout"):
        EmpiricalNTK(linear)(x.to_sparse())
    with pytest.raises(ModelError, match="has no entries"):
        EmpiricalNTK(linear, readout=lambda out: out[:, :0])(x)
    with pytest.raises(NotExactError, match="reads a value"):
        EmpiricalNTK(linear, readout=lambda out: out * out.max().item())(x)
