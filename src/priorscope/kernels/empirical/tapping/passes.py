"""One forward pass of some points through the tapped module, and its backward passes: activations and signals.

Two ways with one result: `vectorized`, all points at once under vmap, with plain autograd outside of it, and `looped`,
the module itself on one point at a time. Both run inside `snapshot.installed()`.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ....data.inputs import Inputs, count, take
from ....network.snapshot import Snapshot
from .account import Account
from .tap import OtherCallsError, Tap

Backward = Literal["one output at a time", "all outputs at once"]


class Pass(NamedTuple):
    """What one pass of m points gives, for k combinations u·f of their outputs; all detached.

    outputs: (m, o). inputs: x of every structured use, (m, ...). signals: ∂(u·f)/∂ε of every structured use,
    (m, k, ...). gradients: ∂(u·f)/∂θ of every parameter that is left to autograd, (m, k, entries).
    """

    outputs: Float[Tensor, "m o"]
    inputs: list[Tensor]
    signals: list[Tensor]
    gradients: list[Float[Tensor, "m k e"]]


Passes = Callable[[Snapshot, Account, Sequence[str], Inputs, Float[Tensor, "k m o"], Backward], Pass]
"""(snapshot, account, all names that are differentiated, x, the combinations u, backward) -> the pass."""


def vectorized(
    snapshot: Snapshot,
    account: Account,
    names: Sequence[str],
    x: Inputs,
    cotangents: Float[Tensor, "k m o"],
    backward: Backward,
) -> Pass:
    """All points at once; raises what vmap raises where it cannot."""
    entries, structure = tree_flatten(x)
    moves = [isinstance(entry, Tensor) for entry in entries]
    m = count(x)
    parameters = [snapshot.parameter(name) for name in account.left]
    tapped = {id(snapshot.parameter(name)): name for name in names if name not in account.left}
    probes = [_zeros(m, use.dy, snapshot) for use in account.uses]
    own = [p.detach().expand(m, *p.shape).requires_grad_() for p in parameters]

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
        out, inputs = vmap(one)([entry for entry, move in zip(entries, moves, strict=True) if move], probes, own)
    cut = [snapshot.parameter(name) for name in names]
    columns = _backward(out, [*probes, *own], cut, cotangents, backward)
    return Pass(out.detach(), inputs, columns[: len(probes)], _flat(columns[len(probes) :]))


def looped(
    snapshot: Snapshot,
    account: Account,
    names: Sequence[str],
    x: Inputs,
    cotangents: Float[Tensor, "k m o"],
    backward: Backward,
) -> Pass:
    """One point after the other; the graph of one is gone before the next."""
    tapped = {id(snapshot.parameter(name)): name for name in names if name not in account.left}
    own = [snapshot.parameter(name) for name in account.left]
    cut = [snapshot.parameter(name) for name in names if name not in account.left]
    m, k = count(x), len(cotangents)
    outputs: list[Tensor] = []
    inputs: list[list[Tensor]] = []
    like = next(iter(snapshot.values.values()))
    shapes = [*(use.dy for use in account.uses), *(tuple(p.shape) for p in own)]
    columns = [like.new_zeros(m, k, *shape, dtype=snapshot.dtype) for shape in shapes]
    for i in range(m):
        probes = [_zeros(1, use.dy, snapshot)[0].requires_grad_() for use in account.uses]
        with torch.enable_grad(), Tap(tapped, probes) as tap:
            out = snapshot.outputs(take(x, slice(i, i + 1)))[0]
        if tuple(tap.uses) != account.uses:
            raise OtherCallsError
        outputs.append(out.detach())
        inputs.append(tap.inputs)
        if not out.requires_grad:
            continue
        for j in range(k):
            grads = _gradients(out, [*probes, *own], cut, cotangents[j, i], keep=j < k - 1)
            for column, grad in zip(columns, grads, strict=True):
                if grad is not None:
                    column[i, j] = grad.to_dense() if grad.is_sparse else grad
        del out, tap, probes
    stacked = [torch.stack(parts) for parts in zip(*inputs, strict=True)]
    structured = len(account.uses)
    return Pass(torch.stack(outputs), stacked, columns[:structured], _flat(columns[structured:]))


def _backward(
    out: Float[Tensor, "m o"],
    wrt: Sequence[Tensor],
    cut: Sequence[Tensor],
    cotangents: Float[Tensor, "k m o"],
    backward: Backward,
) -> list[Tensor]:
    """∂(u·f)/∂t, (m, k, ...), for every t with the points first."""
    k = len(cotangents)
    if not out.requires_grad:
        return [t.new_zeros(1).expand(len(t), k, *t.shape[1:]) for t in wrt]
    if backward == "all outputs at once":
        _gradients(out, [], cut, cotangents[0], keep=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            grads = torch.autograd.grad(out, wrt, cotangents, allow_unused=True, is_grads_batched=True)
        pairs = zip(grads, wrt, strict=True)
        return [(t.new_zeros(1).expand(k, *t.shape) if g is None else g).transpose(0, 1) for g, t in pairs]
    columns = [t.new_empty(len(t), k, *t.shape[1:]) for t in wrt]
    for j, cotangent in enumerate(cotangents):
        for column, grad in zip(columns, _gradients(out, wrt, cut, cotangent, keep=j < k - 1), strict=True):
            column[:, j] = 0 if grad is None else grad
    return columns


def _gradients(
    out: Tensor, wrt: Sequence[Tensor], cut: Sequence[Tensor], cotangent: Tensor, keep: bool
) -> tuple[Tensor | None, ...]:
    """Gradients by plain autograd; OtherCallsError where a parameter that was cut off has one too."""
    if not (*wrt, *cut):
        return ()
    grads = torch.autograd.grad(out, [*wrt, *cut], cotangent, retain_graph=keep, allow_unused=True)
    if any(grad is not None for grad in grads[len(wrt) :]):
        raise OtherCallsError
    return grads[: len(wrt)]


def _zeros(m: int, shape: tuple[int, ...], snapshot: Snapshot) -> Tensor:
    """ε, without the memory of its entries."""
    like = next(iter(snapshot.values.values()))
    return torch.zeros((), dtype=snapshot.dtype, device=like.device).expand(m, *shape).requires_grad_()


def _flat(columns: list[Tensor]) -> list[Float[Tensor, "m k e"]]:
    return [column.flatten(2) if column.ndim > 2 else column[..., None] for column in columns]
