"""Log scores of a predicted probability, and of the share of m networks trained and counted, on networks not counted.

A statement has two or more outcomes. A count of k among m says (k + a)/(m + a·outcomes), with a = ½ (Jeffreys) or 1
(Laplace), as k may be 0.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import hypergeom
from torch import Tensor

SMOOTHING = {"Jeffreys": 0.5, "Laplace": 1.0}
SUREST = 1e-4
"""The prediction calls nothing more certain than this leaves."""
COUNTED = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200)
JUDGED, CHEAPER, REPEATS = 50, 0.1, 3


def criterion(in_words: str) -> dict[str, Any]:
    """How predicting and counting are judged, as a case file has it."""
    return {
        "smoothing": SMOOTHING,
        "surest": SUREST,
        "counted": list(COUNTED),
        "judged": JUDGED,
        "cheaper": CHEAPER,
        "repeats": REPEATS,
        "in_words": in_words,
    }


def either(p: Float[Tensor, "*s q"]) -> Float[Tensor, "*s q 2"]:
    """That something is so, and that it is not."""
    return torch.stack([p, 1 - p], -1)


def unsure(p: Float[Tensor, "q c"]) -> Float[Tensor, "q c"]:
    """Probabilities as near to 0 and 1 as a prediction is let."""
    p = p.clamp(SUREST, 1 - SUREST)
    return p / p.sum(-1, keepdim=True)


def log_score(p: Float[Tensor, "q c"], done: Float[Tensor, "s q c"]) -> Float[Tensor, "s q"]:
    """log of the probability that was given to what happened, in nats; done: 1 at what a network did, else 0."""
    return (done * p.log()).sum(-1)


def score_of_counts(
    hits: Float[Tensor, "q c"], n: int, held: Float[Tensor, "s q c"], sizes: Sequence[int], smoothing: float
) -> Float[Tensor, "m s q"]:
    """The log score of counting m of n networks, in expectation over which m are counted: k is hypergeometric.

    Args:
        hits: how many of the n networks did each. held: what networks did that are not among the n.
    """
    totals, where = hits.to(torch.int64).unique(return_inverse=True)
    scores = []
    for m in sizes:
        k = np.arange(m + 1)
        said = np.log((k + smoothing) / (m + smoothing * hits.shape[-1]))
        weights = hypergeom.pmf(k[None], n, totals.numpy()[:, None], m)
        scores.append((held * torch.from_numpy(weights @ said)[where]).sum(-1))
    return torch.stack(scores)


def score_of_others(done: Float[Tensor, "s q c"], sizes: Sequence[int], smoothing: float) -> Float[Tensor, "m s q"]:
    """The log score of counting m of the other networks, each network held out in turn."""
    # What a network did, it did itself: among the others it is one less. What it did not do has no weight.
    others = (done.sum(0) - 1).clamp_min(0)
    return score_of_counts(others, len(done) - 1, done, sizes, smoothing)


def seconds(do: Callable[[], Any], repeats: int) -> float:
    """CPU seconds, the median of so many warm runs: `do` has been done before."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        do()
        found.append(time.process_time() - start)
    return float(np.median(found))


def row(
    family: str,
    task: str,
    predicted: Float[Tensor, "q c"],
    held: Float[Tensor, "s q c"],
    counts: dict[str, Float[Tensor, "m s q"]],
    sizes: Sequence[int],
    judged: int,
    costs: tuple[float, float],
) -> dict[str, Any]:
    """One task's numbers; errors are standard errors over held-out networks, the counted ones as they are.

    Args:
        counts: of each smoothing rule, for the `sizes`. judged: the size at which they are judged.
        costs: CPU seconds of a prediction, and of training one network.
    """
    mine, root = log_score(unsure(predicted), held).mean(-1), len(held) ** 0.5
    theirs = {rule: found.mean(-1) for rule, found in counts.items()}
    ahead = {rule: mine - found[sizes.index(judged)] for rule, found in theirs.items()}
    return {
        "family": family,
        "task": task,
        "statements": len(predicted),
        "networks": len(held),
        "sizes": tuple(sizes),
        "judged": judged,
        "predicted": predicted,
        "held_out": held.mean(0),
        "score": float(mine.mean()),
        "score_error": float(mine.std() / root),
        "counts": {rule: found.mean(-1) for rule, found in theirs.items()},
        "ahead": {rule: float(found.mean()) for rule, found in ahead.items()},
        "ahead_error": {rule: float(found.std() / root) for rule, found in ahead.items()},
        "seconds_to_predict": costs[0],
        "seconds_a_network": costs[1],
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over tasks whose networks are as many.

    ahead: the score less that of the better rule at `judged` networks; its error is of the difference, network by
    network. equal: how many networks, counted by the better rule, score as well; None where none of `sizes` does.
    ratio: the cost of a prediction over that of `judged` networks. ratio_at_equal: over that of `equal`.
    """
    counts = {rule: torch.stack([each["counts"][rule] for each in rows]).mean(0) for rule in SMOOTHING}
    sizes, judged = rows[0]["sizes"], rows[0]["judged"]
    rule = max(counts, key=lambda name: float(counts[name][sizes.index(judged)]))
    score = float(np.mean([each["score"] for each in rows]))
    top = torch.stack(list(counts.values())).amax(0).tolist()
    equal = next((m for m, found in zip(sizes, top, strict=True) if found >= score), None)
    predict, network = (float(np.mean([each[key] for each in rows])) for key in ("seconds_to_predict", NETWORK))
    return {
        "tasks": len(rows),
        "networks": rows[0]["networks"],
        "sizes": sizes,
        "judged": judged,
        "score": score,
        "error": _together([each["score_error"] for each in rows]),
        "counts": counts,
        "rule": rule,
        "ahead": float(np.mean([each["ahead"][rule] for each in rows])),
        "ahead_error": _together([each["ahead_error"][rule] for each in rows]),
        "equal": equal,
        "seconds_to_predict": predict,
        "seconds_a_network": network,
        "ratio": predict / (network * judged),
        "ratio_at_equal": None if equal is None else predict / (network * equal),
    }


NETWORK = "seconds_a_network"


def _together(errors: Sequence[float]) -> float:
    """Of the mean of independent numbers."""
    return float(np.sqrt(np.square(errors).sum()) / len(errors))
