"""Mistake 9: 'conditioning is only like maximising the joint density', and candidates ranked by density alone.

Right: the mode of the conditioned Gaussian *is* the maximiser of the joint density over the test labels. Among finitely
many candidates, though, the density compares Mahalanobis distances, and a trained network may land nearer to another
candidate: a verdict states both.
"""

import torch

import priorscope as ps


def test_the_conditional_mode_is_the_joint_maximiser():
    kernel, x, y, x_new = ps.kernels.RBF(0.8), torch.randn(5, 2), torch.randn(5), torch.randn(3, 2)
    everything = torch.cat([x, x_new])
    precision = torch.linalg.inv(kernel(everything))
    maximiser = -torch.linalg.solve(precision[5:, 5:], precision[5:, :5] @ y)
    mode = ps.GaussianProcess(kernel).condition(x, y)(x_new).mean
    assert torch.allclose(mode, maximiser, atol=1e-9)
    joint = ps.GaussianProcess(kernel).prior(everything)
    steps = torch.randn(500, 3) * 0.1
    others = joint.log_prob(torch.cat([y.expand(500, -1), mode + steps], 1))
    assert bool((others < joint.log_prob(torch.cat([y, mode]))).all())
    # The maximiser over each test label alone, the others at zero, is another point.
    alone = -(precision[5:, :5] @ y) / precision.diagonal()[5:]
    assert float((alone - mode).abs().max()) > 0.05


def test_density_and_nearness_can_disagree_and_both_are_stated():
    covariance = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.9], [0.0, 0.9, 1.0]])
    kernel = ps.PrecomputedKernel(covariance)
    # The training point says nothing of the test points: trained networks are N(0, [[1, .9], [.9, 1]]) there.
    x, x_new, y = torch.tensor([0]), torch.tensor([1, 2]), torch.tensor([1.0])
    likely, near = torch.tensor([1.5, 1.5]), torch.tensor([0.6, -0.6])
    verdict = ps.compare(ps.KernelPair(kernel, kernel), x, y, x_new, {"likely": likely, "near": near})
    networks = torch.randn(400_000, 2) @ torch.linalg.cholesky(covariance[1:, 1:]).T
    nearer = ((networks - near).norm(dim=1) < (networks - likely).norm(dim=1)).double().mean()
    assert abs(verdict.nearest["near"] - float(nearer)) < 0.005
    assert verdict.nearest["near"] > 0.7
    assert verdict.log_density["likely"] > verdict.log_density["near"] + 2
