"""Watches one real run of a module and writes down what happened, as a graph of nodes; knows no kernel.

A node is a call of a module that the reader takes whole (`leaf`), or else one torch function, with the module's path,
the user's line, and its arguments: references to other nodes, or plain values. Nothing is replayed: what autograd
would do stays with the live module. What the watch cannot see (values read in Python, custom autograd functions,
gradients switched off) raises by name.
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_flatten, tree_map

from ..data.inputs import Inputs
from ..errors import ModelError, NotExactError
from .function import arguments, class_name

READS_VALUES = frozenset(
    [
        "__bool__",
        "__float__",
        "__int__",
        "__index__",
        "__complex__",
        "__contains__",
        "__array__",
        "item",
        "tolist",
        "numpy",
        "allclose",
        "equal",
        "is_nonzero",
    ]
)
SHOWS_VALUES = frozenset(["__repr__", "__format__", "__str__"])
HOOKS_GRADIENTS = frozenset(["register_hook", "register_post_accumulate_grad_hook", "retain_grad"])
SWITCHED_OFF = "switches gradients off (no_grad, or a custom autograd.Function)"
TORCH = os.path.dirname(torch.__file__) + os.sep


@dataclass(frozen=True, eq=False)
class Ref:
    """The output of a node; `part` is the way to one tensor in it, where the output is a tuple or a dictionary."""

    node: "Node"
    part: tuple[Any, ...] = ()


@dataclass(eq=False)
class Node:
    """One thing that happened.

    kind: "input", "parameter", "constant" (buffers, and tensors made elsewhere), "module" or "call".
    target: the module or the torch function that was called; the name of a parameter.
    path: of the called module; for a call, of the module whose forward made it. owner: that module.
    line: the user's `file.py:12`, or "".
    parameters: names of the parameters that flow in directly, not through data.
    data: whether it depends on the input.
    """

    index: int
    kind: str
    target: Any
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    path: str = ""
    owner: nn.Module | None = None
    line: str = ""
    shape: Any = None
    parameters: frozenset[str] = frozenset()
    data: bool = False
    value: Tensor | None = None

    @property
    def refs(self) -> list[Ref]:
        return [ref for ref in tree_flatten((self.args, self.kwargs))[0] if isinstance(ref, Ref)]

    def evaluated(self) -> Tensor:
        """The value of a node that does not depend on the input."""
        if self.value is not None:
            return self.value

        def one(leaf: Any) -> Any:
            if not isinstance(leaf, Ref):
                return leaf
            value: Any = leaf.node.evaluated()
            for part in leaf.part:
                value = value[part]
            return value

        args, kwargs = tree_map(one, (self.args, self.kwargs))
        return self.target(*args, **kwargs)

    @property
    def operation(self) -> str:
        """What was called, as users write it: `nn.Linear`, `F.relu`, `torch.Tensor.add`."""
        if self.kind == "module":
            return class_name(self.target)
        if self.kind == "call":
            name = resolve_name(self.target) or getattr(self.target, "__name__", str(self.target))
            return name.replace("torch.nn.functional.", "F.").replace("torch._C._nn.", "F.")
        return self.kind

    @property
    def place(self) -> str:
        """Where it happened, for errors: `features.3` is nn.MaxPool2d; F.relu in `block`, net.py:12."""
        if self.kind == "module":
            return f"`{self.path or 'the model'}` ({self.operation})"
        inside = f"in `{self.path}`" if self.path else "in the model"
        return f"`{self.operation}` {inside}" + (f", {self.line}" if self.line else "")


@dataclass(frozen=True, eq=False)
class Graph:
    """All nodes in the order in which they happened, and the output: a Ref, or a structure of Refs."""

    nodes: list[Node]
    output: Any

    def needed(self) -> Iterator[Node]:
        """The nodes that the output depends on, in order."""
        reached: set[int] = set()
        waiting = [ref.node for ref in tree_flatten(self.output)[0] if isinstance(ref, Ref)]
        while waiting:
            node = waiting.pop()
            if node.index not in reached:
                reached.add(node.index)
                waiting += [ref.node for ref in node.refs]
        return (node for node in self.nodes if node.index in reached)


def is_hooked(module: nn.Module) -> bool:
    """Whether the module carries hooks, which may change what its call does."""
    return any(
        getattr(module, name, None)
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    )


def watch(model: nn.Module, example: Inputs, leaf: Callable[[nn.Module], bool]) -> Graph:
    """Runs the model on the example once and returns what happened.

    Args:
        model: any module; its parameters and buffers are used as they are.
        example: inputs in the module's own dtype; they are copied, not changed.
        leaf: whether a module's call is one node; asked once per module, before the run.

    Raises:
        NotExactError: where the run does what torch functions do not show, or where it reads values in Python.
        ModelError: where the module itself does not run on the example.
    """
    watcher = _Watcher(model, leaf)
    try:
        with torch.enable_grad():
            return watcher.run(example)
    finally:
        watcher.close()


class _Watcher(TorchFunctionMode):
    def __init__(self, model: nn.Module, leaf: Callable[[nn.Module], bool]):
        super().__init__()
        self.model = model
        self.nodes: list[Node] = []
        self.paths = {id(m): name for name, m in reversed(list(model.named_modules()))}
        self.leaves = {id(m) for m in model.modules() if m is not model and leaf(m)} | (
            {id(model)} if leaf(model) else set()
        )
        self.parameters = {id(p): name for name, p in model.named_parameters()}
        self.buffers = {id(b): name for name, b in model.named_buffers()}
        self.known: dict[int, tuple[Ref, int]] = {}
        self.alive: list[Tensor] = []  # an id is only an identity while its object lives
        self.stack: list[nn.Module] = []
        self.entries: list[tuple[Any, Any]] = []
        self.muted = 0
        self.frame: FrameType | None = None
        # Hooks on this model's own modules, not torch's global ones, which other threads would run into.
        self.handles: list[Any] = []
        for module in model.modules():
            self.handles.append(module.register_forward_pre_hook(self._enter, prepend=True, with_kwargs=True))
            self.handles.append(module.register_forward_hook(self._leave, with_kwargs=True))

    def run(self, example: Inputs) -> Graph:
        def enter(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            copy = leaf.detach().clone()
            if copy.is_floating_point():
                copy = (
                    copy.requires_grad_().clone()
                )  # not a leaf of autograd, so that in-place operations may change it
            node = self._add("input", "input", shape=tuple(copy.shape), data=True)
            self._bind(copy, Ref(node))
            return copy

        positional, keyword = arguments(tree_map(enter, example))
        self.frame = sys._getframe()
        try:
            with self:
                output = self.model(*positional, **keyword)
        except (ModelError, NotExactError):
            raise
        except Exception as error:
            where = f"`{self._path}`" if self._path else "the model"
            raise ModelError(
                where,
                f"does not run on the example ({type(error).__name__}: {error})",
                "Call the model on these inputs: check their shape and dtype",
            ) from error
        return Graph(self.nodes, tree_map(lambda leaf: self._ref(leaf) if isinstance(leaf, Tensor) else leaf, output))

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.frame = None

    # Values

    def _ref(self, tensor: Tensor) -> Ref:
        if id(tensor) in self.known:
            ref, version = self.known[id(tensor)]
            if times_changed(tensor) != version:
                raise self._blind("uses a view of a tensor that was changed in place")
            return ref
        name = self.parameters.get(id(tensor))
        if name is None and tensor.grad_fn is not None:
            raise self._blind("uses a tensor made in a way that torch functions do not show (a custom Function)")
        kind = "constant" if name is None else "parameter"
        node = self._add(kind, name or self.buffers.get(id(tensor), "constant"), shape=tuple(tensor.shape))
        node.value, node.path = tensor, ""
        node.parameters = frozenset() if name is None else frozenset([name])
        self._bind(tensor, Ref(node))
        return self.known[id(tensor)][0]

    def _bind(self, tensor: Tensor, ref: Ref) -> None:
        self.known[id(tensor)] = ref, times_changed(tensor)
        self.alive.append(tensor)

    def _lift(self, value: Any) -> Any:
        return tree_map(lambda leaf: self._ref(leaf) if isinstance(leaf, Tensor) else leaf, value)

    def _bind_output(self, node: Node, output: Any, part: tuple[Any, ...] = ()) -> None:
        if isinstance(output, Tensor):
            self._bind(output, Ref(node, part))
        elif isinstance(output, dict):
            for key, value in output.items():
                self._bind_output(node, value, (*part, key))
        elif isinstance(output, (tuple, list)):
            for i, value in enumerate(output):
                self._bind_output(node, value, (*part, i))

    def _add(self, kind: str, target: Any, args: Any = (), kwargs: Any = None, **more: Any) -> Node:
        node = Node(len(self.nodes), kind, target, args, kwargs or {}, **{"path": self._path, **more})
        self.nodes.append(node)
        return node

    def _record(self, kind: str, target: Any, args: Any, kwargs: Any, output: Any, path: str) -> Node:
        node = self._add(kind, target, args, kwargs, path=path, owner=self._owner, line=self._line())
        node.shape = tree_map(lambda leaf: tuple(leaf.shape) if isinstance(leaf, Tensor) else leaf, output)
        for ref in node.refs:
            node.data |= ref.node.data
            if not ref.node.data:
                node.parameters |= ref.node.parameters
        if kind == "module":
            own = {self.parameters[id(p)] for p in target.parameters() if id(p) in self.parameters}
            node.parameters |= frozenset(own)
        self._bind_output(node, output)
        return node

    # Torch functions

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self.muted or name in SHOWS_VALUES:
            return func(*args, **kwargs)
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        if name in HOOKS_GRADIENTS:
            raise self._blind(f"changes gradients with a tensor hook ({name})")
        if name in READS_VALUES and any(self._depends(tensor) for tensor in tensors):
            raise self._blind(f"reads the value of a tensor in Python ({name}), so what it does depends on data")
        before = [(tensor, times_changed(tensor)) for tensor in tensors]
        output = func(*args, **kwargs)
        changed = [tensor for tensor, version in before if times_changed(tensor) != version]
        if not changed and not any(isinstance(leaf, Tensor) for leaf in tree_flatten(output)[0]):
            return output
        # This call's own change must not make its arguments look stale: they still stand for what went in.
        for tensor in changed:
            if id(tensor) in self.known:
                ref, version = self.known[id(tensor)]
                was = next(v for t, v in before if t is tensor)
                self.known[id(tensor)] = ref, times_changed(tensor) if version == was else version
        if tensors and not torch.is_grad_enabled():
            raise self._blind(SWITCHED_OFF)
        lifted_args, lifted_kwargs = self._lift((tuple(args), dict(kwargs)))
        node = self._record("call", func, lifted_args, lifted_kwargs, output, self._path)
        returned = {id(leaf) for leaf in tree_flatten(output)[0]}
        for tensor in changed:
            if id(tensor) not in returned:
                self._bind(tensor, Ref(node, ("changed in place",)))
        return output

    def _depends(self, tensor: Tensor) -> bool:
        if id(tensor) not in self.known:
            return id(tensor) in self.parameters or tensor.grad_fn is not None
        node = self.known[id(tensor)][0].node
        return node.data or bool(node.parameters)

    # Modules

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not self.muted:
            if not torch.is_grad_enabled():
                raise self._blind(SWITCHED_OFF)
            if id(module) in self.leaves:
                with torch._C.DisableTorchFunction():
                    self.entries.append(self._lift((tuple(args), dict(kwargs))))
            self.stack.append(module)
        if self.muted or id(module) in self.leaves:
            self.muted += 1

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self.muted:
            self.muted -= 1
            if self.muted:
                return
        self.stack.pop()
        if id(module) in self.leaves:
            with torch._C.DisableTorchFunction():
                self._record("module", module, *self.entries.pop(), output, self.paths[id(module)])

    # Places

    @property
    def _owner(self) -> nn.Module | None:
        return self.stack[-1] if self.stack else None

    @property
    def _path(self) -> str:
        return self.paths.get(id(self._owner), "") if self.stack else ""

    def _line(self) -> str:
        """The line in the owner's own forward, where that is not torch's code."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame is not self.frame:
            code = frame.f_code
            of_owner = self.stack and code.co_argcount and frame.f_locals.get(code.co_varnames[0]) is self._owner
            if of_owner and not code.co_filename.startswith(TORCH):
                return f"{os.path.basename(code.co_filename)}:{frame.f_lineno}"
            frame = frame.f_back
        return ""

    def _blind(self, cause: str) -> NotExactError:
        owner, line = self._owner or self.model, self._line()
        place = f"`{self._path or 'the model'}` ({class_name(owner)})" + (f", {line}" if line else "")
        return NotExactError(place, cause, "Write it with torch functions of tensors, or use EmpiricalNTK")


def times_changed(tensor: Tensor) -> int:
    """How often a tensor was changed in place."""
    return 0 if tensor.is_inference() else tensor._version
