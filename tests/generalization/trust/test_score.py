import math

import numpy as np
import pytest
import torch

from priorscope.generalization.trust.score import Fitted, Score, auroc, fitted


def cases(n: int = 200, seed: int = 0):
    """Wrong where a + 2b + noise is above 0; c says nothing, d is larger where predictions are right."""
    g = torch.Generator().manual_seed(seed)
    a, b, c, noise = torch.randn(4, n, generator=g, dtype=torch.float64)
    right = (a + 2 * b + 0.5 * noise < 0).tolist()
    rows = zip(a.tolist(), b.tolist(), c.tolist(), (-b).tolist(), strict=True)
    return [dict(zip("abcd", row, strict=True)) for row in rows], right


def test_weights_are_those_of_a_slow_search_and_never_below_0():
    features, right = cases()
    found = Score.fit(features, right, ridge=0.7)
    assert all(weight >= 0 for weight in found.weights.values())
    assert found.weights["d"] == 0
    assert found.weights["b"] > found.weights["a"] > 0.5 > found.weights["c"]

    def cost(bias, weights):
        z = torch.tensor([[f[n] for n in "abcd"] for f in features], dtype=torch.float64)
        z = (z - z.mean(0)) / z.std(0, unbiased=False)
        margins = torch.where(torch.tensor(right), 1.0, -1.0) * (bias - z @ weights)
        return torch.nn.functional.softplus(-margins).sum() + 0.35 * weights.square().sum()

    roots = torch.zeros(5, dtype=torch.float64).fill_(0.3).requires_grad_()
    # w = u² is at least 0 by itself.
    slow = torch.optim.LBFGS([roots], max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14)

    def closure():
        slow.zero_grad()
        value = cost(roots[0], roots[1:].square())
        value.backward()
        return value

    slow.step(closure)
    found_slowly = roots.detach()
    expected = [float(found_slowly[0]), *found_slowly[1:].square().tolist()]
    np.testing.assert_allclose([found.bias, *found.weights.values()], expected, atol=1e-3)


def test_the_score_falls_with_every_feature():
    features, right = cases()
    score = Score.fit(features, right)
    at = dict.fromkeys("abcd", 0.0)
    for name in "abcd":
        values = [score({**at, name: x}) for x in (-9.0, -1.0, 0.0, 1.0, 9.0)]
        assert values == sorted(values, reverse=True)
    assert score({**at, "b": math.inf}) == 0.0
    # Lazier than anything that was seen is no lazier than the laziest.
    assert score({**at, "b": -50.0}) == score({**at, "b": score.low["b"]})
    z = score.bias + sum(score.contributions(at).values())
    assert score(at) == pytest.approx(1 / (1 + math.exp(-z)))


def test_auroc_is_the_share_of_ordered_pairs():
    g = torch.Generator().manual_seed(1)
    scores = torch.randint(5, (30,), generator=g).tolist()
    right = (torch.rand(30, generator=g) < 0.5).tolist()
    pairs = [
        (s > t) + (s == t) / 2
        for s, r in zip(scores, right, strict=True)
        for t, q in zip(scores, right, strict=True)
        if r and not q
    ]
    assert auroc(scores, right) == pytest.approx(sum(pairs) / len(pairs))
    assert math.isnan(auroc([1.0, 2.0], [True, True]))


def test_the_fit_that_comes_with_the_package_says_how_it_was_made(tmp_path):
    found = fitted()
    assert set(found.record["tasks"]["fit"]).isdisjoint(found.record["tasks"]["held_out"])
    assert len(found.record["tasks"]["held_out"]) >= 6
    assert found.record["cases"]["held out"] == len(found.held_out["before"]) == len(found.held_out["after_steps"])
    for which in ("before", "after_steps"):
        score = getattr(found, which)
        assert all(weight >= 0 for weight in score.weights.values())
        # Stated numbers are those of the stored cases (their scores are kept to four digits).
        reached = found.record["reached on held-out tasks"][which]["all"]
        assert auroc(*zip(*found.held_out[which], strict=True)) == pytest.approx(reached["auroc"], abs=2e-3)
        right, every = found.like(which, 0.5)
        assert 0 <= right <= every >= 10
    assert Fitted.read(found.write(tmp_path / "fitted.json")) == found
