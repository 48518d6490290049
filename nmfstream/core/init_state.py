"""What initialisation keeps, and generators as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nmfstream.core.state import SolverState
from nmfstream.types import Array

Generator = dict[str, Any]


@dataclass
class InitState(SolverState):
    """What initialisation keeps between two steps; emptied of what the passes do not need.

    Attributes
    ----------
    total : float
        Sum of X so far.
    sketch : ndarray of float64, shape (n_features, s), optional
        Q of the randomized SVD.
    image : ndarray of float64, shape (s, n_features), optional
        YᵀX of the pass under way.
    gram : ndarray of float64, shape (s, s), optional
        YᵀY of the pass under way.
    values, right : ndarray, optional
        Singular values and right singular vectors (as rows).
    moments : ndarray of float64, shape (4, n_components), optional
        Of U's columns: Σ u₊², Σ u₋², max u₊, max u₋.
    T : ndarray of float64, shape (n_features, n_components), optional
        Rows of U (then of W) are x·T.
    average : float
        Mean of X.
    fill : dict, optional
        Generator before the fills of W; once H is filled, after the last of its fills (nndsvdar).
    """

    total: float = 0.0
    sketch: Array | None = None
    image: Array | None = None
    gram: Array | None = None
    values: Array | None = None
    right: Array | None = None
    moments: Array | None = None
    T: Array | None = None
    average: float = 0.0
    fill: Generator | None = None


def generator_state(generator: np.random.RandomState) -> Generator:
    """What `restored` needs."""
    return dict(generator.get_state(legacy=False))


def restored(state: Generator | None) -> np.random.RandomState:
    """A generator in that state."""
    assert state is not None
    generator = np.random.RandomState(0)
    generator.set_state(state)
    return generator
