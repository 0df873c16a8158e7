"""A trust score: the logistic of a weighted sum of features, none of whose weights can raise it.

score = 1 / (1 + e^−z),   z = b − Σ wᵢ (xᵢ − mean)/deviation,   wᵢ ≥ 0

The features are all the larger the less lazy a training is, so the weights are fitted under wᵢ ≥ 0: the score then
falls with every one of them by construction, also where no task was seen.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

FITTED = Path(__file__).with_name("fitted.json")
"""What `scripts/fit_trust.py` writes."""
RIDGE = 1.0
"""Of the weights, on standardised features: keeps them finite where a fit separates right from wrong."""


@dataclass(frozen=True)
class Score:
    """weights, means and deviations by feature; low and high: the range of each that was seen in the fit.

    What lies above `high` is told in the notes of a `Trust`.
    """

    bias: float
    weights: dict[str, float]
    means: dict[str, float]
    deviations: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]

    def contributions(self, features: Mapping[str, float]) -> dict[str, float]:
        """What each feature adds to z: above 0 where it is lazier than the mean of the fitted cases.

        A feature outside the range that was seen counts as the end of that range by its lower end only: beyond the
        upper one it goes on to speak against trust.
        """
        return {
            name: -weight * (max(features[name], self.low[name]) - self.means[name]) / self.deviations[name]
            if weight
            else 0.0
            for name, weight in self.weights.items()
        }

    def __call__(self, features: Mapping[str, float]) -> float:
        """The score, in [0, 1]; 0 where a feature is infinite."""
        if not all(math.isfinite(features[name]) for name in self.weights):
            return 0.0
        return _logistic(self.bias + sum(self.contributions(features).values()))

    @classmethod
    def fit(cls, features: Sequence[Mapping[str, float]], right: Sequence[bool], ridge: float = RIDGE) -> "Score":
        """The weights wᵢ ≥ 0 that minimise −log-likelihood + ridge/2 Σ wᵢ² over cases with finite features.

        Args:
            features: one mapping a case. right: whether the case's prediction was right.
        """
        kept = [i for i, each in enumerate(features) if all(map(math.isfinite, each.values()))]
        names = list(features[0])
        x = np.array([[features[i][name] for name in names] for i in kept])
        signs = np.where([right[i] for i in kept], 1.0, -1.0)
        means, deviations = x.mean(0), x.std(0)
        deviations[deviations == 0] = 1.0
        z = (x - means) / deviations

        def objective(parameters: Any) -> tuple[float, Any]:
            bias, weights = parameters[0], parameters[1:]
            margins = signs * (bias - z @ weights)
            value = np.logaddexp(0, -margins).sum() + ridge / 2 * (weights**2).sum()
            slopes = -signs / (1 + np.exp(np.minimum(margins, 700)))
            return value, np.concatenate([[slopes.sum()], -z.T @ slopes + ridge * weights])

        bounds = [(None, None)] + [(0, None)] * len(names)
        found = minimize(objective, np.zeros(len(names) + 1), jac=True, bounds=bounds, method="L-BFGS-B")

        def by_name(values: Any) -> dict[str, float]:
            return {name: float(value) for name, value in zip(names, values, strict=True)}

        ranges = (by_name(x.min(0)), by_name(x.max(0)))
        return cls(float(found.x[0]), by_name(found.x[1:]), by_name(means), by_name(deviations), *ranges)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Fitted:
    """What comes with the package: both scores, and how they did on tasks that were held out of the fit.

    before, after_steps: without and with a few steps of real training. held_out: for each (score, whether the
    prediction was right), of every held-out case. record: how it was fitted, on what, and the numbers reached.
    """

    before: Score
    after_steps: Score
    held_out: dict[str, tuple[tuple[float, bool], ...]]
    record: dict[str, Any]

    def like(self, which: str, score: float, reach: float = 0.1, least: int = 10) -> tuple[int, int]:
        """(right, all): of the held-out cases whose score is within `reach` of this one, or the `least` nearest."""
        ordered = sorted(self.held_out[which], key=lambda case: abs(case[0] - score))
        near = [case for case in ordered if abs(case[0] - score) <= reach]
        chosen = near if len(near) >= least else ordered[:least]
        return sum(right for _, right in chosen), len(chosen)

    def write(self, path: Path = FITTED) -> Path:
        text = {
            "before": self.before.to_dict(),
            "after_steps": self.after_steps.to_dict(),
            "held_out": {name: [[round(s, 4), bool(r)] for s, r in cases] for name, cases in self.held_out.items()},
            "record": self.record,
        }
        path.write_text(json.dumps(text, indent=1) + "\n")
        return path

    @classmethod
    def read(cls, path: Path = FITTED) -> "Fitted":
        text = json.loads(path.read_text())
        cases = {name: tuple((float(s), bool(r)) for s, r in each) for name, each in text["held_out"].items()}
        return cls(Score(**text["before"]), Score(**text["after_steps"]), cases, text["record"])


@cache
def fitted() -> Fitted:
    """The fit that comes with the package."""
    return Fitted.read()


def auroc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """The probability that a right case has a higher score than a wrong one, ties half; nan where one kind is missing.

    >>> auroc([0.9, 0.8, 0.1], [True, True, False])
    1.0
    """
    good = np.array([s for s, r in zip(scores, right, strict=True) if r])
    bad = np.array([s for s, r in zip(scores, right, strict=True) if not r])
    if not len(good) or not len(bad):
        return math.nan
    above = (good[:, None] > bad).mean() + (good[:, None] == bad).mean() / 2
    return float(above)


def _logistic(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z > -700 else 0.0
