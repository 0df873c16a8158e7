"""The page of `priorscope similar`: who is similar to whom for a network, by its kernel and by its features."""

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from ..beliefs.grouping import neighbours
from ..beliefs.similarities import Similarities, similarities
from ..data.collection import Collection
from ..data.inputs import Inputs, count
from ..errors import DataError
from ..kernels.empirical import EmpiricalNTK
from ..linalg.memory import peak_memory
from ..network.readouts import NamedReadout, named_readout
from ..network.representation import output_features, penultimate_features
from ..plot.groups import by_group
from ..results import Result, plain
from ..version import __version__
from .page import TEMPLATES, data_uri, save_figure, write

Features = str | Callable[[nn.Module, Inputs], Tensor]
NEAREST = 5
THUMBNAIL = 112


@dataclass(frozen=True)
class SimilarityPage(Result):
    """What was written: the page, what it says in sentences, and the similarities."""

    page: str
    sentences: tuple[str, ...]
    similarities: Similarities

    def _repr_html_(self) -> str:
        return f"<p>{self.page}</p><p>{' '.join(self.sentences)}</p>"


def similarity_page(
    model: nn.Module,
    collection: Collection,
    x: Inputs,
    *,
    readout: str = "trace",
    features: Features = "penultimate",
    out: str | Path = "similar/",
    queries: int = 6,
    memory: int | None = None,
    description: str = "",
    seed: int = 0,
    progress: bool = False,
) -> SimilarityPage:
    """Writes a page on which inputs are similar for a network: by its kernel, and by its features, side by side.

    By the kernel: Θ_ij/√(Θ_ii Θ_jj), the cosine of the gradients of a read-out; two inputs are alike when a step of
    training on one moves the network at the other. By features: the cosine of the representations.

    Args:
        model: the network, in `.eval()`; it is not changed.
        collection: the inputs as people see them, with names and maybe groups.
        x: the same n inputs as the model takes them.
        readout: a name of `network.readouts.MEANINGS`.
        features: "penultimate" (what the last nn.Linear reads), "output", or a function (model, x) -> (n, d).
        out: the folder to write: index.html (self-contained), similar.json, figures/*.svg and *.png.
        queries: how many inputs are shown with their neighbours, evenly spread over the groups.
        memory: bytes for the kernel; see `EmpiricalNTK`.
        seed: of the direction of `projection`.

    Raises:
        DataError, ModelError, PriorscopeError: for what cannot be right, before any work starts.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise DataError(str(out), "is a file", "Give a folder")
    if count(x) != len(collection):
        raise DataError("x", f"has {count(x)} inputs, the collection {len(collection)}", "Give the same inputs")
    if queries < 1:
        raise DataError("queries", f"is {queries}", "Ask for at least 1")
    chosen = named_readout(readout, seed)
    kernel = EmpiricalNTK(model, readout=chosen.function, memory=memory, progress=progress)
    with tqdm(total=3, desc="similar", unit="step", disable=not progress) as bar:
        represented = _features(model, x, features)
        bar.update()
        plan = str(kernel.plan(x))
        started = time.perf_counter()
        found = similarities(kernel, x, represented, collection.groups)
        seconds = time.perf_counter() - started
        bar.update()
        facts = {
            "network": description or type(model).__name__,
            "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
            "inputs": _inputs(collection),
            "kernel": f"the network's own tangent kernel, read-out {chosen.name}: {chosen.formula}",
            "features": f"{_where(features)}, {represented[0].numel():,} numbers each",
            "time and memory": f"{seconds:.0f} s for the kernel; {peak_memory() / 1e9:.2f} GB was the program's peak",
        }
        page = _write(folder, collection, found, chosen, facts, plan, queries, seconds)
        bar.update()
    return SimilarityPage(str(page), _sentences(found), found)


def _features(model: nn.Module, x: Inputs, features: Features) -> Tensor:
    if callable(features):
        return features(model, x)
    if features not in ("output", "penultimate"):
        raise DataError(f"features={features!r}", "is not known", "Give output, penultimate, or a function")
    return (output_features if features == "output" else penultimate_features)(model, x)


def _where(features: Features) -> str:
    if callable(features):
        return "given by a function"
    return "the outputs" if features == "output" else "what the last linear layer reads"


def _inputs(collection: Collection) -> str:
    groups = f", {len(set(collection.groups))} groups" if collection.groups else ", without groups"
    return f"{collection.name}: {len(collection)} {collection.kind}{groups}"


def _sentences(found: Similarities) -> tuple[str, ...]:
    """What the numbers say, with as much certainty as they have."""
    agreement = f"Over all pairs, the ranks of both similarities correlate with {found.rank_correlation:.2f}."
    if isnan(found.rank_correlation):
        agreement = "One of the two similarities is the same for all pairs, so that their ranks say nothing."
    if found.kernel_grouping is None or found.feature_grouping is None or found.difference is None:
        return (
            agreement,
            "These inputs have no groups, so nothing says which of the two is nearer to people's eyes.",
        )
    a, b, gap = found.kernel_grouping, found.feature_grouping, found.difference
    size = f"mean average precision {a.mean_average_precision:.2f} against {b.mean_average_precision:.2f}"
    if gap.clear:
        better = "The kernel groups" if gap.value > 0 else "Features group"
        verdict = f"{better} these inputs better ({size})."
    else:
        verdict = f"These inputs cannot tell which of the two groups better ({size})."
    error = (
        f"Counted by group, the kernel's minus the features' is {gap.value:+.3f} ± {gap.standard_error:.3f} "
        "(standard error over groups)."
    )
    nearest = (
        f"The nearest other input is of the same group in {100 * a.nearest:.0f} % of the cases by the kernel, in "
        f"{100 * b.nearest:.0f} % by features, in {100 * a.chance_nearest:.0f} % by chance."
    )
    return verdict, error, nearest, agreement


def _write(
    folder: Path,
    collection: Collection,
    found: Similarities,
    readout: NamedReadout,
    facts: dict[str, str],
    plan: str,
    queries: int,
    seconds: float,
) -> Path:
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    order = collection.by_group()
    svg = save_figure(_figure(collection, found, order), folder / "figures" / "similarities")
    nearest = {"kernel": neighbours(found.kernel), "features": neighbours(found.features)}
    asked = order[torch.linspace(0, len(order) - 1, min(queries, len(order)) + 1)[:-1].long()].tolist()
    numbers = {
        "priorscope": __version__,
        "facts": facts,
        "notes": collection.notes,
        "readout": {"name": readout.name, "formula": readout.formula, "meaning": readout.meaning},
        "plan": plan,
        "seconds": seconds,
        "sentences": _sentences(found),
        "names": collection.names,
        "nearest": {by: index[:, :NEAREST] for by, index in nearest.items()},
        "similarities": found,
    }
    write(folder / "similar.json", json.dumps(plain(numbers), indent=1))
    cards = [_card(collection, found, nearest, i) for i in asked]
    html = TEMPLATES.get_template("similar.html").render(
        title=f"Who is similar to whom: {collection.name}",
        facts=facts,
        sentences=_sentences(found),
        table=_table(found),
        cards=cards,
        kind=collection.kind,
        svg=svg,
        plan=plan,
        readout=readout,
        notes=collection.notes,
        grouped=collection.groups is not None,
        version=__version__,
    )
    return write(folder / "index.html", html)


def _table(found: Similarities) -> list[dict[str, str]]:
    """The numbers of the grouping, a row each."""
    a, b = found.kernel_grouping, found.feature_grouping
    if a is None or b is None:
        return []
    return [
        {
            "name": "nearest other input is of the same group",
            "kernel": f"{100 * a.nearest:.1f} %",
            "features": f"{100 * b.nearest:.1f} %",
            "chance": f"{100 * a.chance_nearest:.1f} %",
        },
        {
            "name": "mean average precision of the own group",
            "kernel": f"{a.mean_average_precision:.3f}",
            "features": f"{b.mean_average_precision:.3f}",
            "chance": f"{a.chance_precision:.3f}",
        },
    ]


def _card(collection: Collection, found: Similarities, nearest: dict[str, Tensor], i: int) -> dict[str, Any]:
    """One input with its neighbours, as the template takes it."""
    rows = [
        {
            "by": title,
            "entries": [_entry(collection, int(j), float(matrix[i, j]), i) for j in nearest[by][i, :NEAREST]],
        }
        for by, title, matrix in (
            ("kernel", "by the kernel", found.kernel),
            ("features", "by features", found.features),
        )
    ]
    return {"query": _entry(collection, i, None, None), "rows": rows}


def _entry(collection: Collection, j: int, value: float | None, query: int | None) -> dict[str, Any]:
    groups, item = collection.groups, collection.items[j]
    return {
        "name": collection.names[j],
        "text": item if isinstance(item, str) else None,
        "uri": None if isinstance(item, str) or item.ndim < 2 else data_uri(_thumbnail(item)),
        "value": None if value is None else f"{value:.2f}",
        "same": None if groups is None or query is None else groups[j] == groups[query],
    }


def _thumbnail(item: Tensor) -> bytes:
    """A PNG of one picture: bytes (3, h, w) as they are, other numbers (h, w) or (c, h, w) on their own grey scale."""
    if item.dtype == torch.uint8 and item.ndim == 3:
        picture = Image.fromarray(item.permute(1, 2, 0).numpy()).resize((THUMBNAIL, THUMBNAIL))
        picture = picture.quantize(128)  # a third of the bytes, and no difference at this size
    else:
        grey = item.to(torch.float64).flatten(0, -3).mean(0) if item.ndim > 2 else item.to(torch.float64)
        low, high = grey.min(), grey.max()
        bright = 255 * (1 - (grey - low) / (high - low).clamp_min(1e-12))
        picture = Image.fromarray(bright.round().numpy().astype(np.uint8))
        picture = picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _figure(collection: Collection, found: Similarities, order: Tensor) -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.9), layout="constrained")
    groups = None if collection.groups is None else [collection.groups[i] for i in order.tolist()]
    for ax, matrix, title, label in (
        (axes[0], found.kernel, "by the kernel", "normalised tangent kernel"),
        (axes[1], found.features, "by features", "cosine of the features"),
    ):
        by_group(matrix[order][:, order], groups, ax, label=label)
        ax.set_title(title, fontsize=11)
    return figure
