"""Mistake 8: 'training reaches zero loss', for any labels and any step.

Right: for every Y only where λ_min > 0; for one Y where Y − f₀ lies in the range of Θ. Descent needs a step below
2/λ_max, the heavy ball below 2(1+β)/λ_max, Nesterov below 2(1+β)/((1+2β)λ_max).
"""

import math

import pytest
import torch
from torch import nn

import priorscope as ps

# Orthogonal columns: Θ = XXᵀ has the eigenvalues 8, 2 and twice 0.
X = torch.tensor([[2**0.5, 0.5**0.5], [2**0.5, -(0.5**0.5)]] * 2, dtype=torch.float64)
LARGEST = 8.0
BETA = 0.8


def model():
    return nn.Linear(2, 1, bias=False)


def test_labels_off_the_range_are_never_learned():
    network = model()
    within, off = X @ torch.tensor([1.0, -2.0]), torch.tensor([1.0, 0.0, -1.0, 0.0])
    kernel = ps.EmpiricalNTK(network)
    training = ps.Training(learning_rate=0.2, steps=300)
    for y, end in ((within, 0.0), (within + off, float(off @ off) / 2)):
        path, run = ps.trajectory(kernel, X, y, training, start=network), ps.train(network, X, y, training, at=[])
        assert float(run.losses[-1]) == pytest.approx(end, abs=1e-9)
        assert float(path.losses()) == pytest.approx(end, abs=1e-9)
    assert float(off @ off) / 2 == 1.0
    wider = ps.kernels.RBF(0.5)
    x = torch.linspace(-1, 1, 4)[:, None]
    assert float(ps.trajectory(wider, x, within + off).losses()) == 0.0, "λ_min > 0: every Y"


LIMITS = {
    "plain": (ps.Training(learning_rate=1.0, steps=400), 2 / LARGEST),
    "heavy ball": (ps.Training(learning_rate=1.0, steps=400, momentum=BETA), 2 * (1 + BETA) / LARGEST),
    "Nesterov": (
        ps.Training(learning_rate=1.0, steps=400, momentum=BETA, nesterov=True),
        2 * (1 + BETA) / ((1 + 2 * BETA) * LARGEST),
    ),
}


@pytest.mark.parametrize("name", LIMITS)
def test_the_largest_step(name):
    training, limit = LIMITS[name]
    network, y = model(), X @ torch.tensor([1.0, -2.0])

    def growth(learning_rate):
        settings = {**vars(training), "learning_rate": learning_rate}
        losses = ps.train(network, X, y, ps.Training(**settings), at=[]).losses
        return float(losses[-1] / losses[0])

    assert growth(0.97 * limit) < 1e-4
    assert growth(1.03 * limit) > 1e4
    if name != "plain":
        # 2/λ_max is the plain limit only: too small for the heavy ball, too large for Nesterov.
        plain = growth(2 / LARGEST * (1.02 if name == "heavy ball" else 0.98))
        assert plain < 1e-4 if name == "heavy ball" else plain > 1e4


@pytest.mark.parametrize("name", LIMITS)
def test_the_limit_that_is_predicted(name):
    training, limit = LIMITS[name]
    y, extra = X @ torch.tensor([1.0, -2.0]), {"momentum": training.momentum, "nesterov": training.nesterov}
    kernel = ps.EmpiricalNTK(model())
    path = ps.trajectory(kernel, X, y, ps.Training(learning_rate=0.1, steps=3, **extra))
    assert path.step_limit == pytest.approx(limit)
    mse = ps.Training(loss="mse", learning_rate=0.1, steps=3, **extra)
    assert ps.trajectory(kernel, X, y, mse).step_limit == pytest.approx(limit * 4 / 2)
    with pytest.warns(ps.PriorscopeWarning, match="beyond the limit"):
        path = ps.trajectory(kernel, X, y, ps.Training(learning_rate=1.03 * limit, steps=400, **extra))
    assert math.isfinite(float(path.losses()))
    assert float(path.losses()) > 1e4 * float(path.losses(0))
