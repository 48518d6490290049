"""What is done with rows before and after their sweeps: their scale and start, how near they are, their rounding.

C is X·Hᵀ less the L1 weight, G = HHᵀ plus the L2 weight on its diagonal, for rows of H that were divided by `scale`.
All in float64 but what is rounded. A row's bits depend on that row, G and on which of the two codes runs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nmfstream.core.kernels.sweeps import clipped_solution
from nmfstream.machine_code import Kernel
from nmfstream.types import Array, cut

_begin = Kernel("nmfstream.core.kernels.least_squares_compiled", "begin")
_judge = Kernel("nmfstream.core.kernels.least_squares_compiled", "judge")
_rounded = Kernel("nmfstream.core.kernels.least_squares_compiled", "rounded")

TILE = 512
"""Rows that BLAS multiplies at a time, the last padded with zeros: it gives a row other bits in another shape."""


def power_of_two(values: Array) -> Array:
    """The power of two nearest below each positive number; 1 for others. Multiplying by it is exact."""
    good = (values > 0) & np.isfinite(values)
    return np.asarray(np.ldexp(1.0, np.frexp(np.where(good, values, 1.0))[1] - 1))


def begin(C: Array, scale: Array, inverse: Array, *, compiled: bool) -> tuple[Array, Array, Array]:
    """Divide each row of C, in place, by the power of two below its largest entry, and start from max(0, C·inverse).

    Parameters
    ----------
    C : ndarray of shape (n_rows, n_components)
    scale : ndarray of shape (n_components,)
    inverse : ndarray of shape (n_components, n_components)
    compiled : bool

    Returns
    -------
    W : ndarray of shape (n_rows, n_components)
    unit : ndarray of shape (n_rows,)
        What each row was divided by.
    reference : ndarray of shape (n_rows,)
        max |∂(0)| of each row in the units of the data, divided by `unit`.
    """
    if not compiled:
        unit = power_of_two(np.abs(C).max(axis=1))
        C /= unit[:, np.newaxis]
        return in_tiles(lambda tile: clipped_solution(tile, inverse), C, TILE), unit, np.abs(C * scale).max(axis=1)
    W, unit, reference = np.empty_like(C), np.empty(len(C)), np.empty(len(C))
    _begin(C, scale, inverse, W, unit, reference)
    return W, unit, reference


def judge(
    C: Array, G: Array, W: Array, scale: Array, reference: Array, enough: float, *, compiled: bool
) -> tuple[Array, Array]:
    """How near rows of W are to their optimum.

    Returns
    -------
    residual : ndarray of shape (n_rows,)
        max |min(w, ∂)| / max |∂(0)| in the units of the data (a row's own scale cancels).
    unsure : ndarray of bool, shape (n_rows,)
        Where ‖min(w, ∂)‖ is more than `enough` times the largest w.
    """
    if not compiled:
        gradient = W @ G - C
        off = np.minimum(W, gradient)
        unsure = np.sqrt(np.vecdot(off, off)) > enough * W.max(axis=1)
        return _residual(W, gradient, scale, reference), unsure
    residual, doubtful = np.empty(len(C)), np.empty(len(C), np.uint8)
    _judge(C, G, W, scale, reference, float(enough), residual, doubtful)
    return residual, doubtful.view(np.bool_)


def rounded(
    C: Array, G: Array, W: Array, scale: Array, reference: Array, unit: Array, *, compiled: bool
) -> tuple[Array, Array]:
    """Rows of W in the units of the data, in float32, and the residual that is left by the rounding."""
    out = np.empty(W.shape, np.float32)
    if compiled:
        residual = np.empty(len(C))
        _rounded(C, G, W, scale, reference, unit, out, residual)
        return out, residual
    size = unit[:, np.newaxis] / scale
    np.multiply(W, size, out=out, casting="same_kind")
    w = out / size
    return out, _residual(w, w @ G - C, scale, reference)


def _residual(W: Array, gradient: Array, scale: Array, reference: Array) -> Array:
    return relative(np.abs(np.minimum(W / scale, gradient * scale)).max(axis=1), reference)


def relative(worst: Array, reference: Array) -> Array:
    """worst / reference, 0 where both are 0."""
    safe = np.where(reference > 0, reference, 1.0)
    return np.where(reference > 0, worst / safe, np.where(worst > 0, np.inf, 0.0))


def in_tiles(product: Callable[[Array], Array], X: Array, height: int) -> Array:
    """A product of rows by tiles of `height` rows, the last padded with zeros."""
    parts = []
    for start in range(0, len(X), height):
        tile = np.ascontiguousarray(cut(X, start, start + height))
        short = height - len(tile)
        if short:
            tile = np.concatenate([tile, np.zeros((short, X.shape[1]), X.dtype)])
        parts.append(product(tile)[: height - short])
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
