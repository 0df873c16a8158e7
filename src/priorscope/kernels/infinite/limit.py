"""`infinite_width`: the NNGP and the NTK of the user's own module, as kernels."""

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map
from tqdm import tqdm

from ...data.inputs import Inputs, check_inputs, count, leaves, take
from ...errors import DataError, ModelError, PriorscopeWarning, RatesError
from ...network.function import cast, check_module
from ...network.initialization import Initialization
from ...network.watching import Graph, Ref, watch
from ...network.weights import fan_in
from ..kernel import Kernel, Origin
from ..pair import KernelMatrices, KernelPair
from .check import SMALL_FAN_IN, is_uniform, warn_of_mismatches
from .explain import Explanation
from .law import Law
from .moments import Moments, Refused
from .propagate import Passed, Step, before_pairs, propagate
from .registry import FALLBACKS, is_leaf
from .start import Data, data_of
from .tiles import Need, check_memory, check_result, tiles
from .twice import check_same

WATCHED_POINTS = 13
"""An odd number of points, so that a reshape that mixes points with features shows."""
FEW_POINTS = 2
"""A second run must do the same with so many."""
TEMPORARIES = 5
"""Copies of one node's numbers that its rule makes on the way."""
FEW_HEADS = 16
"""Of attention: fewer are warned of."""
FEW_CHANNELS = 8
"""In each group of a convolution: fewer are warned of."""
SMALL = 2**16
"""Entries, times (pairs of) positions, below which the plain path is as fast as starting the compiled one."""


