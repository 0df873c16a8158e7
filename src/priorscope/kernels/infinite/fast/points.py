"""What the loops need of each point by itself: its variances at every step, which all its pairs share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .program import Instruction, Program, Uncovered

SMALLEST = {"float32": 1e-30, "float64": 1e-280}
"""A variance below it is zero, or its reciprocal may overflow."""
LARGEST = {"float32": 1e30, "float64": 1e280}


@dataclass(eq=False)
class Variances:
    """Of the points of one side. values: register -> (n, P). before: instruction -> √v in
    front of its φ, (n, P). inner: instruction -> the mean gap inside of each pooling window, (n, P)."""

    values: dict[int, Any] = field(default_factory=dict)
    before: dict[int, Any] = field(default_factory=dict)
    inner: dict[int, Any] = field(default_factory=dict)
    first: Any = None

    @classmethod
    def of_vectors(cls, program: Program, x: Any) -> "Variances":
        side = cls()
        side.first = (x * x).mean(1)
        for number, one in enumerate(program.instructions):
            side.step(number, one, side.first[:, None])
        return side

    @classmethod
    def of_images(cls, program: Program, x: Any) -> "Variances":
        """As far as points with themselves are not needed: up to a pooling."""
        side = cls()
        for number, one in enumerate(program.instructions):
            if one.kind == "pool":
                break
            side.step(number, one, (x * x).mean(1) if one.kind == "start" else None)
        return side

    @classmethod
    def joined(cls, sides: "Sequence[Variances]") -> "Variances":
        whole = cls()
        for name in ("values", "before", "inner"):
            for key in getattr(sides[0], name):
                getattr(whole, name)[key] = np.concatenate([getattr(side, name)[key] for side in sides])
        return whole

    def step(self, number: int, one: Instruction, start: Any = None) -> None:
        """Adds the variances after one instruction; pooling's are the caller's."""
        v = start if one.kind == "start" else self.values[one.inputs[0]]
        if one.kind == "sums":
            outside = np.pad(v, ((0, 0), (0, 1)))
            index = one.patches.index  # type: ignore[union-attr]
            v = sum(outside[:, at] for at in index) / v.dtype.type(len(index))
        if one.kind in ("sums", "dense"):
            v = v * v.dtype.type(one.law[0]) + v.dtype.type(one.law[1])
        if one.kind == "add":
            v = v + self.values[one.inputs[1]]
        if one.kind == "flat":
            v = v.mean(1, keepdims=True)
        if not bool((v < LARGEST[v.dtype.name]).all()) or bool(((v > 0) & (v < SMALLEST[v.dtype.name])).any()):
            raise Uncovered("variances that are not finite, very large or very small")
        if one.pieces is not None:
            self.before[number] = np.sqrt(v)
            v = v * v.dtype.type(one.pieces.power)
        self.values[one.output] = v

    def stacked(self) -> Any:
        """`before` as one array (functions, n), of points without positions."""
        if not self.before:
            return np.zeros((0, 0), self.first.dtype)
        return np.stack([self.before[number][:, 0] for number in sorted(self.before)])
