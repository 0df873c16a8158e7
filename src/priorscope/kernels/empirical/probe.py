"""What one run of a module shows before any work: its number of outputs, and what one point costs."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ...data.inputs import Inputs, leaves, take
from ...network.function import pair_of_points
from ...network.snapshot import Snapshot


@dataclass(frozen=True)
class Probe:
    """outputs: o. activations: bytes that one point keeps for its backward pass. forward_flops: of one point."""

    outputs: int
    activations: int
    forward_flops: int


def probe(snapshot: Snapshot, x: Inputs) -> Probe:
    """Runs the module on two points for its outputs, and on one for its costs (inside `installed`)."""
    with torch.no_grad():
        outputs = snapshot.outputs(pair_of_points(x)).shape[1]
    point = take(x, slice(0, 1))
    own = {snapshot.parameter(name).untyped_storage().data_ptr() for name in snapshot.values}
    kept = {leaf.untyped_storage().data_ptr(): leaf.numel() * leaf.element_size() for leaf in leaves(point)}

    def note(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        address = storage.data_ptr()
        if address not in own and address not in kept:
            kept[address] = storage.nbytes()
        return saved

    with FlopCounterMode(display=False) as flops, torch.enable_grad():
        with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
            out = snapshot.outputs(point)
        kept_bytes = sum(kept.values()) + out.numel() * out.element_size()
    return Probe(outputs, kept_bytes, flops.get_total_flops())