def infinite_width(
    model: Any,
    init: Initialization | None = None,
    rates: Any = None,
    example: Inputs | None = None,
    readout: Callable[[Any], Any] | None = None,
    *,
    fallback: str | None = None,
    samples: int = 200,
    seed: int = 0,
    memory: Any = None,
    progress: bool = False,
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
        readout: chooses one tensor of what the model returns, where that is a tuple or a dictionary.
        fallback: None: a node without a rule raises. "monte-carlo": the kernels are then estimated from networks of
            the model's own widths, with a warning; `.explain()` says so, and `.nngp.standard_errors(x1, x2)` and
            `.ntk.standard_errors(x1, x2)` how exact that is.
        samples, seed: of the fallback: how many networks are drawn, and from which seed.
        memory: bytes that a call may take above its inputs, 1 GiB by default: tile by tile, the kernels' two matrices
            and one tile on its way through the network stay within it. Kernels with gradients keep what these need.
        progress: shows a bar over the tiles, or over the fallback's networks.

    Returns:
        A pair: `.nngp` and `.ntk`, kernels of inputs (n, *shape); called, both matrices in one pass; `.explain()`.

    Raises:
        ModelError: a model that is no module.
        NoRuleError: where a node has no exact infinite-width rule; names it.
        NotExactError: where the module does what a watched run cannot see.
        RatesError: rates that are missing or unknown.
        MemoryBudgetError: at a call whose matrices and one pair of points do not fit into `memory`.

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
    if not isinstance(init, Initialization):
        raise RatesError("init", f"is a {type(init).__name__}", "Give an Initialization")
    limit = Limit(check_module(model), init, rates, readout, memory, progress)
    warn_of_mismatches(model, init)
    pair = KernelPair(LimitKernel(limit, "nngp"), LimitKernel(limit, "ntk"), limit)
    if fallback is not None:
        if not isinstance(fallback, str) or fallback not in FALLBACKS:
            raise DataError("fallback", f"is {fallback!r}", f"Give None or one of {', '.join(map(repr, FALLBACKS))}")
        pair = FALLBACKS[fallback](limit, samples=samples, seed=seed, progress=progress)
    if example is not None and fallback is None:
        limit.both(take(points_of(check_inputs(example, "example")), slice(WATCHED_POINTS)), None)
    return pair


class Limit:
    """Both kernels of one module; watches a run at every call."""

    def __init__(
        self,
        model: nn.Module,
        init: Initialization,
        rates: Any = None,
        readout: Any = None,
        memory: Any = None,
        progress: bool = False,
    ):
        self.model, self.law, self.readout = model, Law(model, init, rates), readout
        self.memory, self.progress = check_memory(memory), progress
        self._needs: dict[Any, Need] = {}
        self._steps: tuple[Step, ...] = ()
        self._path = ""
        self._warned = False

    def both(self, x1: Inputs, x2: Inputs | None) -> KernelMatrices:
        """NNGP and NTK, (n1, n2) each; x2 = None: the Gram matrices, exactly symmetric, variances on the diagonal."""
        gram = x2 is None
        a = points_of(x1)
        b = a if x2 is None else points_of(x2)
        graph = self.watched(a)
        if self._differentiable(a, b):
            self._path = "plain torch: gradients are asked for"
            return _between(self._through(graph, data_of(leaves(a), leaves(b), gram)).end, gram)
        check_result(count(a), count(b), self.memory)
        fast = self._fast(graph, a, b, gram)
        if fast is not None:
            return fast
        n, m = count(a), count(b)
        with torch.no_grad():
            need = self._need(graph, a, b)
            wholes: list[Tensor] = []
            steps: tuple[Step, ...] = ()
            cut = list(tiles(n, m, gram, need, self.memory))
            for rows, columns, square in tqdm(cut, desc="kernel", disable=not self.progress):
                data = data_of(leaves(take(a, rows)), leaves(take(b, columns)), square)
                block = _between(self._through(graph, data).end, square)
                steps = _worst(steps, self._steps)
                wholes = wholes or [part.new_empty(n, m) for part in block]
                for whole, part in zip(wholes, block, strict=True):
                    whole[rows, columns] = part
                    if gram:
                        whole[columns, rows] = part.T
        self._steps = steps
        return KernelMatrices(*wholes)

    def _fast(self, graph: Graph, a: Inputs, b: Inputs, gram: bool) -> KernelMatrices | None:
        """Both kernels by compiled loops; None, and why in `explain`, where they step aside."""
        if not isinstance(a, Tensor) or not isinstance(b, Tensor) or not a.is_floating_point():
            self._path = "plain torch: several inputs, or integers"
            return None
        if len(a) * len(b) * _entries(graph) < SMALL:
            self._path = "plain torch: too little work for compiled loops"
            return None
        # Here, because importing the compiler takes as long as importing torch does.
        from .fast.program import Uncovered
        from .fast.run import attempt

        try:
            made = attempt(graph, self.law, Data(a, b, gram))
        except (Uncovered, Refused) as reason:
            # Where the rules refuse it as well, they say so by its place.
            self._path = f"plain torch: {reason}"
            return None
        self._path, self._steps = "compiled loops on the CPU", made.steps
        self._warn_once()
        return KernelMatrices(made.nngp, made.ntk)

    def diagonals(self, x: Inputs) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """NNGP and NTK of each point with itself."""
        points = points_of(x)
        graph = self.watched(points)
        with torch.set_grad_enabled(self._differentiable(points, points)):
            return self._diagonals(graph, points)

    def outputs(self, x: Inputs) -> int | None:
        """The number of outputs that the module has on such inputs; None where it does not return one tensor."""
        output = self.watched(points_of(x)).output
        if not isinstance(output, Ref):
            return None
        shape: Any = output.node.shape
        for part in output.part:
            shape = shape[part]
        return math.prod(shape[1:])

    def explain(self) -> Explanation:
        """What was done at each node in the last call: rule, variances, rates, source."""
        if not self._steps:
            raise DataError("this limit", "was not called yet", "Call it first, or give infinite_width an example=")
        return Explanation(self._steps, self._path, self.law.meaning)

    def _diagonals(self, graph: Graph, points: Inputs) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            end = self._through(graph, data_of(leaves(points), None)).end
            return end.nngp, end.tangent
        need = self._need(graph, points, points)
        rows = [tile.rows for tile in tiles(count(points), 1, False, need, self.memory)]
        ends = [self._through(graph, data_of(leaves(take(points, part)), None)).end for part in rows]
        return torch.cat([end.nngp for end in ends]), torch.cat([end.tangent for end in ends])

    def _need(self, graph: Graph, a: Inputs, b: Inputs) -> Need:
        """What one pair takes, from sending one through; it follows from the shapes alone."""
        key = tuple((node.kind, str(node.shape)) for node in graph.nodes), leaves(a)[0].dtype
        if key not in self._needs:
            pair = take(a, slice(1)), take(b, slice(count(b) - 1, None))
            passed = self._through(graph, data_of(leaves(pair[0]), leaves(pair[1]), False))
            size = passed.end.nngp.element_size()
            self._needs[key] = Need((passed.alive + TEMPORARIES * passed.largest) * size, passed.largest, 2 * size)
        return self._needs[key]

    def _through(self, graph: Graph, start: list[Data]) -> Passed:
        passed = propagate(graph, self.law, start)
        self._steps = tuple(passed.steps)
        self._warn_once()
        return passed

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            self._warn_of_uniform_readers()
            self._warn_of_few_heads()
            self._warn_of_few_channels()

    def watched(self, x: Inputs) -> Graph:
        """What one run of the module does, on a few of these points."""
        # Anew at every call: what the module does may hang on attributes that change in between.
        repeated = torch.arange(WATCHED_POINTS) % count(x)
        example = tree_map(lambda leaf: leaf.detach()[repeated.to(leaf.device)], x)
        example = cast(example, self.model.parameters())
        graph = watch(self.model, example, is_leaf)
        few = watch(self.model, take(example, slice(FEW_POINTS)), is_leaf)
        check_same(graph, few, WATCHED_POINTS, FEW_POINTS)
        return graph if self.readout is None else _read_out(graph, self.readout)

    def _differentiable(self, *inputs: Inputs) -> bool:
        involved = (*leaves(inputs), *self.law.given_variances)
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

    def _warn_of_few_channels(self) -> None:
        layers = [step.layer for step in self._steps if getattr(step.layer, "groups", 1) > 1]
        few = [m for m in layers if 1 < m.in_channels // m.groups < FEW_CHANNELS]
        if few:
            size = few[0].in_channels // few[0].groups
            warnings.warn(
                f"`{self.law.name(few[0])}` reads {size} channels in each group, where the limit takes infinitely "
                "many: its outputs are Gaussian only approximately, at any number of groups.",
                PriorscopeWarning,
                stacklevel=2,
            )

    def _warn_of_few_heads(self) -> None:
        layers = (getattr(step.layer, "module", None) for step in self._steps)
        few = [m for m in layers if isinstance(m, nn.MultiheadAttention) and m.num_heads < FEW_HEADS]
        if few:
            name = next(name for name, module in self.model.named_modules() if module is few[0])
            warnings.warn(
                f"`{name or 'the model'}` has {few[0].num_heads} heads, where the limit takes infinitely many: kernels "
                f"of networks with so few are random around it ({len(few)} layers of attention have fewer than "
                f"{FEW_HEADS}).",
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


def _entries(graph: Graph) -> int:
    """The largest number of entries that moments of one pair of points have: positions, or pairs of positions."""
    with_pairs = before_pairs(graph)
    found = [
        math.prod(node.shape[2:]) ** (2 if node.index in with_pairs else 1)
        for node in graph.needed()
        if isinstance(node.shape, tuple) and all(isinstance(size, int) for size in node.shape)
    ]
    return max(found, default=1)


def points_of(x: Inputs) -> Inputs:
    """x, checked: tensors of numbers (n, ...), of one n."""
    parts = tree_flatten(x)[0]
    for part in parts:
        if not isinstance(part, Tensor) or part.is_complex() or part.dtype == torch.bool or part.ndim < 1:
            what = f"a tensor of {part.dtype}" if isinstance(part, Tensor) else f"a {type(part).__name__}"
            raise DataError("x", f"holds {what}", "Infinite-width kernels take tensors of numbers (n, ...)")
        if part.dtype in (torch.float16, torch.bfloat16):
            raise DataError("x", f"holds a tensor of {part.dtype}", "Give float32 or float64: x.float()")
        if part.is_floating_point() and part.ndim < 2:
            raise DataError("x", f"is a tensor of {part.dtype} with one axis", "Give (n, features)")
    if not parts or len({len(part) for part in parts}) != 1:
        raise DataError("x", "has inputs of different numbers of points, or none", "Give them a common first axis")
    return x


def _read_out(graph: Graph, readout: Callable[[Any], Any]) -> Graph:
    """The graph with the chosen one of its outputs."""
    if not callable(readout):
        raise ModelError("readout", f"is a {type(readout).__name__}", "Give a function: readout=lambda out: out[0]")
    try:
        chosen = readout(graph.output)
    except Exception as error:
        raise ModelError(
            "readout",
            f"does more than choose one of the model's outputs ({type(error).__name__}: {error})",
            "Choose: readout=lambda out: out[0]; compute inside the model",
        ) from error
    return Graph(graph.nodes, chosen)


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
