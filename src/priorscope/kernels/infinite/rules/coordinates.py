"""What layers with random weights share: which axis they sum over, and what that does to moments."""

from typing import Any

from ..moments import Moments, Refused
from ..start import Data


def coordinates(value: Any, axis: int) -> Moments:
    """The moments over this axis of a point's value, of the data or of what layers made of them."""
    if isinstance(value, Data):
        return value.moments(axis % len(value.shape))
    if not isinstance(value, Moments):
        raise Refused("is not applied to a value that depends on the input", "Use EmpiricalNTK")
    if value.channel != axis % len(value.shape):
        raise Refused(
            f"sums over the axis {axis % len(value.shape)} of points of shape {value.shape}, where the axis "
            f"{value.channel} has the coordinates that random weights made",
            "Sum over the coordinates, or use EmpiricalNTK",
        )
    return value


def dense(m: Moments, name: str, inputs: int, variances: Any, rates: Any) -> Moments:
    """K ↦ σ_w² K + σ_b²; Θ ↦ σ_w² Θ + c_w·fan_in·K + c_b: new random weights of all coordinates."""
    (w, b), (cw, cb) = variances, rates
    tangent = w * m.tangent + cw * inputs * m.nngp + cb
    made = {"layers": frozenset([name]), "reads": frozenset(), "alike": True}
    return m.affine(w, b).replace(tangent=tangent, **made, gaussian=True, mean_zero=True, gains=0.0)


def in_groups(value: Any, m: Moments) -> None:
    """Refuses layers that read groups of coordinates which differ."""
    if isinstance(value, Data) or m.is_input:
        raise Refused("reads the input in groups of channels, whose moments differ", "Use groups=1 for the first layer")
    if not m.alike:
        raise Refused(
            "reads groups of coordinates that differ, since unlike ones were put side by side",
            "Put a layer with groups=1 in between, or use EmpiricalNTK",
        )


def alone(m: Moments, after: Moments) -> Moments:
    """Moments behind a layer each of whose outputs reads one coordinate: its outputs are Gaussian times what they read,
    no sum of many."""
    return after.replace(gaussian=False, reads=m.depends_on)
