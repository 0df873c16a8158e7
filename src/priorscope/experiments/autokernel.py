"""Every infinite-width rule against networks drawn by `init.apply_`, in both parameterizations, at growing widths.

For each row of `layers.py`: the means over drawn networks of the NTK (standard and ntk rates) and of the NNGP, against
the limit, in bootstrap standard errors; and how fast one network's kernel approaches the limit as its width grows.
"""

import math
import warnings
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import PriorscopeWarning
from ..kernels.infinite import infinite_width
from ..kernels.infinite.registry import RULES
from ..network.initialization import Initialization, layers_with_a_law
from ..plot import style
from . import statistics
from .experiment import Config, Criterion, Outcome, experiment
from .layers import ROWS, Row

LAW: dict[str, Any] = {"weight_variance": 1.8, "bias_variance": 0.2}
WRONG: dict[str, Any] = {"weight_variance": 2.07, "bias_variance": 0.2}
"""A law that is 15 % off, which the criterion must refute."""
POINTS, POINTS_SEED, FIRST_SEED, BOOTSTRAPS = 3, 3, 10_000, 4000
QUICK: dict[str, Any] = {"widths": (16, 32, 64), "networks": 60}
FULL: dict[str, Any] = {"widths": (64, 128, 256), "networks": 200}
KINDS = ("nngp", "ntk, standard", "ntk, ntk")


def cases() -> dict[str, Any]:
    """All that decides a result, as `cases/autokernel.json` has it."""
    return {
        "name": "autokernel",
        "claim": "the mean kernels of networks drawn by init.apply_ are the limit's, for every layer with a rule",
        "initialization": LAW,
        "wrong_initialization": WRONG,
        "parameterizations": ["standard", "ntk"],
        "points": {"count": POINTS, "law": "standard normal", "seed": POINTS_SEED},
        "full": {"widths": list(FULL["widths"]), "networks": FULL["networks"]},
        "quick": {"widths": list(QUICK["widths"]), "networks": QUICK["networks"]},
        "first_seed": FIRST_SEED,
        "rows": [row.layer for row in ROWS],
        "criterion": {
            "quantile": statistics.QUANTILE,
            "bootstraps": BOOTSTRAPS,
            "bootstrap_seed": 0,
            "in_words": "the largest deviation of a mean over networks from the limit, in bootstrap standard errors, "
            "at the widest width, is at most the 99.9 % quantile of the bootstrap centred on its own mean + b/width of "
            "the fit a + b/width over the narrowest and the widest width (b < 0 counts as 0, at most that). NNGP: "
            "the mean of its expectation over the last layer given all others. A wrong law exceeds twice that in one.",
        },
    }


