"""What every result can do: become a dictionary, be saved and loaded, show itself as a table of numbers.

A result is a frozen dataclass that inherits `Result`. Fields are tensors, numbers, strings, None, dictionaries
and sequences of these, or other results. A field made with `live(...)` (a kernel, a module) is not saved; what
needs it raises after loading and says how to give it back.
"""

import dataclasses
import json
from html import escape
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor

from .errors import DataError

Loaded = TypeVar("Loaded", bound="Result")


def live(**options: Any) -> Any:
    """A dataclass field that exists in memory only (kernels, modules): not saved, not compared, not printed."""
    return dataclasses.field(default=None, compare=False, repr=False, metadata={"live": True}, **options)


class Result:
    """Base of all frozen results."""

    def to_dict(self) -> dict[str, Any]:
        """Every number of the result, in lists and dictionaries that JSON takes. Non-finite numbers are strings."""
        return {name: plain(value) for name, value in self._saved().items()}

    def save(self, path: str | Path) -> Path:
        """Writes the result into one `.npz` file: its arrays, and a header in JSON. Returns the path written."""
        path = Path(path)
        arrays: dict[str, np.ndarray] = {}
        header = {"result": type(self).__name__, "fields": _pack(self._saved(), arrays)}
        with path.open("wb") as file:
            np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
        return path

    @classmethod
    def load(cls: type[Loaded], path: str | Path, **live_fields: Any) -> Loaded:
        """Reads what `save` wrote. Kernels and modules are not in the file: give them by name to use them again."""
        foreign = DataError(str(path), "was not written by priorscope", "Give a file that `save` wrote")
        with Path(path).open("rb") as stream:
            try:
                file = np.load(stream, allow_pickle=False)
            except (ValueError, EOFError, BadZipFile) as error:
                raise foreign from error
            if not isinstance(file, NpzFile) or "header" not in file:
                raise foreign
            header = json.loads(str(file["header"]))
            fields = _unpack(header["fields"], file)
        if header["result"] != cls.__name__:
            raise DataError(str(path), f"holds a {header['result']}, not a {cls.__name__}", "Load it by its own class")
        return cls(**fields, **live_fields)

    def _saved(self) -> dict[str, Any]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {f.name: getattr(self, f.name) for f in fields if not f.metadata.get("live")}

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(_brief(value))}</td></tr>"
            for name, value in self._saved().items()
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"


def plain(value: Any) -> Any:
    """A value in lists, dictionaries, numbers and strings that JSON takes; non-finite numbers become strings."""
    if isinstance(value, Result):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if isinstance(value, Tensor):
        return plain(value.detach().cpu().tolist())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if isinstance(value, torch.dtype):
        return str(value)
    if callable(value):  # a loss or an optimizer of the user's own
        return getattr(value, "__name__", type(value).__name__)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a result cannot hold a {type(value).__name__}")


def _brief(value: Any) -> str:
    if isinstance(value, Tensor):
        if value.numel() <= 6:
            return str(plain(value))
        low, high = float(value.min()), float(value.max())
        return f"{tuple(value.shape)}, from {low:.4g} to {high:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_brief(item)}" for key, item in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# A packed value says its type where JSON would lose it; tensors go to the array store by number.
def _pack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, Tensor):
        arrays[f"a{len(arrays)}"] = value.detach().cpu().numpy()
        return {"tensor": f"a{len(arrays) - 1}"}
    if isinstance(value, dict):
        return {"dict": [[key, _pack(item, arrays)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, arrays) for item in value]}
    if isinstance(value, list):
        return [_pack(item, arrays) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        live_too = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if not f.metadata.get("live")}
        return {"class": [type(value).__module__, type(value).__name__], "fields": _pack(live_too, arrays)}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if callable(value):
        name = getattr(value, "__name__", type(value).__name__)
        raise DataError("save", f"cannot write your own function `{name}` into a file", "Save numbers: to_dict()")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a result cannot save a {type(value).__name__}")


def _unpack(value: Any, file: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(item, file) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return torch.from_numpy(file[value["tensor"]])
    if "dtype" in value:
        return getattr(torch, value["dtype"])
    if "dict" in value:
        return {key: _unpack(item, file) for key, item in value["dict"]}
    if "tuple" in value:
        return tuple(_unpack(item, file) for item in value["tuple"])
    module, name = value["class"]
    if not module.startswith("priorscope."):
        raise DataError("the file", f"names a class of `{module}`", "Load only files that priorscope wrote")
    return getattr(__import__(module, fromlist=[name]), name)(**_unpack(value["fields"], file))
