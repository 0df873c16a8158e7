"""Fits the trust score that comes with the package: the experiment `trust`, in full. Stopped and started, it goes on.

python scripts/fit_trust.py build/trust
"""

import sys
from pathlib import Path

from priorscope.experiments.experiment import Config
from priorscope.experiments.trust import draw, fit_of, run


def main() -> None:
    keep = Path(sys.argv[1] if len(sys.argv) > 1 else "build/trust")
    outcome = run(Config(full=True, progress=True, keep=keep))
    print(*outcome.criteria, *outcome.notes, sep="\n")
    outcome.save(keep / "trust.npz")
    draw(outcome).savefig(keep / "trust.png", dpi=110)
    print(fit_of(outcome).write())


if __name__ == "__main__":
    main()
