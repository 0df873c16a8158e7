"""Kernels by sampling finite networks, where a module has no infinite-width rule: means over draws, standard errors.

It stands above both makers of kernels, which do not know each other: the limit says where it has no rule, and the
kernels of the drawn networks are `EmpiricalNTK`'s, which is exact, or raises, on the awkward modules that have none.
"""

import copy
import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from ..data.inputs import Inputs, check_inputs, take
from ..errors import DataError, NoRuleError, NotExactError, PriorscopeWarning, RatesError
from ..network.function import cast, outputs_of
from ..network.initialization import Initialization, layers_with_a_law, number
from ..network.watching import Ref, is_hooked, watch
from .empirical import EmpiricalNTK
from .infinite import Explanation, Limit
from .infinite.propagate import Step
from .infinite.registry import fallback
from .kernel import Kernel, Origin
from .pair import KernelMatrices, KernelPair

WATCHED_POINTS = 3


@dataclass(frozen=True, eq=False)
class Estimate:
    """Both kernels and their standard errors, (n1, n2) each; errors are 0 where the limit has rules."""

    kernels: KernelMatrices
    errors: KernelMatrices


@fallback("monte-carlo")
def sampled_pair(limit: Limit, samples: int = 200, seed: int = 0, progress: bool = False) -> KernelPair:
    """The limit's kernels where it has rules; elsewhere means over networks of the model's own widths.

    NNGP = mean over draws of f(x) f(x'), NTK = mean of J diag(c) J', each a mean over outputs; where a linear layer
    ends the model the NNGP is the mean of its conditional expectation σ_w² h·h'/fan_in + σ_b², given all layers below.
    The same draws serve every call, so that the kernels are functions of two points, of rank at most the draws' own.

    Args:
        samples: how many networks are drawn, at least 2.
        seed: the draws are `init.apply_(model, seed)`, `seed + 1`, …

    Standard errors are of the mean over draws; the distance of finite widths from the limit, O(1/width), comes on
    top. The matrices are detached: no gradients in inputs or variances.

    Raises:
        RatesError: parameters that have no law and are not constant, which cannot be drawn.
        NotExactError: at the first call, where `EmpiricalNTK` is not exact on the model.

    Source: Novak et al. 2019 (1810.05148), section 4.
    """
    if samples < 2:
        raise DataError("samples", f"is {samples}", "Draw at least 2 networks, for a standard error")
    sampled = SampledLimit(limit, samples, seed, progress)
    return KernelPair(SampledKernel(sampled, "nngp"), SampledKernel(sampled, "ntk"), sampled)


