"""The β-divergence of one cell as a function of v = (WH)_ij: value and two derivatives, in float64.

Rows are of a scale where their largest x is about 1, so one floor serves every scale of the data. The cell terms
leave out what depends on x alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nmfstream.core.cells import power
from nmfstream.types import Array

FLOOR = 1e-30


class Derivatives(NamedTuple):
    """Arrays of the cells' shape.

    Attributes
    ----------
    first : ndarray
        d′(v).
    second : ndarray
        d″(v).
    """

    first: Array
    second: Array


class KullbackLeibler:
    """β = 1 on cells whose v is summed apart: −x log v."""

    beta, linear, convex = 1.0, True, True

    def value(self, x: Array, v: Array) -> Array:
        """Sum over a row's cells."""
        return -np.asarray(np.vecdot(x, np.log(v)))

    def derivatives(self, x: Array, v: Array) -> Derivatives:
        """See `Derivatives`."""
        ratio = x / v
        return Derivatives(-ratio, ratio / v)

    def terms(self, x: Array, v: Array) -> tuple[Array, Array | None]:
        """Cells of the multiplicative update: numerator, denominator (None: one)."""
        return x / v, None


class ItakuraSaito:
    """β = 0: log v + x/v."""

    beta, linear, convex = 0.0, False, False

    def value(self, x: Array, v: Array) -> Array:
        """Sum over a row's cells."""
        return np.asarray((np.log(v) + x / v).sum(axis=1))

    def derivatives(self, x: Array, v: Array) -> Derivatives:
        """See `Derivatives`."""
        inverse = 1.0 / v
        ratio = x * inverse
        square = inverse * inverse
        return Derivatives(inverse - ratio * inverse, (2.0 * ratio - 1.0) * square)

    def terms(self, x: Array, v: Array) -> tuple[Array, Array | None]:
        """Cells of the multiplicative update."""
        inverse = 1.0 / v
        return x * inverse * inverse, inverse


class Beta:
    """Any other β: v^β/β − x v^(β−1)/(β−1)."""

    linear = False

    def __init__(self, beta: float) -> None:
        self.beta, self.convex = beta, 1 <= beta <= 2

    def value(self, x: Array, v: Array) -> Array:
        """Sum over a row's cells."""
        p = power(v, self.beta - 1.0)
        return np.asarray((p * (v / self.beta - x / (self.beta - 1.0))).sum(axis=1))

    def derivatives(self, x: Array, v: Array) -> Derivatives:
        """See `Derivatives`."""
        p = power(v, self.beta - 2.0)
        own, data = (self.beta - 1.0) * p, (2.0 - self.beta) * x * p / v
        return Derivatives(p * (v - x), own + data)

    def terms(self, x: Array, v: Array) -> tuple[Array, Array | None]:
        """Cells of the multiplicative update."""
        p = power(v, self.beta - 2.0)
        return x * p, v * p


Cell = KullbackLeibler | ItakuraSaito | Beta
_SPECIAL: dict[float, Callable[[], Cell]] = {1.0: KullbackLeibler, 0.0: ItakuraSaito}


def cell(beta: float) -> Cell:
    """The cell function of β."""
    return _SPECIAL.get(beta, lambda: Beta(beta))()
