"""The symmetries of known kernels: circles, intervals, images under convolutions, pixels under full connections."""

import math

import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.beliefs import Commutator, commutator
from priorscope.errors import DataError
from priorscope.kernels import RBF, ArcCosine, FunctionKernel, Linear, PrecomputedKernel
from tests.beliefs.kernels import Features


def circle(n):
    angle = torch.arange(n) * (2 * math.pi / n)
    return torch.stack([angle.cos(), angle.sin()], 1)


def turn(x, steps, n):
    angle = torch.tensor(2 * math.pi * steps / n)
    return x @ torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]).T


def test_a_rotation_commutes_on_the_circle_and_its_fourier_modes_are_the_kernels():
    n = 12
    found = commutator(RBF(0.8), circle(n), lambda x: turn(x, 1, n))
    assert found.how == "permutation of the points"
    assert found.norm < 1e-13
    assert found.chance > 0.3
    assert torch.allclose(found.kept, torch.ones(n))
    assert torch.allclose(found.size, torch.ones(n))
    # Constant, five pairs ±θ_k in ascending frequency, and the alternating mode.
    frequency = found.phase * n / (2 * math.pi)
    expected = [0.0, *(s * k for k in range(1, 6) for s in (-1, 1)), 6.0]
    assert torch.allclose(torch.cat([frequency[:-1], frequency[-1:].abs()]), torch.tensor(expected))
    assert found.eigenspace.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    # R u = e^{iθ} u and K u = λ u: each is a Fourier mode up to its phase.
    waves = torch.exp(1j * frequency[None] * torch.arange(n)[:, None] * 2 * math.pi / n) / n**0.5
    overlap = (waves.conj() * found.modes).sum(0).abs()
    assert torch.allclose(overlap, torch.ones(n))
    gram = RBF(0.8)(circle(n)).to(torch.complex128)
    assert torch.allclose(gram @ found.modes, found.modes * found.values)


@pytest.mark.parametrize("form", ["function", "permutation", "matrix"])
def test_three_ways_to_say_a_rotation_agree(form):
    n = 10
    x, order = circle(n), (torch.arange(10) + 3) % 10
    R = {"function": lambda x: turn(x, 3, n), "permutation": order, "matrix": torch.eye(n)[order]}[form]
    # Not a symmetry: the radius tells the points apart.
    kernel = FunctionKernel(lambda a, b: torch.exp(-torch.cdist(a, b)) * (1.5 + a[:, :1]) * (1.5 + b[:, 0]))
    found = commutator(kernel, x, R)
    K, P = kernel(x), torch.eye(n)[order]
    assert found.norm == pytest.approx(float((P @ K - K @ P).norm() / K.norm()))
    assert found.norm == pytest.approx(float((K[order][:, order] - K).norm() / K.norm()))
    assert found.norm > 0.3
    assert bool((found.kept < 1 - 1e-3).any())
    for i in range(n):
        v = torch.linalg.eigh(K).eigenvectors.flip(1)[:, i]
        assert float(found.kept[i]) == pytest.approx(float((v @ P @ v) ** 2), abs=1e-9)


def test_chance_is_the_mean_over_random_permutations_and_rotations():
    K = RBF(0.5)(torch.randn(7, 2)) + 0.3
    kernel, x = PrecomputedKernel(K), torch.arange(7)
    draws = torch.stack([K[p][:, p] for p in (torch.randperm(7) for _ in range(4000))])
    measured = float((draws - K).square().sum((1, 2)).mean().sqrt() / K.norm())
    assert commutator(kernel, x, x.flip(0)).chance == pytest.approx(measured, rel=0.02)
    turns = torch.linalg.qr(torch.randn(4000, 7, 7)).Q
    measured = float((turns @ K @ turns.mT - K).square().sum((1, 2)).mean().sqrt() / K.norm())
    assert commutator(kernel, x, torch.eye(7)).chance == pytest.approx(measured, rel=0.02)
    assert math.isnan(commutator(kernel, x, 2 * torch.eye(7)).chance)
    assert commutator(kernel, x, 2 * torch.eye(7)).norm == 0


