"""Corrections of order 1/width before training: exact where one hidden layer or linear networks are, and against
networks that were drawn, at two widths, whose difference tells the order 1/width² that is left out.

Criteria, fixed before looking: |z| ≤ 4 for each entry of what two widths extrapolate to, with the pre-set number of
networks; the limit alone must be off by more than 6 standard errors, where the correction is not 0.
"""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import priorscope as ps
from priorscope.errors import (
    DataError,
    MemoryBudgetError,
    ModelError,
    NotCoveredError,
    PriorscopeWarning,
    RatesError,
)
from tests.kernels.infinite.finite_networks import controlled, entries, network, sampled
from tests.unchecked import messages

STANDARD_ERRORS, POWER = 4.0, 6.0
INIT = ps.Initialization(1.5, 0.1, "ntk")


def points(n: int = 2, inputs: int = 3) -> torch.Tensor:
    return torch.randn(n, inputs, generator=torch.Generator().manual_seed(1))


def found(*widths, activation="tanh", init=INIT, bias=True, x=None):
    model = init.apply_(network(*widths, activation=activation, bias=bias), seed=0)
    return ps.finite_width(model, init)(points(2, widths[0]) if x is None else x)


# One hidden layer: everything is exact at every width.


def plane(k11, k12, k22):
    """Nodes of two Gaussians, and weights."""
    z, w = np.polynomial.hermite_e.hermegauss(90)
    z, w = torch.from_numpy(z), torch.from_numpy(w / w.sum())
    a = k11**0.5 * z[:, None] + 0 * z
    b = k12 / k11**0.5 * z[:, None] + (k22 - k12**2 / k11) ** 0.5 * z
    return a, b, w[:, None] * w


@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_one_hidden_layer_is_exact(outputs, parameterization):
    width, init = 7, ps.Initialization(1.5, 0.1, parameterization)
    x, result = points(), found(3, width, outputs, init=init)
    k = 1.5 / 3 * x @ x.T + 0.1
    a, b, weights = plane(float(k[0, 0]), float(k[0, 1]), float(k[1, 1]))
    value = a.tanh() * b.tanh()
    slope = (1 - a.tanh() ** 2) * (1 - b.tanh() ** 2)
    rates = (0.5, 0.1, 1.5 / width) if parameterization == "ntk" else (1.0, 1.0, 1.0)
    below = rates[0] * float(x[0] @ x[1]) + rates[1]

    def mean(f):
        return float((weights * f).sum())

    unit = rates[2] * width * value + 1.5 * below * slope
    own = 2 * 1.5**2 * below**2 * mean(slope**2) / outputs
    spread = (mean(unit**2) - mean(unit) ** 2 + own) / width
    assert float(result.nngp_variance[0, 1]) == pytest.approx(1.5**2 * (mean(value**2) - mean(value) ** 2) / width)
    assert float(result.ntk_variance[0, 1]) == pytest.approx(spread, rel=1e-7)
    assert result.nngp_correction.abs().max() == 0
    assert result.ntk_correction.abs().max() == 0


def test_one_hidden_relu_layer_is_exact():
    """φ = φφ' and φ' = φ'φ', so that all follows from E[(uw)^m] on a quadrant (Cho and Saul 2009)."""
    width, x = 9, points()
    result = found(3, width, 2, activation="relu")
    k = 1.5 / 3 * x @ x.T + 0.1
    scale = float((k[0, 0] * k[1, 1]).sqrt())
    angle = math.acos(float(k[0, 1]) / scale)
    sine, cosine, rest = math.sin(angle), math.cos(angle), math.pi - angle
    zero = rest / (2 * math.pi)
    first = scale * (sine + rest * cosine) / (2 * math.pi)
    second = scale**2 * (3 * sine * cosine + rest * (1 + 2 * cosine**2)) / (2 * math.pi)
    below = float(k[0, 1])  # in "ntk" the first layer's Θ is its G
    unit = second + 2 * below * first + below**2 * zero - (first + below * zero) ** 2
    assert float(result.nngp_variance[0, 1]) == pytest.approx(1.5**2 / width * (second - first**2), rel=1e-12)
    spread = 1.5**2 / width * (unit + 2 * below**2 * zero / 2)
    assert float(result.ntk_variance[0, 1]) == pytest.approx(spread, rel=1e-12)


