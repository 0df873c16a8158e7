"""Question 5: who is similar to whom. The most similar and most influential training points of a few test points."""

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..beliefs.similarity import cosine
from ..plot import data as draw_data
from ..plot import style
from .answer import Answer, Picture
from .study import Study

SHOWN, NEIGHBOURS = 4, 5


def similar(study: Study) -> Answer:
    chosen = _spread(study)
    x_new = study.points.x_test[chosen]
    alike = cosine(study.kernel, x_new, study.points.x)
    weights = study.path.influence(x_new)
    if weights.ndim == 4:  # each output has weights of its own: their mean over equal outputs
        weights = weights.diagonal(dim1=1, dim2=3).mean(-1)
    nearest = alike.argsort(1, descending=True)[:, :NEIGHBOURS]
    strongest = weights.abs().argsort(1, descending=True)[:, :NEIGHBOURS]
    shared = float((nearest[:, :, None] == strongest[:, None]).any(-1).to(torch.float64).sum(1).mean())
    negative = float((weights < 0).to(torch.float64).mean())
    sentences = (
        "Two points are similar when training on one moves the network at the other (the kernel's cosine); a training "
        "point is influential when its label really ends up in the prediction (its dual weight, which accounts for all "
        "other points, can be negative, and need not be large for a similar point).",
        f"Of the {NEIGHBOURS} most similar points {shared:.1f} on average are also among the {NEIGHBOURS} most "
        f"influential; {100 * negative:.0f} % of all dual weights are negative: those points push the prediction away "
        "from their label.",
    )
    caption = (
        "Each line is one test point; beside it the most similar training points with the kernel's cosine, and the "
        "most influential with their dual weights."
    )
    numbers = {
        "test_points": chosen,
        "most_similar": nearest,
        "cosine": alike.gather(1, nearest),
        "most_influential": strongest,
        "dual_weight": weights.gather(1, strongest),
    }
    figure = _figure(study, chosen, nearest, alike, strongest, weights)
    return Answer("Who is similar to whom?", sentences, (Picture("similar", caption, figure),), numbers)


def _spread(study: Study) -> Tensor:
    """A few test points, of different classes where there are classes."""
    m = len(study.points.x_test)
    if study.points.labels.classes is None:
        return torch.linspace(0, m - 1, min(SHOWN, m)).round().to(torch.int64)
    first: dict[int, int] = {}
    for i, y in enumerate(study.points.y_test.tolist()):
        first.setdefault(y, i)
    others = [i for i in range(m) if i not in first.values()]
    return torch.tensor([*(first[y] for y in sorted(first)), *others][:SHOWN])


def _figure(study: Study, chosen: Tensor, nearest: Tensor, alike: Tensor, strongest: Tensor, weights: Tensor) -> Figure:
    count = len(chosen)
    if study.points.raw.ndim <= 2:
        return _bars(study, chosen, nearest, alike, strongest, weights)
    figure, axes = plt.subplots(
        count,
        3,
        figsize=(8.2, 1.35 * count),
        width_ratios=[1, NEIGHBOURS, NEIGHBOURS],
        layout="constrained",
        squeeze=False,
    )
    for i in range(count):
        draw_data.images(
            study.points.raw_test[chosen[i]][None], axes[i][0], [study.points.caption(int(chosen[i]), True)]
        )
        draw_data.images(study.points.raw[nearest[i]], axes[i][1], [f"{float(v):.2f}" for v in alike[i, nearest[i]]])
        draw_data.images(
            study.points.raw[strongest[i]], axes[i][2], [f"{float(v):+.2f}" for v in weights[i, strongest[i]]]
        )
    for ax, title in zip(
        axes[0], ("test point", "most similar (cosine)", "most influential (dual weight)"), strict=True
    ):
        ax.set_title(title, fontsize=9.5, pad=16)
    return figure


def _bars(study: Study, chosen: Tensor, nearest: Tensor, alike: Tensor, strongest: Tensor, weights: Tensor) -> Figure:
    count = len(chosen)
    figure, axes = plt.subplots(count, 2, figsize=(8.2, 1.5 * count), layout="constrained", squeeze=False)
    for i in range(count):
        for ax, order, values, colour in (
            (axes[i][0], nearest[i], alike[i], style.BLUE),
            (axes[i][1], strongest[i], weights[i], style.ORANGE),
        ):
            style.axes(ax)
            labels = [f"#{int(j)}: {study.points.caption(int(j))}" for j in order]
            ax.barh(range(len(order)), style.array(values[order]), color=colour)
            ax.set_yticks(range(len(order)), labels, fontsize=7.5)
            ax.invert_yaxis()
            ax.axvline(0, color=style.BLACK, lw=0.8)
        axes[i][0].set_title(
            f"test point {int(chosen[i])}: {study.points.caption(int(chosen[i]), True)}", fontsize=9, loc="left"
        )
    axes[-1][0].set_xlabel("most similar training points: cosine of the kernel")
    axes[-1][1].set_xlabel("most influential: dual weight")
    return figure
