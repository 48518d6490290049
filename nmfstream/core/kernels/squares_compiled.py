"""‖X‖² in one visit; see `nmfstream.core.products.sum_of_squares`."""

from __future__ import annotations

import numpy as np

from nmfstream.core.kernels.compiling import kernel


@kernel
def squares(values):  # type: ignore[no-untyped-def]
    """Sum of squares in float64, four partial sums of eight lanes or so at a time."""
    total = 0.0
    for i in range(values.shape[0]):
        x = np.float64(values[i])
        total += x * x
    return total
