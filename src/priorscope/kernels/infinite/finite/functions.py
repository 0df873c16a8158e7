"""Which means of products serve the function between two layers; the functions and points that have none."""

from ....errors import NotCoveredError
from ....linalg.products import HomogeneousProducts, Pairs, Products, SmoothProducts, jumps
from ..forms import Sides, recognised
from ..fusion import Fused
from ..moments import Refused
from .chain import Link

CLOSE = 1e-4
"""1 − ρ² below which two points are too nearly on one line for a function with a kink: second derivatives of its means
cancel like 1/(1 − ρ²)², and what is left of the correction is rounding."""
SERIES = 1e-5
"""What Hermite series may leave out, of the largest mean square."""


def products_of(link: Link, pairs: Pairs) -> Products:
    """Means of products of a link's function, at such pairs.

    Raises:
        NotCoveredError: at the function, by its place, where it or the pairs have no expansion.
    """
    if link.function is None:
        return SmoothProducts(lambda z: z * 1.0, pairs)
    try:
        form = recognised(link.function)
        if isinstance(form, Sides) and form.degree == 1:
            return _straight_sides(form, link, pairs)
        return _smooth(link.function, link, pairs)
    except Refused as refused:
        raise NotCoveredError(link.place, refused.cause, refused.remedy) from None


def _straight_sides(form: Sides, link: Link, pairs: Pairs) -> HomogeneousProducts:
    if not bool((pairs.variances > 0).all()):
        cause = "has a kink at 0, where a point's values all are: its corrections are not computed there"
        raise NotCoveredError(
            link.place, cause, "Give a bias variance above 0, leave the point out, or take a smooth function"
        )
    close = (1 - pairs.correlations.square() < CLOSE).nonzero()[:, 0]
    if len(close):
        i, j = int(pairs.rows[close[0]]), int(pairs.columns[close[0]])
        cause = f"has a kink, and points {i} and {j} are (nearly) on one line there: not computed"
        raise NotCoveredError(link.place, cause, "Leave one of them out, or take a smooth function")
    return HomogeneousProducts(form.left, form.right, pairs)


def _smooth(function: Fused, link: Link, pairs: Pairs) -> SmoothProducts:
    places = function.kinks(float(pairs.variances.max()))
    try:
        kinks = jumps(function, places)
        if not kinks:
            return _precise(SmoothProducts(function, pairs), link)
    except RuntimeError as error:
        cause = f"has too few derivatives ({error})"
        raise NotCoveredError(link.place, cause, "Use a smooth function written in torch") from error
    cause = f"has a kink or a jump of a derivative at {round(kinks[0], 6):g}: no expansion in 1/width is known"
    raise NotCoveredError(link.place, cause, "Take a smooth function, or ReLU, leaky ReLU or the absolute value")


def _precise(products: SmoothProducts, link: Link) -> SmoothProducts:
    if products.error > SERIES:
        cause = f"is too steep at the variance {float(products.pairs.variances.max()):.3g}: its series leave out "
        cause += f"{products.error:.1g}"
        raise NotCoveredError(link.place, cause, "Make inputs or weight variances smaller")
    return products
