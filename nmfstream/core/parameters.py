"""What a factorization is asked for, grouped by who needs it; frozen, plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nmfstream.types import Array

BETA_NAMES: dict[str, float] = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}


class Penalties(NamedTuple):
    """Weights of the L1 and L2 terms, as scikit-learn scales them (``n_features`` for W, rows for H)."""

    l1_W: float
    l1_H: float
    l2_W: float
    l2_H: float


@dataclass(frozen=True)
class Objective:
    """The function that is minimised.

    Attributes
    ----------
    n_components : int
    beta : float
        β of the divergence: 2 Frobenius, 1 Kullback-Leibler, 0 Itakura-Saito.
    alpha_W, alpha_H : float
        Strength of the penalties on W and on H.
    l1_ratio : float
        Share of the L1 norm in them.
    """

    n_components: int
    beta: float = 2.0
    alpha_W: float = 0.0
    alpha_H: float = 0.0
    l1_ratio: float = 0.0

    def penalties(self, n_features: int, n_rows: float) -> Penalties:
        """The weights for a batch (or sample, or all) of `n_rows` rows: scikit-learn's ``_compute_regularization``."""
        return Penalties(
            n_features * self.alpha_W * self.l1_ratio,
            n_rows * self.alpha_H * self.l1_ratio,
            n_features * self.alpha_W * (1.0 - self.l1_ratio),
            n_rows * self.alpha_H * (1.0 - self.l1_ratio),
        )


@dataclass(frozen=True)
class Schedule:
    """How many steps, of how many rows, and when to stop.

    Attributes
    ----------
    batch_size : int
        Rows between two updates of H where they come within a pass.
    max_iter : int
        Most passes over the data.
    tol, max_no_improvement : float, int or None
        Stopping rule of the solver.
    forget_factor : float or None
        None: the solver's own memory.
    fresh_restarts, fresh_restarts_max_iter, transform_max_iter
        As scikit-learn's ``MiniBatchNMF`` (mu only).
    holdout : float
        Share of the rows that are scored each pass and never learnt from (few-pass solvers).
    """

    batch_size: int = 1024
    max_iter: int = 200
    tol: float = 1e-4
    max_no_improvement: int | None = 10
    forget_factor: float | None = 0.7
    fresh_restarts: bool = False
    fresh_restarts_max_iter: int = 30
    transform_max_iter: int | None = None
    holdout: float = 0.0


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes
    ----------
    init : str or None
        random, nndsvd, nndsvda, nndsvdar, custom; None picks as scikit-learn does (mu) or the sample
        tournament's own choice (few-pass solvers).
    random_state : int, numpy.random.RandomState or None
    H : ndarray of shape (n_components, n_features), optional
        For ``init="custom"``.
    sample_rows : int or None
        Most rows of the sample fit; None: the default rule; 0: none.
    n_init : int or None
        Starts that compete on the sample; None: the solver's default.
    """

    init: str | None = None
    random_state: Any = None
    H: Array | None = None
    sample_rows: int | None = None
    n_init: int | None = None

    def generator(self) -> np.random.RandomState:
        """A `RandomState` for the seed (numpy's global one for None, as scikit-learn does)."""
        if isinstance(self.random_state, np.random.RandomState):
            return self.random_state
        if self.random_state is None:
            return np.random.mtrand._rand
        return np.random.RandomState(self.random_state)


@dataclass(frozen=True)
class Parameters:
    """All that a solver is told."""

    objective: Objective
    schedule: Schedule
    start: Start
