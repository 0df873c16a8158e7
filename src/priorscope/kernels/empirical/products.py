"""The Jacobian of a module at some points through its products, J t and Jᵀ u, batch by batch and never J itself.

What makes them exact or an error:

1. Outputs do not depend on the batch or on chance, on all points, and Python reads none that depend on data.
2. The gradient of random combinations of the outputs of two points in one batch, by plain autograd through the
   untouched module, is the sum of the two points' own.
3. Duality, ⟨u, J t⟩ = ⟨Jᵀ u, t⟩, where Jᵀ u is always plain autograd's. It decides how J t is taken: forward mode where
   that is right, else two backward passes, else an error.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from math import ceil, isfinite, sqrt

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from ...data.inputs import Inputs, count, leaves, loaded, take
from ...errors import DataError, MemoryBudgetError, ModelError, NotExactError, PriorscopeError, brief
from ...network.derivatives import backward_product, forward_product, twice_backward_product
from ...network.function import cast, pair_of_points, place_of
from ...network.reads import check_reads
from ...network.snapshot import Snapshot
from .certificate import check_outputs, not_differentiable
from .tapping import account

FORWARD, TWICE = "forward mode", "two backward passes"

COPIES = {FORWARD: (3, 4), TWICE: (6, 6)}
"""How often a batch's activations, and one vector of all parameters, are in memory at once, at most.