def test_kurtosis_of_drawn_outputs():
    """E[f⁴]/E[f²]² − 3 = 3 Var[Ĝ]/K², exactly, with one hidden layer."""
    width, networks, x = 5, 400_000, points(1)
    generator = torch.Generator().manual_seed(0)
    h = (torch.randn(networks, width, generator=generator) * (0.5 * x.square().sum() + 0.1).sqrt()).tanh()
    f = (h * torch.randn(networks, width, generator=generator)).sum(1) * (1.5 / width) ** 0.5
    f = f + torch.randn(networks, generator=generator) * 0.1**0.5
    expected = float(found(3, width, 1, x=x).kurtosis[0])
    drawn = float(f.pow(4).mean() / f.square().mean() ** 2 - 3)
    error = float(f.pow(4).std() / networks**0.5 / f.square().mean() ** 2)
    assert abs(drawn - expected) <= STANDARD_ERRORS * error
    assert expected > POWER * error


# Linear networks: products of Gaussian matrices.


def test_deep_linear_networks():
    """E[f⁴] = 3 K² Π (1 + 2/n): to first order Σ 2/n; means have no correction."""
    result = found(3, 400, 300, 500, 1, activation="linear", bias=False)
    exact = math.prod(1 + 2 / n for n in (400, 300, 500)) - 1
    first_order = sum(2 / n for n in (400, 300, 500))
    assert torch.allclose(result.kurtosis / 3, torch.full((2,), first_order), rtol=1e-9)
    assert first_order < exact < first_order + first_order**2 / 2
    assert result.nngp_correction.abs().max() <= 1e-12
    assert result.ntk_correction.abs().max() <= 1e-12


def test_two_linear_layers_in_a_row_are_a_linear_network():
    init = ps.Initialization(1.5, 0.1, "ntk")
    bare = init.apply_(nn.Sequential(nn.Linear(3, 20), nn.Linear(20, 30), nn.Linear(30, 1)), seed=0)
    direct, through = ps.finite_width(bare, init)(points()), found(3, 20, 30, 1, activation="linear")
    assert torch.allclose(direct.ntk_variance, through.ntk_variance, rtol=1e-9)
    assert torch.allclose(direct.nngp_variance, through.nngp_variance, rtol=1e-9)


# ReLU: E[φφ] and E[φ'φ'] of a point with itself are straight lines.


@pytest.mark.parametrize("bias", [True, False])
def test_relu_has_no_correction_where_a_point_meets_itself(bias):
    result = found(3, 40, 30, 50, 1, activation="relu", init=ps.Initialization(2.0, 0.1, "ntk"), bias=bias)
    for correction, kernel in ((result.nngp_correction, result.nngp), (result.ntk_correction, result.ntk)):
        assert correction.diagonal().abs().max() <= 1e-12 * kernel.max()
        assert correction[0, 1].abs() > 1e-4 * kernel.max()


def test_relu_without_biases_at_one_point():
    """‖h'‖²/‖h‖² of a layer is 2/n Σ relu(z)²: its relative variance is 5/n in every layer."""
    result = found(3, 400, 300, 200, 1, activation="relu", init=ps.Initialization(2.0, 0.0, "ntk"), bias=False)
    expected = torch.full((2,), sum(5 / n for n in (400, 300, 200)))
    assert torch.allclose(result.nngp_variance.diagonal() / result.nngp.diagonal().square(), expected, rtol=1e-10)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_nearly_equal_points_are_nearly_one(activation):
    x = torch.tensor([[1.0, 0.5, -0.3]])
    turned = x + torch.tensor([[0.0, 0.03, 0.0]])
    result = found(3, 60, 50, 1, activation=activation, x=torch.cat([x, turned]))
    for part in (result.nngp_variance, result.ntk_variance):
        assert abs(float(part[0, 1] / part[0, 0]) - 1) < 0.03


