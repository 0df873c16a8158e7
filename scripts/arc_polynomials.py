"""Makes src/priorscope/kernels/infinite/fast/coefficients.py: `python scripts/arc_polynomials.py`.

With y = sin²(θ/2), 0 ≤ y ≤ 1/2: θ = 2√y·A(y) and sin θ − θ cos θ = 2y√y·E(y), where A and E are analytic up to y = 1.
Both are interpolated at Chebyshev nodes in 60-digit arithmetic; the tests measure what rounding leaves.
"""

from pathlib import Path

import mpmath

TERMS = {"float32": 9, "float64": 23}
TARGET = Path(__file__).parents[1] / "src/priorscope/kernels/infinite/fast/coefficients.py"
HEAD = '''"""Polynomials of the arc and of the sine excess in y = sin²(θ/2) ≤ 1/2; made by scripts/arc_polynomials.py.

ARC: θ/(2√y). EXCESS: (sin θ − θ cos θ)/(2y√y). Constant term first; relative errors below 1e-8 and 1e-15.
"""
'''


def arc(y):
    """asin(√y)/√y."""
    return mpmath.asin(mpmath.sqrt(y)) / mpmath.sqrt(y)


def excess(y):
    """(√(1 − y) − (1 − 2y) A(y))/y."""
    return (mpmath.sqrt(1 - y) - (1 - 2 * y) * arc(y)) / y


def interpolated(function, terms):
    """Monomial coefficients of the interpolant at the Chebyshev nodes of [0, 1/2]."""
    nodes = [(1 + mpmath.cos(mpmath.pi * (2 * i + 1) / (2 * terms))) / 4 for i in range(terms)]
    powers = mpmath.matrix(terms, terms)
    for i, node in enumerate(nodes):
        for j in range(terms):
            powers[i, j] = node**j
    return list(mpmath.lu_solve(powers, mpmath.matrix([function(node) for node in nodes])))


def main():
    text = HEAD
    with mpmath.workdps(60):
        for name, function in (("ARC", arc), ("EXCESS", excess)):
            text += f"\n{name} = {{\n"
            for dtype, terms in TERMS.items():
                text += f'    "{dtype}": (\n'
                text += "".join(f"        {float(c)!r},\n" for c in interpolated(function, terms))
                text += "    ),\n"
            text += "}\n"
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
