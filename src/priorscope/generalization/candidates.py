"""Hypotheses as the mathematics takes them: checked, encoded like y, and what it means that a network realises one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import one_hot

from ..beliefs.similarity import indistinguishable, indistinguishable_pairs
from ..data.inputs import Inputs, Labels, count, encode, take
from ..errors import DataError, IndistinguishableError
from ..kernels.kernel import Kernel
from ..kernels.pair import KernelPair

Rule = Literal["regression", "signs", "classes"]
Candidate = Tensor | Callable[[Inputs], Tensor]
"""Labels of points, or a function that gives the labels of any points."""
RESERVED = "neither"
"""What no candidate may be called: it names the networks that take none of them."""
RULES: dict[Rule, str] = {
    "regression": "the nearest of the hypotheses' numbers",
    "signs": "the same sign",
    "classes": "the class of the largest output",
}
"""What a network does, at every test point, that realises a candidate."""


@dataclass(frozen=True, eq=False)
class Hypotheses:
    """Candidate labellings of m test points, and the training labels beside them.

    names: of the j candidates. values: (j, m, o), each encoded like y. rule: by what a candidate is realised.
    labels: the training labels, encoded.
    """

    names: tuple[str, ...]
    values: Float[Tensor, "j m o"]
    rule: Rule
    labels: Labels

    @property
    def targets(self) -> Tensor:
        """The training labels as predictions take them, (n,) or (n, o)."""
        return self.labels.values[:, 0] if self.labels.flat else self.labels.values

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of numbers should know: points that test nothing, and labels that may be meant as classes."""
        if self.rule != "regression":
            return ()
        notes: tuple[str, ...] = ()
        points = self.values.shape[1]
        agreed = int((self.values == self.values[0]).all(-1).all(0).sum())
        if agreed:
            notes += (
                f"all candidates agree at {agreed} of {points} test points, which are not tested: among equal numbers "
                "each is the nearest",
            )
        return (*notes, *_meant_as_classes(self.labels.values))

    def at(self, points: Tensor) -> "Hypotheses":
        """On some of the test points."""
        return replace(self, values=self.values[:, points])

    def margins(self, outputs: Float[Tensor, "s m o"], index: int) -> Float[Tensor, "s m"]:
        """How far each network is from leaving one candidate at each point; negative where it has left it.

        c f for signs, f_c − max f over the other classes, and for numbers the least (|f − b|² − |f − a|²)/|a − b| over
        the other candidates b.
        """
        own = self.values[index]
        if self.rule == "signs":
            return outputs[..., 0] * own[:, 0]
        if self.rule == "classes":
            taken = one_hot(own.argmax(-1), own.shape[-1]).bool()
            return (outputs * taken).sum(-1) - outputs.masked_fill(taken, -torch.inf).amax(-1)
        gaps = own - self.values  # (j, m, o)
        apart = gaps.norm(dim=-1)
        linear = 2 * torch.einsum("smo,jmo->sjm", outputs, gaps) + (self.values.square() - own.square()).sum(-1)
        scaled = torch.where(apart > 0, linear / apart.clamp_min(torch.finfo(apart.dtype).tiny), torch.inf)
        return scaled.amin(1)

    def realises(self, outputs: Float[Tensor, "s m o"]) -> Bool[Tensor, "s j m"]:
        """Whether each network, at each test point, does what each candidate says."""
        if self.rule == "signs":
            return torch.sign(outputs)[:, None, :, 0] == self.values[None, :, :, 0]
        if self.rule == "classes":
            return outputs.argmax(-1)[:, None] == self.values.argmax(-1)[None]
        distances = (outputs[:, None] - self.values[None]).square().sum(-1)
        return distances <= distances.amin(1, keepdim=True)

    def distances(self, outputs: Float[Tensor, "s m o"]) -> Float[Tensor, "s j"]:
        """Squared, of each network to each candidate in all labels, up to what is common to all candidates."""
        return self.values.square().sum((1, 2)) - 2 * torch.einsum("smo,jmo->sj", outputs, self.values)


def hypotheses(
    y: Tensor, points: int, candidates: Mapping[str, Candidate], x_new: Inputs, outputs: int | None
) -> Hypotheses:
    """Candidates encoded like y, on all test points.

    Args:
        points: the number of training points.
        outputs: of the model, where it is known.

    Raises:
        DataError: labels that do not match the points, y, or the model; a single candidate of numbers.
    """
    given = {name: labels_of(candidate, x_new, f"the candidate {name!r}") for name, candidate in candidates.items()}
    labels = encode(y, points, _classes(y, points, list(given.values()), outputs))
    encoded = {name: encode_like(labels, each, count(x_new), f"the candidate {name!r}") for name, each in given.items()}
    rule: Rule = "regression"
    if labels.classes is not None:
        rule = "classes"
    elif _are_signs(labels.values) and all(map(_are_signs, encoded.values())):
        rule = "signs"
    if rule == "regression" and len(given) < 2:
        cause = "are a single one, of numbers: with nothing beside it, it is the nearest to every network"
        raise DataError(
            "candidates", cause, "Give a second one; or signs (±1) or integer classes, which are tested alone"
        )
    return Hypotheses(tuple(given), torch.stack(list(encoded.values())), rule, labels)


