"""The law of a model's layers, as rules ask for it: an Initialization and rates, bound to one model."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from ...network.initialization import Initialization, Variances, resolve_rates
from ...network.watching import Node
from ...network.weights import fan_in, layers_with_a_law
from .moments import Refused


class LayerRates(NamedTuple):
    """Learning-rate multipliers of one layer's weights and bias (0 without a bias)."""

    weight: Any
    bias: Any


class Law:
    """Answers `variances(layer)` and `rates_of(layer)`, for a layer's module or for a call of its parameters.

    Rates that follow from an Initialization stay differentiable in its variances.
    """

    def __init__(self, model: nn.Module, init: Initialization, rates: Any = None):
        self.init = init
        rates = init if rates is None else rates
        self.rates = resolve_rates(model, rates)
        self._source = rates if isinstance(rates, Initialization) and rates.parameterization == "ntk" else None
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        self._owners: dict[int, Any] = {}
        for _, layer in layers_with_a_law(model):
            for parameter in (layer.weight, getattr(layer, "bias", None)):
                if isinstance(parameter, nn.Parameter):
                    self._owners.setdefault(id(parameter), layer)

    def name(self, layer: Any) -> str:
        """The name of a layer's weight."""
        return self._names[id(layer.weight)]

    def variances(self, layer: Any) -> Variances:
        """σ_w², σ_b² of a layer."""
        return Variances(*map(_scalar, self.init.variances(layer)))

    def rates_of(self, layer: Any) -> LayerRates:
        """c of a layer's weights and bias."""
        return LayerRates(self._rate(layer, layer.weight), self._rate(layer, getattr(layer, "bias", None)))

    def rate(self, parameter: Tensor) -> float:
        """c of a parameter without a law."""
        return self.rates[self._names[id(parameter)]]

    @property
    def is_standard(self) -> bool:
        """Whether all that learns has the rate 1."""
        return all(rate in (0.0, 1.0) for rate in self.rates.values())

    @property
    def meaning(self) -> str:
        """What the rates mean for the limit, in words."""
        if self._source is not None:
            return "rates σ_w²/fan_in and σ_b² (ntk): Θ does not depend on the module's widths"
        if self.is_standard:
            return (
                "rates 1 (standard): Θ is on the scale of this module's own widths and grows with them; beside the "
                "other layers the first one and the biases vanish as widths grow"
            )
        return (
            "rates as given: Θ weighs each layer by c·fan_in at this module's own widths. Where a hidden layer's c "
            "does not fall like 1/fan_in while outputs stay small (as in μP: c = 1 there, the width in the first "
            "layer, its inverse in the last), features move at any width, and Θ describes the start of training alone"
        )

    @property
    def given_variances(self) -> list[Any]:
        """The variances as the user gave them: numbers, or tensors that kernels are differentiable in."""
        laws = [self.init] if self._source is None else [self.init, self._source]
        return [value for law in laws for value in (law.weight_variance, law.bias_variance)]

    def owner(self, parameter: Any) -> Any:
        """The layer that a parameter belongs to; None for one without a law."""
        return self._owners.get(id(parameter))

    def layer_in(self, module: nn.Module) -> Any:
        """The module itself where its weight has a law, or the first of its weights that has one; else None."""
        found = (self._owners.get(id(parameter)) for parameter in module.parameters(recurse=False))
        return next((layer for layer in found if layer is not None), None)

    def layer_of(self, parameter: Any, role: str) -> Any:
        """The layer whose `weight` or `bias` a watched value is; Refused where it is not exactly that."""
        value = parameter.value if isinstance(parameter, Node) and parameter.kind == "parameter" else None
        layer = self._owners.get(id(value))
        if layer is None or getattr(layer, role) is not value:
            name = f"`{parameter.target}`" if value is not None else "a computed tensor"
            raise Refused(
                f"uses {name} as its {role}, which is no layer's {role} and has no law",
                "Use the weight and bias of a layer as they are, or EmpiricalNTK",
            )
        return layer

    def of_call(self, weight: Any, bias: Any) -> tuple[Any, Variances, LayerRates]:
        """The layer whose weight a call of a torch function uses, and the variances and rates of its weight and bias,
        which may be another layer's; 0 without a bias. Refused where they are no layer's."""
        layer = self.layer_of(weight, "weight")
        w, cw = self.variances(layer).weight, self.rates_of(layer).weight
        if bias is None:
            return layer, Variances(w, 0.0), LayerRates(cw, 0.0)
        owner = self.layer_of(bias, "bias")
        return layer, Variances(w, self.variances(owner).bias), LayerRates(cw, self.rates_of(owner).bias)

    def _rate(self, layer: Any, parameter: Any) -> Any:
        if parameter is None:
            return 0.0
        name = self._names[id(parameter)]
        if self._source is None or name in self._frozen:
            return self.rates[name]
        w, b = map(_scalar, self._source.variances(layer))
        return w / fan_in(layer) if parameter is layer.weight else b


def _scalar(value: Any) -> Any:
    # A tensor without axes leaves the dtype of what it multiplies alone.
    return value.reshape(()) if isinstance(value, Tensor) else value
