"""What a β-divergence needs of the cells x and v = (WH)ᵢⱼ, for β other than 2, and the tiles that hold them.

Floors are scikit-learn's: v at float32's epsilon wherever β < 2 takes a negative power of it (β < 1 in both
terms), cells of X at or below that epsilon do not enter the divergence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from nmfstream.types import Array

EPSILON = float(np.finfo(np.float32).eps)
TILE_BYTES = 512 << 10
TILE_COLUMNS = 4096


class Cells(NamedTuple):
    """Terms of some cells.

    Attributes
    ----------
    numerator : ndarray
        x · v^(β-2).
    denominator : ndarray or None
        v^(β-1); None for β = 1, where it is one.
    """

    numerator: Array
    denominator: Array | None


def tiles(shape: tuple[int, ...], itemsize: int) -> Iterator[tuple[slice, slice]]:
    """Row and column slices of tiles of about `TILE_BYTES`, row by row."""
    n_rows, n_columns = shape
    width = min(n_columns, TILE_COLUMNS)
    height = max(1, TILE_BYTES // max(1, width * itemsize))
    for a in range(0, n_rows, height):
        for b in range(0, n_columns, width):
            yield slice(a, min(a + height, n_rows)), slice(b, min(b + width, n_columns))


_POWERS: dict[float, Callable[[Array], Array]] = {
    -2.0: lambda v: 1.0 / (v * v),
    -1.5: lambda v: 1.0 / (v * np.sqrt(v)),
    -1.0: lambda v: 1.0 / v,
    -0.5: lambda v: 1.0 / np.sqrt(v),
    0.5: np.sqrt,
    1.0: lambda v: v,
    2.0: lambda v: v * v,
}


def power(v: Array, exponent: float) -> Array:
    """v^exponent, without ``pow`` where roots and products do."""
    special = _POWERS.get(exponent)
    return special(v) if special else v**exponent


def dot_rows(a: Array, b: Array) -> float:
    """⟨a, b⟩ of two matrices: rows in their own type, their sum in float64."""
    return float(np.vecdot(a, b).sum(dtype=np.float64))


class KullbackLeiblerCells:
    """β = 1: x log(x/v) - x + v; the sum of v is left to ΣW·ΣH."""

    def terms(self, x: Array, v: Array) -> Cells:
        """Numerators; `v` is overwritten."""
        np.maximum(v, EPSILON, out=v)
        return Cells(np.divide(x, v, out=v), None)

    def denominators(self, v: Array) -> Array:
        """Never asked for: they are one."""
        return np.ones_like(v)

    def cost(self, x: Array, v: Array, cells: Cells) -> float:
        """Sum of x log(x/v) - x over x above the floor."""
        counted = x if _all_counted(x) else np.where(x > EPSILON, x, 0).astype(x.dtype)
        logs = np.log(np.maximum(cells.numerator, np.finfo(x.dtype).tiny))
        return dot_rows(counted, logs) - float(counted.sum(dtype=np.float64))

    def cost_of_all(self, v: Array) -> float:
        """What a cell costs whatever its x: left to ΣW·ΣH here."""
        return 0.0


class BetaCells:
    """Any β but 1 and 2, the limit at 0 (Itakura-Saito) included.

    Parameters
    ----------
    beta : float
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def terms(self, x: Array, v: Array) -> Cells:
        """Both terms from one power of v."""
        floored = np.maximum(v, EPSILON) if self.beta < 2 else v
        p = power(floored, self.beta - 2.0)
        if self.beta < 1:
            return Cells(x * p, p * floored)
        denominator = p * v
        if self.beta < 2 and (low := v < EPSILON).any():
            denominator[low] = v[low] ** (self.beta - 1.0)
        return Cells(x * p, denominator)

    def denominators(self, v: Array) -> Array:
        """v^(β-1) alone, for the cells where x is zero."""
        return power(np.maximum(v, EPSILON) if self.beta < 1 else v, self.beta - 1.0)

    def cost(self, x: Array, v: Array, cells: Cells) -> float:
        """The part of the divergence that cells with x above the floor have."""
        keep = x > EPSILON
        x, floored = x[keep], np.maximum(v[keep], EPSILON)
        xv = float((cells.numerator[keep] * floored).sum(dtype=np.float64))
        if self.beta == 0:
            return xv - float(np.log(x / floored).sum(dtype=np.float64))
        if self.beta > 2:
            xv = float((x * floored ** (self.beta - 1.0)).sum(dtype=np.float64))
        own = float(power(x, self.beta).sum(dtype=np.float64))
        return (own - self.beta * xv) / (self.beta * (self.beta - 1.0))

    def cost_of_all(self, v: Array) -> float:
        """The part that every cell has, whatever its x."""
        if self.beta == 0:
            return -float(v.size)
        return float(power(v, self.beta).sum(dtype=np.float64)) / self.beta


def _all_counted(x: Array) -> bool:
    """Whether no cell lies between zero and the floor."""
    return not ((x > 0) & (x <= EPSILON)).any()
