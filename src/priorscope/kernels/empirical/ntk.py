"""`EmpiricalNTK`: the neural tangent kernel of a module with the weights that it has, exact or an error."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from tqdm import tqdm

from ...data.inputs import Inputs, check_inputs
from ...errors import DataError, MemoryBudgetError, ModelError, NotExactError, RatesError
from ...network.function import check_mode, check_module, class_name, pair_of_points
from ...network.initialization import resolve_rates
from ...network.snapshot import Snapshot
from ..kernel import Kernel, Origin
from . import contraction
from .approximate import ApproximateNTK
from .certified import Job, certified
from .contraction import Tiles
from .factors import Form
from .operator import KernelOperator
from .plan import PRODUCTS, Plan
from .tapping import OtherCallsError

DEFAULT_MEMORY = 2**30


class EmpiricalNTK(Kernel):
    """The neural tangent kernel of a module, with the weights that it has now.

    Θ(x, x') = J(x) diag(c) J(x')ᵀ, with J = ∂f/∂θ, (n·o, p), and c the rates. `kernel(x1, x2)` is the mean over
    outputs of its diagonal blocks, `kernel.blocks(x1, x2)` all of it, (n1, o, n2, o).

    The kernel is of a snapshot: values, modes and `requires_grad` are those of the moment of construction; the module
    is shared. Every call checks that the outputs of its points do not depend on the batch or on chance, and on two of
    them that gradients, and their kernel by the way that is taken, are those of plain autograd, and raises otherwise.
    Matrices are detached and have the dtype of the model, in which they are computed; floating inputs are cast to it.

    Args:
        model: any nn.Module, called as model(x) for a tensor, model(*x) for a tuple or list, model(**x) for a
            dictionary of tensors. Batch norm and dropout must be in .eval() mode.
        rates: c: None (1 for all that learns), {parameter name: c}, an Initialization or a limit. Frozen parameters
            (requires_grad=False) have c = 0.
        readout: makes a tensor (n,), (n, o) or (n, ...) of real outputs from what the model returns.
        parameters: a name, the name of a module, or several of them: all other parameters get c = 0.
        memory: bytes that the kernel may take above the model itself; 1 GiB by default.
        progress: shows a bar.
        accumulate: torch.float32 or float64 of products, sums and results. None: of a float32 or float64 model its own
            dtype; of bfloat16 and float16 ones float32, rounded once at the end.

    `coupled` is always True: how many outputs there are shows in `blocks(x).shape` only.

    Raises:
        NotExactError: the outputs are random or depend on the batch, or a gradient is not autograd's.
        ModelError: the model does not run on x, or its outputs are no real tensor with the points first.
        RatesError: unknown or missing names, or nothing that learns.
        MemoryBudgetError: not even one row of the largest parameter fits; before the work starts.

    Source: Jacot et al. 2018 (1806.07572); the blocks, Novak et al. 2022 (2206.08720).

    For a linear model without bias it is the linear kernel:

    >>> x = torch.randn(4, 3)
    >>> kernel = EmpiricalNTK(nn.Linear(3, 1, bias=False))
    >>> torch.allclose(kernel(x), x @ x.T, rtol=1e-5, atol=1e-5)
    True
    """

    coupled = True

    def __init__(
        self,
        model: Any,
        rates: Any = None,
        readout: Any = None,
        parameters: Any = None,
        memory: Any = None,
        progress: bool = False,
        accumulate: torch.dtype | None = None,
    ):
        if memory is not None and (isinstance(memory, bool) or not isinstance(memory, int) or memory <= 0):
            raise MemoryBudgetError("memory", f"is {memory!r}", "Give a positive number of bytes, or None for 1 GiB")
        if readout is not None and not callable(readout):
            raise ModelError("readout", f"is a {type(readout).__name__}", "Give a function of what the model returns")
        _check_state(check_module(model))
        self.snapshot = Snapshot(model, readout)
        check_mode(model)
        chosen = _chosen(model, parameters)
        learns = self.snapshot.learnable & chosen
        given = resolve_rates(model, rates)
        self.origin = Origin("empirical ntk", rates={n: c if n in learns else 0.0 for n, c in given.items()})
        self.rates = {name: c for name, c in (self.origin.rates or {}).items() if c > 0}
        if accumulate not in (None, torch.float32, torch.float64):
            raise ModelError("accumulate", f"is {accumulate}", "Choose torch.float32, torch.float64 or None")
        self.accumulate = accumulate
        self.memory, self.progress = DEFAULT_MEMORY if memory is None else int(memory), progress
        if not self.rates:
            raise RatesError("the empirical ntk", "has no parameter that learns", "Set requires_grad, or give rates=")
        _check_dtypes(self.snapshot, self.rates)

    def matrix(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        return self._compute("trace", x1, x2, lambda t: contraction.traces(t, x1, x2, self.rates, self._whole)[""])

    def variances(self, x: Inputs) -> Tensor:
        return self._compute("diagonal", x, None, lambda t: contraction.diagonal(t, x, self.rates))

    def tensor4(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        def contract(tiles: Tiles) -> Tensor:
            if tiles.plan.method == PRODUCTS:
                # Its own certificate may refuse what the tapped run has passed: the tiles are as exact.
                with suppress(NotExactError, MemoryBudgetError):
                    return self.operator(x1, x2).dense("blocks")
            return contraction.blocks(tiles, x1, x2, self.rates)

        return self._compute("blocks", x1, x2, contract)

    def per_output(self, x1: Inputs, x2: Inputs | None = None) -> Float[Tensor, "o n1 n2"]:
        """One kernel for each output: the diagonal blocks of `blocks`, whose mean is `kernel(x1, x2)`.

        Returns:
            (o, n1, n2).
        """
        self._check(x1, x2)
        return self._compute("per output", x1, x2, lambda t: contraction.per_output(t, x1, x2, self.rates))

    def layers(self, x1: Inputs, x2: Inputs | None = None, groups: Any = None) -> dict[str, Float[Tensor, "n1 n2"]]:
        """What every layer adds to the kernel: {layer: its part of `kernel(x1, x2)`}, whose sum is the kernel.

        A layer is the module that holds a parameter, by its path; a parameter of the model itself goes by its name.

        Args:
            x1, x2: inputs; None for x2 is the Gram matrix of x1.
            groups: {name: parameters or modules} to sum over instead. They must not overlap; what is in none is left
                out.

        Returns:
            {name: (n1, n2)}, each positive semi-definite.

        Raises:
            RatesError: a group names nothing that learns, or two name the same parameter.
        """
        self._check(x1, x2)
        layers = self._layers(groups)
        rates = {name: c for name, c in self.rates.items() if name in layers}
        return self._compute("trace", x1, x2, lambda t: contraction.traces(t, x1, x2, rates, layers), layers)

    def outputs(self, x: Inputs) -> int:
        points = self.snapshot.cast(pair_of_points(x))
        with self.snapshot.installed(), torch.no_grad():
            return self.snapshot.outputs(points).shape[1]

    def features(self, x: Inputs) -> Float[Tensor, "no p"]:
        """The Jacobian J itself: Θ = J diag(c) Jᵀ.

        Args:
            x: inputs, n points.

        Returns:
            (n·o, p), points first; columns in the order of `named_parameters()`, of those with c > 0.
        """
        check_inputs(x)
        return self._compute("features", x, None, lambda t: contraction.features(t, x))

    def plan(self, x1: Inputs, x2: Inputs | None = None, form: str = "trace") -> Plan:
        """How the kernel would be computed: method and why, the way of every parameter, tiles, flops, bytes.

        Args:
            x1, x2: inputs; None for x2 is the Gram matrix of x1.
            form: "trace" (`kernel(x1, x2)`), "blocks", "per output", "diagonal" or "features".
        """
        self._check(x1, x2)
        if form not in get_args(Form):
            raise DataError("form", f"is {form!r}", f"Choose one of {', '.join(get_args(Form))}")
        with self.snapshot.installed(self._whole):
            return certified(self.snapshot, self._job(cast(Form, form), x1, x2, self._whole)).plan

    def operator(self, x1: Inputs, x2: Inputs | None = None, batch: int | None = None) -> KernelOperator:
        """The kernel between all outputs as products with vectors, without its matrix: for iterative solvers.

        Args:
            x1, x2: inputs; None for x2 is the Gram operator of x1.
            batch: points that run at once; None for as many as `memory` allows.

        Returns:
            KernelOperator, (n1·o, n2·o), points first.

        Raises:
            NotExactError: products that do not agree with plain autograd, or outputs that depend on the batch.
            MemoryBudgetError: not even one point (or the given batch) fits into `memory`.
        """
        check_inputs(x1, "x1")
        if x2 is not None:
            check_inputs(x2, "x2")
        return KernelOperator(self.snapshot, self.rates, x1, x2, self.memory, batch, self.progress)

    def approximate(self, method: str, size: int, seed: int = 0) -> ApproximateNTK:
        """An estimate of this kernel from random features, with standard errors: `ApproximateNTK`.

        Args:
            method: "projection" (random directions in the space of parameters) or "parameters" (a random choice).
            size: the number of directions, or of parameter entries.
            seed: of the draw.
        """
        return ApproximateNTK(self, method, size, seed)

    def _compute(
        self,
        form: Form,
        x1: Inputs,
        x2: Inputs | None,
        contract: Callable[[Tiles], Any],
        layers: Mapping[str, str] | None = None,
    ) -> Any:
        layers = self._whole if layers is None else layers
        with self.snapshot.installed(layers), torch.no_grad():
            job = self._job(form, x1, x2, layers)
            tiles = certified(self.snapshot, job)
            try:
                result = self._watched(contract, tiles)
            except OtherCallsError:
                # Parameters have other uses at other points: each point by plain autograd.
                result = self._watched(contract, certified(self.snapshot, job, only_autograd=True))
        dtype = self.accumulate or self.snapshot.dtype
        return tree_map(lambda t: t.to(dtype), result)

    def _watched(self, contract: Callable[[Tiles], Any], tiles: Tiles) -> Any:
        shown = self.progress and tiles.plan.method != PRODUCTS
        with tqdm(total=tiles.plan.made, desc="empirical ntk", unit="point", disable=not shown, leave=False) as bar:
            return contract(replace(tiles, step=bar.update))

    def _job(self, form: Form, x1: Inputs, x2: Inputs | None, layers: Mapping[str, str]) -> Job:
        return Job(form, x1, x2, layers, self.memory, self._number)

    @property
    def _whole(self) -> dict[str, str]:
        """All that learns, as one layer."""
        return dict.fromkeys(self.rates, "")

    @property
    def _number(self) -> torch.dtype:
        """The dtype of products and sums."""
        if self.accumulate is not None:
            return self.accumulate
        return torch.promote_types(self.snapshot.dtype, torch.float32)

    def _layers(self, groups: Any) -> dict[str, str]:
        """{parameter: its layer}."""
        if groups is None:
            return {name: name.rpartition(".")[0] or name for name in self.rates}
        if not isinstance(groups, Mapping) or not groups:
            raise RatesError("groups", f"is {groups!r}", "Give {name: parameters or modules}, at least one")
        layers: dict[str, str] = {}
        for group, asked in groups.items():
            found = {name for name in _chosen(self.snapshot.model, asked, f"groups[{group!r}]") if name in self.rates}
            if not found:
                raise RatesError(f"groups={group!r}", "names no parameter that learns", "See named_parameters()")
            if both := found & set(layers):
                raise RatesError(f"groups={group!r}", f"overlaps another in `{min(both)}`", "Name it in one group")
            layers.update(dict.fromkeys(found, str(group)))
        return layers


def _chosen(model: nn.Module, parameters: Any, argument: str = "parameters") -> set[str]:
    """The parameters that are named, or lie in a module that is; a tied parameter goes by any of its names."""
    canonical = {id(parameter): name for name, parameter in model.named_parameters()}
    if parameters is None:
        return set(canonical.values())
    names = [parameters] if isinstance(parameters, str) else parameters
    if not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise RatesError(argument, f"is {parameters!r}", "Give the name of a parameter or module, or several")
    everyone = dict(model.named_parameters(remove_duplicate=False))
    chosen: set[str] = set()
    for asked in names:
        found = {canonical[id(p)] for name, p in everyone.items() if name == asked or name.startswith(f"{asked}.")}
        if not found:
            some = ", ".join(f"`{name}`" for name in list(canonical.values())[:4])
            raise RatesError(f"{argument}=`{asked}`", "names no parameter or module", f"Names are like {some}")
        chosen |= found
    return chosen


def _check_state(model: nn.Module) -> None:
    """Raises for weights that change when they are called, or that are not on one device."""
    for path, module in model.named_modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None:
            raise NotExactError(
                f"`{path}` ({class_name(module)})",
                "has max_norm: it changes its own weights when it is called",
                "Set max_norm=None after scaling the weights",
            )
    devices: dict[str, str] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        devices.setdefault(str(tensor.device), name)
    if len(devices) > 1 or "meta" in devices:
        described = " and ".join(f"`{name}` ({device})" for device, name in devices.items())
        one = "has no values" if len(devices) == 1 else "are on different devices"
        raise ModelError(described, one, "Call model.to(device) with one device that holds values")


def _check_dtypes(snapshot: Snapshot, names: Iterable[str]) -> None:
    dtypes = {snapshot.values[name].dtype: name for name in names}
    if len(dtypes) > 1:
        described = " and ".join(f"`{name}` ({dtype})" for dtype, name in dtypes.items())
        raise ModelError(described, "have different dtypes", "Call model.to(torch.float32), or model.double()")
    dtype, name = next(iter(dtypes.items()))
    if not dtype.is_floating_point:
        raise ModelError(f"`{name}`", f"has dtype {dtype}", "Use real parameters")