@experiment(
    "autokernel",
    "networks drawn by the initialization have, on average, the kernels that their modules' rules give",
    "Novak et al. 2020 (1912.02803), the reference implementation; Lee et al. 2018 (1711.00165); Jacot et al. 2018",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """Every row; narrow networks and few draws by default, wide ones and 200 draws in full."""
    return measure(ROWS, FULL if config.full else QUICK, FIRST_SEED + config.seed, config.progress)


def measure(rows: tuple[Row, ...], settings: dict[str, Any], first_seed: int, progress: bool = False) -> Outcome:
    """What `run` reports, of these rows."""
    numbers: dict[str, Any] = {}
    criteria: list[Criterion] = []
    for row in tqdm(rows, desc="layers", disable=not progress):
        numbers[row.layer] = _row(row, settings["widths"], settings["networks"], first_seed)
        for kind, found in numbers[row.layer]["kinds"].items():
            name = f"{row.layer}, {kind}: deviation in standard errors at width {settings['widths'][-1]}"
            criteria.append(Criterion(name, found["at_wide"], "<=", found["threshold"], exact=False))
        power = max(kind["wrong"] / (2 * kind["threshold"]) for kind in numbers[row.layer]["kinds"].values())
        criteria.append(
            Criterion(f"{row.layer}: a law 15 % off, over twice the threshold", power, ">=", 1, exact=False)
        )
    note = f"{settings['networks']} networks a width, widths {settings['widths']}\n{table(numbers)}"
    return Outcome(tuple(criteria), {"settings": settings, "rows": numbers}, (note,))


def points(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(POINTS, *shape, generator=torch.Generator().manual_seed(POINTS_SEED), dtype=torch.float64)


def rates_of(model: nn.Module, init: Initialization) -> dict[str, float]:
    """The law's rates; 1 for what has no law (gains of normalisations)."""
    lawful = {id(p) for _, layer in layers_with_a_law(model) for p in layer.parameters(recurse=False)}
    return init.rates(model, **{name: 1.0 for name, p in model.named_parameters() if id(p) not in lawful})


def grams(row: Row, width: int, networks: int, first_seed: int) -> dict[str, Tensor]:
    """{parameter name: (s, n, n)}: JJᵀ of each parameter of each drawn network, by plain autograd, point by point."""
    model, x, init = _made(row, width), points(row.shape), Initialization(**LAW)
    names = [name for name, _ in model.named_parameters()]
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for seed in range(first_seed, first_seed + networks):
        _draw(init, model, seed)
        rows = [torch.autograd.grad(model(x[i : i + 1]).sum(), list(model.parameters())) for i in range(len(x))]
        for name, jacobian in zip(names, zip(*rows, strict=True), strict=True):
            j = torch.stack(jacobian).flatten(1)
            parts[name].append(j @ j.T)
    return {name: torch.stack(part) for name, part in parts.items()}


def samples(row: Row, width: int, networks: int, first_seed: int) -> dict[str, Tensor]:
    """{kind: (s, entries)}: the kernels of drawn networks."""
    model, found = _made(row, width), grams(row, width, networks, first_seed)
    last = [name for name, _ in model.named_parameters()][-2:]  # the last linear layer's weight and bias
    answer = {}
    for kind in KINDS:
        rates = rates_of(model, Initialization(**LAW, parameterization="standard" if "standard" in kind else "ntk"))
        # Given all other layers, the last one's textbook NTK is E[f f'] = σ_w² h·h'/fan_in + σ_b².
        names = last if kind == "nngp" else list(found)
        answer[kind] = _entries(sum((rates[name] * found[name] for name in names), torch.zeros(())))
    return answer


def limits(row: Row, width: int, law: dict[str, Any]) -> dict[str, Tensor]:
    """{kind: (entries,)}: the limit's kernels; in "standard" on the scale of this width."""
    model, x, answer = _made(row, width), points(row.shape), {}
    for parameterization in ("standard", "ntk"):
        init = Initialization(**law, parameterization=parameterization)
        _draw(init, model, 0)
        pair = infinite_width(model, init, rates_of(model, init))(x)
        answer[f"ntk, {parameterization}"], answer["nngp"] = _entries(pair.ntk), _entries(pair.nngp)
    return answer


def _row(row: Row, widths: tuple[int, ...], networks: int, first_seed: int) -> dict[str, Any]:
    drawn = {width: samples(row, width, networks, first_seed) for width in widths}
    laws = {width: limits(row, width, LAW) for width in widths}
    wrong, (narrow, wide) = limits(row, widths[-1], WRONG), (widths[0], widths[-1])
    kinds = {}
    for kind in KINDS:
        means = {
            width: statistics.BootstrappedMean.of(drawn[width][kind], BOOTSTRAPS, seed=0) for width in (narrow, wide)
        }
        at_narrow, at_wide = (means[width].statistic(laws[width][kind]) for width in (narrow, wide))
        criterion = statistics.Criterion(f"{row.layer}, {kind}", narrow, wide, at_narrow, at_wide, means[wide].quantile)
        deviation = [
            float(
                ((drawn[width][kind] - laws[width][kind]).norm(dim=1) / laws[width][kind].norm()).square().mean().sqrt()
            )
            for width in widths
        ]
        law = laws[wide][kind]
        kinds[kind] = {
            "at_narrow": at_narrow,
            "at_wide": at_wide,
            "quantile": criterion.quantile,
            "allowance": criterion.allowance,
            "threshold": criterion.threshold,
            "wrong": means[wide].statistic(wrong[kind]),
            "error": float((means[wide].mean - law).norm() / law.norm()),
            "sampling_error": float(means[wide].error.norm() / law.norm()),
            "deviation": deviation,
            "slope": float(np.polyfit(np.log(widths), np.log(deviation), 1)[0]),
        }
    entry = RULES[row.key]
    return {"family": row.family, "rule": entry.name, "source": entry.source, "widths": widths, "kinds": kinds}


def _made(row: Row, width: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # torch draws weights that are then drawn anew
        return row.make(width).to(torch.float64).eval()


def _draw(init: Initialization, model: nn.Module, seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PriorscopeWarning)  # gains of normalisations have no law: they stay 1
        init.apply_(model, seed)


def _entries(matrices: Tensor) -> Tensor:
    """The entries of symmetric matrices, once each."""
    rows, columns = torch.triu_indices(*matrices.shape[-2:])
    return matrices.detach()[..., rows, columns]


HEADS = (
    "layer",
    "rule",
    "kernel",
    "error of the mean",
    "from sampling",
    "z",
    "threshold (allowance)",
    "slope",
    "source",
)


def cells(numbers: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table's rows: one for each layer and kernel."""
    return [
        (
            layer,
            entry["rule"],
            kind,
            f"{found['error']:.1e}",
            f"{found['sampling_error']:.1e}",
            f"{found['at_wide']:.2f}",
            f"{found['threshold']:.2f} ({found['allowance']:.2f})",
            f"{found['slope']:.2f}",
            entry["source"],
        )
        for layer, entry in numbers.items()
        for kind, found in entry["kinds"].items()
    ]


def table(numbers: dict[str, Any]) -> str:
    """The table in columns. z: the largest deviation in standard errors. slope: of one network's deviation, log-log."""
    lines = [HEADS, *cells(numbers)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def draw(outcome: Outcome) -> Figure:
    """One network's distance from the limit against width, a panel a family; and all deviations over thresholds."""
    rows = outcome.numbers["rows"]
    families = list(dict.fromkeys(entry["family"] for entry in rows.values()))
    figure, axes = plt.subplots(
        2, math.ceil((len(families) + 1) / 2), figsize=(13.5, 8), layout="constrained", squeeze=False
    )
    for ax, family in zip(axes.flat, families, strict=False):
        _draw_family(ax, family, {layer: entry for layer, entry in rows.items() if entry["family"] == family})
    _draw_deviations(axes.flat[len(families)], rows)
    for ax in axes.flat[len(families) + 1 :]:
        ax.remove()
    return figure


def _draw_family(ax: Axes, family: str, rows: dict[str, Any]) -> None:
    style.axes(ax, xlabel="width", ylabel="one network's NTK: distance from the limit", title=family)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    for i, (layer, entry) in enumerate(rows.items()):
        colour, dashes = style.COLOURS[i % len(style.COLOURS)], ("-", "--", ":")[i // len(style.COLOURS) % 3]
        found = entry["kinds"]["ntk, ntk"]
        label = f"{layer} ({found['slope']:.2f})"
        ax.plot(entry["widths"], found["deviation"], dashes, marker="o", ms=3, lw=1.3, color=colour, label=label)
    widths = next(iter(rows.values()))["widths"]
    top = max(entry["kinds"]["ntk, ntk"]["deviation"][0] for entry in rows.values())
    ax.plot(
        widths, [1.25 * top * (widths[0] / w) ** 0.5 for w in widths], color=style.BLACK, lw=0.8, label="width^(−1/2)"
    )
    ax.set_xticks(list(widths), [str(w) for w in widths])
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=7, ncols=2 if len(rows) > 8 else 1, loc="lower left")
    low = min(entry["kinds"]["ntk, ntk"]["deviation"][-1] for entry in rows.values())
    ax.set_ylim(low / (8 if len(rows) > 5 else 5), 1.6 * top)
    ticks = [t for t in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if low / 2 < t < 1.6 * top]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])


def _draw_deviations(ax: Axes, rows: dict[str, Any]) -> None:
    style.axes(ax, xlabel="largest deviation of the mean over its threshold", title="The mean over networks")
    for kind, colour, marker in zip(KINDS, (style.ORANGE, style.BLUE, style.GREEN), "osD", strict=True):
        shares = [entry["kinds"][kind]["at_wide"] / entry["kinds"][kind]["threshold"] for entry in rows.values()]
        ax.plot(shares, range(len(shares)), marker, color=colour, ms=4, label=kind)
    ax.axvline(1, color=style.BLACK, lw=0.8, ls="--")
    ax.set_yticks(range(len(rows)), list(rows), fontsize=6)
    ax.invert_yaxis()
    ax.set_xlim(left=0)
    style.legend(ax, loc="lower right")
