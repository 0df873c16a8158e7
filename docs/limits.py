"""Writes docs/limits.md: all infinite-width rules from the registry, and what `autokernel` measured.

    python docs/limits.py                              # the rules, with the measurements already in docs/limits.json
    python docs/limits.py results/autokernel.json      # ... with those of a new run of the experiment

`priorscope experiment run autokernel --full` makes results/autokernel.json.
"""

import json
import sys
from pathlib import Path

from priorscope.experiments.autokernel import HEADS, cells
from priorscope.kernels.infinite.table import markdown

FOLDER = Path(__file__).parent
INTRODUCTION = """# Infinite width: the rules

Made by `python docs/limits.py`; do not edit. `limit.explain()` prints which of them were used for a module, and the
variances and rates that they took.

K is the NNGP, Θ the NTK, v1 and v2 the variances of the two points, (u, v) ~ N(0, [[v1, K], [K, v2]]). *dual*: a
pointwise function, by its two expectations. *all pairs of positions*: needs the moments between all pairs of positions,
which are kept from the input to there. Everything else raises, by its place, unless
`infinite_width(model, fallback="monte-carlo")` asks for an estimate from sampled networks, with standard errors.

What is correlated is never taken as independent: it is handled exactly, or refused.
"""
MEASURED = """
# Against sampled networks

`priorscope experiment run autokernel`: means over {networks} networks drawn by `init.apply_`, widths {widths} (times 4
for some attention), against the limit. *error of the mean*: ‖mean − limit‖/‖limit‖ at the widest width; *from
sampling*: what of it {networks} draws alone make. *z*: the largest deviation in bootstrap standard errors, at most the
*threshold*: the 99.9 % quantile of its null, plus the allowance for finite width, b/width of the fit a + b/width over
the narrowest and the widest width. *slope*: of one network's distance from the limit against width, log-log; the
central limit theorem says −1/2. The cases are `cases/autokernel.json`.

"""


def page(measured: dict | None) -> str:
    """The whole document."""
    text = INTRODUCTION + "\n" + markdown() + "\n"
    if measured is None:
        return text
    settings = measured["settings"]
    widths = ", ".join(map(str, settings["widths"]))
    lines = ["| " + " | ".join(HEADS) + " |", "|---" * len(HEADS) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in cells(measured["rows"])]
    return text + MEASURED.format(networks=settings["networks"], widths=widths) + "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    kept = FOLDER / "limits.json"
    if arguments:
        numbers = json.loads(Path(arguments[0]).read_text())["outcome"]["numbers"]
        kept.write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    measured = json.loads(kept.read_text()) if kept.exists() else None
    (FOLDER / "limits.md").write_text(page(measured))
    print(FOLDER / "limits.md")


if __name__ == "__main__":
    main(sys.argv[1:])
