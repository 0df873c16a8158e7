"""SGD at rest: its exact moments against long recursions, torch's own SGD, and averages over many real descents."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from priorscope.errors import NotCoveredError
from priorscope.experiments.limiting import LinearSGD


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    y = x.sum(1) + torch.randn(12, generator=generator, dtype=torch.float64)
    return LinearSGD(x, y, learning_rate=0.05, momentum=0.8, batch=2)


def test_the_stationary_covariance_is_where_a_long_recursion_ends(problem):
    found = problem.stationary()
    second = torch.zeros_like(found)
    for _ in range(3000):
        second = problem.next(second)
    torch.testing.assert_close(found, second, rtol=1e-10, atol=1e-14)
    assert float((problem.stationary(constant=True) - found).norm() / found.norm()) > 0.01


def test_the_next_moment_is_the_mean_over_all_batches(problem):
    """All 144 ordered pairs of points, from states whose mean is 0 and whose second moment is known."""
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    second = root @ root.T
    states = torch.cat([root.T, -root.T]) * 6**0.5
    total = torch.zeros(6, 6, dtype=torch.float64)
    for i in range(12):
        for j in range(12):
            phi, e = problem.features[[i, j]], problem.errors[[i, j]]
            errors = states[:, :3] @ phi.T - e
            velocity = 0.8 * states[:, 3:] + errors @ phi / 2
            after = torch.cat([states[:, :3] - 0.05 * velocity, velocity], 1)
            total += after.T @ after / len(states) / 144
    torch.testing.assert_close(problem.next(second), total)


def test_a_chain_is_torchs_sgd(problem):
    model = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(problem.optimum)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.8)
    generator = torch.Generator().manual_seed(4)
    for _ in range(10):
        chosen = torch.randint(12, (1, 2), generator=generator)[0]
        optimizer.zero_grad()
        ((model(problem.features[chosen])[:, 0] - problem.y[chosen]).square().mean() / 2).backward()
        optimizer.step()
    state = problem.chains(1, 10, 4, (10,))[0, 0, :3]
    torch.testing.assert_close(model.weight[0] - problem.optimum, state)


def test_wandering_and_correlation_are_those_of_a_brute_force_covariance(problem):
    """The joint covariance of (s_t, s_{t+3}), by the recursion written out."""
    second = problem.stationary()
    joint = second
    for _ in range(3):
        joint = problem.step @ joint
    torch.testing.assert_close(problem.later(3, second), joint)
    p = 3
    expected = float((2 * second - joint - joint.T)[:p, :p].trace())
    assert problem.wandered(3, second) == pytest.approx(expected)
    assert problem.wandered(0, second) == 0


def test_many_descents_have_the_predicted_second_moments(problem):
    states = problem.chains(4000, 400, 7, (400,))[0]
    found, law = states.T @ states / len(states), problem.stationary()
    assert float((found - law).norm() / law.norm()) < 0.1
    without = replace(problem, momentum=0.0).stationary()
    assert float((found[:3, :3] - without[:3, :3]).norm() / law[:3, :3].norm()) > 0.5


def test_a_descent_that_diverges_is_named(problem):
    with pytest.raises(NotCoveredError, match="does not come to rest"):
        replace(problem, learning_rate=10.0).stationary()