class SampledLimit:
    """Both kernels of one module: the limit's, or means over drawn networks where it has no rule."""

    def __init__(self, limit: Limit, samples: int, seed: int, progress: bool):
        self.limit, self.samples, self.seed, self.progress = limit, samples, seed, progress
        self._why: NoRuleError | None = None
        self._last: tuple[Inputs, Inputs | None, Estimate] | None = None

    def both(self, x1: Inputs, x2: Inputs | None) -> KernelMatrices:
        """NNGP and NTK, (n1, n2) each."""
        return self.estimate(x1, x2).kernels

    def estimate(self, x1: Inputs, x2: Inputs | None) -> Estimate:
        """Both kernels with their standard errors; the last answer is kept."""
        if self._last is not None and _same(self._last[0], x1) and _same(self._last[1], x2):
            return self._last[2]
        try:
            exact = self.limit.both(x1, x2)
        except NoRuleError as error:
            self._say(error)
            found = self._sample(lambda kernel: kernel(x1, x2), x1, x2)
            self._last = (_kept(x1), _kept(x2), found)
            return found
        self._why = None
        return Estimate(exact, KernelMatrices(*map(torch.zeros_like, exact)))

    def diagonals(self, x: Inputs) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """NNGP and NTK of each point with itself."""
        if self._last is not None and self._last[1] is None and _same(self._last[0], x):
            nngp, ntk = self._last[2].kernels
            return nngp.diagonal(), ntk.diagonal()
        try:
            return self.limit.diagonals(x)
        except NoRuleError as error:
            self._say(error)
            nngp, ntk = self._sample(lambda kernel: kernel.diagonal(x), x, None).kernels
            return nngp, ntk

    def outputs(self, x: Inputs) -> int | None:
        return self.limit.outputs(x)

    def explain(self) -> Explanation:
        """What was done in the last call: the limit's rules, or which node had none and what was sampled instead."""
        if self._why is None:
            return self.limit.explain()
        node = Step(
            node=self._why.place,
            rule=f"none: {self._why.cause}",
            weight_variance=None,
            bias_variance=None,
            rates=(),
            error=0.0,
            source="",
            layer=None,
            reads_input=False,
        )
        last = self.seed + self.samples - 1
        whole = Step(
            node="the whole network",
            rule=f"monte-carlo: means over {self.samples} networks of its own widths, drawn by init.apply_, seeds "
            f"{self.seed} to {last}",
            weight_variance=None,
            bias_variance=None,
            rates=(),
            error=0.0,
            source="sampled, with standard errors; the effect of finite width, O(1/width), is not in them",
            layer=None,
            reads_input=False,
        )
        return Explanation((node, whole))

    def _say(self, error: NoRuleError) -> None:
        if self._why is None:
            warnings.warn(
                f"{error.place}: {error.cause}. Its kernels are estimated from {self.samples} networks of the model's "
                "own widths, with standard errors (.standard_errors) that do not count the effect of finite width.",
                PriorscopeWarning,
                stacklevel=4,
            )
        self._why = error

    def _sample(self, of: Callable[[Kernel], Tensor], x1: Inputs, x2: Inputs | None) -> Estimate:
        check_inputs(x1)
        model = copy.deepcopy(self.limit.model).requires_grad_(True)
        if isinstance(x1, Tensor):
            model.to(x1.device, x1.dtype)
        _check_drawable(model)
        law = _law_of(model, self.limit)
        rates, last = self.limit.law.rates, _last_layer(model, law, x1)
        sums = _Sums(), _Sums()
        for draw in tqdm(range(self.samples), desc="networks", disable=not self.progress):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PriorscopeWarning)  # `_check_drawable` decides about what has no law
                law.apply_(model, self.seed + draw)
            sums[0].add(of(_Covariance(model, last)))
            if any(rates.values()):
                sums[1].add(of(EmpiricalNTK(model, rates=rates)))
            else:
                sums[1].add(torch.zeros_like(sums[0].mean))
        return Estimate(KernelMatrices(*(s.mean for s in sums)), KernelMatrices(*(s.error for s in sums)))


