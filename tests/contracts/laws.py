"""The contract of every law of a function's values: its moments, samples, probabilities and projections agree."""

import pytest
import torch

from priorscope.beliefs.law import Law
from priorscope.errors import DataError


def check_law(law: Law, samples: int) -> None:
    """`samples`: how many can be drawn; enough for a few per cent."""
    assert isinstance(law, Law)
    size = law.mean.numel()
    assert law.variance.shape == law.mean.shape
    assert law.covariance.shape == (*law.mean.shape, *law.mean.shape)
    matrix = law.covariance.reshape(size, size)
    torch.testing.assert_close(matrix, matrix.T)
    torch.testing.assert_close(matrix.diagonal(), law.variance.flatten())
    drawn = law.sample(samples, seed=0)
    assert drawn.shape == (samples, *law.mean.shape)
    assert torch.equal(drawn, law.sample(samples, seed=0))
    spread = law.variance.sqrt()
    assert bool(((drawn.mean(0) - law.mean).abs() <= 5 * spread / samples**0.5 + 1e-9).all())
    torch.testing.assert_close(drawn.flatten(1).T.cov(), matrix, atol=0.1 * float(matrix.abs().max()), rtol=0)
    d = torch.randn(law.mean.shape, generator=torch.Generator().manual_seed(1), dtype=law.mean.dtype)
    mean, variance = law.project(d)
    assert mean == pytest.approx(float((d * law.mean).sum()), abs=1e-6)
    assert variance == pytest.approx(float(d.flatten() @ matrix @ d.flatten()), rel=1e-5)
    above = law.probability(lambda values: values.flatten(1) @ d.flatten() > mean, seed=3)
    assert above.interval[0] < above.p < above.interval[1]
    assert above.interval[0] < 0.55
    assert above.interval[1] > 0.45
    with pytest.raises(DataError, match="predicate"):
        law.probability(lambda values: values)
