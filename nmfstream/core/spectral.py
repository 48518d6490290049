"""NNDSVD of rows in memory (Boutsidis & Gallopoulos 2008), all that is tall kept in blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nmfstream.core.products import Wt_times, times_Ht
from nmfstream.core.protocols import Executor
from nmfstream.types import Array, Matrix

OVERSAMPLE = 10
POWER_ITERATIONS = 4


def nndsvd_H(
    blocks: Sequence[Matrix], n_components: int, seed: int, executor: Executor, *, variant: str, mean: float
) -> Array:
    """H of an NNDSVD start.

    Parameters
    ----------
    blocks : sequence of Matrix
        The rows.
    variant : str
        nndsvd (zeros stay), nndsvda (zeros become the mean) or nndsvdar (small random numbers).
    mean : float
        Mean of the rows' entries.

    Returns
    -------
    ndarray of shape (n_components, n_features), in the rows' dtype
    """
    values, V = right_vectors(blocks, n_components, seed, executor)
    plus, minus = _column_norms(blocks, values, V, executor)
    H = np.zeros((n_components, V.shape[1]))
    for j in range(len(values)):
        positive, negative = np.maximum(V[j], 0), np.maximum(-V[j], 0)
        p, q = np.linalg.norm(positive), np.linalg.norm(negative)
        up, side, size = (plus[j] * p, positive, p) if plus[j] * p >= minus[j] * q else (minus[j] * q, negative, q)
        if size > 0:
            H[j] = np.sqrt(values[j] * up) * side / size
    fill = np.sqrt(mean / n_components) if mean > 0 else 1.0
    rng = np.random.RandomState(seed)
    fills = {"nndsvd": 0.0, "nndsvda": fill, "nndsvdar": fill / 100 * np.abs(rng.standard_normal(H.shape))}
    H = np.where(1e-6 * H.max(initial=0.0) < H, H, 0)
    empty = ~H.any(axis=1)
    H[empty] = fill * rng.random_sample((int(empty.sum()), H.shape[1]))
    return np.where(H > 0, H, fills[variant]).astype(blocks[0].dtype)


def right_vectors(blocks: Sequence[Matrix], k: int, seed: int, executor: Executor) -> tuple[Array, Array]:
    """Largest singular values and right singular vectors (as rows), by subspace iteration on the feature side."""
    m, n = blocks[0].shape[1], sum(b.shape[0] for b in blocks)
    width = min(k + OVERSAMPLE, m, n)
    Q = np.random.RandomState(seed).standard_normal((m, width))
    for _ in range(POWER_ITERATIONS + 1):
        Q = np.linalg.qr(_gram_times(blocks, Q, executor))[0]
    Qt = np.ascontiguousarray(Q.T.astype(blocks[0].dtype))
    parts = executor.map(lambda X: _square(times_Ht(X, Qt)), blocks)
    small: Array = np.sum(parts, axis=0)
    power, T = np.linalg.eigh(small)
    top = slice(None, None, -1)
    keep = min(k, width)
    return np.sqrt(np.maximum(power[top][:keep], 0)), (Q @ T[:, top][:, :keep]).T


def _gram_times(blocks: Sequence[Matrix], Q: Array, executor: Executor) -> Array:
    Qt = np.ascontiguousarray(Q.T.astype(blocks[0].dtype))
    out = np.zeros(Q.T.shape)
    for low in range(0, len(blocks), 8):
        for part in executor.map(lambda X: Wt_times(times_Ht(X, Qt), X), blocks[low : low + 8]):
            out += part
    size = np.abs(out).max(initial=0.0)
    return out.T / size if size > 0 else Q


def _square(Y: Array) -> Array:
    Y = Y.astype(np.float64)
    return Y.T @ Y


def _column_norms(blocks: Sequence[Matrix], values: Array, V: Array, executor: Executor) -> tuple[Array, Array]:
    Vt = np.ascontiguousarray(V.astype(blocks[0].dtype))
    inverse = np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)

    def squares(X: Matrix) -> Array:
        U = times_Ht(X, Vt).astype(np.float64) * inverse
        return np.stack([(np.maximum(U, 0) ** 2).sum(axis=0), (np.maximum(-U, 0) ** 2).sum(axis=0)])

    plus, minus = np.sqrt(np.sum(executor.map(squares, blocks), axis=0))
    return plus, minus
