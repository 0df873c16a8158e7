"""How far functions and kernels moved between two moments of a training.

A network stays lazy where its kernel hardly moves; features are learned where the kernel turns towards the target.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..data.inputs import Inputs, check_inputs, count, encode
from ..errors import DataError
from ..kernels.kernel import Kernel
from ..network.function import evaluate
from ..network.initialization import check_same_rates
from ..results import Result
from .run import Run


@dataclass(frozen=True)
class FunctionDrift(Result):
    """How far a function moved on some points.

    relative: ‖f₁ − f₀‖ / ‖f₀‖ (infinite where f₀ = 0 moves). rms: the root of the mean of (f₁ − f₀)².
    """

    relative: float
    rms: float


@dataclass(frozen=True)
class KernelDrift(Result):
    """How far a kernel matrix moved on some points.

    relative: ‖K₁ − K₀‖_F / ‖K₀‖_F. scale: ‖K₁‖_F / ‖K₀‖_F. alignment: ⟨K₀, K₁⟩ / (‖K₀‖_F ‖K₁‖_F), a cosine.
    distance: 1 − alignment, which does not feel scale.
    target_before, target_after: yᵀKy / (‖K‖_F ‖y‖²) of each, summed over outputs; None without y.
    """

    relative: float
    scale: float
    alignment: float
    distance: float
    target_before: float | None = None
    target_after: float | None = None


@dataclass(frozen=True)
class Drift(Result):
    """How far a network moved between two snapshots: its function, and its kernel where two kernels were given."""

    functions: FunctionDrift
    kernels: KernelDrift | None = None


def drift(
    before: nn.Module,
    after: nn.Module | Run,
    x: Inputs,
    kernel_before: Kernel | None = None,
    kernel_after: Kernel | None = None,
    y: Tensor | None = None,
) -> Drift:
    """How far a network's function and kernel moved between two snapshots.

    Args:
        before: the network at the first moment.
        after: the network at the second, or the `Run` that led there: kernels must then be of the run's rates.
        x: the points at which both are compared, n of them.
        kernel_before, kernel_after: its kernels at both moments; both or neither.
        y: (n,) or (n, o), labels: how well each kernel is aligned with them.

    Raises:
        DataError: one kernel alone; y without kernels; outputs of different shapes.
        RatesError: kernels that belong to different rates, or to others than those of the run.
        ModelError: a model that does not run, or is in the wrong mode.

    Source: Fort et al. 2020 (2010.15110), for the kernel distance; Baratin et al. 2021 (2008.00938) for the
    alignment with the target (here without centring).
    """
    if (kernel_before is None) != (kernel_after is None):
        raise DataError("drift", "has one kernel only", "Give kernel_before and kernel_after, or neither")
    if y is not None and kernel_before is None:
        raise DataError("drift", "has y, but no kernels to align with it", "Give kernel_before and kernel_after")
    check_inputs(x)
    if isinstance(after, Run):
        for kernel in (kernel_before, kernel_after):
            if kernel is not None:
                check_same_rates(after.rates, kernel.origin.rates, "the run and a kernel")
        if after.model is None:
            raise DataError("drift", "was given a run that was loaded without its model", "Give Run.load(.., model=)")
        after = after.model
    functions = function_drift(evaluate(before, x), evaluate(after, x))
    if kernel_before is None or kernel_after is None:
        return Drift(functions)
    return Drift(functions, kernel_drift(kernel_before, kernel_after, x, y))


def function_drift(before: Tensor, after: Tensor) -> FunctionDrift:
    """How far outputs moved: ‖f₁ − f₀‖/‖f₀‖, and the root of their mean squared change.

    Args:
        before, after: outputs of one shape, the same points in the same order.

    >>> function_drift(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 9.0])).relative
    1.0
    """
    if before.shape != after.shape:
        cause = f"has shape {tuple(after.shape)}, `before` {tuple(before.shape)}"
        raise DataError("after", cause, "Give outputs at the same points")
    if before.numel() == 0:
        raise DataError("before", "is empty", "Give outputs at one point at least")
    f0 = before.detach().to(torch.float64)
    change = after.detach().to(torch.float64) - f0
    moved, size = float(change.norm()), float(f0.norm())
    relative = moved / size if size > 0 else (math.inf if moved > 0 else 0.0)
    return FunctionDrift(relative, float(change.square().mean().sqrt()))


def kernel_drift(before: Kernel, after: Kernel, x: Inputs, y: Tensor | None = None) -> KernelDrift:
    """How far a kernel's Gram matrix moved; with several outputs, its mean over outputs.

    Args:
        before, after: two kernels of the same points.
        x: n points.
        y: (n,) or (n, o): also how well each kernel is aligned with these labels.

    Raises:
        RatesError: the kernels belong to different rates.
        DataError: a kernel that is 0 on x; y that does not match.

    Source: Fort et al. 2020 (2010.15110); Baratin et al. 2021 (2008.00938).
    """
    check_same_rates(before.origin.rates, after.origin.rates, "the kernels before and after")
    k0, k1 = (kernel(x).detach().to(torch.float64) for kernel in (before, after))
    sizes = [float(matrix.norm()) for matrix in (k0, k1)]
    for name, size in zip(("before", "after"), sizes, strict=True):
        if not size > 0 or not math.isfinite(size):
            raise DataError(f"the kernel {name}", f"has the norm {size} on x", "Give a kernel that is finite and not 0")
    alignment = float((k0 * k1).sum()) / (sizes[0] * sizes[1])
    # 1 − cos = ½‖u₁ − u₀‖² on unit matrices keeps its digits where the kernels nearly agree.
    distance = float((k1 / sizes[1] - k0 / sizes[0]).square().sum()) / 2
    targets = (None, None) if y is None else (_with_target(k0, y, x), _with_target(k1, y, x))
    return KernelDrift(float((k1 - k0).norm()) / sizes[0], sizes[1] / sizes[0], alignment, distance, *targets)


def _with_target(matrix: Float[Tensor, "n n"], y: Tensor, x: Inputs) -> float:
    values = encode(y, count(x)).values
    size = float(values.square().sum())
    if size == 0:
        raise DataError("y", "is 0 everywhere", "Give labels that are not all 0")
    return float((values * (matrix @ values)).sum()) / (float(matrix.norm()) * size)
