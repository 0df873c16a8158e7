"""Fits the trust score that comes with the package: the experiment `trust`, in full. Stopped and started, it goes on.

python scripts/fit_trust.py build/trust

The folder keeps the trained networks; that of `priorscope experiment run trust --full --out OUT` is OUT/trust-kept.
"""

import argparse
from pathlib import Path

from priorscope.experiments.trust import FULL, draw, fit_of, measure
from priorscope.experiments.trust_tasks import FIT, HELD_OUT
from priorscope.generalization.trust.score import FITTED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keep", nargs="?", type=Path, default=Path("build/trust"), help="where networks are kept")
    parser.add_argument("--only-kept", action="store_true", help="leave out what is not kept; fitted.json names it")
    parser.add_argument("--out", type=Path, help="a folder for trust.npz and trust.png; beside KEEP by default")
    parser.add_argument("--to", type=Path, default=FITTED, help="the fit to write; that of the package by default")
    asked = parser.parse_args()
    networks, out = FULL["networks"], asked.out or asked.keep.parent / f"{asked.keep.name}-fit"
    outcome = measure(
        FIT,
        HELD_OUT,
        FULL,
        keep=asked.keep,
        progress=True,
        chosen=lambda case: not asked.only_kept or case.file(asked.keep, networks).exists(),
    )
    print(*outcome.criteria, *outcome.notes, *outcome.numbers["not run"], sep="\n")
    out.mkdir(parents=True, exist_ok=True)
    outcome.save(out / "trust.npz")
    draw(outcome).savefig(out / "trust.png", dpi=110)
    print(fit_of(outcome).write(asked.to))


if __name__ == "__main__":
    main()
