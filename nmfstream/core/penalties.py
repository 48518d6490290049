"""What L1 and L2 terms add to the objective and to the denominators of multiplicative updates."""

from __future__ import annotations

import numpy as np

from nmfstream.core.cells import EPSILON
from nmfstream.types import Array


def penalized(denominator: Array, factor: Array, l1: float, l2: float) -> Array:
    """A denominator with the penalties of `factor`, zeros replaced by the floor; new or in place."""
    if l1 > 0:
        denominator = denominator + l1
    if l2 > 0:
        denominator = denominator + l2 * factor
    denominator[denominator == 0] = EPSILON
    return denominator


def value(factor: Array, l1: float, l2: float) -> float:
    """``l1 Σf + l2 Σf²``, as scikit-learn adds it to a batch's cost (no half before the square)."""
    cost = 0.0
    if l1 > 0:
        cost += l1 * float(factor.sum(dtype=np.float64))
    if l2 > 0:
        cost += l2 * float(np.vecdot(factor, factor).sum(dtype=np.float64))
    return cost
