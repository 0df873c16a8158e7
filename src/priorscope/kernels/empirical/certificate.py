"""What makes an empirical kernel exact or an error: a module's outputs and gradients, checked on the user's own points.

1. No value that is computed from floating data is read in Python (network/reads.py).
2. The outputs of two points in one batch are those of each alone, and twice the same; those of every batch, of the size
   really used, are those of the tapped run, which sees each point alone. This finds modules that mix the points of a
   batch, and noise.
3. The gradients of random combinations of the outputs of two points in one batch, by plain autograd through the
   untouched module, are those rebuilt from activations and signals, and every parameter's kernel between the two
   points, by the very way that the plan takes, is theirs. This finds uses that the taps misread, and mixing that the
   outputs do not show (a last layer of zeros).
4. At every point, no parameter has a gradient beside its uses (tapping/passes.py).

Outputs count as equal within the root of the dtype's precision, gradients within eight times that, in norm.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from ...data.inputs import Inputs, count, take
from ...errors import ModelError, NotExactError
from ...network.function import pair_of_points
from ...network.snapshot import Snapshot
from .contraction import Tiles, layer_products
from .tapping import Pass


@torch.no_grad()
def check_outputs(snapshot: Snapshot, x: Inputs, batch: int) -> None:
    """Raises NotExactError where outputs depend on the batch or on chance, ModelError where they are not finite."""
    if count(x) == 1:
        x = pair_of_points(x)
    points = count(x)
    pieces = max(1, points // max(batch, 2))
    for start, end in ((i * points // pieces, (i + 1) * points // pieces) for i in range(pieces)):
        chunk = take(x, slice(start, end))
        together, again = snapshot.outputs(chunk), snapshot.outputs(chunk)
        if not bool(torch.isfinite(together).all()):
            raise ModelError(
                _first_module(snapshot, chunk, None),
                "gives outputs that are NaN or infinite",
                "Look at the weights and the scale of the inputs",
            )
        if not _close(together, again):
            raise NotExactError(
                _first_module(snapshot, chunk, chunk),
                "gives other outputs each time it is called",
                "Remove the noise, call model.eval(), and reset any state between calls",
            )
        for i in range(end - start):
            alone = take(chunk, slice(i, i + 1))
            single = snapshot.outputs(alone)
            if single.shape[1] != together.shape[1]:
                raise ModelError(
                    "the model's output",
                    f"has {together.shape[1]} entries per point in a batch, {single.shape[1]} for one point alone",
                    "Give a readout= whose shape does not depend on the batch",
                )
            if not _close(single[0], together[i], float(together.abs().max())):
                raise NotExactError(
                    _first_module(snapshot, chunk, alone, i),
                    "gives a point other outputs in a batch than alone: it mixes the points of a batch",
                    "Use a layer that sees one point at a time (LayerNorm, not batch statistics), or model.eval()",
                )


@torch.no_grad()
def check_batch(snapshot: Snapshot, run: Pass, x: Inputs) -> None:
    """Raises NotExactError where the module's outputs in this batch are not those of the tapped run."""
    together = snapshot.outputs(x)
    if together.shape == run.outputs.shape and _close(run.outputs, together) and bool(torch.isfinite(together).all()):
        return
    check_outputs(snapshot, x, count(x))  # says which module it is
    raise NotExactError(
        "the model",
        "gives other outputs when its parameters' uses are watched",
        "Use torch functions of tensors in forward, and parameters that are registered",
    )


@dataclass(frozen=True)
class Reference:
    """Random cotangents of two points in one batch, and the gradient of each point's product, by plain autograd.

    gradient: {parameter: (2, entries)}.
    """

    points: Inputs
    cotangents: Tensor
    gradient: dict[str, Tensor]


def reference(snapshot: Snapshot, points: Inputs, names: tuple[str, ...]) -> Reference:
    """Of two points, by the module itself, untouched (inside `installed`)."""
    with torch.enable_grad():
        out = snapshot.outputs(points)
    generator = torch.Generator().manual_seed(0)
    cotangents = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out)
    parameters = [snapshot.parameter(name) for name in names]
    gradient = {name: p.new_zeros(2, p.numel()) for name, p in zip(names, parameters, strict=True)}
    for i in range(2) if out.requires_grad else ():
        only = torch.zeros_like(cotangents)
        only[i] = cotangents[i]
        try:
            grads = torch.autograd.grad(out, parameters, only, allow_unused=True, retain_graph=i == 0)
        except Exception as error:
            raise not_differentiable(error) from error
        for name, grad in zip(names, grads, strict=True):
            if grad is not None:
                gradient[name][i] = grad.to_dense().flatten()
    return Reference(points, cotangents, gradient)


