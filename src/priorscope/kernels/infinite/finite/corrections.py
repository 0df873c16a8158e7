"""`finite_width`: mean and variance of the kernels that networks of a module's own widths have before any training."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_map

from ....data.inputs import Inputs, check_inputs, count, leaves
from ....errors import MemoryBudgetError, NotCoveredError, PriorscopeWarning, RatesError
from ....network.function import check_module
from ....network.initialization import Initialization
from ....network.watching import Graph, Ref
from ....network.weights import layers_with_a_law
from ....results import Result
from ...pair import KernelMatrices
from ..check import is_uniform, warn_of_mismatches
from ..limit import Limit, points_of
from ..moments import Moments
from ..propagate import propagate
from ..start import data_of
from ..tiles import check_memory
from .chain import Chain, read_chain
from .pairs import Expanded, expand

PRECISION = 1e-6
"""Of the limit that the expansion finds on its way, against that of `infinite_width`."""
SMALL = 1e-5
"""Kernels below this are compared as if they were so large."""
BYTES_OF_A_POINT, BYTES_OF_A_PAIR = 3_000_000, 3000
"""At most, on the way through a layer."""
LARGE = 0.5
"""Relative variance of the kernels beyond which terms of order 1/width² are no longer small."""


@dataclass(frozen=True)
class FiniteWidthKernels(Result):
    """What networks of real widths do before any training, on n points, to first order in 1/width.

    Over networks drawn from the initialisation: E[f] = 0, E[f(x) f(x')] = nngp + nngp_correction, E[Θ̂(x, x')] = ntk +
    ntk_correction, Θ̂ a network's own tangent kernel, the mean over its outputs. Given the units below it, an output is
    Gaussian with one covariance Ĝ for all outputs, E[Ĝ] = E[f f]; nngp_variance = Var[Ĝ(x, x')], ntk_variance =
    Var[Θ̂(x, x')].

    widths: of the hidden layers, upwards. outputs: that the tangent kernel is the mean of.
    """

    nngp: Float[Tensor, "n n"]
    ntk: Float[Tensor, "n n"]
    nngp_correction: Float[Tensor, "n n"]
    ntk_correction: Float[Tensor, "n n"]
    nngp_variance: Float[Tensor, "n n"]
    ntk_variance: Float[Tensor, "n n"]
    widths: tuple[int, ...]
    outputs: int

    @property
    def mean(self) -> Float[Tensor, " n"]:
        """E[f]: 0, exactly, at every width."""
        return torch.zeros_like(self.nngp[0])

    @property
    def covariance(self) -> Float[Tensor, "n n"]:
        """E[f f] with its correction: of one output over networks."""
        return self.nngp + self.nngp_correction

    @property
    def variance(self) -> Float[Tensor, " n"]:
        """The covariance's diagonal."""
        return self.covariance.diagonal()

    @property
    def kurtosis(self) -> Float[Tensor, " n"]:
        """Excess kurtosis E[f⁴]/E[f²]² − 3 of an output over networks: 3 Var[Ĝ]/K² to first order, 0 for a Gaussian."""
        return 3 * self.nngp_variance.diagonal() / self.nngp.diagonal().square()


def finite_width(
    model: Any, init: Initialization | None = None, rates: Any = None, *, memory: Any = None
) -> "FiniteWidth":
    """Corrections of order 1/width to a fully connected network's kernels, at the module's own widths, before training.

    From layer to layer, given the units below: G' = σ_b² + σ_w²/n Σ_i φ_i φ_i, Θ' = c_b + 1/n Σ_i (c_w n φ_i φ_i +
    σ_w² φ'_i φ'_i Θ_ii). With s = (G, Θ) and F its map at infinite width: Cov s' = F' Cov(s) F'ᵀ + Cov_K(one unit)/n,
    E s' = F(E s) + ½ F'':Cov(s) + σ_w² Σ_γδ H_γδ E[∂_γ ∂_δ φ'φ'] for Θ', where H is the part of Θ_ii that hangs on the
    unit's own value. Cov_K(one unit) is the covariance, over one unit, of what it adds to s'. ntk_variance is Var Θ
    and, over the number of outputs, what differs from one to the next: σ_w⁴ Σ_ij E[A_ij² + A_ij A_ji]/n², A_ij =
    φ'_i φ'_j Θ_ij. Widths of hidden layers may differ; each enters with its own 1/n.

    Args:
        model: linear layers with pointwise functions between them, (n, features) -> (n, outputs); what is done to the
            data before the first of them is done to the data. Its weights are not used, only checked.
        init: the law of the weights, taken as Gaussian; None: `Initialization.torch_default()`.
        rates: {parameter name: c}, an Initialization or a limit; None: those of `init`.
        memory: bytes that a call may take, 1 GiB by default.

    Returns:
        A FiniteWidth: called with x, of n points, it gives FiniteWidthKernels, whose matrices are (n, n).

    Raises:
        ModelError: what is no working module.
        RatesError: rates that are missing or unknown, or an `init` that is no Initialization.
        NotCoveredError: at a call: a module that is no such chain; a function that is neither smooth (four derivatives
            of φ' by autograd) nor of two straight sides that meet at 0 (ReLU, leaky ReLU, |x|); for the latter, also
            a point at which a layer's variance is 0, and two points (nearly) on one line: not computed there.
        DataError: at a call with what is no tensor (n, ...) of float32, float64 or integers.
        MemoryBudgetError: at a call whose points do not fit.

    Warns:
        PriorscopeWarning: the weights' variances are not those of `init`, or they were drawn uniformly; kernels that
            vary so strongly that terms of order 1/width² count.

    What is left out is of order 1/width² and grows with depth: trust the corrections where depth/width is small.

    Source: Yaida 2019 (1910.00019); Roberts, Yaida and Hanin 2022 (2106.10165), chapters 4 and 8; Guillen, Misof and
    Gerken 2025 (2508.11522).

    The tangent kernel of a ReLU network has no correction where a point meets itself:

    >>> from torch.nn import Linear, ReLU, Sequential
    >>> model = Sequential(Linear(2, 50), ReLU(), Linear(50, 50), ReLU(), Linear(50, 1))
    >>> init = Initialization(2.0, 0.1, "ntk")
    >>> found = finite_width(init.apply_(model, seed=0), init)(torch.eye(2))
    >>> bool((found.ntk_correction.diagonal().abs() < 1e-5).all()), bool(found.ntk_correction[0, 1].abs() > 1e-3)
    (True, True)
    """
    init = Initialization.torch_default() if init is None else init
    if not isinstance(init, Initialization):
        raise RatesError("init", f"is a {type(init).__name__}", "Give an Initialization")
    found = FiniteWidth(Limit(check_module(model), init, rates, memory=memory), check_memory(memory))
    warn_of_mismatches(model, init)
    return found


class FiniteWidth:
    """A module's finite-width corrections, for any points; watches a run at every call."""

    def __init__(self, limit: Limit, memory: int):
        self.limit, self.memory = limit, memory

    def __call__(self, x: Inputs) -> FiniteWidthKernels:
        """The corrections at n points x, (n, *shape)."""
        x = check_inputs(points_of(x), "x")
        like = next((leaf for leaf in leaves(x) if leaf.is_floating_point()), torch.zeros(()))
        x = tree_map(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, x)
        self._check_memory(count(x))
        with torch.no_grad():
            limit = self.limit.both(x, None)
            graph = self.limit.watched(x)
            chain = read_chain(graph, self.limit.law)
            found = expand(self._first(graph, chain, x), chain.links)
            result = _on_matrices(found, limit, chain, like)
        self._warn(result, chain)
        return result

    def _first(self, graph: Graph, chain: Chain, x: Inputs) -> Moments:
        """G and Θ at the first linear layer, where they are not random."""
        return propagate(Graph(graph.nodes, Ref(chain.first)), self.limit.law, data_of(leaves(x), leaves(x), True)).end

    def _check_memory(self, n: int) -> None:
        need = BYTES_OF_A_POINT * n + BYTES_OF_A_PAIR * n * (n + 1) // 2
        if need > self.memory:
            cause = f"take about {need} bytes for {n} points, more than memory={self.memory}"
            raise MemoryBudgetError("finite-width corrections", cause, "Give more memory=, or fewer points at once")

    def _warn(self, result: FiniteWidthKernels, chain: Chain) -> None:
        init, layers = self.limit.law.init, [layer for _, layer in layers_with_a_law(self.limit.model)]
        if any(is_uniform(layer, init) for layer in layers if layer is not chain.first.target):
            warnings.warn(
                "the weights were drawn uniformly: corrections of order 1/width are those of Gaussian weights. Draw "
                "them with init.apply_(model, seed).",
                PriorscopeWarning,
                stacklevel=3,
            )
        matrices = {"NNGP": (result.nngp_variance, result.nngp), "NTK": (result.ntk_variance, result.ntk)}
        spreads = {name: _largest(variance, kernel) for name, (variance, kernel) in matrices.items()}
        worst = max(spreads, key=lambda name: spreads[name])
        if spreads[worst] > LARGE:
            warnings.warn(
                f"networks' own {worst}s vary by {spreads[worst]:.2g} of their squares at widths {result.widths}: to "
                "first order in 1/width this says little. Take wider or fewer layers, or sample networks.",
                PriorscopeWarning,
                stacklevel=3,
            )


def _largest(variance: Tensor, kernel: Tensor) -> float:
    """The largest relative variance of a point with itself; nothing varies where the kernel is 0."""
    return float((variance.diagonal() / kernel.diagonal().square()).nan_to_num().max())


def _on_matrices(found: Expanded, limit: KernelMatrices, chain: Chain, like: Tensor) -> FiniteWidthKernels:
    for mine, exact in zip((found.nngp, found.ntk), limit, strict=True):
        exact = exact.cpu()
        # The limit itself takes variances below 1e-12 for 1e-12.
        error = float((mine - exact).abs().max() / exact.abs().max().clamp_min(SMALL))
        if not error < PRECISION:
            cause = f"miss the limit by {error:.2g} of its size: a function too steep for their series"
            raise NotCoveredError("finite-width corrections", cause, "Make inputs or weight variances smaller")
    ntk_variance = found.ntk_mean_variance + found.ntk_own_variance / chain.outputs
    widths = tuple(link.layer.width for link in chain.links)
    return FiniteWidthKernels(
        nngp=limit.nngp.to(like),
        ntk=limit.ntk.to(like),
        nngp_correction=found.nngp_correction.to(like),
        ntk_correction=found.ntk_correction.to(like),
        nngp_variance=found.nngp_variance.to(like),
        ntk_variance=ntk_variance.to(like),
        widths=widths,
        outputs=chain.outputs,
    )
