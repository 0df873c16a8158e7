"""The test error of kernel regression, from its training data alone."""

from dataclasses import dataclass
from math import inf

from jaxtyping import Float
from torch import Tensor

from ..beliefs.coupling import GivenKernel, check_kernel, labelled
from ..data.inputs import Inputs
from ..errors import DataError, SingularKernelError
from ..kernels.frozen import takes_kernel_on_data
from ..results import Result


@dataclass(frozen=True, eq=False)
class Risk(Result):
    """A prediction of the test error, from training data alone.

    Args:
        error: expected squared error at new points, the mean over points and outputs (as of `nn.MSELoss`).
        by_output: (o,), the same for each output.
        train_error: the squared error on the training points, likewise.
        degrees: tr H/n, the share of the data's degrees of freedom that the fit uses; H = K(K + δ)⁻¹.
        ridge: δ.
        note: how the kernel acted on several outputs.
    """

    error: Float[Tensor, ""]
    by_output: Float[Tensor, " o"]
    train_error: Float[Tensor, ""]
    degrees: float
    ridge: float
    note: str


@takes_kernel_on_data
def gcv(kernel: GivenKernel, x: Inputs, y: Tensor, ridge: float = 0.0) -> Risk:
    """The test error that generalised cross-validation predicts for kernel ridge regression.

    (1/n)‖Y − HY‖² / (1 − tr H/n)², H = K(K + δ)⁻¹; which is n ‖(K + δ)⁻¹Y‖² / (tr (K + δ)⁻¹)², and for δ = 0
    n YᵀK⁻²Y / (tr K⁻¹)². Start at zero, gradient flow to the end: that is δ = 0.

    It is leave-one-out, (1/n) Σᵢ (((K + δ)⁻¹Y)ᵢ / ((K + δ)⁻¹)ᵢᵢ)², with each diagonal entry replaced by their mean: it
    takes the points as alike. Where some have near neighbours and others none, as real images with a small ridge, it is
    too low, by up to a third on digits; `leave_out(...).mean_squared_error` is not.

    Args:
        kernel: a kernel, or `kernel.on(x)`; its one factorisation serves any number of ridges.
        x: n training points, drawn alike and independently: the new points are of the same kind.
        y: (n,) or (n, o), or integer classes (n,).
        ridge: δ, added to the Gram matrix's diagonal.

    Raises:
        SingularKernelError: no ridge, and a kernel of low rank: the training error says nothing then.

    Source: Craven and Wahba 1979; Wei, Hu and Steinhardt 2022 (2203.06176), whose law this is for kernels of networks.

    >>> import torch
    >>> from priorscope.kernels import RBF
    >>> x = torch.linspace(0, 1, 30, dtype=torch.float64)[:, None]
    >>> y = torch.sin(6 * x[:, 0])
    >>> smooth, rough = gcv(RBF(0.3), x, y, ridge=1e-3), gcv(RBF(0.01), x, y, ridge=1e-3)
    >>> bool(smooth.error < rough.error)
    True
    """
    if not 0 <= ridge < inf:
        raise DataError("ridge", f"is {ridge}", "Give a finite number of at least 0")
    data = check_kernel(kernel, "gcv").on(x)
    labels, operator = labelled(data, y)
    eigen, size = operator.eigen, len(operator.eigen.values)
    if ridge == 0 and eigen.is_singular:
        raise SingularKernelError(
            "gcv",
            f"the kernel has rank {eigen.rank} of {size}, so nothing is left to judge by without a ridge",
            "Give ridge > 0",
        )
    inverse = 1 / (eigen.values.clamp_min(0) + ridge)
    dual = operator.unfold(eigen.solve(operator.fold(labels.values), ridge))
    squares = dual.square().mean(0)
    by_output = squares * (size / inverse.sum()) ** 2
    degrees = 1 - ridge * float(inverse.mean())
    dtype = labels.dtype
    return Risk(
        by_output.mean().to(dtype),
        by_output.to(dtype),
        (ridge**2 * squares.mean()).to(dtype),
        degrees,
        float(ridge),
        operator.note,
    )
