"""`priorscope learnability`: how much of a target n samples teach an infinitely wide network, before any training."""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

from .. import data
from ..beliefs.removal import leave_out
from ..errors import DataError, SingularKernelError
from ..generalization.learnability import Learnability, learning_curve
from ..generalization.risk import gcv
from ..kernels.infinite import infinite_width
from ..kernels.on_data import OnData
from ..network.specs import model_maker
from ..plot.learnability import learnability as draw_modes
from ..plot.learnability import learning_curve as draw_curve
from ..report.page import save_figure, write
from . import law

POINTS = 1000
SHOWN = (1, 2, 5, 10, 20, 50, 100, 200)
"""The modes that the table and the picture have, where there are so many."""


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "learnability",
        help="how much of a target n samples teach, mode by mode, and the expected test error",
        description=f"{__doc__} By the tangent kernel of the limit of infinite width; the data are the population.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="mlp:2x512:relu", help="mlp:DEPTHxWIDTH:ACTIVATION, file.py:function or module:function")
    add("--data", default="digits", help=f"{', '.join(sorted(data.NAMES))}; or a .csv or .npz file")
    add("--target", help="the CSV's column to predict")
    add("--task", choices=["regression", "classification"], help="what the target is, where its type does not say")
    add("--points", type=int, default=POINTS, help="the most points that are taken as the population")
    add("--samples", type=_numbers, help="numbers of training samples (default: seven, up to half of the points)")
    add("--ridge", type=float, default=0.0, help="added to the kernel matrix's diagonal")
    law.add_arguments(parser)
    add("--seed", type=int, default=0, help="of the chosen points and the weights")
    add("--out", default="learnability", help="the folder to write")
    parser.set_defaults(run=run)


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} are no numbers of samples. Give whole numbers, like 50,100,200")
    return [int(part) for part in parts]


def run(arguments: argparse.Namespace) -> int:
    maker = model_maker(arguments.model)
    dataset = data.load(arguments.data, arguments.target, arguments.task)
    if arguments.points < 4:
        raise DataError("--points", f"is {arguments.points}", "Ask for at least 4")
    split = data.split(dataset, min(arguments.points, len(dataset.x) - 1), 1, arguments.seed)
    init = law.initialization(arguments, maker)
    model = law.draw(maker, init, tuple(split.x.shape[1:]), dataset.classes or 1, arguments.seed)
    kernel = infinite_width(model, init).ntk.on(split.x.to(torch.float64))
    points = len(split.x)
    samples = arguments.samples or sorted({max(1, round(points / 2 ** (1 + k))) for k in range(7)})
    curve = learning_curve(kernel, split.y, samples, arguments.ridge)
    from_training = _from_training(kernel, split.y, arguments.ridge)
    shown = [mode for mode in SHOWN if mode <= len(curve.power)]
    rows = len(dataset.x)
    print(f"{maker.source} on {points} of the {rows} points of {dataset.name}: what n of them teach about the others")
    print(_set_aside(points, rows))
    print("\n".join(_table(curve, shown)))
    print(f"\n{_sentence(from_training, points)}")
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    save_figure(_figure(curve, shown), out / "learnability")
    numbers = {"model": maker.source, "data": dataset.name, "curve": curve.to_dict(), "all points": from_training}
    write(out / "learnability.json", json.dumps(numbers, indent=1))
    print(f"\n{out / 'learnability'}.svg, .png, .json")
    return 0


def _set_aside(points: int, rows: int) -> str:
    """What was done with the rest of the user's rows."""
    left = rows - points
    what = "1 point, drawn at random, is" if left == 1 else f"{left} points, drawn at random, are"
    return f"{what} set aside and not used (--points takes at most {rows - 1}, --seed chooses)\n"


def _table(curve: Learnability, shown: list[int]) -> list[str]:
    size = float(curve.power.sum() + curve.off)
    share = "".join(f"{100 * float(curve.power[mode - 1]) / size:9.2f}" for mode in shown)
    lines = [
        f"{'':>7s} {'expected':>11s} {'learned of':>11s}   learned of mode",
        f"{'n':>7s} {'test error':>11s} {'the target':>11s}" + "".join(f"{mode:9d}" for mode in shown),
        f"{'share of the target (%)':>31s}" + share,
    ]
    for n, error, target, each in zip(curve.n, curve.error, curve.target, curve.learnability, strict=True):
        learned = "".join(f"{float(each[mode - 1]):9.3f}" for mode in shown)
        lines.append(f"{int(n):7d} {float(error):11.4g} {float(target):11.3f}{learned}")
    return lines


def _from_training(kernel: OnData, y: torch.Tensor, ridge: float) -> dict[str, float] | None:
    """The test error after training on all points, by two estimates; None where the kernel is singular."""
    try:
        left = leave_out(kernel, y, ridge=ridge).mean_squared_error
        return {"leave-one-out": left, "generalised cross-validation": float(gcv(kernel, y, ridge).error)}
    except SingularKernelError:
        return None


def _sentence(found: dict[str, float] | None, points: int) -> str:
    if found is None:
        return f"The kernel has a low rank on all {points} points: give --ridge for an estimate from training data."
    estimates = ", ".join(f"{error:.4g} by {name}" for name, error in found.items())
    return f"After training on all {points}, from these alone: test error {estimates}"


def _figure(curve: Learnability, shown: list[int]) -> Any:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.2, 4.2), layout="constrained")
    draw_curve(curve, left)
    draw_modes(curve, right, modes=[mode - 1 for mode in shown])
    return figure
