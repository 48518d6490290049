"""What `convergence.py` fits, and the one routine that judges every method's H."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from convergence_texts import texts

from nmfstream.core.parameters import Objective
from nmfstream.core.rowsolve import row_solver
from nmfstream.types import CSR

JUDGE_ROWS = 2048
JUDGE_TOL = 1e-6


@dataclass(frozen=True)
class Set:
    """Data, and how they are factorized.

    Attributes
    ----------
    load : callable
        Takes the folder of the real data; gives an array or a scipy CSR matrix in float32.
    k : int
    beta : float
        2 or 1.
    batch : int
        Rows a batch of scikit-learn's ``MiniBatchNMF``, and ours unless told otherwise.
    """

    load: Callable[[Path], Any]
    k: int
    beta: float
    batch: int

    @property
    def loss(self) -> str:
        """Its name in scikit-learn."""
        return "frobenius" if self.beta == 2 else "kullback-leibler"


def mnist(folder: Path, by_label: bool = False) -> Any:
    """Digits, 10 000 × 784."""
    file = np.load(folder / "images/mnist_t10k.npz")
    rows = np.argsort(file["labels"], kind="stable") if by_label else slice(None)
    return file["X"][rows].astype(np.float32)


def orl(folder: Path) -> Any:
    """Faces, 400 × 10 304."""
    return np.load(folder / "images/orl_faces.npz")["X"].astype(np.float32)


def bbc(folder: Path) -> Any:
    """Word counts of news, sparse."""
    return sp.load_npz(folder / "text/bbc_counts.npz").tocsr().astype(np.float32)


def tfidf(X: Any) -> Any:
    """Rows of unit length, terms weighted by log((1 + n)/(1 + document frequency)) + 1."""
    X = sp.csr_matrix(X, dtype=np.float64)
    frequency = np.diff(X.tocsc().indptr)
    X = X @ sp.diags(np.log((1 + X.shape[0]) / (1 + frequency)) + 1)
    length = np.sqrt(np.asarray(X.multiply(X).sum(axis=1)).ravel())
    return sp.csr_matrix(sp.diags(1 / np.where(length > 0, length, 1)) @ X).astype(np.float32)


def pbmc(folder: Path, log: bool = False) -> Any:
    """Counts of genes in blood cells, sparse; or log1p of them at 10 000 a cell."""
    X = sp.load_npz(folder / "cells/pbmc3k_counts.npz").tocsr().astype(np.float64)
    if log:
        sums = np.asarray(X.sum(axis=1)).ravel()
        X = sp.csr_matrix(sp.diags(1e4 / np.maximum(sums, 1)) @ X)
        X.data = np.log1p(X.data)
    return X.astype(np.float32)


def samson(folder: Path) -> Any:
    """A hyperspectral image, pixels × bands."""
    file = np.load(folder / "spectra/samson.npz")
    return (file["X"] / file["scale"]).astype(np.float32)


def drum(folder: Path) -> Any:
    """A spectrogram, frames × frequencies."""
    return np.load(folder / "spectra/drum_loop_spectrogram.npz")["X"].astype(np.float32)


def low_rank(n: int, m: int, k: int, *, poisson: bool) -> Any:
    """Gamma(0.5) factors, with clipped normal noise or as Poisson counts."""
    rng = np.random.default_rng(0)
    H = rng.gamma(0.5, size=(k, m)).astype(np.float32)
    X = np.empty((n, m), np.float32)
    for a in range(0, n, 10_000):
        V = rng.gamma(0.5, size=(min(10_000, n - a), k)).astype(np.float32) @ H
        noise = V + 0.225 * k * rng.standard_normal(V.shape, np.float32)
        X[a : a + len(V)] = rng.poisson(V) if poisson else np.maximum(noise, 0)
    return X


def synthetic(n: int, m: int, k: int, *, poisson: bool = False) -> Callable[[Path], Any]:
    """A set that needs no file."""
    return lambda folder: low_rank(n, m, k, poisson=poisson)


SETS: dict[str, Set] = {
    "mnist": Set(mnist, 40, 2, 1024),
    "mnist-sorted": Set(lambda folder: mnist(folder, by_label=True), 40, 2, 1024),
    "orl": Set(orl, 25, 2, 64),
    "bbc-tfidf": Set(lambda folder: tfidf(bbc(folder)), 10, 2, 256),
    "pbmc-log": Set(lambda folder: pbmc(folder, log=True), 10, 2, 256),
    "samson": Set(samson, 3, 2, 1024),
    "bbc": Set(bbc, 10, 1, 256),
    "pbmc": Set(pbmc, 10, 1, 256),
    "drum": Set(drum, 4, 1, 64),
    "dense-20k": Set(synthetic(20_000, 300, 20), 20, 2, 1024),
    "poisson-20k": Set(synthetic(20_000, 300, 10, poisson=True), 10, 1, 1024),
    "texts": Set(lambda folder: texts(), 20, 1, 4096),
    "texts-tfidf": Set(lambda folder: tfidf(texts()), 30, 2, 4096),
    "dense-200k": Set(synthetic(200_000, 300, 20), 20, 2, 4096),
    "poisson-200k": Set(synthetic(200_000, 300, 10, poisson=True), 10, 1, 4096),
    "dense-1m": Set(synthetic(1_000_000, 200, 20), 20, 2, 4096),
}


def as_matrix(X: Any) -> Any:
    """X as the engine takes it."""
    if not sp.issparse(X):
        return np.ascontiguousarray(X)
    X = X.tocsr()
    X.sum_duplicates()
    return CSR(X.indptr.astype(np.int64), X.indices.astype(np.int32), X.data, X.shape[1])


def judge(X: Any, H: Any, beta: float) -> float:
    """Loss of H alone, each row of W at its optimum in float64: ‖X − WH‖/‖X‖, or D(X‖WH)/ΣX.

    Parameters
    ----------
    X : ndarray or scipy CSR matrix, shape (n_samples, n_features)
    H : ndarray of shape (n_components, n_features)
    beta : float
        2 or 1.
    """
    H = np.asarray(H, np.float64)
    solver = row_solver(H, Objective(len(H), float(beta)), np.dtype(np.float64), tol=JUDGE_TOL)

    def part(start: int) -> tuple[float, float]:
        x = X[start : start + JUDGE_ROWS].astype(np.float64)
        return PARTS[beta](x, solver(as_matrix(x)).W, H)

    with ThreadPoolExecutor() as pool:
        loss, size = np.sum(list(pool.map(part, range(0, X.shape[0], JUDGE_ROWS))), axis=0)
    return float(loss / size) if beta == 1 else float(np.sqrt(max(loss, 0.0) / size))


def _squares(x: Any, W: Any, H: Any) -> tuple[float, float]:
    if not sp.issparse(x):
        return float(((x - W @ H) ** 2).sum()), float((x**2).sum())
    square = float((x.data**2).sum())
    return square - 2 * float(((x @ H.T) * W).sum()) + float(((W.T @ W) * (H @ H.T)).sum()), square


def _divergence(x: Any, W: Any, H: Any) -> tuple[float, float]:
    x = sp.csr_matrix(x)
    x.eliminate_zeros()
    rows = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
    V = np.zeros(len(x.data))
    for w, h in zip(W.T, H, strict=True):
        V += w[rows] * h[x.indices]
    logs = np.log(x.data / np.maximum(V, 1e-300))
    total = float(x.data.sum())
    return float(x.data @ logs) - total + float(W.sum(axis=0) @ H.sum(axis=1)), total


PARTS = {2: _squares, 1: _divergence}
