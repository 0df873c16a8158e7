"""The two kernels of one network, nngp and ntk."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from ..data.inputs import Inputs, check_inputs
from ..errors import DataError
from .kernel import Kernel
from .on_data import OnData


class KernelMatrices(NamedTuple):
    """Both kernels between the same points, (n1, n2) each."""

    nngp: Float[Tensor, "n1 n2"]
    ntk: Float[Tensor, "n1 n2"]


@runtime_checkable
class JointKernels(Protocol):
    """What computes both kernels of a limit in one pass, and can explain itself."""

    def both(self, x1: Inputs, x2: Inputs | None) -> KernelMatrices: ...

    def explain(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class KernelPair:
    """The two kernels of one network: nngp, the covariance of its outputs at initialisation, and its ntk.

    Args:
        nngp, ntk: any two kernels of the same kind of points.
        joint: computes both in one pass (an infinite-width limit does).
    """

    nngp: Kernel
    ntk: Kernel
    joint: JointKernels | None = field(default=None, repr=False)

    def __call__(self, x1: Inputs, x2: Inputs | None = None) -> KernelMatrices:
        """Both matrices, in one pass where the pair comes from a limit."""
        Kernel._check(x1, x2)
        if self.joint is not None:
            return self.joint.both(x1, x2)
        return KernelMatrices(self.nngp.matrix(x1, x2), self.ntk.matrix(x1, x2))

    def explain(self) -> Any:
        """How a limit was derived: node, rule, variances, rates and source, of the last call."""
        if self.joint is None:
            raise DataError("this KernelPair", "was put together by hand", "Ask a pair from infinite_width")
        return self.joint.explain()

    def on(self, x: Inputs) -> "KernelPair":
        """The pair, frozen on its data; both Gram matrices come from one pass."""
        if self.x is not None and x is self.x:
            return self
        pair = KernelPair(self.nngp.on(x), self.ntk.on(x), self.joint)
        if self.joint is not None:
            check_inputs(x)
            pair.nngp.__dict__["_raw"], pair.ntk.__dict__["_raw"] = self(x)
        return pair

    @property
    def x(self) -> Inputs | None:
        """The data, where the pair is frozen on them."""
        if isinstance(self.nngp, OnData) and isinstance(self.ntk, OnData) and self.nngp.x is self.ntk.x:
            return self.ntk.x
        return None
