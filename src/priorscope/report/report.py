"""`ps.report`: module and data in, one page of answers out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..data.dataset import Split
from ..data.inputs import check_inputs
from ..errors import DataError, NotCoveredError
from ..network.initialization import Initialization
from ..results import Result
from ..training.training import Training
from .believe import believe
from .first import first
from .page import write_page
from .predicted import predicted
from .similar import similar
from .simple import simple
from .study import Points, Study


@dataclass(frozen=True)
class Report(Result):
    """What was written: the page, and one sentence a question."""

    page: str
    answers: dict[str, tuple[str, ...]]

    def _repr_html_(self) -> str:
        items = "".join(f"<li><b>{question}</b> {' '.join(text)}</li>" for question, text in self.answers.items())
        return f"<p>{self.page}</p><ol>{items}</ol>"


def report(
    model: nn.Module,
    x: Tensor | Split,
    y: Tensor | None = None,
    training: Training | None = None,
    init: Initialization | None = None,
    out: str | Path = "report/",
    *,
    x_test: Tensor | None = None,
    y_test: Tensor | None = None,
    make: Callable[[int], nn.Module] | None = None,
    widths: tuple[int, ...] = (),
    width: int | None = None,
    title: str | None = None,
    description: str = "",
    seed: int = 0,
    progress: bool = False,
) -> Report:
    """Writes a page that says what this network will learn from these data, beside a network really trained on them.

    Args:
        model: the network at its start; it is not changed.
        x, y: training points (n, ...) and labels (n,), (n, o) or integer classes; or x a `data.Split`.
        training: how the network is trained, in discrete steps; default plain descent on half_sse at half the step
            limit, until the predicted training loss is 5 % of its start, 500 steps at most.
        init: the law that the model's weights were drawn from; default PyTorch's own. Weights that do not have these
            variances raise. In "ntk" the network is trained with the law's rates.
        out: the folder to write: index.html (self-contained), report.json, figures/*.svg and *.png.
        x_test, y_test: held-out points; default a fifth of the data, drawn by `seed`.
        make, widths: make(width) gives the same architecture at another width, drawn from the same law; the distance
            from the prediction is then measured against width.
        width: the model's own width, where its layers do not tell.
        seed: of the split, of mini-batches and of sampled networks.

    Raises:
        DataError, ModelError, PriorscopeError: for what cannot be right, before any work starts.
    """
    points = _points(x, y, x_test, y_test, seed)
    if training is not None and training.is_flow:
        raise NotCoveredError(
            "training", "is gradient flow, which no real network can be trained by", "Give learning_rate and steps"
        )
    study = Study(model, points, training, init or Initialization.torch_default(), seed, progress, width)
    study.check_weights()
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise DataError(str(out), "is a file", "Give a folder")
    questions: list[Callable[[], object]] = [
        lambda: simple(study),
        lambda: first(study),
        lambda: predicted(study),
        lambda: believe(study, make, widths),
        lambda: similar(study),
    ]
    answers = [ask() for ask in tqdm(questions, desc="report", unit="answer", disable=not progress)]
    page = write_page(
        folder,
        title or f"What this network will learn from {points.name}",
        _facts(study, description),
        _notes(study),
        answers,  # type: ignore[arg-type]
    )
    return Report(str(page), {a.question: a.sentences for a in answers})  # type: ignore[attr-defined]


def _points(x: Tensor | Split, y: Tensor | None, x_test: Tensor | None, y_test: Tensor | None, seed: int) -> Points:
    if isinstance(x, Split):
        d = x.dataset
        named = (d.features, d.class_names, d.name, x.notes, d.classes)
        return Points(x.x, x.y, x.x_test, x.y_test, x.raw, x.raw_test, *named)
    check_inputs(x, "x")
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        raise DataError("x and y", "are not tensors", "Give x (n, ...) and y (n,), (n, o) or integer classes")
    if len(y) != len(x):
        raise DataError("y", f"has {len(y)} labels for {len(x)} points", "Give one label per point")
    if (x_test is None) != (y_test is None):
        raise DataError("x_test and y_test", "are not both given", "Give both or neither")
    notes: tuple[str, ...] = ()
    if x_test is None or y_test is None:
        if len(x) < 5:
            raise DataError("x", f"has {len(x)} points, too few to hold some out", "Give x_test and y_test")
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        held = max(1, len(x) // 5)
        notes = (f"{held} of the {len(x)} points were held out for the test",)
        x, x_test, y, y_test = x[order[held:]], x[order[:held]], y[order[held:]], y[order[:held]]
    check_inputs(x_test, "x_test")
    return Points(x, y, x_test, y_test, x, x_test, notes=notes)


def _facts(study: Study, description: str) -> dict[str, str]:
    t, points = study.training, study.points
    stated = f"learning rate {t.stated_rate}, {t.steps} steps"
    if study.asked is None:
        stated += " (half the step limit; by default)"
    kind = f"{points.labels.classes} classes" if points.labels.classes else "regression"
    optimizer = t.optimizer if isinstance(t.optimizer, str) else getattr(t.optimizer, "__name__", "optimizer")
    extras = [f"{'Nesterov ' * t.nesterov}momentum {t.momentum:g}"] * (t.momentum > 0)
    extras += [f"weight decay {t.weight_decay:g} to {t.decay_to}"] * (t.weight_decay > 0)
    extras += [f"batches of {t.batch_size}"] * (t.batch_size is not None)
    law = (
        "PyTorch's own variances"
        if study.init.bias_over_fan_in
        else f"σ_w² = {float(study.init.weight_variance):g}, σ_b² = {float(study.init.bias_variance):g}"
    )
    return {
        "network": description or f"{type(study.model).__name__}",
        "parameters": f"{study.parameters:,}",
        "data": f"{points.name}: {study.n:,} training and {len(points.x_test):,} test points, {kind}",
        "initialization": f"{law}, {study.init.parameterization} parameterization",
        "training": f"{optimizer}, {t.loss_name}, {', '.join([stated, *extras])}",
        "kernel": "infinite width, derived from the module" if study.limit else "the network's own, at its start",
    }


def _notes(study: Study) -> list[str]:
    notes = list(study.points.notes) + list(dict.fromkeys(study.warned))
    if study.no_limit:
        notes.append(f"No infinite-width limit: {study.no_limit} The network's own kernel is used, without a band.")
    if study.run.converged_at is not None:
        notes.append(f"the real training ended at step {study.last_step}, where its loss reached the one asked for")
    if study.outside:
        notes.append(
            f"{', '.join(study.outside)}: outside the theory of this page; trained for real, predicted as plain "
            "full-batch descent."
        )
    notes.extend(study.path.notes)
    return notes
