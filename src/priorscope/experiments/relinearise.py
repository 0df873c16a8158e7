"""Beyond the lazy regime: the prediction with the kernel taken again after the first steps, against the lazy one.

Narrow networks on tasks that were not used before: each is really trained to the end; the lazy prediction uses its
kernel at the start alone; the others its kernel after each part of a really trained twentieth of the steps. A control
knows the network as it was after that twentieth, but keeps the kernel of the start: what the kernel alone brings.
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from ..kernels.empirical import EmpiricalNTK
from ..network.initialization import Initialization
from ..plot import style
from ..training.training import Training
from ..training.trajectory import trajectory
from .experiment import Config, Criterion, Outcome, experiment
from .kept import kept
from .tasks import SEED, TEST, TRAIN, Task, tasks
from .together import train_together

LAW = Initialization(2.0, 0.05, "ntk")
WIDTHS = (32, 128)
STEPS, SHARE, PARTS = 400, 0.05, 4
RATE = 0.5
"""η λ_max of the network's own kernel at the start."""
TASKS_SEED, FIRST_SEED = 1, 80_000
RESAMPLED, TAIL = 4000, 0.001
QUICK: dict[str, int] = {"networks": 3}
FULL: dict[str, int] = {"networks": 30}


def cases() -> dict[str, Any]:
    """All that decides a result, as `cases/relinearise.json` has it."""
    return {
        "name": "relinearise",
        "claim": "a kernel taken again after a twentieth of the training predicts narrow networks better",
        "initialization": {"weight_variance": 2.0, "bias_variance": 0.05, "parameterization": "ntk"},
        "architecture": "three layers, relu",
        "widths": list(WIDTHS),
        "tasks": [task.name for task in tasks()],
        "points": {"train": TRAIN, "test": TEST, "seed": SEED, "seed of the draw": TASKS_SEED},
        "training": {"learning_rate": f"{RATE:g}/λ_max of the network's own kernel", "steps": STEPS},
        "really trained": {"share": SHARE, "parts": PARTS},
        "first_seed": FIRST_SEED,
        "quick": QUICK,
        "full": FULL,
        "criterion": {
            "resampled": RESAMPLED,
            "tail": TAIL,
            "in_words": "ratio: root mean square at the test points to the really trained network, of the lazy "
            "prediction over that of the one re-linearised at the end of the share. At each width the 0.1 % quantile "
            "of the median ratio, by resampling tasks with all of their networks, is at least 1.",
        },
    }


def restarted_cases() -> dict[str, Any]:
    """A further question, asked after the first one's result was known: `cases/relinearise-restarted.json`."""
    return {
        **cases(),
        "name": "relinearise-restarted",
        "claim": "it is the new kernel that helps, and not alone the function that the twentieth has reached",
        "criterion": {
            "resampled": RESAMPLED,
            "tail": TAIL,
            "in_words": "ratio: root mean square at the test points to the really trained network, of the prediction "
            "that goes on from the network at the end of the share with the kernel of the start, over that of the one "
            "re-linearised there. At each width the 0.1 % quantile of the median ratio, by resampling tasks with all "
            "of their networks, is at least 1.",
        },
        "chosen_after_results": "the question: on seven of the tasks with three networks each the median ratio had "
        "been seen to be 1.7 and 2.1. Everything else is the first case's.",
    }


