"""How far descent lies from the flow that it follows, and from that flow's first-order correction, by real descent.

A step of size η leaves the flow of L by O(η²) and the flow of L + (η/4)‖∇L‖² by O(η³); a training to a given time, made
of T/η steps, by O(η) and O(η²). Both are measured in function space, at new points. Of a network linear in its
parameters both flows are closed forms; of any other they are integrated in the space of weights.

Source: Barrett and Dherin 2021 (2009.11162).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..kernels.empirical import EmpiricalNTK
from ..network.function import call
from ..network.linearize import linearize
from ..training.run import train
from ..training.training import Training
from ..training.trajectory import trajectory

Gaps = dict[str, list[float]]
"""{"flow": ..., "corrected": ...}: root mean squares over the new points, one for each step size."""


def of_linear(
    model: nn.Module,
    rates: dict[str, float],
    x: Tensor,
    y: Tensor,
    new: Tensor,
    trainings: Sequence[tuple[float, int]],
) -> Gaps:
    """The gaps of really trained linearised networks, for pairs (η, steps)."""
    linear = linearize(model)
    kernel = EmpiricalNTK(model, rates=rates)
    gaps: Gaps = {"flow": [], "corrected": []}
    training = Training(learning_rate=trainings[0][0], steps=trainings[0][1])
    for eta, steps in trainings:
        now = replace(training, learning_rate=eta, steps=steps)
        run = train(linear, x, y, now, rates=rates, record=new, at=[0])
        path = trajectory(kernel, x, y, now, start=model)
        for order, name in enumerate(gaps):
            gaps[name].append(_rms(run.outputs[-1, :, 0] - path.as_flow(order)(new)))
    return gaps


def of_network(
    model: nn.Module,
    rates: dict[str, float],
    x: Tensor,
    y: Tensor,
    new: Tensor,
    trainings: Sequence[tuple[float, int]],
    parts: int,
) -> Gaps:
    """The same of the network as it is; its flows by the classical Runge-Kutta method, in `parts` pieces."""
    gaps: Gaps = {"flow": [], "corrected": []}
    names = [name for name, _ in model.named_parameters()]
    start = [parameter.detach().clone() for parameter in model.parameters()]
    c = [rates[name] for name in names]

    def loss(weights: list[Tensor]) -> Tensor:
        return (call(model, dict(zip(names, weights, strict=True)), x)[:, 0] - y).square().sum() / 2

    for eta, steps in trainings:
        run = train(model, x, y, Training(learning_rate=eta, steps=steps), rates=rates, record=new, at=[0])
        for name, correction in (("flow", 0.0), ("corrected", eta)):
            end = _runge_kutta(_field(loss, c, correction), start, eta * steps, parts)
            with torch.no_grad():
                found = call(model, dict(zip(names, end, strict=True)), new)[:, 0]
            gaps[name].append(_rms(run.outputs[-1, :, 0] - found))
    return gaps


def _field(
    loss: Callable[[list[Tensor]], Tensor], c: list[float], correction: float
) -> Callable[[list[Tensor]], list[Tensor]]:
    """−c ∂/∂θ of L + (η/4) Σ c (∂L/∂θ)²: the norm of the gradient is that of the rates."""

    def field(weights: list[Tensor]) -> list[Tensor]:
        leaves = [w.detach().requires_grad_() for w in weights]
        value = loss(leaves)
        slopes = torch.autograd.grad(value, leaves, create_graph=correction > 0)
        if correction > 0:
            squares = torch.stack([rate * g.square().sum() for rate, g in zip(c, slopes, strict=True)]).sum()
            slopes = torch.autograd.grad(value + correction / 4 * squares, leaves)
        return [-rate * g.detach() for rate, g in zip(c, slopes, strict=True)]

    return field


def _runge_kutta(
    field: Callable[[list[Tensor]], list[Tensor]], start: list[Tensor], time: float, parts: int
) -> list[Tensor]:
    def moved(weights: list[Tensor], by: float, along: list[Tensor]) -> list[Tensor]:
        return [w + by * a for w, a in zip(weights, along, strict=True)]

    h, weights = time / parts, start
    for _ in range(parts):
        k1 = field(weights)
        k2 = field(moved(weights, h / 2, k1))
        k3 = field(moved(weights, h / 2, k2))
        k4 = field(moved(weights, h, k3))
        mean = [(a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(k1, k2, k3, k4, strict=True)]
        weights = moved(weights, h, mean)
    return weights


def _rms(values: Float[Tensor, " m"]) -> float:
    return float(values.detach().square().mean().sqrt())
