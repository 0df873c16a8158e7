"""What a module may ask of autograd: reparametrised weights, hooks, own functions, changes in place, cut gradients."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from .case import Awkward, floats
from .parameters import linear, net


def mlp(*between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), *(between or (nn.Tanh(),)), nn.Linear(4, 2))


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.utils.weight_norm(nn.Linear(4, 2)))


def reparametrised(change, *args: Any, **options: Any):
    """An MLP whose two weights are reparametrised."""

    def make() -> nn.Module:
        model = mlp()
        for inner in (model[0], model[2]):
            change(inner, *args, **options)
        return model

    return make


class Skew(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return w.triu() - w.triu(1).T


def skew() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))
    parametrize.register_parametrization(model[0], "weight", Skew())
    return model


def convolutional_weight_norm() -> nn.Module:
    conv = parametrizations.weight_norm(nn.Conv1d(2, 3, 2), dim=0)
    return nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.Linear(9, 2))


REPARAMETRISED = [
    Awkward("weight norm", reparametrised(parametrizations.weight_norm), floats(3)),
    Awkward("weight norm by the old hook", old_weight_norm, floats(3)),
    Awkward("weight norm of a conv", convolutional_weight_norm, floats(2, 4)),
    Awkward("spectral norm", reparametrised(parametrizations.spectral_norm), floats(3)),
    Awkward("spectral norm by the old hook", reparametrised(nn.utils.spectral_norm), floats(3)),
    Awkward("orthogonal", reparametrised(parametrizations.orthogonal), floats(3)),
    Awkward("orthogonal by Cayley", reparametrised(parametrizations.orthogonal, orthogonal_map="cayley"), floats(3)),
    Awkward("own parametrization", skew, floats(3)),
]


class Product(torch.autograd.Function):
    """Without a vmap rule."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return grad * w, (grad * x).sum(0)


class Doubled(torch.autograd.Function):
    """With a vmap rule; its gradient is not its derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


class OwnLinear(torch.autograd.Function):
    """A whole layer."""

    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w)
        return x @ w.T + b

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return grad @ w, grad.T @ x, grad.sum(0)


class StraightThrough(nn.Module):
    """Rounds forwards, the identity backwards."""

    def forward(self, x):
        return x + (x.round() - x).detach()


FUNCTIONS = [
    net(
        "own function without a vmap rule", lambda m, x: m.last(Product.apply(x, m.w).tanh()), w=(3,), last=linear(3, 2)
    ),
    net(
        "own function with a vmap rule",
        lambda m, x: m.last(Doubled.apply(m.first(x)).tanh()),
        first=linear(3, 4),
        last=linear(4, 2),
    ),
    net(
        "own function of a whole layer",
        lambda m, x: OwnLinear.apply(m.first(x).tanh(), m.w, m.b),
        first=linear(3, 4),
        w=(2, 4),
        b=(2,),
    ),
    Awkward("straight-through estimator", lambda: mlp(StraightThrough()), floats(3)),
    net(
        "own function, then the weight as it is",
        lambda m, x: m.last(Product.apply(x, m.w).tanh()) + (x * m.w)[:, :2],
        w=(3,),
        last=linear(3, 2),
    ),
]


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.second(checkpoint(lambda h: self.first(h).tanh(), x, use_reentrant=False))


class CheckpointedTwice(nn.Module):
    """A shared layer, once inside a checkpoint and once outside."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        return self.inner(checkpoint(self.inner, x, use_reentrant=False).tanh())


CHECKPOINTS = [
    Awkward("checkpoint", Checkpointed, floats(3)),
    Awkward("checkpoint of a shared layer", CheckpointedTwice, floats(3)),
    net("checkpoints in a row", lambda m, x: checkpoint_sequential(m.all, 2, x, use_reentrant=False), all=mlp),
]


def in_place_add(m, x: Tensor) -> Tensor:
    h = m.first(x)
    h += m.b
    h.mul_(2.0).tanh_()
    return m.last(h)


def in_place_entry(m, x: Tensor) -> Tensor:
    h = m.first(x).clone()
    h[:, 0] = h[:, 1].clone() * m.b[0]
    h[:, 2:].add_(m.b[1:3])
    return m.last(h.sin())


def in_place_buffer(m, x: Tensor) -> Tensor:
    out = torch.zeros(len(x), 4)
    out[:, :3] = x * m.b[:3]
    out[:, 3] += m.b[3]
    return m.last(out.tanh())