@experiment(
    "relinearise",
    "a kernel taken again after a twentieth of the training predicts narrow networks better",
    "Fort et al. 2020 (2010.15110): the kernel moves most in the beginning",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """Twelve tasks and two widths; few networks by default."""
    settings = FULL if config.full else QUICK
    rows = []
    for task in tqdm(tasks(TASKS_SEED), desc="tasks", disable=not config.progress):
        for width in WIDTHS:
            found = measured(task, width, settings["networks"], config.first(FIRST_SEED), config.keep)
            gaps = found["gaps"]
            ratios = {"ratio": gaps[:, 0] / gaps[:, -1], "restarted ratio": found["restarted"] / gaps[:, -1]}
            rows.append({"task": task.name, "width": width, **found, **ratios})
    summary = {width: _summary([row for row in rows if row["width"] == width]) for width in WIDTHS}
    named = {"low": "lazy", "restarted low": "old kernel, restarted,"}
    criteria = tuple(
        Criterion(
            f"width {width}: {what} over re-linearised: 0.1 % quantile of the median", each[low], ">=", 1.0, False
        )
        for low, what in named.items()
        for width, each in summary.items()
    )
    notes = tuple(
        f"width {width}: the lazy prediction lies {each['median']:.2f} times as far from the trained network as the "
        f"re-linearised one (median; {each['tenth']:.2f} to {each['ninetieth']:.2f} from the first to the last tenth); "
        f"nearer in {each['better']:.0%} of {each['count']} networks; a control: the network itself when the share was "
        f"trained lies {each['stopped']:.1f} times as far as that prediction, what goes on from there with the kernel "
        f"of the start {each['restarted']:.2f} times"
        for width, each in summary.items()
    )
    return Outcome(criteria, {"settings": settings, "rows": rows, "summary": summary}, notes)


def network(inputs: int, width: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # torch draws weights that are then drawn anew
        model = nn.Sequential(
            nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )
    return LAW.apply_(model.double(), seed)


def measured(task: Task, width: int, networks: int, first_seed: int, keep: Path | None = None) -> dict[str, Tensor]:
    """Distances to each trained network. gaps: (s, PARTS + 1), of its predictions, the first of them the lazy one;
    stopped: (s,), of the network as it was when the share was trained; restarted: (s,), of the prediction that goes on
    from there with the kernel of the start."""

    def draw(count: int) -> dict[str, Tensor]:
        rows = [_gaps(task, width, seed) for seed in range(first_seed, first_seed + count)]
        gaps = torch.stack(rows)
        return {"gaps": gaps[:, :-2], "stopped": gaps[:, -2], "restarted": gaps[:, -1]}

    words = task.name.replace(":", "").replace(" ", "-")
    path = (
        None if keep is None else keep / f"{words}_with-control_width-{width}_networks-{networks}_seed-{first_seed}.npz"
    )
    return kept(path, draw, networks)


def _gaps(task: Task, width: int, seed: int) -> Tensor:
    model = network(task.x.shape[1], width, seed)
    kernel = EmpiricalNTK(model, rates=LAW).on(task.x)
    rate = RATE / float(kernel.eigen.values[0])
    training = Training(learning_rate=rate, steps=STEPS)
    path = trajectory(kernel, task.y, training, start=model, relinearise=PARTS, share=SHARE)
    trained = train_together([model], task.x, task.y, training, LAW.rates(model), task.x_new).outputs[0]
    end = int(path.ends[-1])
    stopped = path(task.x_new, at=end)
    # What is still to learn from there on, learned from 0 with the kernel of the start.
    residual = task.y - path(task.x, at=end)
    restarted = stopped + trajectory(kernel, residual, Training(learning_rate=rate, steps=STEPS - end))(task.x_new)
    return (
        (torch.cat([path.predictions(task.x_new), torch.stack([stopped, restarted])]) - trained).square().mean(1).sqrt()
    )


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    stopped = torch.cat([row["stopped"] / row["gaps"][:, -1] for row in rows])
    restarted = summarised([row["restarted ratio"] for row in rows])
    control = {"stopped": float(stopped.quantile(0.5)), "restarted": restarted["median"]}
    return {**summarised([row["ratio"] for row in rows]), **control, "restarted low": restarted["low"]}


def summarised(ratios: list[Tensor]) -> dict[str, Any]:
    """The median ratio over all tasks and networks, and how low it may be: tasks are resampled whole."""
    together = torch.cat(ratios)
    table = torch.stack(ratios)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(table), (RESAMPLED, len(table)), generator=generator)
    medians = table[chosen].flatten(1).quantile(0.5, dim=1)
    tenth, median, ninetieth = together.quantile(torch.tensor([0.1, 0.5, 0.9]).to(together)).tolist()
    return {
        "median": median,
        "tenth": tenth,
        "ninetieth": ninetieth,
        "low": float(medians.quantile(TAIL)),
        "better": float((together > 1).double().mean()),
        "count": len(together),
    }


def draw(outcome: Outcome) -> Figure:
    """Every network's two distances; ratios by task; how the distance falls with the part that was trained."""
    rows = outcome.numbers["rows"]
    figure, axes = plt.subplots(1, 3, figsize=(14.2, 4.8), layout="constrained", width_ratios=(1, 1.25, 1))
    _draw_distances(axes[0], rows)
    _draw_ratios(axes[1], rows)
    _draw_parts(axes[2], rows)
    return figure


COLOURS = dict(zip(WIDTHS, (style.VERMILION, style.BLUE), strict=True))


def _draw_distances(ax: Axes, rows: list[dict[str, Any]]) -> None:
    style.axes(
        ax, xlabel="lazy: rms distance to the trained network", ylabel="re-linearised: the same", title="Each network"
    )
    ax.set(xscale="log", yscale="log")
    for width, colour in COLOURS.items():
        gaps = torch.cat([row["gaps"] for row in rows if row["width"] == width])
        ax.plot(gaps[:, 0], gaps[:, -1], "o", ms=4, color=colour, mec="white", mew=0.4, label=f"width {width}")
    every = torch.cat([row["gaps"][:, [0, -1]] for row in rows])
    ends = [float(every.min()) / 1.3, float(every.max()) * 1.3]
    ax.plot(ends, ends, color=style.BLACK, lw=0.8, ls="--", label="equal")
    style.legend(ax, loc="upper left")


def _draw_ratios(ax: Axes, rows: list[dict[str, Any]]) -> None:
    style.axes(ax, xlabel="lazy over re-linearised: above 1 it helps", xscale="log")
    names = list(dict.fromkeys(row["task"] for row in rows))
    for offset, (width, colour) in zip((-0.17, 0.17), COLOURS.items(), strict=True):
        for i, name in enumerate(names):
            ratio = next(row["ratio"] for row in rows if (row["task"], row["width"]) == (name, width))
            ax.plot(ratio, [i + offset] * len(ratio), "o", ms=3.5, color=colour, alpha=0.7)
    ax.axvline(1, color=style.BLACK, lw=0.8, ls="--")
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.invert_yaxis()
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if ax.get_xlim()[0] < tick < ax.get_xlim()[1]]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()


def _draw_parts(ax: Axes, rows: list[dict[str, Any]]) -> None:
    style.axes(ax, xlabel="share of the steps that was really trained", ylabel="distance over the lazy prediction's")
    shares = np.linspace(0, SHARE, PARTS + 1)
    for width, colour in COLOURS.items():
        gaps = torch.cat([row["gaps"] for row in rows if row["width"] == width])
        relative = gaps / gaps[:, :1]
        low, middle, high = relative.quantile(torch.tensor([0.25, 0.5, 0.75]).to(relative), dim=0)
        ax.fill_between(shares, style.array(low), style.array(high), color=colour, alpha=0.15, lw=0)
        ax.plot(shares, style.array(middle), "-o", ms=4, color=colour, label=f"width {width}")
    ax.set_ylim(bottom=0)
    ax.set_title("lines: medians; bands: the middle half", fontsize=9.5)
    style.legend(ax)
