"""P5: the empirical NTK of a CNN (4 x 64 channels, global pooling) on 64 x 64 images, all 10 x 10 outputs, float32."""

from collections.abc import Callable

import networks
import numpy as np
import torch
from side_by_side import Case, Row, Target, start


def arrays(side: int, sizes: dict[str, int]) -> Callable[[int], dict[str, np.ndarray]]:
    def made(points: int) -> dict[str, np.ndarray]:
        torch.manual_seed(0)
        weights = {f"weights/{k}": v.numpy() for k, v in networks.cnn(**sizes).state_dict().items()}
        x1, x2 = np.random.default_rng(0).standard_normal((2, points, 3, side, side), dtype=np.float32)
        return {"x1/": x1, "x2/": x2, **weights}

    return made


def case(side: int, channels: int, points: int) -> Case:
    sizes = {"channels": channels, "depth": 4, "outputs": 10}
    name = f"CNN 4 x {channels} channels, {side} x {side} x 3"
    return Case(name, "cnn", points, ("blocks", "trace"), arrays(side, sizes), memory=700_000_000, sizes=sizes)


ROW = Row(
    name="p5_cnn",
    title="P5: empirical NTK of a CNN with global pooling",
    cases=(case(32, 64, 64),),
    quick=(case(6, 4, 4),),
    peers=("tutorial", "neural-tangents", "torchjd", "nngeometry"),
    targets=(Target(ratio=5, peer="tutorial"), Target(ratio=1.5), Target(gigabytes=0.8)),
    quoted=(
        "on another 2-core machine: neural-tangents 7.0 s (contraction, 2.0 GB), 8.7 s (structured derivatives of an "
        "unreleased commit, 2.9 GB), TorchJD 8.1 s (1.6 GB)",
    ),
)

if __name__ == "__main__":
    start(ROW)
