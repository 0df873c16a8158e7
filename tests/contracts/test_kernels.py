import pytest
import torch

from priorscope import Initialization, kernels
from priorscope.kernels.empirical import EmpiricalNTK
from priorscope.kernels.infinite import infinite_width
from tests.cases import mlp
from tests.contracts.kernels import check_kernel

INIT = Initialization(1.8, 0.2)
LIMIT = infinite_width(INIT.apply_(mlp(3, 16, 16, 2), seed=0), INIT)
SMOOTH = infinite_width(INIT.apply_(mlp(3, 16, 1, activation=torch.nn.Tanh), seed=0), INIT)

KERNELS = {
    "rbf": kernels.RBF(0.7, 2.0),
    "periodic": kernels.Periodic(3.0),
    "linear": kernels.Linear(2.0, 0.1),
    "arc-cosine 0": kernels.ArcCosine(0),
    "arc-cosine 1": kernels.ArcCosine(1),
    "sum and product": 2 * kernels.RBF() + kernels.Linear() * kernels.RBF(),
    "infinite nngp": LIMIT.nngp,
    "infinite ntk": LIMIT.ntk,
    "infinite ntk by quadrature": SMOOTH.ntk,
    "function": kernels.FunctionKernel(lambda a, b: 1 + a @ b.T),
}


@pytest.mark.parametrize("name", KERNELS)
def test_contract(name):
    check_kernel(KERNELS[name], torch.randn(7, 3))


@pytest.mark.parametrize("outputs", [1, 3])
def test_contract_of_the_empirical_kernel(outputs):
    check_kernel(EmpiricalNTK(mlp(3, 6, outputs)), torch.randn(7, 3))


@pytest.mark.parametrize("name", KERNELS)
def test_dtype_follows_the_input(name):
    assert KERNELS[name](torch.randn(3, 3, dtype=torch.float32)).dtype == torch.float32
