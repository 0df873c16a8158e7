"""Mistake 12: the kernel's raw value between two inputs read as the influence of one on the other.

Right: the influence is the dual weight, K(x, X)K⁻¹: how much a label moves the prediction. It may be negative where the
kernel is large and positive.
"""

import torch

import priorscope as ps

X = torch.tensor([[0.0], [0.3], [1.6]], dtype=torch.float64)
Y = torch.tensor([1.0, -0.5, 0.7], dtype=torch.float64)
X_NEW = torch.tensor([[0.6]], dtype=torch.float64)


def test_influence_is_what_a_label_moves_and_not_the_kernel():
    kernel = ps.kernels.RBF(1.0)
    raw = kernel(X_NEW, X)[0]
    influence = ps.influence(kernel, X, X_NEW)[0]
    process = ps.GaussianProcess(kernel)
    base = process.condition(X, Y)
    assert torch.allclose(base.influence(X_NEW)[0], influence, atol=1e-12)
    for i in range(3):
        moved = process.condition(X, Y + torch.eye(3)[i])(X_NEW).mean - base(X_NEW).mean
        assert torch.allclose(moved, influence[i], atol=1e-10)
    # By the raw kernel the first point weighs more than the last; it counts against its own label.
    assert raw[0] > raw[2] + 0.2
    assert influence[0] < -0.3
    assert influence[2] > 0.1
    scaled = raw / kernel.diagonal(X_NEW)
    assert float((scaled - influence).abs().max()) > 0.5
    assert torch.allclose(influence @ Y, base(X_NEW).mean, atol=1e-12)
