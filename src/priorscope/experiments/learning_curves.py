"""Learning curves of real images from the covariance of their pixels: no kernel matrix, no network, no training.

The kernel enters by one number a level, the data by their covariance and by the target's power in products of Hermite
polynomials. *Plain*: the modes as Gaussian data have them. *Adapted*: the same products, made orthogonal under the
data by their own moments. Both beside kernel regression that was really done.
"""

from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from ..beliefs.hermite import hermite_modes
from ..data.named import fashion_folder, named
from ..errors import DataError
from ..generalization.learnability import Learnability, learnability
from ..kernels.infinite import infinite_width
from ..kernels.kernel import Kernel
from ..network.initialization import Initialization
from ..plot import style
from ..plot.learnability import learning_curve as plot_curve
from .experiment import Config, Criterion, Outcome, experiment

SAMPLES = {"digits": (50, 100, 200, 500, 800), "mnist": (50, 100, 200, 500, 1000, 2000)}
"""At most as many as modes, which are half as many as images: what lies beyond these is taken for a ridge."""
DRAWS = {False: 10, True: 30}
FASHION = "fashion_mnist"
ALL = {**SAMPLES, FASHION: SAMPLES["mnist"]}
IMAGES = 5000
"""At most, of each data set."""
AIM = 0.1
LAW = Initialization(2.0, 0.0, "ntk")


def images(name: str, seed: int) -> tuple[Tensor, Tensor]:
    """Images of a named data set, shuffled, less their mean image and of one length; and their classes."""
    dataset = named(name)
    order = torch.randperm(len(dataset.x), generator=torch.Generator().manual_seed(seed))[:IMAGES]
    x = dataset.x.reshape(len(dataset.x), -1).to(torch.float64)[order]
    x = nn.functional.normalize(x - x.mean(0), dim=1) * x.shape[1] ** 0.5
    # The mean of what was made of one length is small, and is taken off too.
    return x - x.mean(0), dataset.y[order]


def network(inputs: int) -> Kernel:
    """The NTK of an infinitely wide two-layer ReLU network without biases."""
    model = nn.Sequential(nn.Linear(inputs, 64, bias=False), nn.ReLU(), nn.Linear(64, 1, bias=False))
    return infinite_width(LAW.apply_(model, seed=0), LAW).ntk


def targets(y: Tensor) -> Tensor:
    """One-hot − 1/C."""
    onehot = nn.functional.one_hot(y).to(torch.float64)
    return onehot - 1 / onehot.shape[1]


def cases(name: str = "learning-curves") -> dict[str, Any]:
    """All that decides a result, as `cases/learning-curves.json` has it, and that of Fashion-MNIST, asked later."""
    found = {
        "name": "learning-curves",
        "claim": "the covariance of images and the target's power predict the test error of kernel regression",
        "kernel": "NTK of two layers, ReLU, no biases, weight_variance 2, parameterization ntk",
        "images": "less their mean image, of length sqrt(pixels), less their mean again; target one-hot - 1/C",
        "samples": {name: list(counts) for name, counts in SAMPLES.items()},
        "modes": "half as many as images",
        "ridge": 0.0,
        "draws": {"quick": DRAWS[False], "full": DRAWS[True]},
        "criterion": {
            "aim": AIM,
            "curve": 2.0,
            "in_words": "adapted and plain alike: the largest relative error, over samples, of the predicted test "
            "error against the mean over draws is at most the aim. The measured error at the first number of "
            "samples is at "
            "least `curve` times that at the last.",
        },
        "chosen_after_results": "the aim was set beforehand, for both. Plain was once held to twice the aim, after it "
        "had been seen to miss it; that is taken back. That samples stay below the number of modes, the network of "
        "two layers and the adapted modes (ours) must count as chosen after results: errors beyond them, which are "
        "larger, were known when this file was written (docs/learnability.md).",
    }
    if name == "learning-curves":
        return found
    later = "nothing: written before any of these images were seen by this code, after the results on digits and mnist"
    return {
        **found,
        "name": name,
        "samples": {FASHION: list(ALL[FASHION])},
        "at most": IMAGES,
        "chosen_after_results": later,
    }


