"""A pairwise set of cases for parity with scikit-learn, and the data they run on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

LEVELS: dict[str, list[Any]] = {
    "beta_loss": ["frobenius", "kullback-leibler", "itakura-saito", 0.5, 1.5, 3.0, -0.5],
    "penalty": ["none", "l1", "l2", "both", "W alone"],
    "init": ["random", "custom", "nndsvd", "nndsvda", "nndsvdar", None],
    "fresh_restarts": [False, True],
    "dtype": ["float64", "float32"],
    "layout": ["dense", "csr", "csc", "fortran"],
    "batch_size": [7, 64, 1024],
    "stop": ["never", "H", "cost", "both"],
    "data": ["random", "low-rank", "near-exact", "wide", "words", "spectrum", "signatures"],
}
PENALTIES = {
    "none": {},
    "l1": {"alpha_W": 1e-3, "l1_ratio": 1.0},
    "l2": {"alpha_W": 1e-3, "alpha_H": 2e-3},
    "both": {"alpha_W": 1e-3, "alpha_H": "same", "l1_ratio": 0.3},
    "W alone": {"alpha_W": 2e-3, "alpha_H": 0.0, "l1_ratio": 0.5},
}
STOPS = {
    "never": {"tol": 0.0, "max_no_improvement": None},
    "H": {"tol": 1e-2, "max_no_improvement": None},
    "cost": {"tol": 0.0, "max_no_improvement": 2},
    "both": {"tol": 1e-3, "max_no_improvement": 3},
}
N_COMPONENTS = 4


@dataclass(frozen=True)
class Case:
    """One setting of everything."""

    beta_loss: Any
    penalty: str
    init: str | None
    fresh_restarts: bool
    dtype: str
    layout: str
    batch_size: int
    stop: str
    data: str

    def __str__(self) -> str:
        return "-".join(str(getattr(self, field.name)).replace(" ", "_") for field in fields(self))

    @property
    def parameters(self) -> dict[str, Any]:
        """Arguments of either class."""
        own = {name: getattr(self, name) for name in ("beta_loss", "init", "fresh_restarts", "batch_size")}
        limits = {"max_iter": 4, "fresh_restarts_max_iter": 12, "transform_max_iter": 40, "random_state": 0}
        stop = STOPS[self.stop if self.dtype == "float64" else "never"]
        return {"n_components": N_COMPONENTS, **own, **limits, **PENALTIES[self.penalty], **stop}

    @property
    def tolerance(self) -> float:
        """Relative, of whole factors."""
        if self.dtype == "float32":
            return 1e-3
        return 1e-9 if self.init in ("random", "custom") else 1e-4


def pairwise(least: int) -> list[Case]:
    """Cases that hold every pair of levels of any two factors, and random ones up to `least`."""
    rng = np.random.RandomState(7)
    names = list(LEVELS)
    pool = np.array([rng.randint(len(LEVELS[name]), size=4000) for name in names]).T
    pairs = list(itertools.combinations(range(len(names)), 2))
    sizes = [len(LEVELS[name]) for name in names]
    missing = {(i, j, a, b) for i, j in pairs for a in range(sizes[i]) for b in range(sizes[j])}
    chosen: list[Any] = []
    while missing:
        gains = [len({(i, j, row[i], row[j]) for i, j in pairs} & missing) for row in pool[:400]]
        best = pool[int(np.argmax(gains))]
        chosen.append(best)
        missing -= {(i, j, best[i], best[j]) for i, j in pairs}
        pool = np.roll(pool, -401, axis=0)
    chosen += list(pool[: max(0, least - len(chosen))])
    return [Case(*(LEVELS[name][level] for name, level in zip(names, row, strict=True))) for row in chosen]


def _low_rank(n: int, m: int, noise: float) -> np.ndarray:
    rng = np.random.RandomState(1)
    X = rng.gamma(0.5, size=(n, 3)) @ rng.gamma(0.5, size=(3, m)) + 1e-3
    return X * (1 + noise * rng.rand(n, m))


DATA: dict[str, Callable[[Callable[[], Path]], np.ndarray]] = {
    "random": lambda folder: np.random.RandomState(0).rand(90, 30),
    "low-rank": lambda folder: _low_rank(120, 25, 0.3),
    "near-exact": lambda folder: _low_rank(100, 30, 2e-4),
    "wide": lambda folder: np.random.RandomState(2).rand(25, 70) ** 2,
    "words": lambda folder: _words(folder() / "text" / "bbc_counts.npz"),
    "spectrum": lambda folder: np.load(folder() / "spectra" / "drum_loop_spectrogram.npz")["X"][:150, :200:5] * 10.0,
    "signatures": lambda folder: np.load(folder() / "bio" / "signatures_sbs.npz")["X"] / 100.0,
}


def _words(path: Path) -> np.ndarray:
    X = sp.load_npz(path)[::25]
    return X[:, np.argsort(-np.asarray(X.sum(axis=0)).ravel(), kind="stable")[:60]].toarray().astype(float)


def matrix(case: Case, folder: Callable[[], Path]) -> Any:
    """X of a case; where a sparse one may have zeros, half of the cells are. `folder` is asked for real data only."""
    X = np.maximum(DATA[case.data](folder), 0.0)
    beta = {"itakura-saito": 0.0, "frobenius": 2.0, "kullback-leibler": 1.0}.get(case.beta_loss, case.beta_loss)
    sparse = case.layout in ("csr", "csc")
    if beta <= 0:
        X = X + 0.01
    elif sparse and case.data != "near-exact":
        X = X * (np.random.RandomState(3).rand(*X.shape) < 0.5)
    X = X.astype(case.dtype)
    make = {"dense": np.ascontiguousarray, "fortran": np.asfortranarray, "csr": sp.csr_matrix, "csc": sp.csc_array}
    return make[case.layout](X)


def custom_start(X: Any) -> dict[str, np.ndarray]:
    """W and H for ``init="custom"``."""
    rng = np.random.RandomState(9)
    scale = np.sqrt(X.mean() / N_COMPONENTS)
    W = scale * (0.1 + rng.rand(X.shape[0], N_COMPONENTS))
    H = scale * (0.1 + rng.rand(N_COMPONENTS, X.shape[1]))
    return {"W": W.astype(X.dtype), "H": H.astype(X.dtype)}
