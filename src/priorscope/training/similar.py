"""Whom a network takes new points for, and whose labels move its predictions, at the time that it is trained to."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..beliefs.coupling import GivenKernel, check_kernel
from ..beliefs.shares import Similar, factors_of
from ..beliefs.similarity import cosine
from ..data.inputs import Inputs, check_inputs, count
from ..errors import DataError, NotCoveredError
from ..kernels.frozen import takes_kernel_on_data
from ..kernels.pair import KernelPair
from ..network.function import initial_function
from .filters import check_training
from .training import Training
from .trajectory import trajectory


@takes_kernel_on_data
def similar(
    kernel: GivenKernel,
    x: Inputs,
    x_new: Inputs,
    groups: Any = None,
    y: Tensor | None = None,
    training: Any = Training(),
    start: Any = None,
) -> Similar:
    """Whom a network takes new points for, and whose labels carry its predictions, by point and by group.

    The cosine k(x, x_i)/√(k(x, x) k(x_i, x_i)) says who is like whom. The dual weights K(x, X) g_t(K) say how much each
    label moves each prediction; trained to the end they are K(x, X) K⁻¹. With labels, the contribution of a point is
    its weight times y_i − f₀(x_i), and a prediction is f₀(x) and the sum of all contributions.

    At initialisation, give the network's kernel at its start; after training, give `EmpiricalNTK(run.model)`.

    Args:
        kernel: the NTK (of a pair, its ntk), or `kernel.on(x)` (and then x is left out).
        x: n training points.
        x_new: m new points.
        groups: n names, or {factor: n names} for several factors at once ("animal", "background"); classes as a
            tensor are names too.
        y: labels of x, as `trajectory` takes them; None for weights alone.
        training: a `Training`; gradient flow to the end by default.
        start: the network that training starts from; None for f₀ = 0. It needs y.

    Returns:
        A `Similar`: `.cosine` and `.weights` (m, n), `.contributions`, `.prediction`, and `.by(factor)`, the same by
        group.

    Raises:
        DataError: groups, labels or a start that do not fit; no y, where a mean loss needs the number of outputs.
        NotCoveredError: a training whose predictions are not such a sum.

    Source: the representer's theorem (Kimeldorf and Wahba 1971); Lee et al. 2019 (1902.06720).

    The contributions add up to the prediction:

    >>> from priorscope.kernels import RBF
    >>> x, y = torch.tensor([[0.0], [0.4], [2.0]]), torch.tensor([1.0, 1.0, -1.0])
    >>> found = similar(RBF(0.5), x, torch.tensor([[0.1]]), ["left", "left", "right"], y)
    >>> bool(torch.allclose(found.prediction, trajectory(RBF(0.5), x, y)(torch.tensor([[0.1]]))))
    True
    >>> found.by().carriers
    ('left',)
    """
    training = check_training(training, "similar")
    if not training.is_squared or (training.weight_decay and training.decay_to == "zero"):
        cause = "gives predictions that are no sum over labels"
        raise NotCoveredError("similar", cause, "Give half_sse or mse, and weight decay to the start, or none")
    if start is not None and y is None:
        raise DataError("start", "is given without y", "Give y: what moves a prediction is y − f₀(X)")
    data = check_kernel(kernel.ntk if isinstance(kernel, KernelPair) else kernel, "similar").on(x)
    n = count(data.x)
    factors = factors_of(groups, n)
    check_inputs(x_new, "x_new")
    path = trajectory(data, data.x, _no_labels(data, n, training) if y is None else y, training, start)
    influence = path.influence(x_new)
    alike = cosine(data, x_new, data.x).detach()
    weights = influence if influence.ndim == 2 else influence.diagonal(dim1=1, dim2=3).mean(-1)
    weights = weights.to(alike.dtype)
    if y is None:
        return Similar(alike, weights, factors)
    labels, begin = path.labels, None
    if start is not None:
        begin = labels.restore(initial_function(start, x_new, labels.outputs))
    return Similar(alike, weights, factors, labels.restore(_contributions(influence, path.target)), begin)


def _no_labels(data: Any, n: int, training: Training) -> Float[Tensor, "n o"]:
    """Zeros, of which no weight depends: they say the number of outputs alone."""
    own = data.outputs(data.x)
    unended = training.end < math.inf or training.weight_decay > 0
    if own is None and training.loss == "mse" and unended:
        cause = "is left out: mse is a mean over outputs, whose number this kernel does not know"
        raise DataError("y", cause, "Give y, or a training on half_sse")
    own = own or 1
    return torch.zeros((n, own), dtype=data(data.x).dtype, device=data.gram.device)


def _contributions(influence: Tensor, target: Float[Tensor, "n o"]) -> Float[Tensor, "m n o"]:
    if influence.ndim == 2:
        return influence[:, :, None].to(torch.float64) * target
    return torch.einsum("iajb,jb->ija", influence.to(torch.float64), target)
