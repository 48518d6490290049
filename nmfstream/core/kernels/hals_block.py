"""A block of least squares by one compiled call, where X·Hᵀ and WᵀX are both better compiled than left to BLAS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from nmfstream.core.kernels import thin_products
from nmfstream.core.kernels.sweeps import padded, steps_of
from nmfstream.core.kernels.widths import TILE_ROWS, register_bytes
from nmfstream.machine_code import Kernel
from nmfstream.types import Array, Matrix

_solve_block = Kernel("nmfstream.core.kernels.hals_block_compiled", "solve_block")

COMPILED_WORK = 1 << 23
"""Rows times features times components of a block from which it pays: its code takes five seconds to make."""
CACHED_BYTES = 512 << 10
"""Rows of X that stay in the second-level cache."""


class SolvedBlock(NamedTuple):
    """What comes out of a block.

    Attributes
    ----------
    W : ndarray of shape (n_rows, n_components)
    WtX : ndarray of shape (n_components, n_features)
    w1 : float
        Sum of W.
    cross : float
        ⟨W, XHᵀ⟩.
    square : float
        ‖X‖².
    """

    W: Array
    WtX: Array
    w1: float
    cross: float
    square: float


def pays(shape: tuple[int, int], n_components: int) -> bool:
    """Whether a block of this shape, dense, is better solved by one call."""
    large = shape[0] * shape[1] * n_components >= COMPILED_WORK
    return large and all(thin_products.pays(name, shape, n_components) for name in thin_products.FEATURES)


def fits(parts: Sequence[Matrix], dtype: np.dtype[Any]) -> TypeGuard[Sequence[Array]]:
    """Whether parts of a block are the kernel's operands."""
    return all(isinstance(X, np.ndarray) and X.dtype == dtype and X.flags.c_contiguous for X in parts)


class BlockSolver:
    """Rows of W from their clipped start by coordinate sweeps (see `sweeps`), and their sums.

    Parameters
    ----------
    H : ndarray of shape (n_components, n_features)
    G : ndarray of shape (n_components, n_components)
        HHᵀ plus the L2 weight on its diagonal.
    inverse : ndarray of shape (n_components, n_components)
        `ridge_inverse` of G.
    l1 : float
    max_sweeps : int
    tol : float
    """

    def __init__(self, H: Array, G: Array, inverse: Array, l1: float, max_sweeps: int, tol: float) -> None:
        T, G = H.dtype.type, G.astype(H.dtype)
        self.H = np.ascontiguousarray(H)
        height = max(1, CACHED_BYTES // (H.shape[1] * H.itemsize * TILE_ROWS)) * TILE_ROWS
        wide = padded(G), steps_of(G), padded(inverse.astype(H.dtype))
        self._rest = (*wide, T(l1), max_sweeps, T(tol * tol), height, register_bytes() // H.itemsize)

    def solve(self, parts: Sequence[Array]) -> SolvedBlock:
        """Solve a block. Its bits do not depend on where one part ends and the next begins.

        Parameters
        ----------
        parts : sequence of ndarray of shape (some rows, n_features), C-contiguous, of H's dtype
        """
        n_rows = sum(map(len, parts))
        W, WtX, sums = np.empty((n_rows, len(self.H)), self.H.dtype), np.zeros_like(self.H), np.zeros(3)
        first = 0
        for part in parts:
            last = first + len(part)
            _solve_block(part, self.H, *self._rest, W[first:last], WtX, sums)
            first = last
        return SolvedBlock(W, WtX, *map(float, sums))
