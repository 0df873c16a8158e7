"""P6: the trace kernel of real pre-trained networks (EfficientNet-Lite0, MiniLM) on 64 inputs, one read-out each."""

import subprocess
from pathlib import Path

import numpy as np
from environments import python_of
from side_by_side import Case, Row, Target, start


def stored(kind: str):
    """The inputs that `real_inputs.py` makes in the environment where the networks and the photographs are."""

    def made(points: int) -> dict[str, np.ndarray]:
        script = Path(__file__).parent / "real_inputs.py"
        out = Path(__file__).parent / ".venvs" / f"{kind}-{points}.npz"
        subprocess.run([str(python_of("pretrained")), str(script), kind, str(points), str(out)], check=True)
        with np.load(out) as arrays:
            return dict(arrays)

    return made


def cases(points: int) -> tuple[Case, Case]:
    shared = {"points": points, "forms": ("trace",), "memory": 5_000_000_000, "home": "pretrained"}
    return (
        Case("EfficientNet-Lite0", "efficientnet_lite0", arrays=stored("photographs"), **shared),
        Case("MiniLM-L6-v2", "minilm", arrays=stored("sentences"), **shared),
    )


ROW = Row(
    name="p6_pretrained",
    title="P6: empirical NTK of pre-trained networks",
    cases=cases(64),
    quick=cases(2),
    peers=("tutorial",),
    targets=(Target(gigabytes=6.0),),
)

if __name__ == "__main__":
    start(ROW)
