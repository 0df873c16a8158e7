"""`infinite_width`: the NNGP and the NTK of the user's own module, as kernels."""

import math
import warnings
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...data.inputs import Inputs, check_inputs
from ...errors import DataError, PriorscopeWarning
from ...network.function import cast, check_module
from ...network.initialization import Initialization, fan_in
from ...network.watching import Graph, Ref, watch
from ..kernel import Kernel, Origin
from ..pair import KernelMatrices, KernelPair
from .check import SMALL_FAN_IN, is_uniform, mismatches
from .explain import Explanation
from .law import Law
from .moments import Moments
from .propagate import Step, propagate
from .registry import is_leaf
from .start import Data

WATCHED_POINTS = 13
"""An odd number of points, so that a reshape that mixes points with features shows."""
ENTRIES_AT_ONCE = 2**18
"""Pairs in one pass: everything after the first layer is elementwise in pairs, so rows are taken in blocks."""


SMALL = 2**16
"""Entries, times positions, below which the plain path is as fast as starting the compiled one."""


def infinite_width(
    model: Any,
    init: Initialization | None = None,
    rates: Any = None,
    example: Inputs | None = None,
) -> KernelPair:
    """The kernels that a module's outputs have at initialisation (NNGP) and learn by (NTK) as its widths grow.

    NNGP: E[f(x) f(x')]; NTK: E[Σ_p c_p ∂f(x)/∂θ_p ∂f(x')/∂θ_p], per output. Each linear layer with W ~ N(0,
    σ_w²/fan_in), b ~ N(0, σ_b²): K ↦ σ_w² K + σ_b², Θ ↦ σ_w² Θ + c_w·fan_in·K + c_b; each activation φ:
    K ↦ E[φ(u)φ(v)], Θ ↦ Θ·E[φ'(u)φ'(v)]. The input has K = x·x'/fan_in. Real widths enter only through fan_in.

    Args:
        model: any module that linear layers, activations and sums make; its weights are not used, only checked.
        init: the law of the weights; None: `Initialization.torch_default()`.
        rates: {parameter name: c}, an Initialization or a limit; None: those of `init`.
        example: a few inputs, (n, *shape): nodes without a rule then raise here, not at the first call.

    Returns:
        A pair: `.nngp` and `.ntk`, kernels of inputs (n, *shape); called, both matrices in one pass; `.explain()`.

    Raises:
        ModelError: a model that is no module.
        NoRuleError: where a node has no exact infinite-width rule; names it.
        NotExactError: where the module does what a watched run cannot see.
        RatesError: rates that are missing or unknown.

    Warns:
        PriorscopeWarning: the weights' variances are not those of `init`; or a layer that reads few inputs was drawn
            uniformly, where the limit takes Gaussians.

    Source: Lee et al. 2018 (1711.00165); Jacot et al. 2018 (1806.07572), theorem 1; Yang 2019 (1902.04760).

    One hidden ReLU layer makes unit vectors at a right angle 1/π of parallel ones:

    >>> model = nn.Sequential(nn.Linear(2, 8, bias=False), nn.ReLU(), nn.Linear(8, 1, bias=False))
    >>> init = Initialization(2.0, 0.0)
    >>> k = infinite_width(init.apply_(model, seed=0), init).nngp(torch.eye(2))
    >>> bool(torch.isclose(k[0, 1] / k[0, 0], torch.tensor(1 / torch.pi)))
    True
    """
    init = Initialization.torch_default() if init is None else init
    limit = Limit(check_module(model), init, rates)
    wrong = mismatches(model, init)
    if wrong:
        worst = max(wrong, key=lambda one: abs(one.standard_errors))
        warnings.warn(
            f"`{worst.name}`: its variance is {worst.found:.3g}, {init!r} says {worst.expected:.3g}"
            f" ({len(wrong)} parameters are more than 5 standard errors off). The limit is that of init=: give the one"
            " that the weights were drawn from, or draw them with init.apply_(model, seed).",
            PriorscopeWarning,
            stacklevel=2,
        )
    pair = KernelPair(LimitKernel(limit, "nngp"), LimitKernel(limit, "ntk"), limit)
    if example is not None:
        limit.both(_points(check_inputs(example, "example"))[:WATCHED_POINTS], None)
    return pair


