"""How soon each mode is learned; how descent differs from flow; and what SGD does when the loss no longer falls.

*Modes*: wide networks on the circle, whose modes are sines and cosines: the steps until 5 % of a mode's residual are
left, against ln 0.05 / ln(1 − ηλ); where the labels are large, and where they are near the function at the start.
*Orders*: descent against its flow and the flow's first-order correction. *Limit*, a control: SGD with momentum on a
network linear in its parameters, near its optimum: stationary covariance, wandering and oscillation, predicted exactly.
"""

import math
from typing import Any

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from ..kernels.infinite import infinite_width
from ..network.initialization import Initialization
from ..plot import style
from ..training.training import Training
from . import orders, statistics
from .experiment import Config, Criterion, Outcome, experiment
from .kept import kept
from .limiting import LinearSGD
from .slopes import log_slope
from .together import watch_together

LAW = Initialization(2.0, 1.0, "ntk")
POINTS, LEFT, MODES = 16, 0.05, 4
SHARE_OF_LARGEST = 0.25
"""η λ_max."""
AMPLITUDE = 2.0
WITHIN = 0.15
QUICK: dict[str, int] = {"width": 2048, "networks": 4, "chains": 1500}
FULL: dict[str, int] = {"width": 8192, "networks": 16, "chains": 10_000}
FIRST_SEED = 50_000
LARGE, SMALL = "large labels", "small steps from the start"
ARMS: dict[str, dict[str, Any]] = {
    LARGE: {"amplitude": AMPLITUDE, "from_start": False, "first_seed": FIRST_SEED},
    SMALL: {"amplitude": 0.25, "from_start": True, "first_seed": 55_000},
}
"""Labels: amplitude · Σ cos(k a), or that much more than each network's own function at the start."""
ORDERS: dict[str, Any] = {
    "width": 32,
    "seed": 7,
    "new": 9,
    "time": 0.5,
    "local": [0.05, 0.025, 0.0125, 0.00625],
    "parts": [10, 20, 40, 80],
    "within": 0.15,
    "runge-kutta": 200,
}
"""Rates and times in units of 1/λ_max of the network's own kernel."""
SGD: dict[str, Any] = {
    "points": 60,
    "inputs": 6,
    "scales": "2^(−k/2)",
    "label_noise": 1.0,
    "learning_rate": 0.02,
    "momentum": 0.9,
    "batch": 4,
    "burn_in": 1200,
    "lags": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512],
    "shown": 160,
    "seed": 11,
}
BOOTSTRAPS = 4000


def cases() -> dict[str, Any]:
    """All that decides a result, as `cases/dynamics.json` has it."""
    return {
        "name": "dynamics",
        "claim": "each mode is learned when its eigenvalue says; descent leaves the flow at the predicted order",
        "modes": {
            "initialization": {"weight_variance": 2.0, "bias_variance": 1.0, "parameterization": "ntk"},
            "architecture": "two layers, relu, on the circle",
            "points": POINTS,
            "labels": f"{AMPLITUDE:g} Σ cos(k a), k = 0 … {MODES - 1}",
            "learning_rate": f"{SHARE_OF_LARGEST:g}/λ_max of the limit",
            "left": LEFT,
            "within": WITHIN,
            "first_seed": FIRST_SEED,
            "criterion": "the median over networks of measured over predicted steps is within 15 % of 1, for each k",
        },
        "orders": {**ORDERS, "criterion": "orders: locally 2 and 3, globally 1 and 2, each within `within`"},
        "sgd": {
            **SGD,
            "bootstraps": BOOTSTRAPS,
            "quantile": statistics.QUANTILE,
            "criterion": "largest deviation of a mean over chains (second moments of weights and velocities at the "
            "end; squared distance between two moments; products of two moments in the first and last mode) from the "
            "prediction, in bootstrap standard errors, is at most the 99.9 % quantile of the bootstrap centred on "
            "itself; exact: the stationary covariance is its own next moment, to 1e-10",
        },
        "quick": QUICK,
        "full": FULL,
    }


