"""Mistake 3: the Taylor remainder printed as o(‖Δθ‖²). Right: O(‖Δθ‖²), ½ ΔᵀHΔ to leading order, which is not zero."""

import torch
from torch import nn
from torch.autograd.functional import hessian
from torch.func import functional_call

import priorscope as ps
from tests.cases import mlp


def test_the_remainder_is_of_the_order_of_the_square_and_not_smaller():
    model, x = mlp(2, 16, 16, 1, activation=nn.Tanh), torch.randn(5, 2)
    start = {name: p.detach() for name, p in model.named_parameters()}
    direction = {name: torch.randn(p.shape) for name, p in start.items()}

    def f(values):
        return functional_call(model, values, x)

    def remainder(step):
        lin, moved = ps.linearize(model), {name: start[name] + step * direction[name] for name in start}
        lin.load_state_dict(moved, strict=False)
        return (f(moved) - lin(x)).detach()

    def along(step, point):
        return f({name: start[name] + step * direction[name] for name in start})[point, 0]

    curvature = torch.stack([hessian(lambda s, i=i: along(s, i), torch.zeros(())) for i in range(5)])[:, None] / 2
    steps = (1e-2, 1e-3, 1e-4)
    sizes = [float(remainder(step).norm()) / step**2 for step in steps]
    torch.testing.assert_close(remainder(1e-4) / 1e-8, curvature, rtol=1e-2, atol=1e-3)
    # Were it o(‖Δθ‖²), this quotient would tend to zero.
    assert sizes[2] > 0.9 * sizes[1] > 0.5 * sizes[0] > 0.1
    assert abs(sizes[2] / float(curvature.norm()) - 1) < 1e-2