def test_on_an_interval_the_reflection_commutes_and_a_shift_does_not():
    x = torch.linspace(-1, 1, 15)[:, None]
    reflected = commutator(RBF(0.4), x, lambda x: -x)
    assert reflected.norm < 1e-13
    # Modes are even or odd, one by one.
    assert torch.allclose(reflected.kept, torch.ones_like(reflected.kept), atol=1e-6)
    sign = reflected.phase.cos()[:6]
    assert torch.allclose(sign, torch.tensor([1.0, -1.0] * 3), atol=1e-6)
    cyclic = commutator(RBF(0.4), x, (torch.arange(15) + 1) % 15)
    assert cyclic.norm > 0.1
    assert float(cyclic.kept[1]) < 0.9
    # RBF does not know where it is: shifted points, off the data, have the same kernel, but other modes.
    off = commutator(RBF(0.4), x, lambda x: x + 0.05)
    assert off.how == "points off the data"
    assert off.norm < 1e-13
    assert float(off.kept[1]) < 1 - 1e-3
    # A network does: ArcCosine is not stationary.
    assert commutator(ArcCosine(1), torch.cat([x, torch.ones_like(x)], 1), lambda x: x + 0.05).norm > 0.01


def test_off_the_data_modes_are_continued():
    n = 16
    half = commutator(RBF(0.8), circle(n), lambda x: turn(x, 0.5, n))
    assert half.how == "points off the data"
    assert half.norm < 1e-13
    # Fourier modes below the Nyquist frequency, continued, are still those.
    assert torch.allclose(half.kept[:7], torch.ones(7), atol=1e-4)
    assert torch.allclose(half.phase[1:3], torch.tensor([-1.0, 1.0]) * math.pi / n, atol=1e-4)


def convolution(padding_mode, head):
    padding = {"padding": 1, "padding_mode": padding_mode}
    layers = [nn.Conv2d(1, 8, 3, **padding), nn.ReLU(), nn.Conv2d(8, 8, 3, **padding), nn.ReLU()]
    tail = (
        [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1)]
        if head == "pool"
        else [nn.Flatten(), nn.Linear(288, 1)]
    )
    return limit(nn.Sequential(*layers, *tail))


def limit(model):
    init = ps.Initialization(weight_variance=2.0, bias_variance=0.1, parameterization="ntk")
    init.apply_(model, seed=0)
    return ps.infinite_width(model, init).ntk


@pytest.mark.parametrize("head", ["pool", "flatten"])
def test_shifts_of_images_commute_with_circular_convolutions_alone(head):
    x = ps.data.named("digits").x[:10, :, 1:7, 1:7] / 16
    shifted = {mode: commutator(convolution(mode, head), x, lambda x: x.roll(1, -1)) for mode in ("circular", "zeros")}
    assert shifted["circular"].norm < 1e-12
    assert shifted["zeros"].norm > 1e-3
    # Through pooling, a shifted digit is the digit: every mode stays as it is.
    if head == "pool":
        assert torch.allclose(shifted["circular"].kept, torch.ones(10), atol=1e-9)
        assert torch.allclose(shifted["circular"].phase, torch.zeros(10), atol=1e-6)
        assert float(shifted["zeros"].kept[1]) < 0.9


def test_a_mirror_is_a_symmetry_of_infinite_convolutions_of_either_padding():
    x = ps.data.named("digits").x[:10, :, 1:7, 1:7] / 16
    for mode in ("circular", "zeros"):
        assert commutator(convolution(mode, "flatten"), x, lambda x: x.flip(-1)).norm < 1e-12


def test_a_fully_connected_network_does_not_see_the_order_of_pixels_and_a_convolution_does():
    x = ps.data.named("digits").x[:12, :, 1:7, 1:7] / 16
    order = torch.randperm(36)

    def shuffle(x):
        return x.flatten(1)[:, order].reshape(x.shape)

    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 1))
    assert commutator(limit(model), x, shuffle).norm < 1e-13
    assert commutator(convolution("circular", "flatten"), x, shuffle).norm > 1e-3


