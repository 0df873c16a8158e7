"""Whether a model's weights are what an Initialization says: their variances, and the shape of their law."""

import math
import warnings
from typing import Any, NamedTuple

from torch import nn

from ...errors import PriorscopeWarning
from ...network.initialization import Initialization, number
from ...network.weights import fan_in, layers_with_a_law, random_entries

STANDARD_ERRORS = 5.0
SMALL_FAN_IN = 16
CHANCE = 1e-4


class Mismatch(NamedTuple):
    """One parameter whose second moment is not that of its law: both variances, and the distance in standard errors."""

    name: str
    expected: float
    found: float
    standard_errors: float


def mismatches(model: nn.Module, init: Initialization) -> list[Mismatch]:
    """The parameters whose second moments are more than 5 standard errors from what `init` says.

    The sum of squares over N weights is σ² χ²_N; its cube root is nearly Gaussian for every N, so that a single
    bias raises no false alarm. Source: Wilson and Hilferty 1931.
    """
    found = []
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for _, layer in layers_with_a_law(model):
        w, b = init.variances(layer)
        bias = getattr(layer, "bias", None)
        for parameter, variance in ((layer.weight, number(w) / fan_in(layer)), (bias, number(b))):
            if not isinstance(parameter, nn.Parameter) or parameter.is_meta or not parameter.numel():
                continue
            entries = random_entries(layer) if parameter is layer.weight else parameter
            moment = float(entries.detach().double().square().mean())
            z = _standard_errors(moment, variance, entries.numel())
            if abs(z) > STANDARD_ERRORS:
                found.append(Mismatch(names[id(parameter)], variance, moment, z))
    return found


def warn_of_mismatches(model: nn.Module, init: Initialization) -> None:
    """Warns of the parameter that is furthest from what `init` says, if any is too far; called by what users call."""
    wrong = mismatches(model, init)
    if wrong:
        worst = max(wrong, key=lambda one: abs(one.standard_errors))
        warnings.warn(
            f"`{worst.name}`: its variance is {worst.found:.3g}, {init!r} says {worst.expected:.3g}"
            f" ({len(wrong)} parameters are more than 5 standard errors off). The limit is that of init=: give the one"
            " that the weights were drawn from, or draw them with init.apply_(model, seed).",
            PriorscopeWarning,
            stacklevel=3,
        )


def _standard_errors(moment: float, variance: float, count: int) -> float:
    if variance == 0:
        return 0.0 if moment == 0 else math.inf
    spread = 2 / (9 * count)
    return ((moment / variance) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)


def is_uniform(layer: Any, init: Initialization) -> bool:
    """Whether a layer's weights all stay within ±√3 of their standard deviation, where Gaussians would not."""
    w, b = init.variances(layer)
    count = 0
    for parameter, variance in ((layer.weight, number(w) / fan_in(layer)), (getattr(layer, "bias", None), number(b))):
        if not isinstance(parameter, nn.Parameter) or parameter.is_meta or variance == 0:
            continue
        if float(parameter.detach().abs().max()) > math.sqrt(3 * variance) * (1 + 1e-6):
            return False
        count += parameter.numel()
    return count * math.log(math.erf(math.sqrt(1.5))) < math.log(CHANCE)
