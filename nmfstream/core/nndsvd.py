"""Small dense algebra of the NNDSVD family: from Gram matrices and images to H and to the T of W = max(0, X·T).

All arrays are float64 and live on the feature side; columns of U are known by their moments alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nmfstream.types import Array

THRESHOLD = 1e-6
"""Entries below become zero (then are filled), as in scikit-learn."""
NOISE = 1e-14
"""Relative norm of a column of XQ up to which it is rounding."""


def basis(image: Array) -> Array:
    """Orthonormal columns that span those of imageᵀ, in their order.

    Parameters
    ----------
    image : ndarray of shape (s, n_features)

    Returns
    -------
    ndarray of shape (n_features, min(s, n_features))
    """
    return np.linalg.qr(image.T)[0]


def graded_factor(gram: Array) -> tuple[Array, Array]:
    """F with gram = F·Fᵀ and its pseudo-inverse, exact for columns of very different norm.

    Returns
    -------
    F : ndarray of shape (s, r)
    inverse : ndarray of shape (r, s)
        Left inverse of F.
    """
    norms = np.sqrt(np.maximum(np.diag(gram), 0.0))
    # A column that small is the rounding of the others: scaled up, it would differ each time that X·T is computed.
    kept = norms > NOISE * norms.max(initial=0.0)
    scale = np.where(kept, norms, 1.0)
    values, vectors = np.linalg.eigh(np.where(np.outer(kept, kept), gram, 0.0) / np.outer(scale, scale))
    vectors = vectors * kept[:, np.newaxis]
    large = values > max(1e-14 * len(values), 0.0) * max(float(values[-1]), 0.0)
    roots, vectors = np.sqrt(values[large]), vectors[:, large]
    return scale[:, np.newaxis] * vectors * roots, (vectors / scale[:, np.newaxis] / roots).T


def from_image(sketch: Array, image: Array, gram: Array, n_components: int) -> tuple[Array, Array, Array]:
    """Singular triplets of a tall X from Y = XQ, YᵀX and YᵀY: those of the projection on Y's span.

    Returns
    -------
    T : ndarray of shape (n_features, n_components)
        U = X·T.
    values : ndarray of shape (n_components,)
    right : ndarray of shape (n_components, n_features)
    """
    _, inverse = graded_factor(gram)
    left, values, right = np.linalg.svd(inverse @ image, full_matrices=False)
    return _padded(sketch @ (inverse.T @ left), values, right, n_components)


def from_sketch(sketch: Array, image: Array, gram: Array, n_components: int) -> tuple[Array, Array, Array]:
    """Singular triplets of a wide X from an orthonormal basis Q of its rows' span and (XQ)ᵀXQ (as `from_image`)."""
    factor, _ = graded_factor(gram)
    left, values, _ = np.linalg.svd(factor, full_matrices=False)
    vectors = sketch @ left
    with np.errstate(divide="ignore"):
        T = np.where(values > 0, vectors / values, 0.0)
    return _padded(T, values, vectors.T, n_components)


def _padded(T: Array, values: Array, right: Array, n_components: int) -> tuple[Array, Array, Array]:
    """The first triplets, zeros where there are fewer."""
    missing = max(0, n_components - len(values))
    T = np.pad(T, ((0, 0), (0, missing)))[:, :n_components]
    right = np.pad(right, ((0, missing), (0, 0)))[:n_components]
    return np.ascontiguousarray(T), np.pad(values, (0, missing))[:n_components], right


def moments(U: Array) -> Array:
    """Σ u₊², Σ u₋², max u₊ and max u₋ of each column, shape (4, n_components)."""
    positive, negative = np.maximum(U, 0), np.maximum(-U, 0)
    squares = [np.einsum("ij,ij->j", part, part) for part in (positive, negative)]
    return np.stack([*squares, positive.max(axis=0), negative.max(axis=0)])


def merged(parts: Sequence[Array]) -> Array:
    """Moments of all rows from those of blocks, added in order."""
    stacked = np.stack(parts)
    return np.concatenate([stacked[:, :2].sum(axis=0), stacked[:, 2:].max(axis=0)])


def oriented(T: Array, values: Array, right: Array, moment: Array) -> tuple[Array, Array]:
    """T of W and H before thresholds and fills: the larger part of each pair of singular vectors.

    The first column of the returned T serves through its absolute value: `rows` knows.
    """
    flip = np.where(moment[3] > moment[2], -1.0, 1.0)
    right = right * flip[:, np.newaxis]
    T = T * flip
    squares = np.where(flip < 0, moment[1::-1], moment[:2])
    H = np.zeros_like(right)
    T[:, 0] *= np.sqrt(values[0])
    H[0] = np.sqrt(values[0]) * np.abs(right[0])
    for j in range(1, len(values)):
        T[:, j], H[j] = _larger_part(T[:, j], values[j], right[j], np.sqrt(squares[:, j]))
    return T, H


def _larger_part(t: Array, value: float, v: Array, norms: Array) -> tuple[Array, Array]:
    positive, negative = np.maximum(v, 0), np.maximum(-v, 0)
    along = float(norms[0]), float(np.linalg.norm(positive))
    against = float(norms[1]), float(np.linalg.norm(negative))
    if along[0] * along[1] > against[0] * against[1]:
        sign, (left_norm, right_norm), part = 1.0, along, positive
    else:
        sign, (left_norm, right_norm), part = -1.0, against, negative
    if left_norm * right_norm == 0:
        return np.zeros_like(t), np.zeros_like(v)
    weight = np.sqrt(value * left_norm * right_norm)
    return t * (sign * weight / left_norm), part * (weight / right_norm)


def rows(products: Array, dtype: np.dtype[Any]) -> Array:
    """Rows of W from X·T: absolute value in the first column, positive part in the others, small ones zero."""
    W = np.maximum(products, 0.0)
    W[:, 0] = np.abs(products[:, 0])
    return floored(W.astype(dtype))


def floored(factor: Array) -> Array:
    """Entries below the threshold set to zero, in place."""
    factor[factor < THRESHOLD] = 0
    return factor


def filled(factor: Array, average: float, generator: np.random.RandomState | None = None) -> Array:
    """Zeros replaced by the mean of X, or by draws about it where a generator is given; in place."""
    zeros = factor == 0
    if generator is None:
        factor[zeros] = average
    else:
        factor[zeros] = np.abs(average * generator.standard_normal(size=int(zeros.sum())) / 100)
    return factor
