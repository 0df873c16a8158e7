"""How a module's parameters are drawn, and how strongly each of them learns.

An `Initialization` is a law: W ~ N(0, σ_w²/fan_in), b ~ N(0, σ_b²). A parameterization is a set of rates c, one per
parameter, which multiply its learning rate: Θ = J diag(c) Jᵀ. c = 1 is plain gradient descent ("standard");
c = σ_w²/fan_in for weights and σ_b² for biases is the textbook NTK parameterization ("ntk"), of the same module.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import PriorscopeWarning, RatesError
from .weights import fan_in, layers_with_a_law, random_entries, torch_default

Parameterization = Literal["standard", "ntk"]
Rates = Mapping[str, float]


class Variances(NamedTuple):
    """σ_w² and σ_b² of one layer: W ~ N(0, σ_w²/fan_in), b ~ N(0, σ_b²); σ_b² is 0 without a bias."""

    weight: Any
    bias: Any


def number(variance: Any) -> float:
    """The value of a variance that may be a tensor under autograd."""
    return float(variance.detach() if isinstance(variance, Tensor) else variance)


@dataclass(frozen=True)
class Initialization:
    """The law of a module's weights: W ~ N(0, σ_w²/fan_in), b ~ N(0, σ_b²), Gaussian, independent.

    Args:
        weight_variance: σ_w². 2 keeps the size of ReLU's signals from layer to layer (He et al. 2015).
        bias_variance: σ_b².
        parameterization: "standard" (every rate 1) or "ntk" (rates σ_w²/fan_in and σ_b²).

    A tensor may be given for either variance; kernels are then differentiable in it.
    Source: Lee et al. 2019 (1902.06720) for the two parameterizations.
    """

    weight_variance: Any = 2.0
    bias_variance: Any = 0.01
    parameterization: Parameterization = "standard"
    by_layer: Mapping[int, Variances] | None = field(default=None, repr=False, compare=False)
    bias_over_fan_in: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if self.parameterization not in ("standard", "ntk"):
            raise RatesError("parameterization", f"is {self.parameterization!r}", 'Give "standard" or "ntk"')
        for name in ("weight_variance", "bias_variance"):
            try:
                value = number(getattr(self, name))
            except (TypeError, ValueError, RuntimeError) as error:
                kind = type(getattr(self, name)).__name__
                raise RatesError(name, f"is a {kind} that is no number", "Give a number, or a tensor of one") from error
            if not (value >= 0 and math.isfinite(value)):
                raise RatesError(name, f"is {value}", "Give a variance: a finite number of at least 0")

    @classmethod
    def torch_default(cls, parameterization: Parameterization = "standard") -> "Initialization":
        """PyTorch's own variances: of Linear and Conv layers σ_w² = 1/3, σ_b² = 1/(3·fan_in); each layer has its own.

        PyTorch draws most layers uniformly with these variances; `apply_` draws Gaussians.
        """
        return cls(1 / 3, 1 / 3, parameterization, bias_over_fan_in=True)

    @classmethod
    def measured(cls, model: nn.Module, parameterization: Parameterization = "standard") -> "Initialization":
        """The second moments of the weights as they are now, layer by layer (no prediction once trained)."""

        def second_moment(values: Any) -> float:
            return 0.0 if values is None else float(values.detach().double().square().mean())

        by_layer = {
            id(layer.weight): Variances(
                fan_in(layer) * second_moment(random_entries(layer)), second_moment(getattr(layer, "bias", None))
            )
            for _, layer in layers_with_a_law(model)
        }
        return cls(1.0, 0.0, parameterization, by_layer=by_layer)

    def variances(self, layer: Any) -> Variances:
        """σ_w² and σ_b² of one layer of the model."""
        if self.by_layer is not None:
            if id(layer.weight) not in self.by_layer:
                raise RatesError(
                    f"this nn.{type(getattr(layer, 'module', layer)).__name__}",
                    "is not of the measured model",
                    "Measure the model itself",
                )
            return self.by_layer[id(layer.weight)]
        of_weight, of_bias = torch_default(layer) if self.bias_over_fan_in else (1.0, 1.0)
        has_bias = getattr(layer, "bias", None) is not None
        return Variances(self.weight_variance * of_weight, self.bias_variance * of_bias if has_bias else 0.0)

    @torch.no_grad()
    def apply_(self, model: nn.Module, seed: int = 0) -> nn.Module:
        """Draws the weights of every layer that has a law, in place, and returns the model.

        Parameters without a law (gains of normalisations, bare tensors) stay as they are; a warning names them.
        """
        generator = torch.Generator().manual_seed(seed)

        def draw(parameter: Tensor, variance: Any) -> None:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_((noise * number(variance) ** 0.5).to(parameter.dtype))

        drawn: set[int] = set()
        for _, layer in layers_with_a_law(model):
            w, b = self.variances(layer)
            for parameter, variance in ((layer.weight, w / fan_in(layer)), (getattr(layer, "bias", None), b)):
                if isinstance(parameter, nn.Parameter) and id(parameter) not in drawn:
                    drawn.add(id(parameter))
                    draw(parameter, variance)
            if getattr(layer, "padding_idx", None) is not None:
                layer.weight[layer.padding_idx] = 0.0
        lawless = [name for name, parameter in model.named_parameters() if id(parameter) not in drawn]
        if lawless:
            warnings.warn(f"no law is known for {_listed(lawless)}: left as they are.", PriorscopeWarning, stacklevel=3)
        return model

    def rates(self, model: nn.Module, **named: float) -> dict[str, float]:
        """{parameter name: c}. Frozen parameters have c = 0.

        Args:
            named: rates given by hand, by parameter name (`**{"norm.weight": 1.0}`); they win over the law.

        Raises:
            RatesError: in "ntk", for parameters without a law that are not named; for unknown names.
        """
        check_names(model, named)
        lawful: dict[int, Any] = {}
        for _, layer in layers_with_a_law(model):
            w, b = self.variances(layer)
            lawful.setdefault(id(layer.weight), w / fan_in(layer))
            if getattr(layer, "bias", None) is not None:
                lawful.setdefault(id(layer.bias), b)
        result: dict[str, float] = {}
        missing = []
        for name, parameter in model.named_parameters():
            if name in named:
                result[name] = float(named[name])
            elif not parameter.requires_grad:
                result[name] = 0.0
            elif self.parameterization == "standard":
                result[name] = 1.0
            elif id(parameter) in lawful:
                result[name] = number(lawful[id(parameter)])
            else:
                missing.append(name)
        if missing:
            raise RatesError(
                _listed(missing),
                'has no law, so no rate in the "ntk" parameterization',
                f'Name it: init.rates(model, **{{"{missing[0]}": 1.0}})',
            )
        return result


def check_names(model: nn.Module, rates: Rates) -> None:
    """Raises RatesError for names that the model does not have and for rates that are not numbers of at least 0."""
    known = {name for name, _ in model.named_parameters()}
    unknown = sorted(set(rates) - known)
    if unknown:
        raise RatesError(
            _listed(unknown), "is not a parameter of the model", f"Names are like {_listed(sorted(known))}"
        )
    for name, rate in rates.items():
        if not isinstance(rate, (int, float)) or not (math.isfinite(rate) and rate >= 0):
            raise RatesError(f"the rate of `{name}`", f"is {rate}", "Give a finite number of at least 0")


def resolve_rates(model: nn.Module, rates: Any = None) -> dict[str, float]:
    """{parameter name: c} from what users give as `rates=`.

    Args:
        rates: None (1 for all that learns, 0 for frozen parameters), a complete mapping, an Initialization, or a
            limit (anything whose `.ntk.origin.rates` or `.origin.rates` is a mapping).
    """
    if rates is None:
        return {name: float(parameter.requires_grad) for name, parameter in model.named_parameters()}
    if isinstance(rates, Initialization):
        return rates.rates(model)
    if not isinstance(rates, Mapping):
        origin = getattr(getattr(rates, "ntk", rates), "origin", None)
        rates = getattr(origin, "rates", None)
        if rates is None:
            raise RatesError("rates", "is not a mapping, an Initialization or a limit", "Give {parameter name: c}")
    check_names(model, rates)
    missing = [name for name, _ in model.named_parameters() if name not in rates]
    if missing:
        raise RatesError(_listed(missing), "has no rate", "Give every parameter one (0 freezes it)")
    return {name: float(rates[name]) for name, _ in model.named_parameters()}


def check_same_rates(first: Rates | None, second: Rates | None, what: str) -> None:
    """Raises RatesError where two sets of rates, both known, are not equal to rounding."""
    if first is None or second is None:
        return
    names = sorted(set(first) | set(second))
    for name in names:
        a, b = first.get(name), second.get(name)
        if a is None or b is None or not math.isclose(a, b, rel_tol=1e-9):
            raise RatesError(what, f"belong to different rates (`{name}`: {a} and {b})", "Give the same rates= to both")


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:4])
    return shown + (f" and {len(names) - 4} more" if len(names) > 4 else "")
