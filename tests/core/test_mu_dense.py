"""Compiled multiplicative terms of dense cells: every remainder of a vector and a panel, views, places."""

from __future__ import annotations

import numpy as np
import pytest

from nmfstream.core.losses import make_loss
from nmfstream.core.mu_iterate import plain, several
from nmfstream.core.parameters import Penalties

FREE = Penalties(0.0, 0.0, 0.0, 0.0)
SHAPES = [(1, 1, 1), (7, 63, 2), (33, 64, 4), (64, 65, 5), (70, 200, 21), (129, 131, 11)]


def problem(n: int, m: int, k: int, dtype: str):
    rng = np.random.RandomState(n)
    X = rng.gamma(1.0, size=(n, m)) * (rng.rand(n, m) < 0.6)
    return X.astype(dtype), rng.rand(n, k).astype(dtype), rng.rand(k, m).astype(dtype)


def advance(X, W, H, beta: float, steps: int = 3):
    loss = make_loss(beta, W.dtype, compiled=True)
    fixed = loss.fix(H)
    return several(loss, X, W, fixed, loss.share(X, fixed), FREE, steps).W


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_remainders(shape, dtype) -> None:
    X, W, H = problem(*shape, dtype)
    slow, fast = make_loss(1.0, W.dtype), make_loss(1.0, W.dtype, compiled=True)
    fixed = slow.fix(H)
    tolerance = 2e-5 if dtype == "float32" else 1e-12
    expected = plain(slow, X, W, fixed, None, FREE, 3)
    np.testing.assert_allclose(advance(X, W, H, 1.0), expected.W, rtol=tolerance)
    ours, theirs = fast.statistics(X, W, H), slow.statistics(X, W, H)
    np.testing.assert_allclose(ours.terms, theirs.terms, rtol=tolerance)
    assert ours.cost == pytest.approx(theirs.cost, rel=10 * tolerance, abs=10 * tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_has_the_same_bits_in_any_place(dtype) -> None:
    X, W, H = problem(70, 200, 21, dtype)
    whole = advance(X, W, H, 1.0)
    np.testing.assert_array_equal(advance(X[13:50], W[13:50], H, 1.0), whole[13:50])
    np.testing.assert_array_equal(advance(X[69:], W[69:], H, 1.0), whole[69:])


def test_columns_of_a_view_are_those_of_a_copy() -> None:
    X, W, H = problem(70, 200, 21, "float32")
    loss = make_loss(1.0, W.dtype, compiled=True)
    part, whole = slice(40, 121), loss.statistics(X, W, H).terms
    np.testing.assert_array_equal(loss.statistics(X[:, part], W, H[:, part]).terms, whole[:, :, part])
    np.testing.assert_array_equal(loss.statistics(np.asfortranarray(X), W, H).terms, whole)


def test_what_is_not_a_number_stays() -> None:
    X, W, H = problem(33, 64, 4, "float32")
    X[3, 5] = np.nan
    moved = advance(X, W, H, 1.0, steps=1)
    assert np.isnan(moved[3]).all() and np.isfinite(np.delete(moved, 3, axis=0)).all()


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.5, 2.5, 3.0, 4.0, 0.7])
@pytest.mark.parametrize("penalties", [FREE, Penalties(0.3, 0.0, 0.2, 0.0)], ids=["free", "penalized"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_other_divergences_move_as_the_plain_form(beta, penalties, dtype) -> None:
    X, W, H = problem(70, 150, 5, dtype)
    X += np.finfo(dtype).eps * 100 * (beta <= 0)
    W[3], H[:, 7] = 0, 1e-9
    slow, fast = make_loss(beta, W.dtype), make_loss(beta, W.dtype, compiled=True)
    fixed, tolerance = slow.fix(H), 2e-4 if dtype == "float32" else 1e-11
    expected = plain(slow, X, W, fixed, None, penalties, 4)
    found = several(fast, X, W, fast.fix(H), None, penalties, 4)
    np.testing.assert_allclose(found.W, expected.W, rtol=tolerance)
    np.testing.assert_allclose(found.changes, expected.changes, rtol=100 * tolerance)
    np.testing.assert_allclose(found.norms, expected.norms, rtol=tolerance)
