"""What can be loaded, and what a run compares."""

import numpy as np
import pytest
import torch
from torch import nn

from priorscope import Run, Spectrum, Training, train, train_many
from priorscope.errors import DataError


def test_a_file_of_something_else_raises(tmp_path):
    path = tmp_path / "file.npz"

    def text():
        path.write_text("not an archive")

    def empty():
        path.write_bytes(b"")

    def broken():
        path.write_bytes(b"PK\x03\x04 and no more")

    def array():
        with path.open("wb") as file:
            np.save(file, np.ones(2))

    def other():
        np.savez(path, a=np.ones(2))

    for write in (text, empty, broken, array, other):
        write()
        with pytest.raises(DataError, match=r"file.npz: was not written by priorscope. Give a file that `save` wrote"):
            Spectrum.load(path)


def test_runs_are_compared_by_identity(tmp_path):
    x, y, training = torch.randn(3, 1), torch.randn(3), Training(learning_rate=0.01, steps=2)
    run = train(nn.Linear(1, 1), x, y, training)
    runs = train_many(lambda seed: nn.Linear(1, 1), 2, x, y, training)
    for one in (run, runs):
        assert one == one
        assert one != type(one).load(one.save(tmp_path / "run.npz"))
        assert len({one}) == 1
    assert isinstance(run, Run)
