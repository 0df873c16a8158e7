"""One forward pass of some points through the tapped module, and its backward passes: activations and signals.

Two ways with one result: `vectorized`, all points at once under vmap, with plain autograd outside of it, and `looped`,
the module itself on one point at a time. Both run inside `snapshot.installed()`.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ....data.inputs import Inputs, count, take
from ....errors import NotExactError
from ....network.snapshot import Snapshot
from .account import Account
from .tap import OtherCallsError, Tap

Backward = Literal["one output at a time", "all outputs at once"]


class Pass(ABC):
    """outputs: (m, o), detached. inputs: the x of every use, (m, ...), detached."""

    outputs: Float[Tensor, "m o"]
    inputs: list[Tensor]

    @abstractmethod
    def signals(
        self, cotangents: Float[Tensor, "k m o"], backward: Backward
    ) -> tuple[list[Tensor], list[Float[Tensor, "m k e"]]]:
        """∂(u·f)/∂ε of every use, (m, k, ...), and ∂(u·f)/∂θ of every parameter that is left to autograd."""


Passes = Callable[[Snapshot, Account, Sequence[str], Inputs], Pass]
"""(snapshot, account, all names that are differentiated, x) -> the pass."""


class vectorized(Pass):  # noqa: N801 - called like the function that it is
    def __init__(self, snapshot: Snapshot, account: Account, names: Sequence[str], x: Inputs):
        entries, structure = tree_flatten(x)
        moves = [isinstance(entry, Tensor) for entry in entries]
        m = count(x)
        parameters = [snapshot.parameter(name) for name in account.left]
        tapped = {id(snapshot.parameter(name)): name for name in names if name not in account.left}
        self.probes = [_zeros(m, use.dy, snapshot) for use in account.uses]
        self.own = [p.detach().expand(m, *p.shape).requires_grad_() for p in parameters]
        self.cut = [snapshot.parameter(name) for name in names]

        def one(tensors: list[Tensor], probes: list[Tensor], own: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
            given = iter(tensors)
            point: Any = tree_unflatten(
                [next(given) if move else entry for entry, move in zip(entries, moves, strict=True)], structure
            )
            batch = tree_map(lambda leaf: leaf[None] if isinstance(leaf, Tensor) else leaf, point)
            replaced = {id(p): value for p, value in zip(parameters, own, strict=True)}
            with Tap(tapped, probes, replaced) as tap:
                out = snapshot.outputs(batch)
            if tuple(tap.uses) != account.uses:
                raise OtherCallsError
            return out[0], tap.inputs

        with warnings.catch_warnings(), torch.enable_grad():
            # An operation without a batching rule is looped over by vmap: slower, and right.
            warnings.filterwarnings("ignore", message="There is a performance drop")
            tensors = [entry for entry, move in zip(entries, moves, strict=True) if move]
            self.out, self.inputs = vmap(one)(tensors, self.probes, self.own)
        self.outputs = self.out.detach()

    def signals(
        self, cotangents: Float[Tensor, "k m o"], backward: Backward
    ) -> tuple[list[Tensor], list[Float[Tensor, "m k e"]]]:
        wrt = [*self.probes, *self.own]
        if not self.out.requires_grad:
            return _split([t.new_zeros(1).expand(len(t), len(cotangents), *t.shape[1:]) for t in wrt], self.probes)
        if backward == "all outputs at once":
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="There is a performance drop")
                grads = torch.autograd.grad(
                    self.out, wrt, cotangents, retain_graph=True, allow_unused=True, is_grads_batched=True
                )
            found = [
                (t.new_zeros(1).expand(len(cotangents), *t.shape) if g is None else g).transpose(0, 1)
                for g, t in zip(grads, wrt, strict=True)
            ]
            return _split(found, self.probes)
        columns = [t.new_empty(len(t), len(cotangents), *t.shape[1:]) for t in wrt]
        for k, cotangent in enumerate(cotangents):
            grads = torch.autograd.grad(self.out, [*wrt, *self.cut], cotangent, retain_graph=True, allow_unused=True)
            if any(grad is not None for grad in grads[len(wrt) :]):
                raise NotExactError(
                    "a parameter", "is used in a way that torch functions do not show", "Use it in the forward pass"
                )
            for column, grad in zip(columns, grads, strict=False):
                column[:, k] = 0 if grad is None else grad
        return _split(columns, self.probes)


class looped(Pass):  # noqa: N801
    def __init__(self, snapshot: Snapshot, account: Account, names: Sequence[str], x: Inputs):
        tapped = {id(snapshot.parameter(name)): name for name in names if name not in account.left}
        self.own = [snapshot.parameter(name) for name in account.left]
        self.points: list[tuple[Tensor, list[Tensor]]] = []
        inputs: list[list[Tensor]] = []
        for i in range(count(x)):
            probes = [_zeros(1, use.dy, snapshot)[0].requires_grad_() for use in account.uses]
            with torch.enable_grad(), Tap(tapped, probes) as tap:
                out = snapshot.outputs(take(x, slice(i, i + 1)))[0]
            if tuple(tap.uses) != account.uses:
                raise OtherCallsError
            self.points.append((out, probes))
            inputs.append(tap.inputs)
        self.outputs = torch.stack([out.detach() for out, _ in self.points])
        self.inputs = [torch.stack(parts) for parts in zip(*inputs, strict=True)]
        self.structured = len(account.uses)

    def signals(
        self, cotangents: Float[Tensor, "k m o"], backward: Backward
    ) -> tuple[list[Tensor], list[Float[Tensor, "m k e"]]]:
        m, k = len(self.points), len(cotangents)
        columns = [t.new_zeros(m, k, *t.shape) for t in (*self.points[0][1], *self.own)]
        for i, (out, probes) in enumerate(self.points):
            if not out.requires_grad:
                continue
            wrt = [*probes, *self.own]
            for j in range(k):
                grads = torch.autograd.grad(out, wrt, cotangents[j, i], retain_graph=True, allow_unused=True)
                for column, grad in zip(columns, grads, strict=True):
                    if grad is not None:
                        column[i, j] = grad.to_dense() if grad.is_sparse else grad
        return _split(columns, self.points[0][1])


def _zeros(m: int, shape: tuple[int, ...], snapshot: Snapshot) -> Tensor:
    """ε, without the memory of its entries."""
    like = next(iter(snapshot.values.values()))
    return torch.zeros((), dtype=snapshot.dtype, device=like.device).expand(m, *shape).requires_grad_()


def _split(columns: list[Tensor], probes: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    own = [column.flatten(2) if column.ndim > 2 else column[..., None] for column in columns[len(probes) :]]
    return columns[: len(probes)], own
