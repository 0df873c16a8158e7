"""Slopes in log-log: of made data they are the exponent, and their standard error is that of the exponent's spread."""

import torch

from priorscope.experiments.slopes import log_slope, slope_of

WIDTHS = (32, 64, 128, 256)


def made(generator, exponent=-0.5, networks=40):
    """Numbers of networks whose root mean square falls as width^exponent."""
    return {
        width: width**exponent * torch.randn(networks, generator=generator, dtype=torch.float64) for width in WIDTHS
    }


def test_the_slope_of_a_power_is_its_exponent():
    values = torch.tensor([[width**-0.7, 3 * width**0.2] for width in WIDTHS], dtype=torch.float64).T
    torch.testing.assert_close(log_slope(WIDTHS, values), torch.tensor([-0.7, 0.2], dtype=torch.float64))


def test_the_standard_error_is_the_spread_of_slopes_over_repetitions():
    generator = torch.Generator().manual_seed(0)
    found = [slope_of(made(generator)) for _ in range(200)]
    slopes = torch.tensor([each.slope for each in found], dtype=torch.float64)
    errors = torch.tensor([each.error for each in found], dtype=torch.float64)
    assert abs(float(slopes.mean()) + 0.5) < 4 * float(slopes.std()) / 200**0.5
    assert 0.85 < float(errors.mean() / slopes.std()) < 1.15


def test_a_wrong_exponent_is_seen():
    found = slope_of(made(torch.Generator().manual_seed(1), exponent=-1.0))
    assert abs(found.slope + 1) < 3 * found.error < abs(found.slope + 0.5)
    assert str(found).count("±") == 1
