"""Every golden architecture that has rules, against reference values."""

import pytest

from priorscope import Initialization
from priorscope.kernels.infinite import infinite_width
from tests.kernels.infinite.golden import CASES, build, values

NAMES = [
    "fc-relu-1",
    "fc-relu-3",
    "fc-relu-10-critical",
    "fc-leaky",
    "fc-erf-1",
    "fc-gelu",
    "fc-sin",
    "fc-cos",
    "fc-tanh",
    "fc-silu",
    "fc-residual",
    "fc-mixed",
]


@pytest.mark.parametrize("name", NAMES)
def test_golden(name):
    case, expected = CASES[name], values(name)
    init = Initialization(case["weight_variance"], case["bias_variance"], "ntk")
    limit = infinite_width(init.apply_(build(case), seed=0), init)
    cross, gram = limit(expected["x1"], expected["x2"]), limit(expected["x1"])
    found = {"nngp": cross.nngp, "ntk": cross.ntk, "gram_nngp": gram.nngp, "gram_ntk": gram.ntk}
    for key, matrix in found.items():
        error = float((matrix - expected[key]).abs().max() / expected[key].abs().max())
        assert error <= case["relative_tolerance"], (key, error)
