"""Every infinite-width rule against networks drawn by `init.apply_`, in both parameterizations, at growing widths.

For each row of `layers.py`: the means over drawn networks of the NTK (standard and ntk rates) and of the NNGP, against
the limit, in bootstrap standard errors; and how fast one network's kernel approaches the limit as its width grows.

The networks are what takes long: a run that keeps them (`Config.keep`) goes on where an earlier one stopped.
"""

import math
import re
import warnings
from pathlib import Path
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
from ..network.initialization import Initialization, Parameterization
from ..network.weights import layers_with_a_law
from ..plot import style
from . import statistics
from .experiment import Config, Criterion, Outcome, experiment
from .kept import kept
from .layers import ROWS, Row

LAW: dict[str, Any] = {"weight_variance": 1.8, "bias_variance": 0.2}
WRONG: dict[str, Any] = {"weight_variance": 2.07, "bias_variance": 0.2}
"""A law that is 15 % off, which the criterion must refute."""
POINTS, POINTS_SEED, FIRST_SEED, BOOTSTRAPS = 3, 3, 10_000, 4000
OWN_SEEDS = 1_000_000
"""Added to a network's seed where parameters without a law are drawn: its weights begin with that seed's numbers."""
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
        "rows": [
            {"layer": row.layer, "family": row.family, "point": list(row.shape), "times width": row.wider}
            for row in ROWS
        ],
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
    return measure(ROWS, FULL if config.full else QUICK, config.first(FIRST_SEED), config.progress, config.keep)


def measure(
    rows: tuple[Row, ...],
    settings: dict[str, Any],
    first_seed: int,
    progress: bool = False,
    keep: Path | None = None,
) -> Outcome:
    """What `run` reports, of these rows; keep: a folder for the kernels of the networks that were drawn."""
    numbers: dict[str, Any] = {}
    criteria: list[Criterion] = []
    for row in tqdm(rows, desc="layers", disable=not progress):
        widths = tuple(row.wider * width for width in settings["widths"])
        numbers[row.layer] = _row(row, widths, settings["networks"], first_seed, keep)
        for kind, found in numbers[row.layer]["kinds"].items():
            name = f"{row.layer}, {kind}: deviation in standard errors at width {widths[-1]}"
            criteria.append(Criterion(name, found["at_wide"], "<=", found["threshold"], exact=False))
        power = max(kind["wrong"] / (2 * kind["threshold"]) for kind in numbers[row.layer]["kinds"].values())
        criteria.append(
            Criterion(f"{row.layer}: a law 15 % off, over twice the threshold", power, ">=", 1, exact=False)
        )
    note = f"{settings['networks']} networks a width, widths {settings['widths']}\n{table(numbers)}"
    return Outcome(tuple(criteria), {"settings": settings, "rows": numbers}, (note,))


def points(row: Row) -> Tensor:
    generator = torch.Generator().manual_seed(POINTS_SEED)
    if row.ids is not None:
        return torch.randint(row.ids, (POINTS, *row.shape), generator=generator)
    return torch.randn(POINTS, *row.shape, generator=generator, dtype=torch.float64)


