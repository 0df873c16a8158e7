"""The peak of a real process stays within the budget, above what the import takes."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, resource
import torch
from torch import nn
from priorscope.kernels.empirical import EmpiricalNTK

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = peak()
width, n, memory = {width}, {n}, {memory}
model = nn.Sequential(
    nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
    nn.Linear(width, 10),
)
blocks = EmpiricalNTK(model, memory=memory).blocks(torch.randn(n, 784))
print(json.dumps({{"peak": peak() - before, "shape": list(blocks.shape)}}))
"""


def measured(width: int, n: int, memory: int) -> dict:
    script = SCRIPT.format(width=width, n=n, memory=memory)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_a_small_network_stays_within_its_budget():
    assert measured(width=256, n=24, memory=100_000_000)["peak"] <= 100_000_000


@pytest.mark.slow
def test_a_wide_network_stays_within_its_budget():
    # Its whole Jacobian would take 7.5 GB.
    assert measured(width=1024, n=64, memory=500_000_000)["peak"] <= 500_000_000