class Limit:
    """Both kernels of one module; watches a run at the first call of each input shape."""

    def __init__(self, model: nn.Module, init: Initialization, rates: Any = None):
        self.model, self.law = model, Law(model, init, rates)
        self._graphs: dict[Any, Graph] = {}
        self._steps: tuple[Step, ...] = ()
        self._path = ""
        self._warned = False

    def both(self, x1: Inputs, x2: Inputs | None) -> KernelMatrices:
        """NNGP and NTK, (n1, n2) each; x2 = None: the Gram matrices, exactly symmetric, variances on the diagonal."""
        gram = x2 is None
        a = _points(x1)
        b = a if x2 is None else _points(x2)
        graph = self._watched(a)
        if self._differentiable(a, b):
            self._path = "plain torch: gradients are asked for"
            return _between(self._through(graph, Data(a, b, gram)), gram)
        fast = self._fast(graph, a, b, gram)
        if fast is not None:
            return fast
        nngp, ntk = (torch.empty(len(a), len(b), dtype=a.dtype, device=a.device) for _ in range(2))
        steps: tuple[Step, ...] = ()
        with torch.no_grad():
            rows = max(1, ENTRIES_AT_ONCE // len(b))
            for start in range(0, len(a), rows):
                end, left = min(start + rows, len(a)), start if gram else 0
                block = _between(self._through(graph, Data(a[start:end], b[left:], gram)), gram)
                steps = _worst(steps, self._steps)
                for whole, part in zip((nngp, ntk), block, strict=True):
                    whole[start:end, left:] = part
                    if gram:
                        whole[left:, start:end] = part.T
        self._steps = steps
        return KernelMatrices(nngp, ntk)

    def _fast(self, graph: Graph, a: Tensor, b: Tensor, gram: bool) -> KernelMatrices | None:
        """Both kernels by compiled loops; None, and why in `explain`, where they step aside."""
        sizes = [math.prod(node.shape[2:]) for node in graph.needed() if isinstance(node.shape, torch.Size)]
        if len(a) * len(b) * max(sizes, default=1) < SMALL:
            self._path = "plain torch: too little work for compiled loops"
            return None
        # Here, because importing the compiler takes as long as importing torch does.
        from .fast.program import Uncovered
        from .fast.run import attempt

        try:
            made = attempt(graph, self.law, Data(a, b, gram))
        except Uncovered as reason:
            self._path = f"plain torch: {reason}"
            return None
        self._path, self._steps = "compiled loops on the CPU", made.steps
        self._warn_once()
        return KernelMatrices(made.nngp, made.ntk)

    def diagonals(self, x: Inputs) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """NNGP and NTK of each point with itself."""
        points = _points(x)
        graph = self._watched(points)
        with torch.set_grad_enabled(self._differentiable(points, points)):
            end = self._through(graph, Data(points, None))
        return end.nngp, end.tangent

    def outputs(self, x: Inputs) -> int | None:
        """The number of outputs that the module has on such inputs; None where it does not return one tensor."""
        output = self._watched(_points(x)).output
        one = isinstance(output, Ref) and not output.part
        return math.prod(output.node.shape[1:]) if one else None

    def explain(self) -> Explanation:
        """What was done at each node in the last call: rule, variances, rates, source."""
        if not self._steps:
            raise DataError("this limit", "was not called yet", "Call it first, or give infinite_width an example=")
        return Explanation(self._steps, self._path)

    def _through(self, graph: Graph, start: Data) -> Moments:
        end, steps = propagate(graph, self.law, start)
        self._steps = tuple(steps)
        self._warn_once()
        return end

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            self._warn_of_uniform_readers()

    def _watched(self, x: Tensor) -> Graph:
        training = tuple(module.training for module in self.model.modules())
        key = (tuple(x.shape[1:]), training, tuple(map(id, self.model.parameters())))
        if key not in self._graphs:
            example = x.detach()[torch.arange(WATCHED_POINTS, device=x.device) % len(x)]
            self._graphs[key] = watch(self.model, cast(example, self.model.parameters()), is_leaf)
        return self._graphs[key]

    def _differentiable(self, *inputs: Tensor) -> bool:
        involved = (*inputs, *self.law.given_variances)
        return torch.is_grad_enabled() and any(isinstance(v, Tensor) and v.requires_grad for v in involved)

    def _warn_of_uniform_readers(self) -> None:
        for step in self._steps:
            layer = step.layer
            if layer is None or not step.reads_input or fan_in(layer) > SMALL_FAN_IN:
                continue
            if is_uniform(layer, self.law.init):
                warnings.warn(
                    f"`{self.law.name(layer)}` reads the input itself and was drawn uniformly: with {fan_in(layer)} "
                    "inputs its outputs are not Gaussian, as the limit takes them. Draw it with "
                    "init.apply_(model, seed).",
                    PriorscopeWarning,
                    stacklevel=2,
                )


class LimitKernel(Kernel):
    """One kernel of a limit: "nngp" or "ntk"."""

    def __init__(self, limit: Limit, which: Literal["nngp", "ntk"]):
        self.limit, self.which = limit, which
        self.origin = Origin(which, rates=limit.law.rates if which == "ntk" else None)

    def matrix(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        return getattr(self.limit.both(x1, x2), self.which)

    def variances(self, x: Inputs) -> Tensor:
        return self.limit.diagonals(x)[self.which == "ntk"]

    def outputs(self, x: Inputs) -> int | None:
        return self.limit.outputs(x)

    def explain(self) -> Explanation:
        """What was done at each node in the last call."""
        return self.limit.explain()


def _points(x: Inputs) -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2:
        what = f"a tensor of {x.dtype} with {x.ndim} axes" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise DataError("x", f"is {what}", "Infinite-width kernels take one floating tensor (n, features)")
    return x


def _between(end: Moments, gram: bool) -> KernelMatrices:
    if not gram:
        return KernelMatrices(end.nngp, end.tangent)
    return KernelMatrices(*(_symmetric(matrix) for matrix in (end.nngp, end.tangent)))


def _symmetric(matrix: Tensor) -> Tensor:
    """A block of a Gram matrix whose leading square is made exactly symmetric."""
    rows = len(matrix)
    square = (matrix[:, :rows] + matrix[:, :rows].T) / 2
    return square if matrix.shape[1] == rows else torch.cat([square, matrix[:, rows:]], 1)


def _worst(first: tuple[Step, ...], second: tuple[Step, ...]) -> tuple[Step, ...]:
    if not first:
        return second
    pairs: list[tuple[Step, Step]] = list(zip(first, second, strict=True))
    return tuple(a if a.error >= b.error else b for a, b in pairs)
