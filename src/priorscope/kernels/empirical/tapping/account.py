"""Which uses of which parameters a run shows, and what one point costs: every use of every parameter is accounted for.

Autograd does the accounting: a parameter whose gradient is not None after its structured uses were cut off has another
use, and is left to autograd as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....data.inputs import Inputs, leaves, take
from ....network.snapshot import Snapshot
from .flops import Flops
from .tap import Tap, Use


@dataclass(frozen=True)
class Account:
    """What one run on one point shows.

    uses: the structured uses, in the order of their calls. left: parameters that are autograd's. outputs: o.
    activations: bytes that one point keeps for its backward pass. forward_flops, backward_flops: of one point, the
    latter for one output.
    """

    uses: tuple[Use, ...]
    left: tuple[str, ...]
    outputs: int
    activations: int
    forward_flops: int
    backward_flops: int

    def of(self, name: str) -> list[int]:
        """The indices of the uses with this weight."""
        return [i for i, use in enumerate(self.uses) if use.weight == name]

    def biases(self, name: str) -> list[int]:
        """The indices of the uses with this bias."""
        return [i for i, use in enumerate(self.uses) if use.bias == name]


def account(snapshot: Snapshot, x: Inputs, names: Sequence[str], structured: bool = True) -> Account:
    """Runs the module on the first point until all that is not structured is left to autograd (inside `installed`).

    Args:
        names: the parameters that are differentiated.
        structured: False leaves all of them to autograd.
    """
    point = take(x, slice(0, 1))
    left: set[str] = set() if structured else set(names)
    while True:
        saved = _Saved(point, [snapshot.parameter(name) for name in snapshot.values])
        tap = Tap({id(snapshot.parameter(name)): name for name in names if name not in left})
        with torch.enable_grad(), Flops() as flops:
            with tap, torch.autograd.graph.saved_tensors_hooks(saved.note, lambda tensor: tensor):
                out = snapshot.outputs(point)
            forward = flops.total
            live = [snapshot.parameter(name) for name in names]
            grads: Sequence[Tensor | None] = [None] * len(live)
            if out.requires_grad:
                grads = torch.autograd.grad(out.sum(), [*live, *tap.probes], allow_unused=True)
            backward = flops.total - forward
        seen = {name for name, grad in zip(names, grads, strict=False) if grad is not None}
        if seen <= left or not structured:
            break
        left |= seen
    saved.add(out)
    for kept in tap.inputs:
        saved.add(kept)
    # Without structure all are autograd's, those too that this point does not use.
    to_autograd = tuple(name for name in names if name in seen or not structured)
    return Account(tuple(tap.uses), to_autograd, out.shape[1], saved.bytes, forward, backward)


class _Saved:
    """Counts the storages that one run keeps, each once, and none of the model's own or the input's."""

    def __init__(self, point: Inputs, parameters: Sequence[Tensor]):
        self.known = {tensor.untyped_storage().data_ptr() for tensor in (*parameters, *leaves(point))}
        self.bytes = sum(leaf.numel() * leaf.element_size() for leaf in leaves(point))
        self.alive: list[Tensor] = []

    def note(self, tensor: Tensor) -> Tensor:
        self.add(tensor)
        return tensor

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        try:
            address = storage.data_ptr()
        except RuntimeError:  # a tensor of a transform inside of the model: it has no storage of its own
            self.bytes += tensor.numel() * tensor.element_size()
            return
        if address not in self.known:
            self.known.add(address)
            self.alive.append(tensor.detach())  # an address is only an identity while its storage lives
            self.bytes += storage.nbytes()
