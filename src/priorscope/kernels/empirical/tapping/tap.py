"""The live run of a module, tapped: every structured use y = op(x, w, b) becomes y = op(x, w, b) + ε, with w and b cut
off from autograd, so that ∂f/∂ε are the use's signals and x its activations.

The module itself runs; nothing is replayed. What is not tapped is autograd's own.
"""

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from ....errors import NotExactError
from . import recurrent
from .uses import TAPS, TRANSPOSES, Rows, Rule

COMPOSITE = frozenset([functional.multi_head_attention_forward])
"""Functions in torch's own Python code that are opened, so that the calls inside are seen."""


@dataclass(frozen=True)
class Use:
    """One structured use of one parameter in one run; equal uses have equal rows."""

    rule: Rule
    weight: str
    bias: str | None
    x: tuple[int, ...]
    dy: tuple[int, ...]


class Tap(TorchFunctionMode):
    """Taps the structured uses of some parameters.

    Args:
        names: {id of a parameter: its name}, of those that are tapped.
        probes: ε of every use, in order; None in a first run, which makes its own.
        replaced: {id of a parameter: the tensor that takes its place}, of parameters that are not tapped.

    After the run: `uses`, `inputs` (x of every use) and `probes`.
    """

    def __init__(
        self,
        names: Mapping[int, str],
        probes: Sequence[Tensor] | None = None,
        replaced: Mapping[int, Tensor] | None = None,
    ):
        super().__init__()
        self.names, self.replaced = names, replaced or {}
        self.given = probes
        self.probes: list[Tensor] = []
        self.uses: list[Use] = []
        self.inputs: list[Tensor] = []
        self._transposes: dict[int, tuple[str, Tensor]] = {}  # the tensor itself is kept: ids of the dead are reused

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.replaced:
            args, kwargs = tree_map(self._replace, (args, kwargs))
        if recurrent.opens(func, args) and not kwargs:
            with self:
                return recurrent.run(func, args)
        if func in COMPOSITE:
            with self:
                return _undispatched(func)(*args, **kwargs)
        if func in TRANSPOSES and id(args[0]) in self.names and args[0].ndim == 2:
            out = func(*args, **kwargs)
            self._transposes[id(out)] = self.names[id(args[0])], out
            return out
        if func in TAPS and "out" not in kwargs:
            tapped = self._tap(TAPS[func], args, kwargs)
            if tapped is not None:
                return tapped
        return func(*args, **kwargs)

    def _replace(self, value: Any) -> Any:
        return self.replaced.get(id(value), value) if isinstance(value, nn.Parameter) else value

    def _tap(self, recognise: Callable[..., Any], args: Any, kwargs: Any) -> Tensor | None:
        operands = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if not any(id(value) in self.names or id(value) in self._transposes for value in operands):
            return None
        call = recognise(*args, **kwargs)
        if call is None:
            return None
        rule, name = call.rule, self.names.get(id(call.weight))
        if name is None:
            if id(call.weight) not in self._transposes or not isinstance(rule, Rows):
                return None
            name, rule = self._transposes[id(call.weight)][0], Rows(flipped=not rule.flipped)
        bias = None if call.bias is None else self.names.get(id(call.bias))
        y = call.run(call.weight.detach(), call.bias.detach() if bias is not None else call.bias)
        use = Use(rule, name, bias, tuple(call.x.shape), tuple(y.shape))
        index = len(self.uses)
        if self.given is None:
            probe = torch.zeros((), dtype=y.dtype, device=y.device).expand(y.shape).requires_grad_()
        elif index < len(self.given) and self.given[index].shape == y.shape:
            probe = self.given[index]
        else:
            raise OtherCallsError
        self.uses.append(use)
        self.inputs.append(call.x.detach())
        self.probes.append(probe)
        return y + probe


class OtherCallsError(NotExactError):
    """The module uses its parameters in another way than in its first run."""

    def __init__(self) -> None:
        super().__init__(
            "the model", "makes other calls for some points than for others", "Let what it calls not depend on data"
        )


def _undispatched(function: Any) -> Any:
    """The function with its own check for modes switched off, which would send it back here for ever."""
    names = {**function.__globals__, "has_torch_function": lambda *_: False}
    copy = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
