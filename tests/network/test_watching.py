"""What a watched run shows, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from priorscope.errors import ModelError, NotExactError
from priorscope.network.watching import watch
from tests.cases import HeldTwice, Tied, mlp


class Forward(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 2)
        self.forward_ = forward

    def forward(self, x):
        return self.forward_(self, x)


def linear_only(module):
    return type(module) is nn.Linear


def see(model, leaf=linear_only, x=None):
    return watch(model, torch.randn(5, 3) if x is None else x, leaf)


def kinds(graph):
    return [(node.kind, node.operation) for node in graph.needed()]


def test_modules_and_functions():
    graph = see(Forward(lambda m, x: m.b(F.relu(m.a(x)))))
    assert kinds(graph) == [("input", "input"), ("module", "nn.Linear"), ("call", "F.relu"), ("module", "nn.Linear")]
    first, call = graph.nodes[1], graph.nodes[2]
    assert (first.path, first.parameters, first.shape) == ("a", {"a.weight", "a.bias"}, (5, 3))
    assert call.line.startswith("test_watching.py:")
    assert call.args[0].node is first
    assert graph.output.node.path == "b"


def test_without_leaves_everything_is_a_function():
    graph = see(mlp(3, 4, 1), leaf=lambda m: False)
    calls = [node for node in graph.nodes if node.kind == "call"]
    assert [node.operation for node in calls] == ["F.linear", "F.relu", "F.linear"]
    assert [node.path for node in calls] == ["0", "1", "2"]
    assert calls[0].parameters == {"0.weight", "0.bias"}


def test_ids_are_not_reused():
    def forward(m, x):
        for _ in range(50):
            x = x * 1.0
        return m.a(x)

    graph = see(Forward(forward))
    assert len(list(graph.needed())) == 52


def test_in_place_operations_follow_the_value():
    def forward(m, x):
        h = m.a(x)
        h.add_(1)
        h[:, 0] = 0
        return m.b(h)

    operations = [operation for _, operation in kinds(see(Forward(forward)))]
    assert operations == ["input", "nn.Linear", "torch.Tensor.add_", "torch.Tensor.__setitem__", "nn.Linear"]


def test_spellings_of_a_sum():
    graph = see(Forward(lambda m, x: x + x))
    assert graph.output.node.operation == "torch.Tensor.add"
    assert [ref.node.kind for ref in graph.output.node.refs] == ["input", "input"]


def test_tied_and_shared_parameters_have_one_name():
    graph = watch(Tied(), torch.randn(5, 4), linear_only)
    _, again = (node for node in graph.nodes if node.kind == "module")
    assert again.parameters == {"first.weight", "again.bias"}
    transposed = graph.output.node.args[0].node
    assert transposed.parameters == {"first.weight"}
    held = [node.parameters for node in watch(HeldTwice(), torch.randn(5, 4), linear_only).nodes if node.parameters]
    assert held[0] == held[1] == {"a.weight", "a.bias"}


def test_nothing_is_left_behind():
    model, x = mlp(3, 4, 1), torch.randn(5, 3)
    before = x.clone()
    see(model, x=x)
    assert torch.equal(x, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with torch.no_grad():
        assert see(model).output.node.path == "2"


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


def no_grad(m, x):
    with torch.no_grad():
        return m.a(x) * 1


def no_grad_around_a_module(m, x):
    with torch.no_grad():
        h = m.a(x)
    return m.b(h)


def stale(m, x):
    h = m.a(x)
    view = h[:, :2]
    h.relu_()
    return view * 2


REFUSED = {
    "a branch on data": (lambda m, x: m.a(x) if x.mean() > 0 else x, "__bool__"),
    "item": (lambda m, x: m.a(x) * x.sum().item(), "item"),
    "a parameter's value": (lambda m, x: x * float(m.a.weight[0, 0]), "__float__"),
    "numpy": (lambda m, x: torch.from_numpy(m.a(x).detach().numpy()), "numpy"),
    "no_grad": (no_grad, "switches gradients off"),
    "no_grad around a module": (no_grad_around_a_module, "switches gradients off"),
    "a custom Function": (lambda m, x: m.a(Twice.apply(x)), "a custom autograd.Function"),
    "a tensor hook": (lambda m, x: m.a(x).register_hook(lambda g: 2 * g), "tensor hook"),
    "a view of what changed": (stale, "changed in place"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_seen_raises(name):
    forward, cause = REFUSED[name]
    with pytest.raises(NotExactError, match=cause):
        see(Forward(forward))


def test_a_module_that_does_not_run():
    with pytest.raises(ModelError, match="does not run on the example"):
        see(mlp(3, 4, 1), x=torch.randn(5, 7))


def test_shapes_and_printing_are_no_data():
    def forward(m, x):
        assert x.dim() == 2
        assert len(f"{x.shape} {x.dtype} {x}") > 0
        return m.a(x.view(x.size(0), -1))

    assert [operation for _, operation in kinds(see(Forward(forward)))] == ["input", "torch.Tensor.view", "nn.Linear"]


def test_several_arguments():
    class Two(nn.Module):
        def forward(self, a, b):
            return a @ b

    a, b = torch.randn(3, 2), torch.randn(2, 2)
    for example in ((a, b), {"b": b, "a": a}):
        graph = see(Two(), x=example)
        (call,) = [node for node in graph.needed() if node.kind == "call"]
        assert [ref.node.shape for ref in call.refs] == [(3, 2), (2, 2)]
