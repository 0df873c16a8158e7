"""Images in IDX files, the format of MNIST and of its successors; compressed with gzip or not.

Source: LeCun, Cortes and Burges, "The MNIST database" (the format).
"""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError

BYTES = 8
"""The format's number for entries of one byte without a sign, as images and classes have them."""


def read_idx(path: Path) -> Tensor:
    """The tensor of bytes that the file holds, (n, ...).

    Raises:
        DataError: where the file is absent (`path`, nor `path.gz`), or is not of that format.
    """
    remedy = "Get the file from its source again"
    found = next((p for p in (path, path.with_name(path.name + ".gz")) if p.exists()), None)
    if found is None:
        raise DataError(str(path), "is not there, nor as .gz", remedy)
    try:
        content = gzip.decompress(found.read_bytes()) if found.suffix == ".gz" else found.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(str(found), f"cannot be read ({error})", remedy) from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != BYTES or len(content) < 4 + 4 * content[3]:
        raise DataError(str(found), "is no IDX file of bytes", remedy)
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4).astype(int)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
    if len(values) != int(shape.prod()):
        raise DataError(str(found), f"holds {len(values)} bytes for the shape {tuple(shape)}", remedy)
    return torch.from_numpy(values.reshape(shape).copy())