def not_differentiable(error: Exception) -> ModelError:
    """What to say of a module that plain autograd cannot differentiate."""
    return ModelError(
        "the model",
        f"autograd cannot differentiate it ({type(error).__name__}: {error})",
        "Use torch.utils.checkpoint with use_reentrant=False, and operations that have derivatives",
    )


def wrong_parameter(tiles: Tiles, expected: Reference) -> str | None:
    """The parameter whose gradients, rebuilt from its parts, or whose kernel, by the way that the plan takes, is
    farthest from autograd's; None where all are equal."""
    run = tiles.run(expected.points, expected.cotangents[None])
    wrong = _Worst()
    # In norm: a rounded activation may cross a kink, which changes a few entries. A gradient that is zero but for
    # rounding is measured against the largest one.
    norm = torch.linalg.vector_norm
    largest = max(float(norm(gradient)) for gradient in expected.gradient.values())
    for name, gradient in expected.gradient.items():
        parts = tiles.parts(run, {name: "jacobian"})
        rebuilt = parts[name].dense(gradient.shape[1])[:, 0] if name in parts else torch.zeros_like(gradient)
        wrong.compare(name, rebuilt, gradient, floor=largest)
    for group in tiles.plan.groups:
        parts = tiles.parts(run, group.way_of)
        # Other rates for biases than for weights, since both share a Gram.
        rates = {name: 0.5 if name in group.riders.values() else 1.0 for name in tiles.names}
        for name, product in layer_products(parts, parts, group.riders, rates, "trace", {n: n for n in parts}):
            named = (name, group.riders[name]) if name in group.riders else (name,)
            grams = [rates[n] * expected.gradient[n] @ expected.gradient[n].T for n in named]
            wrong.compare(name, product, sum(grams[1:], grams[0]), floor=largest**2)
    return wrong.name


class _Worst:
    """The name of the worst of several comparisons, None where all agree."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._factor = 1.0

    def compare(self, name: str, found: Tensor, expected: Tensor, floor: float) -> None:
        eps = torch.finfo(expected.dtype).eps
        norm = torch.linalg.vector_norm
        allowed = min(0.1, 8 * eps**0.5) * float(norm(expected)) + 100 * eps * floor
        gap = float(norm(found.to(expected.dtype) - expected))
        if not gap <= self._factor * allowed:
            self.name, self._factor = name, gap / allowed if allowed else float("inf")


def _close(a: Tensor, b: Tensor, scale: float | None = None) -> bool:
    scale = float(b.abs().max()) if scale is None else scale
    return float((a - b).abs().max()) <= torch.finfo(b.dtype).eps ** 0.5 * scale


def _first_module(snapshot: Snapshot, batch: Inputs, other: Inputs | None, at: int | None = None) -> str:
    """The first module call at which the two runs differ (`other` is point `at` alone, or all again), or, without
    another run, the first whose output is not finite."""
    first = _module_outputs(snapshot, batch)
    second = first if other is None else _module_outputs(snapshot, other)
    for (place, a), (_, b) in zip(first, second, strict=False):
        if other is None:
            if not bool(torch.isfinite(a).all()):
                return place
            continue
        a = a if at is None else a[at : at + 1]
        if a.shape != b.shape or not _close(a, b):
            return place
    return "the model"


def _module_outputs(snapshot: Snapshot, x: Inputs) -> list[tuple[str, Tensor]]:
    """(place, output) of every module call, inner ones first."""
    seen: list[tuple[str, Tensor]] = []

    def note(place: str):
        def hook(module: nn.Module, args: object, out: object) -> None:
            tensors = [t for t in tree_flatten(out)[0] if isinstance(t, Tensor) and t.is_floating_point()]
            if tensors and tensors[0].ndim:
                seen.append((place, tensors[0].clone()))

        return hook

    handles = [
        module.register_forward_hook(note(f"`{path}` ({type(module).__name__})" if path else "the model"))
        for path, module in snapshot.model.named_modules()
    ]
    try:
        snapshot.outputs(x)
    finally:
        for handle in handles:
            handle.remove()
    return seen
