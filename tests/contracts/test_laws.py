import pytest
import torch

from priorscope.beliefs.gaussian import Gaussian
from priorscope.beliefs.samples import Samples
from tests.contracts.laws import check_law

ROOT = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MEAN = torch.linspace(-1, 1, 6, dtype=torch.float64)
FULL = Gaussian(MEAN, ROOT @ ROOT.T)
COUPLED = Gaussian(MEAN.reshape(3, 2), ROOT @ ROOT.T)
SHARED = Gaussian(MEAN.reshape(3, 2), (ROOT @ ROOT.T)[:3, :3])

LAWS = {
    "gaussian": FULL,
    "gaussian, coupled outputs": COUPLED,
    "gaussian, independent outputs": SHARED,
    "samples": Samples(FULL.sample(20_000, seed=7)),
    "samples of several outputs": Samples(COUPLED.sample(20_000, seed=7)),
}


@pytest.mark.parametrize("name", LAWS)
def test_contract(name):
    check_law(LAWS[name], samples=20_000)


def test_samples_are_never_drawn_twice():
    with pytest.raises(ValueError, match="samples"):
        Samples(torch.randn(5, 2)).sample(6, seed=0)


def test_samples_are_kept_in_a_file(tmp_path):
    law = Samples(torch.randn(5, 2, 3))
    assert torch.equal(Samples.load(law.save(tmp_path / "law.npz")).values, law.values)
