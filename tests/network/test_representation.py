"""Features are what the last linear layer reads, or the outputs; anything else raises."""

import pytest
import torch
from torch import nn

from priorscope.errors import ModelError, NotExactError
from priorscope.network.representation import output_features, penultimate_features


def test_penultimate_features_make_the_outputs():
    head = nn.Linear(5, 2)
    model, x = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), head), torch.randn(40, 3)
    features = penultimate_features(model, x)
    assert torch.equal(features, torch.relu(model[0](x)).detach())
    assert torch.allclose(head(features), model(x))
    assert torch.allclose(output_features(model, x), model(x))
    assert not head._forward_hooks


def test_inputs_of_any_shape_and_dtype():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

        def forward(self, picture, scale):
            return self.head((self.body(picture) * scale[:, None, None, None]).mean((2, 3)))

    x = {"picture": torch.randn(3, 1, 5, 5, dtype=torch.float32), "scale": torch.ones(3)}
    assert penultimate_features(Two(), x).shape == (3, 4)


def test_a_network_without_a_last_linear_layer_has_no_such_features():
    x = torch.randn(3, 4)
    for model in (nn.Sequential(nn.Linear(4, 2), nn.Tanh()), nn.Sequential(nn.Conv1d(1, 2, 1), nn.Flatten())):
        points = x if isinstance(model[0], nn.Linear) else x[:, None]
        with pytest.raises(ModelError, match=r"does not end in an nn.Linear.*features=\"output\""):
            penultimate_features(model, points)
    with pytest.raises(NotExactError, match="training mode"):
        output_features(nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5)), x)