class SampledKernel(Kernel):
    """One kernel of a sampled limit, with standard errors."""

    def __init__(self, sampled: SampledLimit, which: Literal["nngp", "ntk"]):
        self.sampled, self.which = sampled, which
        self.origin = Origin(which, rates=sampled.limit.law.rates if which == "ntk" else None)

    def matrix(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        return getattr(self.sampled.both(x1, x2), self.which)

    def variances(self, x: Inputs) -> Tensor:
        return self.sampled.diagonals(x)[self.which == "ntk"]

    def outputs(self, x: Inputs) -> int | None:
        return self.sampled.outputs(x)

    def standard_errors(self, x1: Inputs, x2: Inputs | None = None) -> Float[Tensor, "n1 n2"]:
        """The standard error of each entry of `kernel(x1, x2)`, over the draws; 0 where it was derived by rules."""
        self._check(x1, x2)
        return getattr(self.sampled.estimate(x1, x2).errors, self.which)

    def explain(self) -> Explanation:
        """What was done in the last call."""
        return self.sampled.explain()


class _Covariance(Kernel):
    """f(x) f(x') of one network, a mean over its outputs; given its last layer, the expectation over that layer."""

    def __init__(self, model: nn.Module, last: "_LastLayer | None"):
        self.model, self.last = model, last

    @torch.no_grad()
    def _values(self, x: Inputs) -> Tensor:
        read: list[Tensor] = []
        layer = nn.Identity() if self.last is None else self.last.layer
        handle = layer.register_forward_pre_hook(lambda _, args: read.append(args[0]))
        try:
            outputs = outputs_of(self.model, cast(x, self.model.parameters(), copy=True))
        finally:
            handle.remove()
        return outputs if self.last is None else read[0].flatten(1)

    def matrix(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        first = self._values(x1)
        second = first if x2 is None else self._values(x2)
        return self._after(first @ second.T / first.shape[1])

    def variances(self, x: Inputs) -> Tensor:
        return self._after(self._values(x).square().mean(1))

    def _after(self, mean: Tensor) -> Tensor:
        return mean if self.last is None else self.last.weight * mean + self.last.bias


class _LastLayer(NamedTuple):
    """A linear layer that ends the model, with its variances."""

    layer: nn.Linear
    weight: float
    bias: float


class _Sums:
    """Mean and standard error of a stream of tensors, by Welford's recurrence."""

    def __init__(self) -> None:
        self.count, self._mean, self._squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, value: Tensor) -> None:
        value = value.detach()
        self.count += 1
        if self.count == 1:
            self._mean, self._squares = value.clone(), torch.zeros_like(value)
            return
        off = value - self._mean
        self._mean = self._mean + off / self.count
        self._squares = self._squares + off * (value - self._mean)

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def error(self) -> Tensor:
        return (self._squares / (self.count - 1) / self.count).sqrt()


def _check_drawable(model: nn.Module) -> None:
    """Raises RatesError for parameters that have no law and are no constant, such as a gain of 1."""
    lawful = {
        id(parameter)
        for _, layer in layers_with_a_law(model)
        for parameter in (layer.weight, layer.bias)
        if parameter is not None
    }
    for name, parameter in model.named_parameters():
        if id(parameter) not in lawful and parameter.numel() and bool((parameter != parameter.flatten()[0]).any()):
            raise RatesError(
                f"`{name}`",
                "has no law, so that networks with other values of it cannot be drawn",
                "Use layers whose law is known, or EmpiricalNTK of one network",
            )


def _law_of(copied: nn.Module, limit: Limit) -> Initialization:
    """The limit's law for a copy of its model: variances that were measured layer by layer go with the layers."""
    by_layer = limit.law.init.by_layer
    if by_layer is None:
        return limit.law.init
    pairs = zip(limit.model.parameters(), copied.parameters(), strict=True)
    return dataclasses.replace(
        limit.law.init, by_layer={id(new): by_layer[id(old)] for old, new in pairs if id(old) in by_layer}
    )


def _last_layer(model: nn.Module, law: Initialization, x: Inputs) -> _LastLayer | None:
    """The linear layer whose output is the model's, if nothing else uses its weights; None without one."""
    try:
        points = cast(take(x, slice(0, WATCHED_POINTS)), model.parameters())
        graph = watch(model, points, lambda module: isinstance(module, nn.Linear))
    except NotExactError:
        return None
    node = graph.output.node if isinstance(graph.output, Ref) and not graph.output.part else None
    if node is None or node.kind != "module" or type(node.target) is not nn.Linear or is_hooked(node.target):
        return None
    if any(node.parameters & other.parameters for other in graph.needed() if other is not node and other.data):
        return None
    w, b = law.variances(node.target)
    return _LastLayer(node.target, number(w), number(b))


def _same(kept: Inputs | None, x: Inputs | None) -> bool:
    if not isinstance(kept, Tensor) or not isinstance(x, Tensor):
        return kept is None and x is None
    return kept.shape == x.shape and kept.dtype == x.dtype and kept.device == x.device and torch.equal(kept, x)


def _kept(x: Inputs | None) -> Any:
    return x.detach().clone() if isinstance(x, Tensor) else x
