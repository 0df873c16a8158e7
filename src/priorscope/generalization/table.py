"""Both kernels of a pair between all points of a question, evaluated once: what is asked again takes rows of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..beliefs.similarity import indistinguishable
from ..data.inputs import Inputs, check_inputs, count, joined
from ..errors import IndistinguishableError, NotCoveredError
from ..kernels.kernel import Kernel
from ..kernels.own import PrecomputedKernel
from ..kernels.pair import KernelPair


@dataclass(frozen=True, eq=False)
class Table:
    """pair: of precomputed kernels, whose points are rows. train, pool, new: the rows of each kind of points.

    outputs: of the model, where they are known.
    """

    pair: KernelPair
    train: Tensor
    pool: Tensor
    new: Tensor
    outputs: int | None


def table_of(pair: KernelPair | Kernel, x: Inputs, pool_x: Inputs, x_new: Inputs, pool: str, place: str) -> Table:
    """One evaluation of both kernels on training, pool and test points.

    Args:
        pool: what the pool's points are called where they are empty or wrong. place: who asks.

    Raises:
        DataError: points that are empty, or of another kind.
        IndistinguishableError: test points that the kernel cannot tell from training points or the pool's.
        NotCoveredError: a lone kernel; kernels of coupled outputs.
    """
    if not isinstance(pair, KernelPair):
        cause = f"was given a lone {type(pair).__name__}: the law of trained networks needs the nngp and the ntk"
        raise NotCoveredError(place, cause, "Give infinite_width(model), or KernelPair(nngp, ntk)")
    for each, name in ((x, "x"), (pool_x, pool), (x_new, "x_new")):
        check_inputs(each, name)
    if pair.ntk.coupled and pair.ntk.outputs(x) != 1:
        cause = "was given a kernel whose outputs are coupled; it takes rows of one matrix"
        raise NotCoveredError(place, cause, "Give infinite_width(model), or a model with one output")
    matrices = pair(joined(x, pool_x, x_new))
    nngp, ntk = (PrecomputedKernel(matrix.detach()) for matrix in matrices)
    train, pooled, new = torch.arange(len(matrices.ntk)).split([count(x), count(pool_x), count(x_new)])
    for rows, name in ((train, "training points"), (pooled, f"points of {pool}")):
        same = indistinguishable(ntk, rows, new)
        if bool(same.any()):
            listed = ", ".join(str(i) for i in same.nonzero()[:6, 0].tolist()) + (" ..." if int(same.sum()) > 6 else "")
            cause = f"the kernel cannot tell these test points from {name}"
            raise IndistinguishableError(f"x_new[{listed}]", cause, f"Remove them from x_new, or from the {name}")
    return Table(KernelPair(nngp, ntk), train, pooled, new, pair.ntk.outputs(x))
