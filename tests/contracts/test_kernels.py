import pytest
import torch

from priorscope import kernels
from tests.contracts.kernels import check_kernel

KERNELS = {
    "rbf": kernels.RBF(0.7, 2.0),
    "periodic": kernels.Periodic(3.0),
    "linear": kernels.Linear(2.0, 0.1),
    "arc-cosine 0": kernels.ArcCosine(0),
    "arc-cosine 1": kernels.ArcCosine(1),
    "sum and product": 2 * kernels.RBF() + kernels.Linear() * kernels.RBF(),
    "function": kernels.FunctionKernel(lambda a, b: 1 + a @ b.T),
}


@pytest.mark.parametrize("name", KERNELS)
def test_contract(name):
    check_kernel(KERNELS[name], torch.randn(7, 3))


@pytest.mark.parametrize("name", KERNELS)
def test_dtype_follows_the_input(name):
    assert KERNELS[name](torch.randn(3, 2, dtype=torch.float32)).dtype == torch.float32
