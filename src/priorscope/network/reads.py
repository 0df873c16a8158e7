"""Finds where a module reads, in Python, a value that is computed from floating data: `if x.sum() > 0`, `.item()`.

What such a module computes depends on data in a way that no derivative shows. Values that come from integer inputs
alone (masks, lengths, ids) and from parameters alone may be read: they are the structure of the input, or constants.
"""

import os
import sys
from types import FrameType
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from ..data.inputs import Inputs, leaves
from ..errors import NotExactError
from .function import class_name
from .watching import READS_VALUES, TORCH, times_changed

PACKS = frozenset([torch._C._VariableFunctions._pack_padded_sequence])  # type: ignore[attr-defined]

REMEDY = "Write the choice with torch.where, or as torch functions of tensors"


class NoReads(TorchFunctionMode):
    """Raises NotExactError where Python reads a value that depends on floating data.

    Args:
        model: the module that runs, for the places of errors.
        x: the inputs that it runs on.
    """

    def __init__(self, model: nn.Module, x: Inputs):
        super().__init__()
        self.paths = {id(module): path for path, module in reversed(list(model.named_modules()))}
        # Tensors are told by their ids, which are reused: a reference says whether it is still the same one.
        self.data: dict[int, Any] = {}
        self.floating: dict[int, Any] = {}
        for leaf in leaves(x):
            self._mark(leaf, leaf.is_floating_point() or leaf.is_complex())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [value for value in tree_flatten((args, kwargs or {}))[0] if isinstance(value, Tensor)]
        floating = any(self._is(self.floating, tensor) for tensor in tensors)
        if floating and getattr(func, "__name__", "") in READS_VALUES:
            raise NotExactError(
                self._place(), f"reads a value that depends on data in Python ({func.__name__})", REMEDY
            )
        versions = [times_changed(tensor) for tensor in tensors]
        output = func(*args, **(kwargs or {}))
        if func in PACKS:
            self._mark(output[0], floating)  # the sizes of its batches come from the lengths alone
        elif any(self._is(self.data, tensor) for tensor in tensors):
            changed = [t for t, before in zip(tensors, versions, strict=True) if times_changed(t) != before]
            for made in (*tree_flatten(output)[0], *changed):
                if isinstance(made, Tensor) and not isinstance(made, nn.Parameter):
                    self._mark(made, floating or made.is_floating_point() or made.is_complex())
        return output

    def _mark(self, tensor: Tensor, floating: bool) -> None:
        self.data[id(tensor)] = ref(tensor)
        if floating:
            self.floating[id(tensor)] = ref(tensor)

    @staticmethod
    def _is(marked: dict[int, Any], tensor: Tensor) -> bool:
        found = marked.get(id(tensor))
        return found is not None and found() is tensor

    def _place(self) -> str:
        """The innermost module whose forward is running, and the line in it."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            code = frame.f_code
            owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
            if isinstance(owner, nn.Module) and id(owner) in self.paths and not code.co_filename.startswith(TORCH):
                line = f"{os.path.basename(code.co_filename)}:{frame.f_lineno}"
                return f"`{self.paths[id(owner)] or 'the model'}` ({class_name(owner)}), {line}"
            frame = frame.f_back
        return "the model"


@torch.no_grad()
def check_reads(model: nn.Module, x: Inputs, run: Any) -> None:
    """Runs `run()`, which calls the model on x, and raises NotExactError where a floating value is read in Python."""
    with NoReads(model, x):
        run()