# Against networks that were drawn.


def residuals(widths, activation, init, networks, *, outputs=1, bias=True, over_last=False):
    """{quantity: (what two widths extrapolate the residual to, its standard errors, the prediction)} at entries.

    Relative to the limit, which in "standard" grows with the widths; all times the widths' scale.
    """
    parts: dict[str, list] = {}
    for scale in (1, 2):
        sizes = (3, *(scale * width for width in widths), outputs)
        model = init.apply_(network(*sizes, activation=activation, bias=bias), seed=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PriorscopeWarning)  # narrow on purpose
            predicted = ps.finite_width(model, init)(points())
        drawn = sampled(model, init, points(), activation, networks, seed=scale * 10**6, over_last=over_last)
        for name in ("nngp", "ntk"):
            limit, correction, variance = (
                entries(getattr(predicted, name + which)) for which in ("", "_correction", "_variance")
            )
            size, values = limit.abs().max(), getattr(drawn, name)
            means = drawn.ntk_over_last if over_last and name == "ntk" else values
            shift = (controlled(means, drawn.controls) - limit) / size
            squares = ((values - values.mean(0)) / size).square()
            both = (name, shift, correction / size), (f"{name} variance", squares, variance / size**2)
            for what, found, expected in both:
                rest = found.mean(0) - expected, found.std(0), expected
                parts.setdefault(what, []).append([scale * part for part in rest])
    answer = {}
    for name, (one, two) in parts.items():
        error = (4 * two[1].square() + one[1].square()).sqrt() / networks**0.5
        answer[name] = 2 * two[0] - one[0], error, two[2]
    return answer


def check(name, residual, error, zero_is_refuted=True):
    left, standard_error, predicted = residual
    z = left / standard_error
    assert z.abs().max() <= STANDARD_ERRORS, f"{name}: {z.tolist()}"
    if zero_is_refuted:
        power = predicted / standard_error
        assert power.abs().max() > POWER, f"{name}: {power.tolist()}"
    assert error is None or (standard_error / predicted.abs()).min() < error


def test_means_and_variances_of_drawn_networks():
    """Two hidden layers of unequal widths; controls of known mean take most of the chance away."""
    answer = residuals((12, 16), "erf", INIT, 20_000, over_last=True)
    check("nngp", answer["nngp"], 0.05)
    check("ntk", answer["ntk"], 0.1)
    check("nngp variance", answer["nngp variance"], 0.05)
    check("ntk variance", answer["ntk variance"], 0.05)


def test_relu_at_two_points_against_drawn_networks():
    answer = residuals((16, 16), "relu", ps.Initialization(2.0, 0.1, "ntk"), 16_000, over_last=True)
    for name in ("nngp", "ntk"):
        left, error, predicted = (part[1:2] for part in answer[name])
        check(name, (left, error, predicted), 0.15)
    check("nngp variance", answer["nngp variance"], 0.1)
    check("ntk variance", answer["ntk variance"], 0.1)


def test_standard_rates_and_several_outputs_against_drawn_networks():
    """The first layer and the biases vanish beside the others as widths grow, which the widths in the rates tell."""
    answer = residuals((14, 20), "tanh", ps.Initialization(1.5, 0.1), 20_000, outputs=2)
    check("ntk", answer["ntk"], None, zero_is_refuted=False)
    check("ntk variance", answer["ntk variance"], 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["erf", "relu"])
