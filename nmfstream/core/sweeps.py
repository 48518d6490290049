"""Coordinate sweeps on rows of W: compiled for large work, numpy for small (where compiling would not pay)."""

from __future__ import annotations

from nmfstream.core.sweeps_numpy import clipped_least_squares, descend

__all__ = ["clipped_least_squares", "descend"]
