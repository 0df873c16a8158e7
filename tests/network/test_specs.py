"""Modules by name; what does not load says why."""

import pytest
import torch
from torch import nn

from priorscope.errors import ModelError
from priorscope.network.specs import model_maker


def test_a_spec_counts_hidden_layers():
    maker = model_maker("mlp:3x16:tanh")
    model = maker(inputs=(1, 4, 4), outputs=5)
    assert [m.out_features for m in model if isinstance(m, nn.Linear)] == [16, 16, 16, 5]
    assert model(torch.randn(2, 1, 4, 4)).shape == (2, 5)
    assert maker.takes_width
    assert maker((3,), 1, width=8)[0].out_features == 8


def test_the_users_own_file(tmp_path):
    path = tmp_path / "net.py"
    path.write_text("from torch import nn\ndef make_model(width=7, outputs=1):\n    return nn.Linear(3, outputs)\n")
    maker = model_maker(f"{path}:make_model")
    assert maker.takes_width
    assert maker.width == 7
    assert maker((3,), 4)(torch.randn(2, 3)).shape == (2, 4)
    a, b = maker((3,), 4, seed=1).weight, maker((3,), 4, seed=1).weight
    assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mlp:3", "not of the form"),
        ("mlp:3x8:swoosh", "is not known"),
        ("nonsense", "neither a spec"),
        ("no/such/file.py:make_model", "does not exist"),
        ("no.such.module:make_model", "does not load"),
        ("math:make_model", "has no function"),
    ],
)
def test_what_does_not_load_says_why(spec, message):
    with pytest.raises(ModelError, match=message):
        model_maker(spec)


def test_a_file_with_an_error_says_so(tmp_path):
    (tmp_path / "broken.py").write_text("def make_model(:\n")
    with pytest.raises(ModelError, match="SyntaxError"):
        model_maker(f"{tmp_path / 'broken.py'}:make_model")
    (tmp_path / "wrong.py").write_text("def make_model():\n    return 3\n")
    with pytest.raises(ModelError, match="returned a int"):
        model_maker(f"{tmp_path / 'wrong.py'}:make_model")((1,), 1)
