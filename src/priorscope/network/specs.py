"""Modules by name: a spec such as `mlp:3x512:relu`, or a function `make_model` in the user's own file or package."""

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ModelError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "identity": nn.Identity,
}
SPEC = re.compile(r"mlp:(\d+)x(\d+)(?::(\w+))?")


@dataclass(frozen=True)
class ModelMaker:
    """Makes modules of one architecture.

    source: what the user wrote. width: the stated width, where there is one. build: called with the keywords among
    width, seed, inputs (the shape of one point) and outputs that it names.
    """

    source: str
    build: Callable[..., nn.Module]
    width: int | None = None

    @property
    def takes_width(self) -> bool:
        return "width" in _keywords(self.build)

    def __call__(self, inputs: tuple[int, ...], outputs: int, seed: int = 0, width: int | None = None) -> nn.Module:
        """A freshly initialised module for points of shape `inputs`."""
        offered = {"inputs": inputs, "outputs": outputs, "seed": seed, "width": width or self.width}
        keywords = _keywords(self.build)
        given = {name: value for name, value in offered.items() if name in keywords and value is not None}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            try:
                model = self.build(**given)
            except Exception as error:
                raise ModelError(self.source, f"raised {type(error).__name__}: {error}", "Mend it") from error
        if not isinstance(model, nn.Module):
            raise ModelError(self.source, f"returned a {type(model).__name__}", "Return an nn.Module")
        return model


def model_maker(spec: str) -> ModelMaker:
    """A ModelMaker from a spec (`mlp:3x512:relu`: three hidden layers), `file.py:function` or `module:function`."""
    if spec.startswith("mlp"):
        match = SPEC.fullmatch(spec)
        if match is None:
            raise ModelError(
                f"the spec {spec!r}", "is not of the form mlp:DEPTHxWIDTH:ACTIVATION", "e.g. mlp:3x512:relu"
            )
        depth, width, activation = int(match[1]), int(match[2]), match[3] or "relu"
        if depth < 1 or width < 1:
            raise ModelError(f"the spec {spec!r}", "has no hidden layer", "Give at least mlp:1x1")
        if activation not in ACTIVATIONS:
            raise ModelError(
                f"the activation {activation!r}", "is not known", f"Choose one of {', '.join(ACTIVATIONS)}"
            )
        return ModelMaker(spec, _mlp(depth, width, ACTIVATIONS[activation]), width)
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name.isidentifier():
        raise ModelError(
            f"the model {spec!r}",
            "is neither a spec nor names a function",
            "Give mlp:3x512:relu, path/to/file.py:make_model or package.module:make_model",
        )
    build = getattr(_module(place), name, None)
    if not callable(build):
        raise ModelError(place, f"has no function {name!r}", "Name a function that returns an nn.Module")
    return ModelMaker(spec, build, _default(build, "width"))


def _mlp(depth: int, stated: int, activation: Callable[[], nn.Module]) -> Callable[..., nn.Module]:
    def build(inputs: tuple[int, ...], outputs: int, width: int = stated) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()] if len(inputs) > 1 else []
        widths = [prod(inputs), *[width] * depth]
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), activation()]
        return nn.Sequential(*layers, nn.Linear(width, outputs))

    return build


def _module(place: str) -> Any:
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = Path(place)
        if not path.is_file():
            raise ModelError(place, "does not exist", "Give the path of a Python file")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        spec.loader.exec_module(module)
        return module
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(place, f"does not load ({type(error).__name__}: {error})", "Mend the file first") from error


def _keywords(build: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(build).parameters)


def _default(build: Callable[..., Any], name: str) -> Any:
    parameter = inspect.signature(build).parameters.get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default
