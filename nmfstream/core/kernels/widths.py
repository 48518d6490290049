"""Sizes that callers of compiled kernels share with them, known without the compiler."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

PANEL = 64
"""Rows or columns whose ratios stay in the first-level cache."""


@cache
def vector_bytes() -> int:
    """Two registers of the widest kind: eight sums of that size fit in the register file."""
    from llvmlite.binding import get_host_cpu_features  # type: ignore[import-untyped]

    return 128 if get_host_cpu_features().get("avx512f") else 64


@cache
def estimates_reciprocals() -> bool:
    """Whether 16 reciprocals are estimated at a time."""
    from llvmlite.binding import get_host_cpu_features

    return bool(get_host_cpu_features().get("avx512f"))


def lanes(dtype: np.dtype[Any]) -> int:
    """Numbers in a vector."""
    return vector_bytes() // dtype.itemsize


WIDE = 4
"""Components whose sums are in registers at once."""
TILE_ROWS = 48
"""Rows of X of which one strip of features stays in the first-level cache."""


@cache
def register_bytes() -> int:
    """One register of the widest kind."""
    return vector_bytes() // 2


@cache
def tall() -> int:
    """Rows, or vectors of features, whose sums with `WIDE` components fill the register file."""
    return 6 if register_bytes() == 64 else 3
