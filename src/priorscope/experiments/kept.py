"""What a long experiment keeps as soon as it has it, so that a second start goes on where the first stopped."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

AGREE = 1e-9
"""Relative: how nearly the first entry is to be the kept one. Other numbers of threads sum in another order."""


def kept(path: Path | None, draw: Callable[[int], dict[str, Tensor]], count: int) -> dict[str, Tensor]:
    """draw(count), read from `path` where that has it, else written there. None: always drawn.

    The first of the kept entries is drawn again, and has to be the same: after a change of what is drawn (its law, its
    points, the network) nothing old is taken.

    Args:
        draw: {name: (count, ...)} of the first `count` seeds.
    """
    if path is None:
        return draw(count)
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            found = {name: torch.from_numpy(file[name]) for name in file.files}
        if _is_same(found, draw(1), count):
            return found
    found = draw(count)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written under another name first: a file of this name is whole.
    unfinished = path.with_suffix(".unfinished.npz")
    np.savez(unfinished, **{name: values.numpy() for name, values in found.items()})  # type: ignore[arg-type]
    os.replace(unfinished, path)
    return found


def _is_same(found: dict[str, Tensor], first: dict[str, Tensor], count: int) -> bool:
    return found.keys() == first.keys() and all(
        len(values) == count and torch.allclose(values[:1], first[name], rtol=AGREE, atol=0.0)
        for name, values in found.items()
    )
