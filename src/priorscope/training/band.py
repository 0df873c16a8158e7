"""The ensemble's 99 % band: the share of what trained networks do outside it, and from when that is wrong."""

import torch
from jaxtyping import Float
from scipy.stats import norm
from torch import Tensor

from ..beliefs.law import Law

BAND = float(norm.ppf(0.995))
"""Half-width, in standard deviations, of the ensemble's 99 % band."""
WRONG = 0.1
"""A prediction is called wrong where more than this share of the test outputs lies outside the 99 % band."""


def half_widths(law: Law) -> Float[Tensor, "m *o"]:
    """Of the band, at each output, float64."""
    return BAND * law.variance.clamp_min(0).sqrt().to(torch.float64)


def outside(law: Law, outputs: Float[Tensor, "*s m o"]) -> Float[Tensor, "*s"]:
    """The share of each network's outputs that lies outside the band; what is not finite lies outside, too."""
    shape = outputs.shape[-2:]
    mean, half = law.mean.to(torch.float64).reshape(shape), half_widths(law).reshape(shape)
    inside = (outputs.to(torch.float64) - mean).abs() <= half
    return 1 - inside.to(torch.float64).mean((-2, -1))