@pytest.mark.parametrize("bias", [True, False])
def test_three_hidden_layers_against_drawn_networks(activation, bias):
    init = ps.Initialization(2.0 if activation == "relu" else 1.5, 0.1, "ntk")
    answer = residuals((24, 16, 20), activation, init, 100_000, bias=bias, over_last=True)
    for name in ("nngp", "ntk"):
        # ReLU: rounding alone stands where a point meets itself
        keep = slice(1, 2) if activation == "relu" else slice(None)
        check(name, tuple(part[keep] for part in answer[name]), 0.15)
    check("nngp variance", answer["nngp variance"], 0.05)
    check("ntk variance", answer["ntk variance"], 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_three_hidden_layers_without_controls(activation):
    answer = residuals((24, 20, 28), activation, ps.Initialization(1.5, 0.1), 100_000, outputs=3)
    for name in answer:
        check(name, answer[name], None, zero_is_refuted="variance" in name)


# What it takes, and what it gives.


def test_limits_are_those_of_infinite_width():
    x, init = points(4), ps.Initialization(1.5, 0.1)
    model = init.apply_(network(3, 40, 30, 2, activation="gelu"), seed=0)
    result, limit = ps.finite_width(model, init)(x), ps.infinite_width(model, init)
    assert torch.allclose(result.nngp, limit.nngp(x), rtol=1e-12)
    assert torch.allclose(result.ntk, limit.ntk(x), rtol=1e-12)
    assert torch.allclose(result.covariance, result.nngp + result.nngp_correction)
    assert torch.equal(result.variance, result.covariance.diagonal())
    assert torch.equal(result.mean, torch.zeros(4))
    assert result.widths == (40, 30)
    assert result.outputs == 2


def test_corrections_fall_like_one_over_width():
    small, large = found(3, 200, 400, 1), found(3, 2000, 4000, 1)
    for name in ("nngp_correction", "ntk_correction", "nngp_variance", "ntk_variance"):
        assert torch.allclose(getattr(small, name), 10 * getattr(large, name), rtol=1e-9)


def test_one_linear_layer_has_no_corrections():
    init = ps.Initialization(1.0, 0.1, "ntk")
    result = ps.finite_width(init.apply_(nn.Linear(3, 1), seed=0), init)(points())
    assert result.widths == ()
    for name in ("nngp_correction", "ntk_correction", "nngp_variance", "ntk_variance"):
        assert getattr(result, name).abs().max() == 0


class Written(nn.Module):
    """The same network as a forward of one's own, on pictures."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 30), nn.Linear(30, 20), nn.Linear(20, 1)

    def forward(self, x):
        h = torch.tanh(self.a(2 * x.flatten(1)))
        return F.linear(1 * F.linear(h, self.b.weight, self.b.bias).tanh(), self.c.weight, bias=self.c.bias)


def test_a_forward_of_ones_own_and_what_happens_to_the_data():
    x = points(3, 4)
    written = ps.finite_width(INIT.apply_(Written(), seed=0), INIT)(x.reshape(3, 2, 2))
    plain = found(4, 30, 20, 1, x=2 * x)
    assert torch.allclose(written.ntk_correction, plain.ntk_correction, rtol=1e-9)
    assert torch.allclose(written.ntk_variance, plain.ntk_variance, rtol=1e-9)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_equal_points_are_one_point(activation):
    x = points(3)
    result = found(3, 40, 30, 1, activation=activation, x=torch.cat([x, x[:1]]))
    for name in ("nngp_correction", "ntk_correction", "nngp_variance", "ntk_variance"):
        part = getattr(result, name)
        assert torch.allclose(part[3], part[0])
        assert torch.allclose(part[:, 3], part[:, 0])
        assert torch.equal(part, part.T)


def test_results_are_like_x_and_can_be_saved(tmp_path):
    model = INIT.apply_(network(3, 40, 30, 1, activation="tanh"), seed=0)
    double = ps.finite_width(model, INIT)(points())
    single = ps.finite_width(model.float(), INIT)(points().float())
    assert single.ntk_correction.dtype == torch.float32
    assert torch.allclose(single.ntk_correction.double(), double.ntk_correction, rtol=1e-5)
    loaded = ps.kernels.infinite.FiniteWidthKernels.load(double.save(tmp_path / "kernels.npz"))
    assert torch.equal(loaded.ntk_variance, double.ntk_variance)
    assert loaded.widths == (40, 30)
    assert "nngp_correction" in double._repr_html_()


def test_smooth_functions_take_points_without_variance():
    x, init = torch.cat([points(), torch.zeros(1, 3)]), ps.Initialization(1.5, 0.0, "ntk")
    result = found(3, 40, 30, 1, init=init, bias=False, x=1e-3 * x)
    for name in ("nngp_correction", "ntk_correction", "nngp_variance", "ntk_variance"):
        assert getattr(result, name)[2].abs().max() == 0
        assert getattr(result, name)[0, 0].abs() > 0
    assert result.kurtosis[:2].isfinite().all()


@pytest.mark.parametrize("module", [nn.Softplus, nn.SiLU, nn.Mish, nn.Sigmoid, nn.LogSigmoid, nn.Tanhshrink])
def test_other_smooth_functions_follow_their_limit(module):
    """A call raises where its own limit misses that of infinite_width."""
    model = INIT.apply_(
        nn.Sequential(nn.Linear(3, 20), module(), nn.Linear(20, 30), module(), nn.Linear(30, 1)), seed=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PriorscopeWarning)
        assert ps.finite_width(model, INIT)(points(3)).ntk_variance.min() > 0


# Exact by hand, where three layers are: the parts that hang on units' own values go on from layer to layer.


class Square(nn.Module):
    def forward(self, z):
        return z * z


@pytest.mark.parametrize("outputs", [1, 3])
def test_moments_of_products_of_gaussian_matrices_by_hand(outputs):
    init, x = ps.Initialization(1.0, 0.0, "ntk"), torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float64)

    def at(*layers):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PriorscopeWarning)  # these widths are small: a formula in 1/n all the same
            return ps.finite_width(init.apply_(nn.Sequential(*layers), 0), init)(x)

    def linear(*widths):
        return [nn.Linear(a, b, bias=False) for a, b in pairwise(widths)]

    a, b, c = linear(3, 500, 700, outputs)
    squares = at(a, Square(), b, Square(), c)
    assert float(squares.ntk) == pytest.approx(111, rel=1e-9)
    by_hand = (96 * 3 + 96 * 4 + 16 * 42) / 500
    assert float(squares.ntk_correction) == pytest.approx(by_hand, rel=1e-6)
    one = at(*linear(3, 50, 80, 33), Square(), *linear(33, outputs))
    assert float(one.ntk) == pytest.approx(15, rel=1e-9)
    assert float(one.ntk_correction) == pytest.approx(30 / 50 + 30 / 80, rel=1e-6)
    straight = at(*linear(3, 500, 800, outputs))
    variance = 8 / 500 + 2 / (500 * outputs) + 2 / 800 + 8 / (800 * outputs)
    assert float(straight.ntk_variance / straight.nngp.square()) == pytest.approx(variance, rel=1e-9)


def test_a_single_point_has_its_corrections_however_deep():
    for init in (ps.Initialization.torch_default(), ps.Initialization(1.0, 1.0, "ntk")):
        model = init.apply_(network(3, *[400] * 25, 1, activation="relu"), seed=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PriorscopeWarning)
            result = ps.finite_width(model, init)(points(1))
        assert float(result.ntk_correction.abs() / result.ntk) < 1e-12  # a law: none where a point meets itself
        assert float(result.ntk_variance) > 0


def test_relu_corrections_are_smooth_as_far_as_points_may_meet():
    init = ps.Initialization(2.0, 0.0, "ntk")
    corrections = ps.finite_width(init.apply_(network(3, 100, 100, 100, 1, activation="relu", bias=False), 0), init)
    x = points().double()
    x = x / x.norm(dim=1, keepdim=True)
    across = x[1] - (x[0] @ x[1]) * x[0]
    across = across / across.norm()
    slopes = []
    for step in (0.1, 0.03, 0.012):
        pair = torch.stack([x[0], 2 * (x[0] + step * across)])
        slopes.append(float(corrections(pair).ntk_correction[0, 1]) / step)
    assert max(slopes) / min(slopes) < 1.08


# What is refused.


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 20), nn.Linear(20, 20), nn.Linear(20, 1)

    def forward(self, x):
        h = self.a(x)
        return self.c(torch.tanh(h + self.b(torch.tanh(h))))


def sequential(*parts):
    return nn.Sequential(nn.Linear(3, 20), *parts, nn.Linear(20, 1))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Residual(), "add"),
        (sequential(nn.Tanh(), nn.LayerNorm(20, elementwise_affine=False)), "LayerNorm"),
        (sequential(nn.ELU()), "ELU.*at 0"),
        (sequential(nn.ReLU6()), "ReLU6"),
        (nn.Sequential(nn.Linear(3, 20), nn.Tanh()), "Tanh"),
    ],
)
def test_what_is_no_chain_of_such_functions_is_refused(model, words):
    INIT.apply_(model, seed=0)
    with pytest.raises(NotCoveredError, match=words):
        ps.finite_width(model, INIT)(points())


def test_layers_at_several_positions_are_refused():
    model = nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Linear(3, 20), nn.Tanh(), nn.Flatten(), nn.Linear(40, 1))
    with pytest.raises(NotCoveredError, match="Flatten"):
        ps.finite_width(INIT.apply_(model, seed=0), INIT)(points(2, 6))


def test_relu_refuses_points_where_it_is_not_computed():
    model = INIT.apply_(network(3, 20, 20, 1, activation="relu", bias=False), seed=0)
    x = points()
    with pytest.raises(NotCoveredError, match="points 0 and 2"):
        ps.finite_width(model, INIT)(torch.cat([x, -2 * x[:1]]))
    with pytest.raises(NotCoveredError, match="kink at 0"):
        ps.finite_width(model, INIT)(torch.cat([x, 0 * x[:1]]))


WRONG_INIT = """
import priorscope as ps
from torch import nn
try:
    ps.finite_width(nn.Linear(2, 1), {"weight_variance": 1.0})
except ps.PriorscopeError as error:
    print(type(error).__name__, error)
"""


def test_bad_arguments_raise():
    with pytest.raises(ModelError):
        ps.finite_width("a model")
    (said,) = messages(WRONG_INIT)
    assert said == "RatesError init: is a dict. Give an Initialization."
    model = INIT.apply_(network(3, 20, 1, activation="tanh"), seed=0)
    with pytest.raises(RatesError):
        ps.finite_width(model, INIT, rates={"0.weight": 1.0})
    with pytest.raises(MemoryBudgetError):
        ps.finite_width(model, INIT, memory=0)
    with pytest.raises(MemoryBudgetError, match="more than memory=1000"):
        ps.finite_width(model, INIT, memory=1000)(points())
    with pytest.raises(DataError):
        ps.finite_width(model, INIT)(torch.tensor([[1.0, float("nan"), 0.0]]))
    with pytest.raises(DataError):
        ps.finite_width(model, INIT)(torch.zeros(0, 3))
    with pytest.raises(DataError, match="ndarray"):
        ps.finite_width(model, INIT)(points().numpy())
    with pytest.raises(DataError, match="float16"):
        ps.finite_width(model, INIT)(points().half())


def test_uniform_weights_and_strong_variation_warn():
    torch.manual_seed(0)
    model = network(20, 60, 60, 1, activation="tanh")
    with pytest.warns(PriorscopeWarning, match="those of Gaussian weights"):
        ps.finite_width(model)(points(2, 20))
    with pytest.warns(PriorscopeWarning, match="5 standard errors"):
        ps.finite_width(INIT.apply_(network(3, 60, 60, 1, activation="tanh"), seed=0), ps.Initialization(4.0, 0.1))
    with pytest.warns(PriorscopeWarning, match="vary by"):
        found(3, 6, 6, 6, 1, activation="relu")
    with pytest.warns(PriorscopeWarning, match="own NTKs vary by"):  # saturated units: the NNGP hardly moves
        found(3, 32, 32, 32, 32, 32, 1, init=ps.Initialization(16.0, 0.05, "ntk"))
