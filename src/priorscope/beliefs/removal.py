"""What would have been learned without some of the points: leave-one-out and leave-group-out in closed form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..data.inputs import Inputs, check_inputs, count
from ..errors import DataError, SingularKernelError
from ..kernels.frozen import takes_kernel_on_data
from ..linalg.memory import check_memory
from ..linalg.symmetric import Eigendecomposition
from ..network.function import check_module, initial_function
from ..results import Result
from .coupling import GivenKernel, Operator, check_kernel, labelled
from .grouping import members, names_of


@dataclass(frozen=True, eq=False)
class LeftOut(Result):
    """What would have been learned without each of g sets of points.

    Args:
        names: of the g sets; for single points their numbers.
        sets: (g, n), which points each set leaves out.
        prediction: (n,) or (n, o), like y: what a fit without a point's own set predicts at it; None where sets
            overlap, or do not cover all points.
        residual: y − prediction, likewise.
        change: (m, g) or (m, g, o): a fit without the set, minus the fit to all, at new points; None without them.
        ridge: of the fit.
        outputs: "independent", "coupled", or "trace kernel, ..." with the reason.
    """

    names: tuple[str, ...]
    sets: Bool[Tensor, "g n"]
    prediction: Float[Tensor, "n *o"] | None
    residual: Float[Tensor, "n *o"] | None
    change: Float[Tensor, "m g *o"] | None
    ridge: float
    outputs: str

    @property
    def mean_squared_error(self) -> float:
        """The mean square of all residuals: of single points, the leave-one-out error.

        Raises:
            DataError: where there are none.
        """
        if self.residual is None:
            raise DataError("LeftOut", "has sets that are no partition of the points", "Give groups as n names")
        return float(self.residual.to(torch.float64).square().mean())


@takes_kernel_on_data
def leave_out(
    kernel: GivenKernel,
    x: Inputs,
    y: Tensor,
    *,
    groups: Any = None,
    x_new: Inputs | None = None,
    ridge: float = 0.0,
    start: Any = None,
) -> LeftOut:
    """Leave-one-out and leave-group-out of kernel regression, in closed form from the one factorisation.

    With P = (K + ridge·I)⁻¹ and α = P (y − f₀(X)), for a set g of points left out:

    y_g − f₋g(X_g) = P_gg⁻¹ α_g,   f₋g(x) − f(x) = −(K(x, X) P)_g P_gg⁻¹ α_g.

    It equals fitting again without them: for ridge = 0 gradient descent to its end; for ridge = λ descent on half_sse
    with weight decay λ to the start. A training that stops earlier has no such form, as its filter of the kernel on the
    points that remain is no function of the one on all: fit it again (`trajectory`, for each set).

    Args:
        kernel: a kernel, or `kernel.on(x)` (and then x is left out).
        x: n points.
        y: (n,) or (n, o), or integer classes (n,), as `trajectory` takes them. Coupled outputs of a point are removed
            together.
        groups: None for each point alone; n names for a group at a time; or sets that may overlap, (g, n) booleans,
            true where a point is left out.
        x_new: m points, where the change of the prediction is asked for.
        ridge: at least 0.
        start: the network that training starts from; None for f₀ = 0.

    Returns:
        A `LeftOut`.

    Raises:
        SingularKernelError: where K + ridge·I has no inverse to the kernel's precision.
        DataError: labels, groups or a ridge that do not fit.

    Source: Allen 1974 (PRESS); Rasmussen and Williams 2006, eq. 5.12; of groups, Pahikkala et al. 2006.

    >>> from priorscope.kernels import RBF
    >>> from priorscope.beliefs import influence
    >>> x, y = torch.tensor([[0.0], [1.0], [2.5]], dtype=torch.float64), torch.tensor([1.0, 0.0, 2.0]).double()
    >>> without = influence(RBF(), x[1:], x[:1]) @ y[1:]
    >>> bool(torch.allclose(leave_out(RBF(), x, y).prediction[:1], without))
    True
    """
    if not ridge >= 0:
        raise DataError("ridge", f"is {ridge}", "Give a number of at least 0")
    data = check_kernel(kernel, "leave_out").on(x)
    names, sets = _sets(groups, count(data.x))
    labels, operator = labelled(data, y)
    target = labels.values
    if start is not None:
        target = target - initial_function(check_module(start, "start"), data.x, labels.outputs)
    eigen = operator.eigen
    _require_inverse(eigen, ridge)
    inverse = eigen.solve(torch.eye(len(eigen.values)).to(eigen.vectors), ridge)
    errors = list(_errors(inverse, inverse @ operator.fold(target), sets, operator))
    residual = change = None
    if bool((sets.sum(0) == 1).all()):
        left = torch.zeros_like(operator.fold(target))
        for rows, error in errors:
            left[rows] = error
        residual = operator.unfold(left)
    if x_new is not None:
        check_inputs(x_new, "x_new")
        size = 8 * count(x_new) * len(sets) * labels.outputs
        check_memory(size, "the change at each new point, without each set", data.memory)
        weights = operator.cross(x_new) @ inverse
        change = torch.stack([operator.unfold(-weights[:, rows] @ error) for rows, error in errors], 1)
    return LeftOut(
        names,
        sets,
        None if residual is None else labels.restore(labels.values - residual),
        None if residual is None else labels.restore(residual),
        None if change is None else labels.restore(change),
        ridge,
        operator.note,
    )


def _errors(
    inverse: Float[Tensor, "k k"], weights: Float[Tensor, "k c"], sets: Bool[Tensor, "g n"], operator: Operator
) -> Iterator[tuple[Int[Tensor, " r"], Float[Tensor, "r c"]]]:
    """The rows that each set removes, and P_gg⁻¹ α_g."""
    o = operator.outputs if operator.coupled else 1
    for chosen in sets:
        rows = chosen.repeat_interleave(o).nonzero()[:, 0]
        root = torch.linalg.cholesky(inverse[rows][:, rows])
        yield rows, torch.cholesky_solve(weights[rows], root)


def _require_inverse(eigen: Eigendecomposition, ridge: float) -> None:
    if float(eigen.values[-1].clamp_min(0)) + ridge > eigen.tolerance:
        return
    cause = f"the kernel has rank {eigen.rank} of {len(eigen.values)} on x, and ridge={ridge:g} leaves it singular"
    remedy = f"Give a ridge well above {eigen.tolerance:.2g}, or leave out the points that repeat others"
    raise SingularKernelError("leave_out", cause, remedy)


def _sets(groups: Any, n: int) -> tuple[tuple[str, ...], Bool[Tensor, "g n"]]:
    """The names of the sets, and which points each leaves out."""
    if groups is None:
        return tuple(map(str, range(n))), torch.eye(n, dtype=torch.bool)
    if isinstance(groups, Tensor) and groups.dtype == torch.bool:
        if groups.ndim != 2 or groups.shape[1] != n or not len(groups):
            raise DataError("groups", f"has shape {tuple(groups.shape)} for {n} points", f"Give (g, {n}) booleans")
        if not bool(groups.any(1).all()):
            raise DataError("groups", f"set {int((~groups.any(1)).nonzero()[0])} leaves out no point", "Drop it")
        return tuple(map(str, range(len(groups)))), groups
    rows: dict[str, Tensor] = members(names_of(groups, n))
    masks: Sequence[Tensor] = [torch.zeros(n, dtype=torch.bool).index_fill(0, r, True) for r in rows.values()]
    return tuple(rows), torch.stack(list(masks))
