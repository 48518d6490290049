"""What is done with rows before and after their sweeps, one row after the other (see `least_squares`)."""

from __future__ import annotations

import numpy as np

from nmfstream.core.kernels.compiling import inner, kernel, scratch
from nmfstream.types import Array

EXPONENT = 0x7FF0000000000000
"""The bits of a number in float64 that are left of the power of two below it."""


@inner
def _residual(c, G, w, g, scale, reference):  # type: ignore[no-untyped-def]
    """max |min(w/scale, g·scale)| / reference, and g = wG − c."""
    k = w.shape[0]
    for a in range(k):
        g[a] = -c[a]
    for b in range(k):
        for a in range(k):
            g[a] += w[b] * G[b, a]
    worst = 0.0
    for a in range(k):
        worst = max(worst, abs(min(w[a] / scale[a], g[a] * scale[a])))
    if reference > 0:
        return worst / reference
    return np.inf if worst > 0 else 0.0


@kernel
def begin(C: Array, scale: Array, inverse: Array, W: Array, unit: Array, reference: Array) -> None:
    """See `least_squares.begin`; all but `C`, `scale` and `inverse` is written."""
    n, k = C.shape
    number = scratch(1)
    bits = number.view(np.int64)
    for i in range(n):
        largest = 0.0
        for a in range(k):
            largest = max(largest, abs(C[i, a]))
        number[0] = largest
        bits[0] &= EXPONENT
        t = number[0] if 0 < number[0] < np.inf else 1.0
        top = 0.0
        for a in range(k):
            C[i, a] /= t
            top = max(top, abs(C[i, a] * scale[a]))
            W[i, a] = 0
        for b in range(k):
            for a in range(k):
                W[i, a] += C[i, b] * inverse[b, a]
        for a in range(k):
            W[i, a] = max(W[i, a], 0.0)
        unit[i], reference[i] = t, top


@kernel
def judge(
    C: Array, G: Array, W: Array, scale: Array, reference: Array, enough: float, residual: Array, unsure: Array
) -> None:
    """See `least_squares.judge`."""
    n, k = C.shape
    g = scratch(k)
    for i in range(n):
        w = W[i]
        residual[i] = _residual(C[i], G, w, g, scale, reference[i])
        off, largest = 0.0, 0.0
        for a in range(k):
            off += min(w[a], g[a]) * min(w[a], g[a])
            largest = max(largest, w[a])
        unsure[i] = np.sqrt(off) > enough * largest


@kernel
def rounded(
    C: Array, G: Array, W: Array, scale: Array, reference: Array, unit: Array, out: Array, residual: Array
) -> None:
    """See `least_squares.rounded`."""
    n, k = C.shape
    g, w = scratch(k), scratch(k)
    for i in range(n):
        for a in range(k):
            size = unit[i] / scale[a]
            out[i, a] = W[i, a] * size
            w[a] = np.float64(out[i, a]) / size
        residual[i] = _residual(C[i], G, w, g, scale, reference[i])
