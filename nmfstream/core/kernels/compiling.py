"""How kernels are compiled: for calls as machine code alone (see `nmfstream.machine_code`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

from nmfstream.machine_code import NATIVE

_njit: Any = numba.njit
FAST = {"reassoc", "contract", "nsz", "arcp"}
"""What keeps NaN and infinity right; sums keep one fixed order on one CPU."""


def kernel(function: Callable[..., Any]) -> Any:
    """What `nmfstream.machine_code.Kernel` calls."""
    return _njit(fastmath=FAST, error_model="numpy", **NATIVE)(function)


def inner(function: Callable[..., Any]) -> Any:
    """A piece of a kernel of the same file, inlined into it."""
    return _njit(inline="always", fastmath=FAST, error_model="numpy")(function)
