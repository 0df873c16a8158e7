"""What a plan promises: its flops are a FLOP counter's, its bytes a real process's, its ways the cheaper ones."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from priorscope.kernels.empirical import EmpiricalNTK, Share, Workload, make_plan
from tests.cases import mlp
from tests.oracles import ntk_by_loop


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.last = nn.Linear(16, 3)

    def forward(self, ids):
        return self.last(self.layer(self.embedding(ids)).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.last = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 2)

    def forward(self, x):
        return self.last(self.rnn(x)[0][:, -1])


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, groups=16, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


MODELS = {
    "mlp": (lambda: mlp(20, 64, 64, 5), lambda n: torch.randn(n, 20)),
    "cnn": (convolutional, lambda n: torch.randn(n, 3, 12, 12)),
    "transformer": (Tokens, lambda n: torch.randint(50, (n, 10))),
    "lstm": (Recurrent, lambda n: torch.randn(n, 7, 8)),
}


@pytest.mark.parametrize("form", ["trace", "blocks", "per output", "diagonal"])
@pytest.mark.parametrize("name", MODELS)
def test_flops_are_those_of_a_counter(name, form):
    torch.manual_seed(0)
    make, points = MODELS[name]
    kernel, x = EmpiricalNTK(make().eval()), points(24)
    plan = kernel.plan(x, form=form)
    calls = {"trace": kernel, "blocks": kernel.blocks, "per output": kernel.per_output, "diagonal": kernel.diagonal}
    with FlopCounterMode(display=False) as counted:
        calls[form](x)
    assert abs(plan.flops / counted.get_total_flops() - 1) < 0.2


def test_flops_and_steps_of_many_tiles_are_those_that_are_counted(monkeypatch):
    torch.manual_seed(0)
    model, x1, x2 = convolutional(), torch.randn(12, 3, 12, 12), torch.randn(20, 3, 12, 12)
    kernel = EmpiricalNTK(model, memory=1_500_000)
    steps: list[int] = []
    monkeypatch.setattr("tqdm.tqdm.update", lambda self, n: steps.append(n))
    for points in ((x2,), (x1, x2)):
        plan = kernel.plan(*points, form="blocks")
        steps.clear()
        assert min(group.samples for group in plan.groups) < 12
        with FlopCounterMode(display=False) as counted:
            kernel.blocks(*points)
        assert sum(steps) == plan.made
        assert abs(plan.flops / counted.get_total_flops() - 1) < 0.2


def layer(**sizes: int) -> Share:
    return Share("w", sizes["inputs"] * sizes["signals"], "outer", **sizes)


def work(*shares: Share, form="blocks", n=64, outputs=10, **more) -> Workload:
    return Workload(form, n, n, True, outputs, shares, 4, **more)


def test_every_layer_goes_the_cheaper_way():
    dense, convolution = layer(inputs=512, signals=512), layer(positions=1024, inputs=576, signals=64)
    plan = make_plan(work(dense, convolution), 10**11)
    assert plan.groups[0].ways == ("grams", "jacobian")
    text = str(plan)
    assert "Grams of 1 positions" in text
    assert "own Jacobian" in text
    assert "more flops" in text
    assert "NTK-vector products" in text


def test_little_memory_makes_small_tiles_and_much_of_it_none():
    share = layer(positions=64, inputs=100, signals=100)
    plans = [make_plan(work(share), memory) for memory in (10**10, 2 * 10**7, 10**7)]
    samples = [plan.groups[0].samples for plan in plans]
    assert samples[0] == 64
    assert samples[0] > samples[1] > samples[2]
    assert plans[0].flops < plans[1].flops < plans[2].flops
    assert all(plan.bytes <= plan.memory for plan in plans)


def test_a_plan_depends_on_integers_alone():
    share = layer(inputs=30, signals=20)
    assert make_plan(work(share), 10**9) == make_plan(work(share), 10**9)


def test_one_output_by_autograd_or_all_at_once():
    few, many = work(layer(inputs=30, signals=20)), work(layer(inputs=30, signals=20, positions=10**4), positions=10**4)
    assert make_plan(few, 10**10).backward == "all outputs at once"
    assert make_plan(many, 10**11).backward == "one output at a time"


@pytest.mark.parametrize("few_rows", [0, 10**9])
def test_both_backward_passes_give_the_same_kernel(few_rows, monkeypatch):
    monkeypatch.setattr("priorscope.kernels.empirical.plan.FEW_ROWS", few_rows)
    torch.manual_seed(0)
    model, x = convolutional(), torch.randn(4, 3, 12, 12)
    kernel = EmpiricalNTK(model)
    assert kernel.plan(x).backward == ("all outputs at once" if few_rows else "one output at a time")
    expected = ntk_by_loop(model, x, x)
    assert float((kernel.blocks(x) - expected).abs().max()) < 1e-10 * float(expected.abs().max())


def test_many_outputs_go_by_ntk_vector_products(monkeypatch):
    torch.manual_seed(0)
    model, x1, x2 = mlp(20, 24, 24, 24, 300), torch.randn(6, 20), torch.randn(4, 20)
    kernel = EmpiricalNTK(model)
    structured = kernel.blocks(x1), kernel.blocks(x1, x2)
    monkeypatch.setattr("priorscope.kernels.empirical.plan.FLOPS_PER_PRODUCT", 0)
    for points, expected in zip(((x1,), (x1, x2)), structured, strict=True):
        plan = kernel.plan(*points, form="blocks")
        assert plan.method == "NTK-vector products"
        assert "tapped run" in str(plan)
        with FlopCounterMode(display=False) as counted:
            blocks = kernel.blocks(*points)
        assert abs(plan.flops / counted.get_total_flops() - 1) < 0.2
        assert float((blocks - expected).abs().max()) < 1e-10 * float(expected.abs().max())