def lawless(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters without a law: gains and biases of normalisations, position encodings."""
    lawful = {id(p) for _, layer in layers_with_a_law(model) for p in (layer.weight, getattr(layer, "bias", None))}
    return {name: p for name, p in model.named_parameters() if id(p) not in lawful}


def rates_of(model: nn.Module, init: Initialization) -> dict[str, float]:
    """The law's rates; 1 for what has no law."""
    return init.rates(model, **dict.fromkeys(lawless(model), 1.0))


def grams(row: Row, width: int, networks: int, first_seed: int) -> dict[str, Tensor]:
    """{parameter name: (s, n, n)}: JJᵀ of each parameter of each drawn network, by plain autograd, point by point."""
    model, x, init = _made(row, width), points(row), Initialization(**LAW)
    parameters = dict(model.named_parameters())
    parts: dict[str, list[Tensor]] = {name: [] for name in parameters}
    for seed in range(first_seed, first_seed + networks):
        _draw(init, model, seed)
        outputs = [_read(row, model(x[i : i + 1])) for i in range(len(x))]
        rows = [torch.autograd.grad(out.sum(), list(parameters.values()), materialize_grads=True) for out in outputs]
        for name, jacobian in zip(parameters, zip(*rows, strict=True), strict=True):
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


def limits(
    row: Row, width: int, law: dict[str, Any], parameterizations: tuple[Parameterization, ...] = ("standard", "ntk")
) -> dict[str, Tensor]:
    """{kind: (entries,)}: the limit's kernels; in "standard" on the scale of this width, else the same at all."""
    model, x, answer = _made(row, width), points(row), {}
    for parameterization in parameterizations:
        init = Initialization(**law, parameterization=parameterization)
        _draw(init, model, 0)
        pair = infinite_width(model, init, rates_of(model, init), readout=row.readout)(x)
        answer[f"ntk, {parameterization}"], answer["nngp"] = _entries(pair.ntk), _entries(pair.nngp)
    return answer


def named(row: Row) -> tuple[str, str]:
    """The rule's name and its source, of the registry or of `explain`."""
    if not isinstance(row.key, str):
        return RULES[row.key].name, RULES[row.key].source
    model, init = _made(row, 4), Initialization(**LAW)
    _draw(init, model, 0)
    limit = infinite_width(model, init, rates_of(model, init), points(row), row.readout)
    step = next(step for step in limit.explain().steps if row.key in step.rule)
    return step.rule, step.source


def _row(row: Row, widths: tuple[int, ...], networks: int, first_seed: int, keep: Path | None) -> dict[str, Any]:
    def draw(count: int) -> dict[str, Tensor]:
        every = {width: samples(row, width, count, first_seed) for width in widths}
        return {f"{kind}, {width}": found for width, kinds in every.items() for kind, found in kinds.items()}

    drawn = kept(None if keep is None else keep / _file(row, widths, networks, first_seed), draw, networks)
    narrow, wide = widths[0], widths[-1]
    laws = {wide: limits(row, wide, LAW)}
    laws |= {width: laws[wide] | limits(row, width, LAW, ("standard",)) for width in widths[:-1]}
    wrong = limits(row, wide, WRONG)
    kinds = {}
    for kind in KINDS:
        means = {
            width: statistics.BootstrappedMean.of(drawn[f"{kind}, {width}"], BOOTSTRAPS, seed=0)
            for width in (narrow, wide)
        }
        at_narrow, at_wide = (means[width].statistic(laws[width][kind]) for width in (narrow, wide))
        criterion = statistics.TwoWidths(f"{row.layer}, {kind}", narrow, wide, at_narrow, at_wide, means[wide].quantile)
        deviation = [_distance(drawn[f"{kind}, {width}"], laws[width][kind]) for width in widths]
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
    rule, source = named(row)
    return {"family": row.family, "rule": rule, "source": source, "widths": widths, "kinds": kinds}


def _distance(found: Tensor, law: Tensor) -> float:
    """One network's distance from the limit, relative, the root mean square over networks."""
    return float(((found - law).norm(dim=1) / law.norm()).square().mean().sqrt())


def _file(row: Row, widths: tuple[int, ...], networks: int, first_seed: int) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", row.layer.lower()).strip("-")
    return f"{words}_widths-{'-'.join(map(str, widths))}_networks-{networks}_seed-{first_seed}.npz"


def _read(row: Row, output: Any) -> Tensor:
    return output if row.readout is None else row.readout(output)


def _made(row: Row, width: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # torch draws weights that are then drawn anew
        return row.make(width).to(torch.float64).eval()


def _draw(init: Initialization, model: nn.Module, seed: int) -> None:
    """All weights by the law. What has none stays as it is, if it is constant (gains); position encodings are drawn
    anew as independent numbers of mean square 1, which is what their rule takes them for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PriorscopeWarning)
        init.apply_(model, seed)
    generator = torch.Generator().manual_seed(seed + OWN_SEEDS)
    for parameter in lawless(model).values():
        if parameter.detach().unique().numel() > 1:
            entries = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data = entries / entries.square().mean().sqrt()


def _entries(matrices: Tensor) -> Tensor:
    """The entries of symmetric matrices, once each."""
    rows, columns = torch.triu_indices(*matrices.shape[-2:])
    return matrices.detach()[..., rows, columns]


HEADS = (
    "layer",
    "rule",
    "kernel",
    "width",
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
            str(entry["widths"][-1]),
            f"{found['error']:.1e}",
            f"{found['sampling_error']:.1e}",
            f"{found['at_wide']:.2f}" + ("" if found["at_wide"] <= found["threshold"] else " FAIL"),
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
    """One network's distance from the limit against width, a panel a family; beside them all deviations of the mean."""
    rows = outcome.numbers["rows"]
    families = list(dict.fromkeys(entry["family"] for entry in rows.values()))
    across = min(3, len(families))
    down = math.ceil(len(families) / across)
    figure = plt.figure(figsize=(4.6 * across + 5.5, max(4.4 * down, 1.5 + 0.155 * len(rows))), layout="constrained")
    grid = figure.add_gridspec(down, across + 1, width_ratios=[1.0] * across + [1.1])
    for i, family in enumerate(families):
        ax = figure.add_subplot(grid[i // across, i % across])
        _draw_family(ax, family, {layer: entry for layer, entry in rows.items() if entry["family"] == family})
        if i % across == 0:
            ax.set_ylabel("one network's NTK: distance from the limit")
    _draw_deviations(figure.add_subplot(grid[:, across]), rows)
    return figure


def _draw_family(ax: Axes, family: str, rows: dict[str, Any]) -> None:
    style.axes(ax, xlabel="width", title=family)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    for i, (layer, entry) in enumerate(rows.items()):
        colour, dashes = style.COLOURS[i % len(style.COLOURS)], ("-", "--", ":")[i // len(style.COLOURS) % 3]
        found = entry["kinds"]["ntk, ntk"]
        label = f"{layer} ({found['slope']:.2f})"
        ax.plot(entry["widths"], found["deviation"], dashes, marker="o", ms=3, lw=1.3, color=colour, label=label)
    widths = sorted({width for entry in rows.values() for width in entry["widths"]})
    top = max(entry["kinds"]["ntk, ntk"]["deviation"][0] for entry in rows.values())
    low = min(entry["kinds"]["ntk, ntk"]["deviation"][-1] for entry in rows.values())
    guide = [1.25 * top * (widths[0] / w) ** 0.5 for w in widths]
    ax.plot(widths, guide, color=style.BLACK, lw=0.8, label="width^(−1/2)")
    ax.set_xticks(list(widths), [str(w) for w in widths])
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=6.5, loc="lower left", borderpad=0.1, labelspacing=0.25)
    # The legend takes the lower part: as many lines of it as there are rows.
    share = min(0.62, 0.045 * (len(rows) + 2))
    high = 1.6 * top
    ax.set_ylim(high * (0.9 * low / high) ** (1 / (1 - share)), high)
    ticks = [t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if 0.7 * low < t < high]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])


def _draw_deviations(ax: Axes, rows: dict[str, Any]) -> None:
    style.axes(ax, xlabel="largest deviation of the mean over its threshold", title="The mean over networks")
    for kind, colour, marker in zip(KINDS, (style.ORANGE, style.BLUE, style.GREEN), "osD", strict=True):
        shares = [entry["kinds"][kind]["at_wide"] / entry["kinds"][kind]["threshold"] for entry in rows.values()]
        ax.plot(shares, range(len(shares)), marker, color=colour, ms=4, label=kind)
    ax.plot([1, 1], [-0.5, len(rows) - 0.5], color=style.BLACK, lw=0.8, ls="--")
    ax.set_yticks(range(len(rows)), list(rows), fontsize=7)
    for label, entry in zip(ax.get_yticklabels(), rows.values(), strict=True):
        if any(found["at_wide"] > found["threshold"] for found in entry["kinds"].values()):
            label.set(color=style.VERMILION, fontweight="bold")
    ax.set_ylim(len(rows) - 0.4, -0.6 - 0.04 * len(rows))
    ax.grid(axis="y", lw=0.3, color="#dddddd")
    ax.set_xlim(left=0)
    style.legend(ax, loc="upper center", ncols=len(KINDS), columnspacing=0.8, handletextpad=0.1)