def in_place_list(m, x: Tensor) -> Tensor:
    out = x.new_empty(len(x), 2, 2)
    for i in range(2):
        out[:, i] = m.last(m.first(x) * m.b + i)
    return out


IN_PLACE = [
    Awkward("relu in place", lambda: mlp(nn.ReLU(inplace=True)), floats(3)),
    Awkward("hard tanh in place", lambda: mlp(nn.Hardtanh(inplace=True)), floats(3)),
    Awkward("leaky relu in place, on sequences", lambda: mlp(nn.LeakyReLU(inplace=True)), floats(2, 3)),
    net("added in place", in_place_add, first=linear(3, 4), b=(4,), last=linear(4, 2)),
    net("entries set in place", in_place_entry, first=linear(3, 4), b=(4,), last=linear(4, 2)),
    net("zeros filled in place", in_place_buffer, b=(4,), last=linear(4, 2)),
    net("outputs filled in place", in_place_list, first=linear(3, 4), b=(4,), last=linear(4, 2)),
    net("residual in place", lambda m, x: m.last(m.first(x).add_(x).relu_()), first=linear(3, 3), last=linear(3, 2)),
]


def frozen(names: tuple[str, ...]):
    def make() -> nn.Module:
        model = mlp()
        for name in names:
            model.get_parameter(name).requires_grad_(False)
        return model

    return make


FROZEN = [
    Awkward("frozen first weight", frozen(("0.weight",)), floats(3)),
    Awkward("frozen last layer", frozen(("2.weight", "2.bias")), floats(3)),
    Awkward("all frozen but one bias", frozen(("0.weight", "2.weight", "2.bias")), floats(3)),
    Awkward("all frozen but the first weight", frozen(("0.bias", "2.weight", "2.bias")), floats(3)),
]


def without_gradient(m, x: Tensor) -> Tensor:
    with torch.no_grad():
        scale = m.a(x).sigmoid()
    return m.b(x) * scale


def inside_no_grad(m, x: Tensor) -> Tensor:
    with torch.no_grad():
        h = m.a(x)
        with torch.enable_grad():
            g = m.b(x)
    return g * h


