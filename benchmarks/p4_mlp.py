"""P4: the empirical NTK of the MLP 784-1024-1024-1024-10 on 256 x 256 points, float32: 10 x 10 outputs, and trace."""

from collections.abc import Callable

import networks
import numpy as np
import torch
from side_by_side import Case, Row, Target, start

OUTPUTS = 10


def arrays(inputs: int, sizes: dict[str, int]) -> Callable[[int], dict[str, np.ndarray]]:
    def made(points: int) -> dict[str, np.ndarray]:
        torch.manual_seed(0)
        weights = {f"weights/{k}": v.numpy() for k, v in networks.mlp(**sizes).state_dict().items()}
        x1, x2 = np.random.default_rng(0).standard_normal((2, points, inputs), dtype=np.float32)
        return {"x1/": x1, "x2/": x2, **weights}

    return made


def case(inputs: int, width: int, points: int) -> Case:
    sizes = {"inputs": inputs, "width": width, "hidden": 3, "outputs": OUTPUTS}
    name = f"MLP {inputs}-{width}-{width}-{width}-{OUTPUTS}"
    return Case(name, "mlp", points, ("blocks", "trace"), arrays(inputs, sizes), memory=900_000_000, sizes=sizes)


ROW = Row(
    name="p4_mlp",
    title="P4: empirical NTK of an MLP",
    cases=(case(784, 1024, 256),),
    quick=(case(12, 16, 8),),
    peers=("tutorial", "neural-tangents", "torchjd", "nngeometry"),
    targets=(Target(ratio=1.5, peer="neural-tangents"), Target(gigabytes=1.0)),
    quoted=(
        "neural-tangents' structured derivatives, of an unreleased commit, on another 2-core machine: "
        "1.19 s all outputs, 0.55 s trace (they raise in 0.6.5)",
    ),
)

if __name__ == "__main__":
    start(ROW)
