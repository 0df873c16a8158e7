"""Twelve tasks: their rules agree on all training points, differ on all test points, and no point is in both."""

import torch

from priorscope.experiments.tasks import POOLS, TRAIN, tasks


def test_rules_agree_in_training_and_differ_at_test():
    for task in tasks():
        assert len(task.x) == TRAIN
        assert int(task.y.sum()) == 0
        assert set(task.y.tolist()) == {1.0, -1.0}
        assert torch.equal(task.answers["A"], -task.answers["B"])
        assert float(torch.cdist(task.x_new, task.x).min()) > 1e-6
    assert len(tasks()) == len(POOLS) == 12


def test_the_first_rule_of_bits_is_the_majority():
    task = next(task for task in tasks() if "majority" in task.name)
    assert torch.equal(task.answers["A"], task.x_new.sum(1).sign())
    assert torch.equal(task.answers["B"], task.x_new[:, 0])


def test_another_seed_draws_other_points():
    assert not any(torch.equal(a.x, b.x) for a, b in zip(tasks(0), tasks(1), strict=True))