def own_gradient(m, x: Tensor) -> Tensor:
    """The model is the gradient of a scalar function: a conservative field."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        energy = m.b(m.a(x).tanh()).sum()
        return torch.autograd.grad(energy, x, create_graph=True)[0]


CUT = [
    net("detached", lambda m, x: m.b(x) * m.a(x).sigmoid().detach(), a=linear(3, 2), b=linear(3, 2)),
    net("detached weight", lambda m, x: m.a(x).tanh() @ m.a.weight.detach(), a=linear(3, 4)),
    net("data of a weight", lambda m, x: m.a(x).tanh() @ m.a.weight.data, a=linear(3, 4)),
    net("no_grad inside", without_gradient, a=linear(3, 2), b=linear(3, 2)),
    net("enable_grad inside no_grad", inside_no_grad, a=linear(3, 2), b=linear(3, 2)),
    net("gradient of a function", own_gradient, a=linear(3, 4), b=linear(4, 1)),
    net("a parameter read as a number", lambda m, x: m.a(x) * float(m.alpha), a=linear(3, 2), alpha=()),
    net(
        "a branch on a parameter",
        lambda m, x: m.a(x) if m.alpha > 0 else m.b(x),
        a=linear(3, 2),
        b=linear(3, 2),
        alpha=(),
    ),
    net(
        "a buffer read as a number",
        lambda m, x: m.a(x) * m.n.running_var.mean().item(),
        a=linear(3, 2),
        n=lambda: nn.BatchNorm1d(2),
    ),
]


def doubling(model: nn.Module) -> nn.Module:
    model[0].register_forward_hook(lambda module, args, out: 2 * out)
    return model


def stretching(model: nn.Module) -> nn.Module:
    model[2].register_forward_pre_hook(lambda module, args: (args[0] * model[0].bias,))
    return model


def changed_backward(model: nn.Module) -> nn.Module:
    model[2].register_full_backward_hook(lambda module, grad_in, grad_out: (3 * grad_in[0],))
    return model


def parameter_hook(model: nn.Module) -> nn.Module:
    model[0].weight.register_hook(lambda grad: 2 * grad)
    return model


def tensor_hook(m, x: Tensor) -> Tensor:
    h = m.a(x).tanh()
    if h.requires_grad:
        h.register_hook(lambda grad: 2 * grad)
    return m.b(h)


HOOKS = [
    Awkward("forward hook", lambda: doubling(mlp()), floats(3)),
    Awkward("forward pre-hook with a parameter", lambda: stretching(mlp()), floats(3)),
    Awkward("backward hook that changes the gradient", lambda: changed_backward(mlp()), floats(3)),
    Awkward("parameter hook that changes the gradient", lambda: parameter_hook(mlp()), floats(3)),
    net("tensor hook that changes the gradient", tensor_hook, a=linear(3, 4), b=linear(4, 2)),
]


def masked(m, x: Tensor) -> Tensor:
    h = m.a(x)
    return m.b(torch.where(h > h.mean(-1, keepdim=True), h, 0.1 * h).masked_fill(h < -0.5, 0.3))


def chosen(m, x: Tensor) -> Tensor:
    h = m.a(x)
    return m.b(h.topk(2, -1).values) + h.gather(1, h.argmax(-1, keepdim=True))


def boolean_index(m, x: Tensor) -> Tensor:
    h = m.a(x)
    h = h.clone()
    h[h < 0] *= 0.1
    return m.b(h)


def sparse_experts(m, x: Tensor) -> Tensor:
    """Each point goes to one expert: the points of an expert are a batch whose size depends on the data."""
    best = m.gate(x).argmax(-1)
    out = x.new_zeros(len(x), 2)
    for k, expert in enumerate(m.experts):
        out = out.index_put((torch.where(best == k)[0],), expert(x[best == k]))
    return out * torch.softmax(m.gate(x), -1).amax(-1, keepdim=True)


DATA_DEPENDENT = [
    net("where on data", masked, a=linear(3, 4), b=linear(4, 2)),
    net("topk and gather", chosen, a=linear(3, 4), b=linear(2, 2)),
    net("boolean index", boolean_index, a=linear(3, 4), b=linear(4, 2)),
    net(
        "boolean index of points",
        sparse_experts,
        gate=linear(3, 2),
        experts=lambda: nn.ModuleList([nn.Linear(3, 2), mlp()]),
    ),
    net("sorted features", lambda m, x: m.b(m.a(x).sort(-1).values), a=linear(3, 4), b=linear(4, 2)),
    net("max over features", lambda m, x: m.b(m.a(x).max(1).values), floats(3, 3), a=linear(3, 4), b=linear(4, 2)),
]


def vmapped(m, x: Tensor) -> Tensor:
    return torch.vmap(lambda row: torch.sin(m.w @ row) * m.w[:, 0])(x)


def jacobian_product(m, x: Tensor) -> Tensor:
    return torch.func.jvp(lambda z: m.b(m.a(z).tanh()), (x,), (torch.ones_like(x),))[1]


def called_functionally(m, x: Tensor) -> Tensor:
    return torch.func.functional_call(m.a, {"weight": m.w.tanh(), "bias": m.b}, (x,))


OTHERS = [
    net("vmap inside", vmapped, w=(2, 3)),
    net("jvp inside", jacobian_product, a=linear(3, 4), b=linear(4, 2)),
    net("functional call inside", called_functionally, a=linear(3, 2), w=(2, 3), b=(2,)),
    net("fft, then abs", lambda m, x: m.b(torch.fft.rfft(m.a(x)).abs()), a=linear(3, 4), b=linear(3, 2)),
    net(
        "complex filter",
        lambda m, x: torch.fft.irfft(torch.fft.rfft(x) * torch.view_as_complex(m.w), n=4),
        floats(4),
        w=(3, 2),
    ),
    net("polar form", lambda m, x: torch.polar(m.a(x).exp(), m.a(x)).real, a=linear(3, 2)),
    net("solve", lambda m, x: torch.linalg.solve(m.a(x)[..., None] * x[:, None] + 5 * torch.eye(3), x), a=linear(3, 3)),
    net(
        "softmax of a determinant",
        lambda m, x: torch.linalg.slogdet(m.a(x) + 3 * torch.eye(3))[1],
        floats(3, 3),
        a=linear(3, 3),
    ),
    net(
        "gelu, silu, softplus, mish",
        lambda m, x: m.b(functional.mish(functional.softplus(functional.silu(functional.gelu(m.a(x)))))),
        a=linear(3, 4),
        b=linear(4, 2),
    ),
    net("kinks at zero", lambda m, x: m.b((m.a(x) - m.a(x)).relu() + m.a(x).abs()), a=linear(3, 4), b=linear(4, 2)),
]

AUTOGRAD = REPARAMETRISED + FUNCTIONS + CHECKPOINTS + IN_PLACE + FROZEN + CUT + HOOKS + DATA_DEPENDENT + OTHERS
