"""How functions of (kernel, x, ...) also take `kernel.on(x)` in the place of both."""

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import Signature, signature
from typing import Any, get_origin

from ..data.inputs import equal, leaves
from ..errors import DataError
from .on_data import OnData
from .pair import KernelPair


def takes_kernel_on_data(function: Callable) -> Callable:
    """Lets `function(kernel, x, ...)` also be called as `function(kernel.on(x), ...)`; pairs likewise.

    x may be given nevertheless; where it equals the data of the kernel, what these have computed is used. Other
    points in its place raise a DataError: they would be taken for the next argument. By name (x=) other data are
    other data.
    """
    face = signature(function)

    @wraps(function)
    def call(kernel: Any, *args: Any, **keywords: Any) -> Any:
        data = kernel.x if isinstance(kernel, (OnData, KernelPair)) else None
        if data is None:
            return function(kernel, *args, **keywords)
        if "x" in keywords:
            keywords["x"] = data if equal(keywords["x"], data) else keywords["x"]
            return function(kernel, *args, **keywords)
        given = bool(args) and _is_x(face, kernel, args, keywords)
        if given and not equal(args[0], data):
            if _has_points(args[0]):
                cause = "was given points, and a kernel that is frozen on other data"
                raise DataError(function.__name__, cause, "Give kernel.kernel, or the x that it is frozen on")
            given = False
        return function(kernel, data, *(args[1:] if given else args), **keywords)

    return call


def _is_x(face: Signature, kernel: Any, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> bool:
    """Whether the first argument stands in the place of x, and not in that of what follows it."""
    if not _fits(face, kernel, *args, **keywords):
        return False
    return not _fits(face, kernel, args[0], *args, **keywords) or len(args) == 1 or _has_points(args[1])


def _has_points(value: Any) -> bool:
    return any(len(leaf.shape) for leaf in leaves(value))


def _fits(face: Signature, *args: Any, **keywords: Any) -> bool:
    try:
        bound = face.bind(*args, **keywords)
    except TypeError:
        return False
    # The kinds of arguments that tell (y, x_new, candidates, training) from (x, y, x_new, candidates).
    told = [(name, get_origin(face.parameters[name].annotation)) for name in bound.arguments]
    return all(isinstance(bound.arguments[name], kind) for name, kind in told if kind in (Mapping, Callable))