@experiment(
    "learning-curves",
    "the covariance of images predicts the learning curve of a network's kernel, without any kernel matrix",
    "Karkada, Turnbull, Liu and Simon 2025, 2510.14878 (plain; its aim, not its data); adapted: ours",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """Digits, MNIST, Fashion-MNIST where it is at hand: one-hot − 1/C without a ridge; 10 draws of each, 30 in full."""
    names, notes = list(SAMPLES), []
    try:
        fashion_folder()
        names.append(FASHION)
    except DataError as error:
        notes.append(f"left out: {error}")
    numbers = {name: curves(name, config) for name in names}
    return Outcome(tuple(criteria(numbers)), numbers, tuple(notes))


def curves(name: str, config: Config) -> dict[str, Any]:
    """Predicted and measured test errors of one data set."""
    x, y = images(name, config.seed)
    kernel, counts = network(x.shape[1]), ALL[name]
    modes = hermite_modes(kernel, x, count=len(x) // 2)
    told: dict[str, Learnability] = {}
    for kind, some in (("plain", modes), ("adapted", modes.adapted(x))):
        power, off = some.power(x, y)
        told[kind] = learnability(some.spectrum, power, counts, off=off)
    generator = torch.Generator().manual_seed(config.seed + 1)
    gram, labels = kernel(x), targets(y)
    bar = tqdm(counts, desc=f"regressions on {name}", disable=not config.progress)
    errors = torch.stack([regress(gram, labels, n, DRAWS[config.full], generator) for n in bar])
    return {
        "n": counts,
        "measured": errors.mean(1),
        "standard error": errors.std(1) / errors.shape[1] ** 0.5,
        "effective dimension": modes.effective_dimension,
        "rest": modes.spectrum.rest / modes.trace,
        **told,
    }


def regress(gram: Tensor, y: Tensor, n: int, draws: int, generator: torch.Generator) -> Tensor:
    """(draws,), test errors of kernel regression on n random points, at all others, without a ridge."""
    errors = []
    for _ in range(draws):
        order = torch.randperm(len(gram), generator=generator)
        chosen, outside = order[:n], order[n:]
        dual = torch.linalg.solve(gram[chosen][:, chosen], y[chosen])
        errors.append((gram[outside][:, chosen] @ dual - y[outside]).square().mean())
    return torch.stack(errors)


def criteria(numbers: dict[str, Any]) -> list[Criterion]:
    found = []
    for name, entry in numbers.items():
        for kind in ("adapted", "plain"):
            gap = float((entry[kind].error / entry["measured"] - 1).abs().max())
            what = f"{name}, {kind}: largest relative error of the test error, n = {entry['n'][0]} to {entry['n'][-1]}"
            found.append(Criterion(what, gap, "<=", AIM, exact=False))
        ends = entry["measured"][[0, -1]]
        what = f"{name}: there is a curve (first measured error over last)"
        found.append(Criterion(what, float(ends[0] / ends[1]), ">=", 2.0))
    return found


def draw(outcome: Outcome) -> Figure:
    """Learning curves, and the relative error of both predictions."""
    figure, axes = plt.subplots(
        2, len(outcome.numbers), figsize=(5.6 * len(outcome.numbers), 7.2), layout="constrained", squeeze=False
    )
    for column, (name, entry) in zip(axes.T, outcome.numbers.items(), strict=True):
        told = {f"{kind}, from the covariance": entry[kind] for kind in ("adapted", "plain")}
        points = (entry["n"], entry["measured"].tolist(), entry["standard error"].tolist())
        plot_curve(told, column[0], measured=points)
        column[0].set_title(f"{name}, effective dimension {entry['effective dimension']:.0f}")
        _draw_gaps(column[1], entry)
        for ax in column:
            ax.set_xticks(entry["n"], map(str, entry["n"]))
            ax.set_xticks([], minor=True)
    return figure


def _draw_gaps(ax: Axes, entry: dict[str, Any]) -> None:
    style.axes(ax, xlabel="training samples n", ylabel="predicted / measured − 1 (%; grey: the aim)", xscale="log")
    for kind, colour in (("adapted", style.BLUE), ("plain", style.VERMILION)):
        gap = 100 * (entry[kind].error / entry["measured"] - 1)
        ax.plot(entry["n"], style.array(gap), "o-", ms=4, color=colour, label=kind)
    ax.axhspan(-100 * AIM, 100 * AIM, color="#dddddd", zorder=0)
    ax.set_ylim(-115 * AIM, 150 * AIM)
    style.legend(ax, loc="upper right", ncols=2)
