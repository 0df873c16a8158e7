"""`EmpiricalNTK`: the neural tangent kernel of a module with the weights that it has, exact or an error."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...data.inputs import Inputs, check_inputs, count
from ...errors import MemoryBudgetError, ModelError, NotExactError, PriorscopeError, RatesError
from ...network.function import Readout, check_mode, pair_of_points
from ...network.initialization import resolve_rates
from ...network.snapshot import Snapshot
from ..kernel import Kernel, Origin
from . import contraction
from .certificate import check_outputs, not_differentiable, reference, wrong_parameter
from .contraction import Tiles
from .plan import Form, Plan, Workload, make_plan
from .probe import Probe, probe
from .rows import Rows, looped, vectorized

DEFAULT_MEMORY = 2**30


class EmpiricalNTK(Kernel):
    """The neural tangent kernel of a module, with the weights that it has now.

    Θ(x, x') = J(x) diag(c) J(x')ᵀ, with J = ∂f/∂θ, (n·o, p), and c the rates. `kernel(x1, x2)` is the mean over
    outputs of its diagonal blocks, `kernel.blocks(x1, x2)` all of it, (n1, o, n2, o).

    The kernel is of a snapshot: values, modes and `requires_grad` are those of the moment of construction; the module
    is shared. Every call checks, on its own points, that outputs do not depend on the batch or on chance and that
    gradients are those of plain autograd, and raises where they are not. Matrices are detached and have the dtype of
    the model, in which they are computed; floating inputs are cast to it.

    Args:
        model: any nn.Module, called as model(x) for a tensor, model(*x) for a tuple or list, model(**x) for a
            dictionary of tensors. Batch norm and dropout must be in .eval() mode.
        rates: c: None (1 for all that learns), {parameter name: c}, an Initialization or a limit. Frozen parameters
            (requires_grad=False) have c = 0.
        readout: makes a tensor (n,), (n, o) or (n, ...) of real outputs from what the model returns.
        parameters: a name, the name of a module, or several of them: all other parameters get c = 0.
        memory: bytes that the kernel may take above the model itself; 1 GiB by default.
        progress: shows a bar.

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
        readout: Readout | None = None,
        parameters: str | Iterable[str] | None = None,
        memory: int | None = None,
        progress: bool = False,
    ):
        if memory is not None and not memory > 0:
            raise MemoryBudgetError("memory", f"is {memory}", "Give a positive number of bytes, or None for 1 GiB")
        self.snapshot = Snapshot(model, readout)
        check_mode(model)
        chosen = _chosen(model, parameters)
        learns = self.snapshot.learnable & chosen
        given = resolve_rates(model, rates)
        self.origin = Origin("empirical ntk", rates={n: c if n in learns else 0.0 for n, c in given.items()})
        self.rates = {name: c for name, c in (self.origin.rates or {}).items() if c > 0}
        self.memory, self.progress = DEFAULT_MEMORY if memory is None else int(memory), progress
        if not self.rates:
            raise RatesError("the empirical ntk", "has no parameter that learns", "Set requires_grad, or give rates=")
        _check_dtypes(self.snapshot, self.rates)

    def matrix(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        return self._compute("trace", x1, x2)

    def variances(self, x: Inputs) -> Tensor:
        return self._compute("diagonal", x, None)

    def tensor4(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        return self._compute("blocks", x1, x2)

    def outputs(self, x: Inputs) -> int:
        points = pair_of_points(self.snapshot.cast(x))
        with self.snapshot.installed(), torch.no_grad():
            return self.snapshot.outputs(points).shape[1]

    def features(self, x: Inputs) -> Float[Tensor, "no p"]:
        """The Jacobian J itself: Θ = J diag(c) Jᵀ.

        Args:
            x: inputs, n points.

        Returns:
            (n·o, p), points first; columns in the order of `named_parameters()`, of those with c > 0.
        """
        return self._compute("features", check_inputs(x), None)

    def plan(self, x1: Inputs, x2: Inputs | None = None, form: Form = "trace") -> Plan:
        """How the kernel would be computed: method and why, tiles, flops, bytes.

        Args:
            x1, x2: inputs; None for x2 is the Gram matrix of x1.
            form: "trace" (`kernel(x1, x2)`), "blocks", "diagonal" or "features".
        """
        self._check(x1, x2)
        x1, x2 = self.snapshot.cast(x1), None if x2 is None else self.snapshot.cast(x2)
        with self.snapshot.installed():
            return self._certified(form, x1, x2).plan

    def _compute(self, form: Form, x1: Inputs, x2: Inputs | None) -> Tensor:
        x1, x2 = self.snapshot.cast(x1), None if x2 is None else self.snapshot.cast(x2)
        with self.snapshot.installed():
            tiles = self._certified(form, x1, x2)
            batch = max(group.samples for group in tiles.plan.groups)
            for x in (x1,) if x2 is None else (x1, x2):
                check_outputs(self.snapshot, x, batch)
            with torch.no_grad():
                if form == "features":
                    return contraction.features(tiles, x1)
                if form == "diagonal":
                    return contraction.diagonal(tiles, x1, self.rates)
                if form == "trace":
                    return contraction.trace(tiles, x1, x2, self.rates)
                return contraction.blocks(tiles, x1, x2, self.rates)

    def _certified(self, form: Form, x1: Inputs, x2: Inputs | None) -> Tiles:
        """The plan, and a way of making rows that gives autograd's own gradients on two of the points."""
        seen = probe(self.snapshot, x1)
        work = self._workload(seen, form, count(x1), count(x1 if x2 is None else x2), x2 is None)
        make_plan(work, self.memory)  # what does not fit raises before anything runs
        check_outputs(self.snapshot, pair_of_points(x1), 2)
        expected = reference(self.snapshot, x1, tuple(self.rates))
        trial = replace(work, form="diagonal", n1=2, n2=2, same=True)
        try:
            tiles = Tiles(self.snapshot, vectorized, make_plan(trial, self.memory, "all points of a tile at once"))
            with torch.no_grad():
                wrong = wrong_parameter(tiles, expected)
            reason = "all points of a tile at once" if wrong is None else f"torch.func's gradient of `{wrong}` is wrong"
        except PriorscopeError:
            raise
        except Exception as error:
            wrong, reason = "", f"torch.func refuses: {_brief(error)}"
        if wrong is None:
            return self._tiles(work, vectorized, reason)
        work, trial = replace(work, vectorized=False), replace(trial, vectorized=False)
        try:
            wrong = wrong_parameter(Tiles(self.snapshot, looped, make_plan(trial, self.memory, reason)), expected)
        except PriorscopeError:
            raise
        except Exception as error:
            raise not_differentiable(error) from error
        if wrong is not None:
            raise NotExactError(
                f"`{wrong}`",
                "its gradient at a point depends on the other points of the batch, or on chance",
                "Call model.eval(), and use layers that see one point at a time",
            )
        return self._tiles(work, looped, reason)

    def _tiles(self, work: Workload, rows: Rows, reason: str) -> Tiles:
        return Tiles(self.snapshot, rows, make_plan(work, self.memory, reason), self.progress)

    def _workload(self, seen: Probe, form: Form, n1: int, n2: int, same: bool) -> Workload:
        values = self.snapshot.values
        return Workload(
            form=form,
            n1=n1,
            n2=n2,
            same=same,
            outputs=seen.outputs,
            sizes={name: values[name].numel() for name in self.rates},
            element=torch.finfo(self.snapshot.dtype).bits // 8,
            activations=seen.activations,
            forward_flops=seen.forward_flops,
            # The snapshot and, while two points are certified, autograd's gradient and the rebuilt one.
            held=3 * sum(value.numel() * value.element_size() for value in values.values()),
        )


def _chosen(model: nn.Module, parameters: str | Iterable[str] | None) -> set[str]:
    """The parameters that are named, or lie in a module that is; a tied parameter goes by any of its names."""
    canonical = {id(parameter): name for name, parameter in model.named_parameters()}
    if parameters is None:
        return set(canonical.values())
    names = [parameters] if isinstance(parameters, str) else list(parameters)
    everyone = dict(model.named_parameters(remove_duplicate=False))
    chosen: set[str] = set()
    for asked in names:
        found = {canonical[id(p)] for name, p in everyone.items() if name == asked or name.startswith(f"{asked}.")}
        if not found:
            some = ", ".join(f"`{name}`" for name in list(canonical.values())[:4])
            raise RatesError(f"parameters=`{asked}`", "names no parameter or module", f"Names are like {some}")
        chosen |= found
    return chosen


def _check_dtypes(snapshot: Snapshot, names: Iterable[str]) -> None:
    dtypes = {snapshot.values[name].dtype: name for name in names}
    if len(dtypes) > 1:
        described = " and ".join(f"`{name}` ({dtype})" for dtype, name in dtypes.items())
        raise ModelError(described, "have different dtypes", "Call model.to(torch.float32), or model.double()")
    dtype, name = next(iter(dtypes.items()))
    if not dtype.is_floating_point:
        raise ModelError(f"`{name}`", f"has dtype {dtype}", "Use real parameters")


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:90]}{'...' if len(text) > 90 else ''}"
