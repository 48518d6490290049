"""Extrapolated steps of H that are taken back when the objective rises (Ang & Gillis 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmfstream.types import Array

SLACK = 1e-7


@dataclass
class Track:
    """H, the point Hy where W is solved, and how far to extrapolate.

    Attributes
    ----------
    H : ndarray of shape (n_components, n_features)
        The best so far; its objective is at most `e_old`.
    Hy : ndarray, same shape
    beta, cap : float
        Share of the last move that is added on top, and the most it may become.
    e_old : float
    """

    H: Array
    Hy: Array
    beta: float = 0.5
    cap: float = 1.0
    e_old: float = np.inf

    @classmethod
    def at(cls, H: Array, beta: float = 0.5) -> Track:
        """A track that begins at H."""
        return cls(H, H, beta)

    def advance(self, H: Array, e: float) -> bool:
        """Take the new H whose objective (for the W solved at Hy) is `e`, or go back to the last good one.

        Returns
        -------
        bool
            Whether it was taken.
        """
        if not e <= self.e_old * (1 + SLACK):
            self.Hy, self.cap = self.H, self.beta
            self.beta /= 1.5
            self.e_old *= 1 + 1e-6
            return False
        step = self.Hy.dtype.type(self.beta)
        self.Hy = np.maximum(0, H + step * (H - self.H))
        self.H, self.e_old = H, e
        self.beta = min(self.cap, 1.05 * self.beta)
        self.cap = min(1.0, 1.01 * self.cap)
        return True
