"""How kernels are compiled: without the interpreter lock, on one thread, kept on disk where there is a place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

FAST = {"reassoc", "contract", "nsz", "arcp"}
"""What keeps NaN and infinity right; sums keep one fixed order on one CPU."""


def kernel(function: Callable[..., Any]) -> Any:
    """Compile at the first call; where nowhere is writable (no cache folder), compile anew in each process."""
    options: dict[str, Any] = {"nogil": True, "fastmath": FAST, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)


def inner(function: Callable[..., Any]) -> Any:
    """A piece of a kernel of the same file, inlined into it."""
    return numba.njit(inline="always", fastmath=FAST, error_model="numpy")(function)