def check_candidates(candidates: Any) -> None:
    """Raises DataError for what is no mapping of names, is empty, or uses the name that is reserved."""
    if not isinstance(candidates, Mapping):
        cause = f"are a {type(candidates).__name__}, not a mapping"
        raise DataError("candidates", cause, "Give {name: labels of the test points}")
    if not candidates:
        raise DataError("candidates", "are empty", "Give {name: labels of the test points}")
    if RESERVED in candidates:
        cause = "has the name of the networks that take no candidate"
        raise DataError(f"the candidate {RESERVED!r}", cause, "Give it another name")


def check_different(hypotheses: Hypotheses) -> Hypotheses:
    """The hypotheses themselves, if no two are equal at every test point."""
    for i, a in enumerate(hypotheses.names):
        for j, b in enumerate(hypotheses.names[:i]):
            if torch.equal(hypotheses.values[i], hypotheses.values[j]):
                raise DataError(f"the candidates {b!r} and {a!r}", "are equal at every test point", "Give others")
    return hypotheses


def labels_of(candidate: Any, x: Inputs, name: str) -> Tensor:
    """A candidate's labels at points: its own, or what its function gives."""
    if isinstance(candidate, Tensor) or not callable(candidate):
        return candidate
    labels = candidate(x)
    if not isinstance(labels, Tensor):
        raise DataError(name, f"is a function that gave a {type(labels).__name__}", f"Return ({count(x)},) labels")
    return labels


def encode_like(labels: Labels, given: Tensor, points: int, name: str) -> Float[Tensor, "m o"]:
    """Further labels of the same kind as y: as many outputs, the same classes, signs beside signs."""
    encoded = encode(given, points, labels.classes, name=name, signs=_are_signs(labels.values))
    if encoded.classes != labels.classes and None not in (encoded.classes, labels.classes):
        cause = f"names the class {int(given.max())}, there are {labels.classes}"
        raise DataError(name, cause, "Give classes that y or the model has")
    if encoded.outputs != labels.outputs or (encoded.classes is None) != (labels.classes is None):
        of_classes = " of classes" if encoded.classes else ""
        cause = f"has {encoded.outputs} outputs{of_classes}, y has {labels.outputs}"
        raise DataError(name, cause, "Give labels of the same kind as y")
    return encoded.values


def _classes(y: Tensor, points: int, given: list[Tensor], outputs: int | None) -> int | None:
    labels = encode(y, points)
    if labels.classes is None:
        return None
    integers = [c for c in given if isinstance(c, Tensor) and c.ndim == 1 and not c.is_floating_point()]
    named = max([labels.classes, *(int(c.max()) + 1 for c in integers if len(c))])
    if outputs is not None and named > outputs:
        cause = f"name {named} classes, the model has {outputs} outputs"
        raise DataError("y and the candidates", cause, "Match them")
    return named if outputs is None else outputs


def _are_signs(values: Float[Tensor, "m o"]) -> bool:
    return values.shape[1] == 1 and bool((values.abs() == 1).all())


def _meant_as_classes(values: Float[Tensor, "n o"]) -> tuple[str, ...]:
    """A note for training labels that are numbers, and have two values."""
    found = values.unique()
    if len(values) < 3 or len(found) != 2:
        return ()
    if values.shape[1] == 1:
        return ("y has two values and is taken as numbers; ±1 would be compared by sign, integers as classes",)
    if bool(((values == found[1]).sum(1) == 1).all()):
        return ("y looks one-hot and is taken as numbers; integer classes would be compared by the largest output",)
    return ()


def contradictions(kernel: Kernel, x: Inputs, values: Float[Tensor, "n o"], name: str) -> tuple[str, ...]:
    """A note where points that the kernel cannot tell apart have different labels."""
    pairs = indistinguishable_pairs(kernel, x, x).cpu()
    first, second = pairs[pairs[:, 0] < pairs[:, 1]].T
    return told_of(first, second, (values[first] != values[second]).any(-1), name)


def told_of(first: Tensor, second: Tensor, differ: Tensor, name: str) -> tuple[str, ...]:
    """A note on the pairs of points whose labels differ."""
    wrong = [f"{a} and {b}" for a, b in zip(first[differ].tolist(), second[differ].tolist(), strict=True)]
    if not wrong:
        return ()
    listed = ", ".join(wrong[:3]) + (" ..." if len(wrong) > 3 else "")
    return (f"{len(wrong)} pairs of {name} have different labels, and the kernel cannot tell them apart: {listed}",)


def distinguishable(
    kernel: Kernel | KernelPair, x: Inputs, x_new: Inputs, duplicates: str
) -> tuple[Tensor, tuple[str, ...]]:
    """Which test points the kernel can tell from all training points, and a note where some are dropped."""
    ntk = kernel.ntk if isinstance(kernel, KernelPair) else kernel
    same = indistinguishable(ntk, x, x_new)
    points = torch.arange(count(x_new))
    if not bool(same.any()):
        return points, ()
    listed = ", ".join(str(int(i)) for i in points[same][:6]) + (" ..." if int(same.sum()) > 6 else "")
    if duplicates == "raise":
        raise IndistinguishableError(
            f"x_new[{listed}]",
            "the kernel cannot tell these test points from training points, so any other label is impossible",
            'Remove them, or give duplicates="drop"',
        )
    if bool(same.all()):
        raise IndistinguishableError("x_new", "holds only training points", "Give test points outside the training set")
    return points[~same], (f"{int(same.sum())} test points dropped that the kernel cannot tell from training points",)


def kept_points(x_new: Inputs, kept: Tensor) -> Inputs:
    """x_new itself where all are kept."""
    return x_new if len(kept) == count(x_new) else take(x_new, kept)