Measured on a convolutional network and on a transformer layer.
"""

MOST_STACKED = 16
"""Vectors at once, at most: more gain nothing."""


class JacobianProducts:
    """J = ∂f/∂θ at n points as a linear map, from {parameter: tensor} to (n, o) and back.

    All methods run inside `snapshot.installed()`, the constructor too, which does all the checks.

    Args:
        names: the parameters that θ means. x: the points; they are copied.
        memory: bytes that the work may take. batch: points that run at once; None for as many as fit.
        backward_only: whether J t is never asked for; then `method` is None.

    `method` says how J t is taken, `reason` why; `batch` points and `stack` vectors run at once.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        names: tuple[str, ...],
        x: Inputs,
        memory: int,
        batch: int | None = None,
        backward_only: bool = False,
    ):
        if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int) or batch < 1):
            raise DataError("batch", f"is {batch}", "Give a number of points, or None")
        self.snapshot, self.names = snapshot, names
        self.x = cast(loaded(x), snapshot.values.values(), copy=True)
        self.points = count(self.x)
        pair = pair_of_points(self.x)
        check_reads(snapshot.model, pair, lambda: snapshot.outputs(pair))
        try:
            seen = account(snapshot, self.x, names, structured=False)
        except PriorscopeError:
            raise
        except Exception as error:
            raise not_differentiable(error) from error
        self.outputs = seen.outputs
        _batch_that_fits(self, seen.activations, FORWARD, memory, batch)  # what does not fit raises before it runs
        check_outputs(snapshot, pair, 2)
        gradient = self._gradient_of(pair)
        self.method, self.reason = (FORWARD, "") if backward_only else self._choose(pair, gradient)
        self.batch = _batch_that_fits(self, seen.activations, self.method, memory, batch)
        stacks = not backward_only and self._stacks(pair, _tangent(gradient))
        self.stack = _stack_that_fits(self, seen.activations, memory) if stacks else 1
        check_outputs(snapshot, self.x, self.batch)

    @property
    def size(self) -> int:
        """p, the number of parameter entries."""
        return sum(self.snapshot.values[name].numel() for name in self.names)

    def times(self, tangent: Mapping[str, Tensor]) -> Float[Tensor, "n o"]:
        """J t at all points."""
        return next(self.times_each([tangent]))

    def times_each(self, tangents: Iterable[Mapping[str, Tensor]], first: int | None = None) -> Iterator[Tensor]:
        """J t, (m, o), for one t after the other, at all points or the first m; `stack` of them run at once."""
        pieces = _pieces(self.points if first is None else first, self.batch)
        waiting = iter(tangents)
        while chunk := list(islice(waiting, self.stack)):
            if len(chunk) == 1:
                parts = [self._times(take(self.x, piece), chunk[0], self.method)[None] for piece in pieces]
            else:
                stacked = {name: torch.stack([tangent[name] for tangent in chunk]) for name in self.names}
                del chunk
                parts = [self._times_stacked(take(self.x, piece), stacked) for piece in pieces]
            yield from _finite(torch.cat(parts, 1), "the model's forward derivative")

    def transposed(self, cotangent: Float[Tensor, "n o"]) -> dict[str, Tensor]:
        """Jᵀ u, by parameter."""
        total: dict[str, Tensor] = {}
        for piece in _pieces(self.points, self.batch):
            part = self._transposed(take(self.x, piece), cotangent[piece])
            for name in self.names:
                # Not in place: a gradient may share memory with the cotangent.
                total[name] = total[name] + part[name] if name in total else part[name]
        return total

    def rows(self, point: int) -> Iterator[dict[str, Tensor]]:
        """∂f_a/∂θ at one point, for each of its outputs a; the model runs once."""
        with torch.enable_grad():
            outputs = self.snapshot.outputs(take(self.x, slice(point, point + 1)))
        parameters = [self.snapshot.parameter(name) for name in self.names]
        for a in range(self.outputs):
            unit = torch.zeros_like(outputs)
            unit[0, a] = 1
            grads = backward_product(outputs, parameters, unit, keep=a < self.outputs - 1)
            yield {name: _finite(grad, f"`{name}`") for name, grad in zip(self.names, grads, strict=True)}

    def check_duality(self) -> None:
        """⟨u, J t⟩ = ⟨Jᵀ u, t⟩ for random u and t on all points, or a NotExactError."""
        u = random_like(self.points, self.outputs, self.snapshot, seed=1)
        gradient = self.transposed(u)
        tangent = _tangent(gradient)
        if not _dual(u, self.times(tangent), gradient, tangent):
            raise self._not_dual("it is right for two of the points, and not for all")

    def _times(self, x: Inputs, tangent: Mapping[str, Tensor], method: str) -> Float[Tensor, "b o"]:
        if method == FORWARD:
            point = {name: self.snapshot.values[name] for name in self.names}
            with torch.no_grad():
                return forward_product(lambda values: self.snapshot.moved(values, x), point, tangent)[1]
        with torch.enable_grad():
            outputs = self.snapshot.outputs(x)
            parameters = [self.snapshot.parameter(name) for name in self.names]
            return twice_backward_product(outputs, parameters, [tangent[name] for name in self.names]).detach()

    def _times_stacked(self, x: Inputs, tangents: Mapping[str, Tensor]) -> Float[Tensor, "k b o"]:
        """J t for stacked t, by forward mode."""
        point = {name: self.snapshot.values[name] for name in self.names}
        with torch.no_grad(), warnings.catch_warnings():
            # An operation without a batching rule is looped over by vmap: slower, and right.
            warnings.filterwarnings("ignore", message="There is a performance drop")
            along = vmap(
                lambda t: forward_product(lambda values: self.snapshot.moved(values, x), point, t)[1],
                randomness="same",
            )
            return along(dict(tangents))

    def _stacks(self, pair: Inputs, tangent: Mapping[str, Tensor]) -> bool:
        """Whether several t at once give what each gives alone."""
        if self.method != FORWARD:
            return False
        alone = self._times(pair, tangent, FORWARD)
        try:
            stacked = self._times_stacked(pair, {name: torch.stack([t, -2 * t]) for name, t in tangent.items()})
        except Exception:
            return False  # vmap refuses the module: one at a time is as right
        eps = torch.finfo(alone.dtype).eps
        gap = (stacked - torch.stack([alone, -2 * alone])).abs().max()
        return float(gap) <= eps**0.5 * float(alone.abs().max())

    def _transposed(self, x: Inputs, cotangent: Float[Tensor, "b o"]) -> dict[str, Tensor]:
        with torch.enable_grad():
            outputs = self.snapshot.outputs(x)
        parameters = [self.snapshot.parameter(name) for name in self.names]
        try:
            grads = backward_product(outputs, parameters, cotangent)
        except Exception as error:
            raise not_differentiable(error) from error
        return {name: _finite(grad, f"`{name}`") for name, grad in zip(self.names, grads, strict=True)}

    def _gradient_of(self, pair: Inputs) -> dict[str, Tensor]:
        """Jᵀ u of two points in one batch, once it is found to be the sum of the two points' own."""
        u = random_like(2, self.outputs, self.snapshot, seed=0)
        gradient = self._transposed(pair, u)
        alone = [self._transposed(take(pair, slice(i, i + 1)), u[i : i + 1]) for i in range(2)]
        for name in self.names:
            _check_alone(name, gradient[name], alone[0][name] + alone[1][name])
        return gradient

    def _choose(self, pair: Inputs, gradient: Mapping[str, Tensor]) -> tuple[str, str]:
        """The first way of taking J t whose result on two points is dual to plain autograd's Jᵀ u."""
        u = random_like(2, self.outputs, self.snapshot, seed=0)
        tangent = _tangent(gradient)
        refused = []
        for method in (FORWARD, TWICE):
            try:
                product = self._times(pair, tangent, method)
            except PriorscopeError:
                raise
            except Exception as error:
                refused.append(f"{method}: {brief(error)}")
                continue
            if _dual(u, product, gradient, tangent):
                return method, "; ".join(refused) or "it agrees with plain autograd"
            wrong = self._least_dual(pair, u, gradient, tangent, method)
            refused.append(f"{method}: wrong for `{wrong}`")
        raise self._not_dual("; ".join(refused))

    def _least_dual(
        self, x: Inputs, u: Tensor, gradient: Mapping[str, Tensor], tangent: Mapping[str, Tensor], method: str
    ) -> str:
        """The parameter along which J t is farthest from plain autograd."""
        gaps = {}
        for name in self.names:
            along = {n: t if n == name else torch.zeros_like(t) for n, t in tangent.items()}
            gap = abs(inner(u, self._times(x, along, method)) - inner(gradient[name], tangent[name]))
            gaps[name] = gap if isfinite(gap) else float("inf")
        return max(gaps, key=lambda name: gaps[name])

    def _not_dual(self, why: str) -> NotExactError:
        return NotExactError(
            place_of(self.snapshot.model),
            f"has no product of its Jacobian with a vector that agrees with plain autograd ({why})",
            "Use EmpiricalNTK's own matrices, or give custom autograd Functions a `jvp`, or a differentiable backward",
        )