def test_points_may_repeat_and_kernels_may_be_singular():
    x = torch.cat([circle(6), circle(6)])
    found = commutator(Linear(), x, lambda x: turn(x, 1, 6))
    assert found.norm < 1e-13
    assert found.values.shape == (2,)
    assert torch.allclose(found.kept, torch.ones(2))
    assert torch.allclose(found.phase, torch.tensor([-1.0, 1.0]) * math.pi / 3)


def test_a_matrix_that_is_no_rotation():
    n = 9
    K, R = RBF()(torch.randn(n, 2)), torch.randn(n, n)
    found = commutator(PrecomputedKernel(K), torch.arange(n), R)
    assert found.norm == pytest.approx(float((R @ K - K @ R).norm() / K.norm()))
    # A function of K commutes, and R acts on each mode by its own factor.
    squared = commutator(PrecomputedKernel(K), torch.arange(n), K @ K)
    assert squared.norm < 1e-12
    assert torch.allclose(squared.size[:4], squared.values[:4] ** 2)


def test_trees_and_coupled_outputs():
    kernel = FunctionKernel(lambda a, b: RBF()(a["u"], b["u"]) + 2 * RBF()(a["v"], b["v"]))
    x = {"u": torch.randn(5, 2), "v": torch.randn(5, 2)}
    swapped = commutator(kernel, x, lambda x: {"u": x["v"], "v": x["u"]})
    assert swapped.norm > 0.05
    assert commutator(kernel, x, lambda x: {"u": -x["u"], "v": -x["v"]}).norm < 1e-13
    coupled = commutator(Features(3, 2, 40), torch.randn(6, 3), lambda x: -x)
    assert coupled.norm < 1e-13
    assert torch.allclose(coupled.phase.abs(), torch.full((6,), math.pi))


def test_what_does_not_fit_raises():
    x = torch.randn(4, 2)
    for R, message in [
        ("turn", "R: is a str"),
        (torch.tensor([0, 1, 1, 3]), "no permutation of 4"),
        (torch.tensor([0.0, 1, 2, 3]), "no permutation of 4"),
        (torch.eye(3), r"shape \(3, 3\)"),
        (torch.full((4, 4), math.nan), "NaN"),
        (lambda x: x[:2], "has 2 points, x 4"),
        (lambda x: x / 0, "NaN or infinite"),
    ]:
        with pytest.raises(DataError, match=message):
            commutator(RBF(), x, R)
    with pytest.raises(DataError, match="is 0 on all of x"):
        commutator(Linear(), torch.zeros(3, 2), torch.arange(3))


def test_it_is_saved_and_takes_a_kernel_on_data(tmp_path):
    x = circle(6)
    found = commutator(RBF().on(x), torch.arange(6).flip(0))
    again = Commutator.load(found.save(tmp_path / "c.npz"))
    assert torch.equal(again.modes, found.modes)
    assert found.to_dict()["how"] == "permutation of the points"


def test_coarse_digits_are_no_permutation():
    """A scaling, a turn by a part of a step and a small shift move points off the data, in any dtype."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        points = circle(8).to(dtype)
        assert commutator(RBF(1.0), points, lambda x: x * 1.3).how == "points off the data"
        assert commutator(RBF(1.0), points, lambda x: (x.double() @ rotation(0.3)).to(x)).how == "points off the data"
    grid = torch.linspace(-1, 1, 401, dtype=torch.float32)[:, None]
    assert commutator(RBF(0.3), grid, lambda x: x + 0.002).how == "points off the data"
    turned = commutator(RBF(1.0), circle(64).float(), lambda x: (x.double() @ rotation(math.pi / 32)).to(x))
    assert turned.how == "permutation of the points"


def rotation(angle):
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, s], [-s, c]], dtype=torch.float64)