def small_cases() -> dict[str, Any]:
    """A further question, asked after the large labels' result was known: `cases/dynamics-small.json`."""
    modes = cases()["modes"]
    own = f"each network's function at the start + {ARMS[SMALL]['amplitude']:g} Σ cos(k a), k = 0 … {MODES - 1}"
    return {
        "name": "dynamics-small",
        "claim": "each mode is learned when its eigenvalue says, where the weights hardly move",
        "modes": {**modes, "labels": own, "first_seed": ARMS[SMALL]["first_seed"]},
        "quick": {name: QUICK[name] for name in ("width", "networks")},
        "full": {name: FULL[name] for name in ("width", "networks")},
    }


@experiment(
    "dynamics",
    "each mode is learned when its eigenvalue says; descent leaves the flow at the predicted order",
    "Jacot et al. 2018 (1806.07572); Barrett and Dherin 2021 (2009.11162); Kunin et al. 2021 (2107.09133)",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """All three parts; few networks and chains by default."""
    settings = FULL if config.full else QUICK
    modes = {arm: modes_of(arm, settings, config) for arm in ARMS}
    found, sgd = measured_orders(), limiting_sgd(settings["chains"], config.seed)
    criteria = [*_mode_criteria(modes), *_order_criteria(found), *_sgd_criteria(sgd)]
    numbers = {"settings": settings, "modes": modes, "orders": found, "sgd": sgd}
    return Outcome(tuple(criteria), numbers, _notes(numbers))


def angles(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)


def on_circle(a: Tensor) -> Tensor:
    return torch.stack([a.cos(), a.sin()], 1)


def network(width: int, seed: int, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # torch draws weights that are then drawn anew
        model = nn.Sequential(nn.Linear(2, width), activation(), nn.Linear(width, 1)).double()
    return LAW.apply_(model, seed)


def planes() -> Float[Tensor, "k n 2"]:
    """Orthonormal sines and cosines of each frequency on the points; of k = 0 the second one is 0."""
    a = angles(POINTS)
    pairs = [torch.stack([(k * a).cos(), (k * a).sin()], 1) for k in range(MODES)]
    return torch.stack([pair / pair.norm(dim=0).clamp_min(1e-9) for pair in pairs])


def modes_of(arm: str, settings: dict[str, int], config: Config) -> dict[str, Any]:
    """Of each frequency: eigenvalue, predicted steps by descent and by flow, and every network's measured ones."""
    a, waves = angles(POINTS), planes()
    chosen = ARMS[arm]
    x, wanted = on_circle(a), chosen["amplitude"] * torch.stack([(k * a).cos() for k in range(MODES)]).sum(0)
    gram = infinite_width(network(4, 0), LAW).ntk(x)
    values = torch.stack([wave[:, 0] @ gram @ wave[:, 0] for wave in waves])
    eta = SHARE_OF_LARGEST / float(torch.linalg.eigvalsh(gram)[-1])
    predicted = math.log(LEFT) / torch.log1p(-eta * values)
    end = int(1.4 * float(predicted.max()))
    training = Training(learning_rate=eta, steps=end)

    def draw(count: int) -> dict[str, Tensor]:
        first = config.first(chosen["first_seed"])
        networks = [network(settings["width"], seed) for seed in range(first, first + count)]
        with torch.no_grad():
            start = torch.stack([each(x)[:, 0] for each in networks])
        y = start + wanted if chosen["from_start"] else wanted.expand(count, -1)
        outputs = watch_together(networks, x, y, training, LAW.rates(networks[0]))
        rest = (y[:, None] - outputs) @ waves.transpose(0, 1).reshape(POINTS, -1)
        return {"size": rest.unflatten(-1, (MODES, 2)).norm(dim=-1)}

    path = None
    if config.keep is not None:
        words = f"{arm.replace(' ', '-')}_width-{settings['width']}_networks-{settings['networks']}"
        path = config.keep / f"{words}_seed-{config.seed}.npz"
    sizes = kept(path, draw, settings["networks"])["size"]
    left = sizes / sizes[:, :1]
    shown = torch.cat([torch.zeros(1), torch.logspace(0, math.log10(end), 300)]).round().long().unique()
    measured = torch.stack([torch.stack([first_below(line, LEFT) for line in each.T]) for each in left])
    return {
        "values": values,
        "learning_rate": eta,
        "predicted": predicted,
        "predicted by flow": -math.log(LEFT) / (eta * values),
        "measured": measured,
        "ratio": median(measured / predicted),
        "left": left[:, shown],
        "at": shown,
    }


def median(values: Float[Tensor, "s k"]) -> Float[Tensor, " k"]:
    """Over networks; infinite where half of them are."""
    ordered = values.sort(0).values
    return (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2


def first_below(line: Float[Tensor, " t"], level: float) -> Tensor:
    """The step at which a line first falls to the level, between two steps by straight lines in the logarithm."""
    below = torch.nonzero(line <= level)
    if len(below) == 0:
        return torch.tensor(math.inf, dtype=line.dtype)
    k = int(below[0])
    if k == 0:
        return torch.tensor(0.0, dtype=line.dtype)
    before, after = line[k - 1].log(), line[k].log()
    return k - 1 + (before - math.log(level)) / (before - after)


def measured_orders() -> dict[str, Any]:
    """{"linearised" or "network": {"local" or "global": (η, gaps, slopes)}}."""
    x, new = on_circle(angles(6)), on_circle(angles(ORDERS["new"]) + 0.2)
    y = (2 * angles(6)).sin() + 0.5
    answer: dict[str, Any] = {}
    model = network(ORDERS["width"], ORDERS["seed"], nn.Tanh)
    rates = LAW.rates(model)
    largest = float(torch.linalg.eigvalsh(orders.EmpiricalNTK(model, rates=rates)(x))[-1])
    local = [(share / largest, 1) for share in ORDERS["local"]]
    globally = [(ORDERS["time"] / largest / parts, parts) for parts in ORDERS["parts"]]
    for name, trainings in (("local", local), ("global", globally)):
        gaps = {
            "linearised": orders.of_linear(model, rates, x, y, new, trainings),
            "network": orders.of_network(model, rates, x, y, new, trainings, ORDERS["runge-kutta"]),
        }
        etas = [eta for eta, _ in trainings]
        for kind, found in gaps.items():
            slopes = {each: float(log_slope(etas, torch.tensor(gap))) for each, gap in found.items()}
            answer.setdefault(kind, {})[name] = {"rates": etas, "gaps": found, "slopes": slopes}
    return answer


def linear_problem() -> LinearSGD:
    """A linear network on inputs of unlike sizes, and labels with noise: it cannot fit them."""
    generator = torch.Generator().manual_seed(SGD["seed"])
    scales = 2.0 ** (-torch.arange(SGD["inputs"], dtype=torch.float64) / 2)
    x = torch.randn(SGD["points"], SGD["inputs"], generator=generator, dtype=torch.float64) * scales
    y = x.sum(1) + SGD["label_noise"] * torch.randn(SGD["points"], generator=generator, dtype=torch.float64)
    return LinearSGD(x, y, SGD["learning_rate"], SGD["momentum"], SGD["batch"])


def limiting_sgd(chains: int, seed: int) -> dict[str, Any]:
    """Predicted and measured: second moments, squared distances between two moments, correlations along time."""
    problem, p, burn = linear_problem(), SGD["inputs"], SGD["burn_in"]
    exact, constant = problem.stationary(), problem.stationary(constant=True)
    shown = range(0, SGD["shown"], 4)
    moments = sorted({burn, *(burn + lag for lag in (*SGD["lags"], *shown))})
    states = problem.chains(chains, moments[-1], seed + SGD["seed"], tuple(moments))
    at = dict(zip(moments, states, strict=True))
    first, last = at[burn], at[moments[-1]]
    rows, columns = torch.triu_indices(2 * p, 2 * p)
    products = last[:, rows] * last[:, columns]
    wandered = torch.stack([(at[burn + lag] - first)[:, :p].square().sum(1) for lag in SGD["lags"]], 1)
    predicted = torch.tensor([problem.wandered(lag, exact) for lag in SGD["lags"]], dtype=torch.float64)
    modes = torch.linalg.eigh(problem.hessian).eigenvectors.flip(1)[:, [0, -1]]
    ahead = torch.stack([at[burn + lag][:, :p] @ modes for lag in shown], 1)
    correlations = (ahead * (first[:, :p] @ modes)[:, None]).flatten(1)
    later = [problem.later(lag, exact)[:p, :p] for lag in shown]
    predicted_correlations = torch.stack([(modes.T @ each @ modes).diagonal() for each in later])
    tests = {
        "second moments": (products, exact[rows, columns]),
        "squared distances": (wandered, predicted),
        "correlations in time": (correlations, predicted_correlations.flatten()),
    }
    deviations = {}
    for name, (samples, law) in tests.items():
        mean = statistics.BootstrappedMean.of(samples, BOOTSTRAPS, seed=0)
        deviations[name] = {"statistic": mean.statistic(law), "quantile": mean.quantile}
    return {
        "own next moment": float((problem.next(exact) - exact).norm() / exact.norm()),
        "deviations": deviations,
        "variances": exact.diagonal(),
        "variances, constant noise": constant.diagonal(),
        "measured variances": last.square().mean(0),
        "constant noise, off": float((constant - exact).norm() / exact.norm()),
        "lags": torch.tensor(SGD["lags"]),
        "wandered": predicted,
        "measured wandered": wandered.mean(0),
        "exponents": local_exponents(SGD["lags"], predicted),
        "shown": torch.tensor(list(shown)),
        "correlations": predicted_correlations / predicted_correlations[0],
        "measured correlations": correlations.mean(0).unflatten(0, (-1, 2)) / predicted_correlations[0],
    }


def local_exponents(lags: list[int], wandered: Float[Tensor, " l"]) -> Float[Tensor, "l-1"]:
    """How fast the squared distance grows with time: 2 in free flight, 1 in diffusion, 0 at rest in a valley."""
    return wandered.log().diff() / torch.tensor(lags, dtype=torch.float64).log().diff()


def _mode_criteria(modes: dict[str, Any]) -> list[Criterion]:
    return [
        Criterion(
            f"{arm}, k = {k}: measured over predicted steps to 5 %, off 1", abs(ratio - 1), "<=", WITHIN, exact=False
        )
        for arm, found in modes.items()
        for k, ratio in enumerate(found["ratio"].tolist())
    ]


def _order_criteria(found: dict[str, Any]) -> list[Criterion]:
    expected = {"local": {"flow": 2, "corrected": 3}, "global": {"flow": 1, "corrected": 2}}
    return [
        Criterion(
            f"orders, {kind}, {scope}: {name}'s order off {order}",
            abs(found[kind][scope]["slopes"][name] - order),
            "<=",
            ORDERS["within"],
        )
        for kind in found
        for scope, each in expected.items()
        for name, order in each.items()
    ]


def _sgd_criteria(sgd: dict[str, Any]) -> list[Criterion]:
    exact = Criterion("SGD: the stationary covariance and its next moment", sgd["own next moment"], "<=", 1e-10)
    return [
        exact,
        *(
            Criterion(f"SGD: {name}, in standard errors", each["statistic"], "<=", each["quantile"], exact=False)
            for name, each in sgd["deviations"].items()
        ),
    ]


def _notes(numbers: dict[str, Any]) -> tuple[str, ...]:
    modes, sgd, settings = numbers["modes"], numbers["sgd"], numbers["settings"]
    steps = [
        f"{arm}, width {settings['width']}, {settings['networks']} networks, steps until {LEFT:.0%} is left: "
        + "; ".join(
            f"k = {k}: {float(found['measured'][:, k].quantile(0.5, interpolation='higher')):.1f} measured, "
            f"{float(found['predicted'][k]):.1f} by descent, {float(found['predicted by flow'][k]):.1f} by flow"
            for k in range(MODES)
        )
        for arm, found in modes.items()
    ]
    growth = ", ".join(f"{each:.2f}" for each in sgd["exponents"].tolist())
    slopes = "; ".join(
        f"{kind}, {scope}: {each['slopes']['flow']:.2f} to {each['slopes']['corrected']:.2f}"
        for kind, scopes in numbers["orders"].items()
        for scope, each in scopes.items()
    )
    return (
        *steps,
        f"orders of the flow and of its correction: {slopes}",
        f"SGD, {settings['chains']} chains: squared distances grow by the exponents {growth} between lags "
        f"{', '.join(map(str, SGD['lags']))}",
        f"SGD: the Lyapunov equation with constant noise is off by {sgd['constant noise, off']:.1%}",
    )


def draw(outcome: Outcome) -> Figure:
    """Residuals of the modes; gaps against the step size; wandering, and correlation in time, of SGD."""
    figure, axes = plt.subplots(2, 3, figsize=(15.6, 8.4), layout="constrained")
    for ax, (arm, modes) in zip(axes[:, 0], outcome.numbers["modes"].items(), strict=True):
        _draw_modes(ax, arm, modes)
    _draw_orders(axes[0, 1], outcome.numbers["orders"], "local", "One step: descent against its flow")
    _draw_orders(axes[0, 2], outcome.numbers["orders"], "global", "To one time: descent against its flow")
    _draw_wandering(axes[1, 1], outcome.numbers["sgd"])
    _draw_correlations(axes[1, 2], outcome.numbers["sgd"])
    return figure


def _draw_modes(ax: Axes, arm: str, modes: dict[str, Any]) -> None:
    style.axes(
        ax, xlabel="step", ylabel="residual left, share", title=f"When each mode is learned: {arm}", yscale="log"
    )
    ax.set_xscale("symlog", linthresh=1)
    at = style.array(modes["at"])
    for k, colour in zip(range(MODES), style.COLOURS, strict=False):
        left = (1 - modes["learning_rate"] * modes["values"][k]) ** modes["at"]
        for i, line in enumerate(modes["left"][:, :, k]):
            ax.plot(at, style.array(line), color=colour, lw=0.8, alpha=0.6, label=f"k = {k}" if i == 0 else None)
        label = "predicted, descent" if k == 0 else None
        ax.plot(at, style.array(left), "--", color=style.BLACK, lw=1.3, label=label)
    ax.axhline(LEFT, color=style.BLACK, lw=0.7, ls=":", label="5 %")
    ax.set_ylim(5e-3, 6)
    style.legend(ax, ncols=3, loc="upper center", columnspacing=1.0)


def _draw_orders(ax: Axes, found: dict[str, Any], scope: str, title: str) -> None:
    style.axes(ax, xlabel="learning rate η", ylabel="gap, root mean square of the function", title=title)
    ax.set(xscale="log", yscale="log")
    for kind, marker, fill in (("linearised", "o", "full"), ("network", "s", "none")):
        for name, colour in (("flow", style.VERMILION), ("corrected", style.BLUE)):
            each = found[kind][scope]
            label = f"{name}, {kind}: order {each['slopes'][name]:.2f}"
            size = 5 if fill == "full" else 9
            ax.plot(
                each["rates"],
                each["gaps"][name],
                "-",
                marker=marker,
                ms=size,
                fillstyle=fill,
                color=colour,
                label=label,
            )
    rates = found["network"][scope]["rates"]
    ax.set_xticks(rates, [f"{rate:.1e}" for rate in rates])
    ax.minorticks_off()
    low, high = ax.get_ylim()
    ax.set_ylim(low / (high / low) ** 0.45, high * 1.5)
    style.legend(ax, loc="lower right")


def _draw_wandering(ax: Axes, sgd: dict[str, Any]) -> None:
    style.axes(
        ax, xlabel="steps k between two moments", ylabel="E‖θ(t+k) − θ(t)‖²", title="SGD at rest goes on wandering"
    )
    ax.set(xscale="log", yscale="log")
    lags = style.array(sgd["lags"])
    ax.plot(lags, style.array(sgd["wandered"]), color=style.BLUE, lw=1.6, label="predicted, exact")
    ax.plot(lags, style.array(sgd["measured wandered"]), "o", color=style.VERMILION, ms=5, label="measured")
    first = float(sgd["wandered"][0])
    ax.plot(lags[:5], first * lags[:5] ** 2.0, ":", color=style.BLACK, lw=1, label="∝ k², free flight")
    ax.plot(lags, first * 40 * lags / lags[3], "--", color=style.BLACK, lw=0.8, label="∝ k, diffusion")
    style.legend(ax, loc="lower right")


def _draw_correlations(ax: Axes, sgd: dict[str, Any]) -> None:
    style.axes(
        ax, xlabel="steps k between two moments", ylabel="correlation of a weight with itself", title="It oscillates"
    )
    shown = style.array(sgd["shown"])
    for i, (name, colour) in enumerate((("steepest mode", style.BLUE), ("flattest mode", style.GREEN))):
        ax.plot(shown, style.array(sgd["correlations"][:, i]), color=colour, lw=1.6, label=f"{name}, predicted")
        measured = style.array(sgd["measured correlations"][:, i])
        ax.plot(shown, measured, "o", color=colour, ms=3.5, mfc="none", label=f"{name}, measured")
    ax.axhline(0, color=style.BLACK, lw=0.6)
    style.legend(ax)