def random_like(points: int, outputs: int, snapshot: Snapshot, seed: int) -> Float[Tensor, "n o"]:
    """Standard normal, as the snapshot's outputs are."""
    generator = torch.Generator().manual_seed(seed)
    like = next(iter(snapshot.values.values()))
    return torch.randn(points, outputs, generator=generator, dtype=torch.float64).to(like.device, snapshot.dtype)


def inner(a: Tensor, b: Tensor) -> float:
    """⟨a, b⟩ over all entries, in float64."""
    return float(a.flatten().double() @ b.flatten().double())


def _tangent(gradient: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Random signs, scaled so that a parameter counts for the duality of Jᵀ u however small its gradient is.

    Those that are zero but for rounding must not count: a floor on the scale sees to it.
    """
    generator = torch.Generator().manual_seed(2)
    norms = {name: sqrt(inner(g, g)) for name, g in gradient.items()}
    largest = max(norms.values()) or 1.0
    tangent = {}
    for name, g in gradient.items():
        signs = 2 * torch.randint(2, g.shape, generator=generator) - 1
        tangent[name] = signs.to(g) / max(norms[name], torch.finfo(g.dtype).eps ** 0.25 * largest)
    return tangent


def _dual(u: Tensor, product: Tensor, gradient: Mapping[str, Tensor], tangent: Mapping[str, Tensor]) -> bool:
    expected = sum(inner(gradient[name], tangent[name]) for name in gradient)
    # Each ⟨g, t⟩ is a sum of random signs with standard deviation at most 1.
    allowed = torch.finfo(product.dtype).eps ** 0.5 * sqrt(len(gradient))
    return abs(inner(u, product) - expected) <= allowed


def _check_alone(name: str, together: Tensor, alone: Tensor) -> None:
    eps = torch.finfo(together.dtype).eps
    scale = max(float(together.abs().max()), float(alone.abs().max()))
    if float((together - alone).abs().max()) > eps**0.5 * scale:
        raise NotExactError(
            f"`{name}`",
            "its gradient at a point depends on the other points of the batch, or on chance",
            "Call model.eval(), and use layers that see one point at a time",
        )


def _held(products: JacobianProducts, method: str) -> int:
    """Bytes that are in use whatever the batch."""
    values = products.snapshot.values.values()
    inputs = sum(leaf.numel() * leaf.element_size() for leaf in leaves(products.x))
    vectors = COPIES[method][1] * products.size + 4 * products.points * products.outputs
    return sum(v.numel() * v.element_size() for v in values) + inputs + vectors * _element(products)


def _batch_that_fits(products: JacobianProducts, activations: int, method: str, memory: int, batch: int | None) -> int:
    """The given batch, or the largest one up to all points, that stays within the memory."""
    held, of_point = _held(products, method), max(1, COPIES[method][0] * activations)
    most = max(0, memory - held) // of_point
    if most < (batch or 1):
        raise MemoryBudgetError(
            f"products with the Jacobian ({products.points} points, {products.outputs} outputs)",
            f"do not fit into {memory} bytes: {held} are held, and each point of a batch takes {of_point}",
            f"Give memory={held + of_point * (batch or 1)} or more" + (", or a smaller batch" if batch else ""),
        )
    return min(most if batch is None else batch, products.points)


def _stack_that_fits(products: JacobianProducts, activations: int, memory: int) -> int:
    """How many vectors of all parameters, with the derivatives of a batch along each, fit beside the batch itself."""
    free = memory - _held(products, FORWARD) - COPIES[FORWARD][0] * activations * products.batch
    of_one = 2 * products.size * _element(products) + COPIES[FORWARD][0] * activations * products.batch
    return max(1, min(MOST_STACKED, free // of_one))


def _element(products: JacobianProducts) -> int:
    return torch.finfo(products.snapshot.dtype).bits // 8


def _pieces(points: int, batch: int) -> list[slice]:
    """Slices of equal length, or nearly so, of at most `batch` points."""
    number = ceil(points / batch)
    return [slice(i * points // number, (i + 1) * points // number) for i in range(number)]


def _finite(values: Tensor, place: str) -> Tensor:
    if not bool(torch.isfinite(values).all()):
        raise ModelError(
            place,
            "has derivatives that are NaN or infinite, or too large for the dtype",
            "Look for a root, a logarithm or a division at 0 in the model, or use float64",
        )
    return values
