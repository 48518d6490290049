"""Every divergence: value, gradient, and the same numbers from dense, sparse and compiled forms."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition._nmf import _beta_divergence

from nmfstream.core import cells
from nmfstream.core.losses import make_loss
from nmfstream.core.mu_iterate import plain, several
from nmfstream.core.parameters import Penalties
from nmfstream.types import CSR

BETAS = [2.0, 1.0, 0.0, 0.5, 1.5, 3.0, -0.7, 2.5, 1.3]
FREE = Penalties(0.0, 0.0, 0.0, 0.0)


def sparse(X: np.ndarray) -> CSR:
    rows, columns = np.nonzero(X)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(X)))]).astype(np.int64)
    return CSR(indptr, columns.astype(np.int32), X[rows, columns], X.shape[1])


@pytest.fixture
def problem():
    rng = np.random.RandomState(0)
    X, W, H = rng.rand(40, 33) + 0.05, rng.rand(40, 5), rng.rand(5, 33)
    return X, W, H


def with_zeros(X: np.ndarray, beta: float) -> np.ndarray:
    """Half of the cells empty, where the divergence allows it."""
    return X * (np.random.RandomState(1).rand(*X.shape) < (0.5 if beta > 0 else 2.0))


def total(loss, X, W, H) -> float:
    fixed = loss.fix(H)
    return loss.value(X, W, fixed)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("make", [np.asarray, sparse], ids=["dense", "sparse"])
def test_value_is_that_of_sklearn(beta, make, problem) -> None:
    X, W, H = problem
    X = with_zeros(X, beta)
    loss = make_loss(beta, X.dtype)
    assert total(loss, make(X), W, H) == pytest.approx(_beta_divergence(X, W, H, beta), rel=1e-11)


@pytest.mark.parametrize("beta", BETAS)
def test_terms_of_W_are_the_gradient(beta, problem) -> None:
    X, W, H = problem
    loss = make_loss(beta, X.dtype)
    fixed = loss.fix(H)
    numerator, denominator = loss.W_terms(X, W, fixed, loss.share(X, fixed))
    direction = np.random.RandomState(2).randn(*W.shape)
    h = 1e-5
    slope = (total(loss, X, W + h * direction, H) - total(loss, X, W - h * direction, H)) / (2 * h)
    assert np.vdot(denominator - numerator, direction) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("beta", BETAS)
def test_terms_of_H_are_the_gradient(beta, problem) -> None:
    X, W, H = problem
    loss = make_loss(beta, X.dtype)
    statistics = loss.statistics(X, W, H)
    denominator = loss.H_denominator(loss.summary(W), statistics.terms, H)
    direction = np.random.RandomState(2).randn(*H.shape)
    h = 1e-5
    slope = (total(loss, X, W, H + h * direction) - total(loss, X, W, H - h * direction)) / (2 * h)
    gradient = denominator - statistics.terms[0]
    assert np.vdot(gradient, direction) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("beta", BETAS)
def test_sparse_is_dense(beta, problem) -> None:
    X, W, H = problem
    X = with_zeros(X, beta)
    loss = make_loss(beta, X.dtype)
    fixed = loss.fix(H)
    forms = [X, sparse(X)]
    dense, thin = [loss.W_terms(form, W, fixed, loss.share(form, fixed)) for form in forms]
    np.testing.assert_allclose(thin[0], dense[0], rtol=1e-12)
    np.testing.assert_allclose(thin[1], dense[1], rtol=1e-12)
    dense, thin = [loss.statistics(form, W, H) for form in forms]
    np.testing.assert_allclose(thin.terms, dense.terms, rtol=1e-12)
    assert thin.cost == pytest.approx(dense.cost, rel=1e-11)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("make", [np.asarray, sparse], ids=["dense", "sparse"])
def test_tiles_of_any_size_give_the_same(beta, make, problem, monkeypatch) -> None:
    X, W, H = problem
    X = make(with_zeros(X, beta))
    loss = make_loss(beta, W.dtype)
    fixed = loss.fix(H)
    whole = loss.W_terms(X, W, fixed, loss.share(X, fixed)), loss.statistics(X, W, H), loss.value(X, W, fixed)
    monkeypatch.setattr(cells, "TILE_BYTES", 1000)
    monkeypatch.setattr(cells, "TILE_COLUMNS", 7)
    tiled = loss.W_terms(X, W, fixed, loss.share(X, fixed)), loss.statistics(X, W, H), loss.value(X, W, fixed)
    np.testing.assert_allclose(tiled[0][0], whole[0][0], rtol=1e-12)
    np.testing.assert_allclose(tiled[1].terms, whole[1].terms, rtol=1e-12)
    assert tiled[2] == pytest.approx(whole[2], rel=1e-11)


@pytest.mark.parametrize("beta", BETAS)
def test_statistics_add_up_over_rows_and_columns(beta, problem) -> None:
    X, W, H = problem
    loss = make_loss(beta, X.dtype)
    whole = loss.statistics(X, W, H)
    rows = [loss.statistics(X[a:b], W[a:b], H) for a, b in ((0, 17), (17, 40))]
    columns = [loss.statistics(X[:, a:b], W, H[:, a:b]) for a, b in ((0, 10), (10, 33))]
    np.testing.assert_allclose(rows[0].terms + rows[1].terms, whole.terms, rtol=1e-12)
    np.testing.assert_allclose(np.concatenate([part.terms for part in columns], axis=2), whole.terms, rtol=1e-12)
    assert sum(part.cost for part in rows) == pytest.approx(whole.cost, rel=1e-11)
    assert sum(part.cost for part in columns) == pytest.approx(whole.cost, rel=1e-11)


@pytest.mark.parametrize("make", [np.asarray, sparse], ids=["dense", "sparse"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_residual_is_not_lost_to_cancellation(make, dtype, problem) -> None:
    _, W, H = problem
    noise = 1 + 1e-3 * np.random.RandomState(3).rand(40, 33)
    X = ((W @ H) * noise).astype(dtype)
    W, H = W.astype(dtype), H.astype(dtype)
    loss = make_loss(2.0, X.dtype)
    exact = np.square(X.astype(float) - W.astype(float) @ H.astype(float)).sum() / 2
    fixed, statistics = loss.fix(H), loss.statistics(make(X), W, H)
    assert loss.total_cost(statistics.cost, loss.summary(W).astype(float), statistics.terms, fixed) is None
    assert loss.value(make(X), W, fixed) == pytest.approx(exact, rel=1e-3 if dtype == "float32" else 1e-9)


@pytest.mark.parametrize("beta", [2.0, 1.0])
@pytest.mark.parametrize("make", [np.asarray, sparse], ids=["dense", "sparse"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_components", [1, 3, 8])
@pytest.mark.parametrize("penalties", [FREE, Penalties(0.3, 0.0, 0.2, 0.0)], ids=["free", "penalized"])
def test_fast_forms_of_several_steps_are_the_plain_one(beta, make, dtype, n_components, penalties) -> None:
    rng = np.random.RandomState(4)
    X = make((rng.rand(70, 50) * (rng.rand(70, 50) < 0.3)).astype(dtype))
    W, H = rng.rand(70, n_components).astype(dtype), rng.rand(n_components, 50).astype(dtype)
    slow, fast = make_loss(beta, W.dtype), make_loss(beta, W.dtype, compiled=True)
    fixed = fast.fix(H)
    expected = plain(slow, X, W, fixed, slow.share(X, fixed), penalties, 6)
    found = several(fast, X, W, fixed, fast.share(X, fixed), penalties, 6)
    tolerance = 2e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(found.W, expected.W, rtol=tolerance, atol=tolerance * 1e-3)
    np.testing.assert_allclose(found.changes**0.5, expected.changes**0.5, rtol=1e2 * tolerance, atol=tolerance)
    np.testing.assert_allclose(found.norms, expected.norms, rtol=tolerance)
    np.testing.assert_allclose(fast.statistics(X, W, H).terms, slow.statistics(X, W, H).terms, rtol=10 * tolerance)
    assert fast.statistics(X, W, H).cost == pytest.approx(slow.statistics(X, W, H).cost, rel=tolerance)


@pytest.mark.parametrize("beta", BETAS)
def test_cells_below_the_floor_are_those_of_sklearn(beta) -> None:
    X = np.array([[1e-30, 2.0, 3.0], [1.0, 1e-9, 4.0]])
    W, H = np.array([[1e-12, 0.0], [0.5, 1e-9]]), np.array([[1e-8, 1.0, 1e-20], [1.0, 1e-12, 2.0]])
    loss = make_loss(beta, X.dtype)
    ours = total(loss, X, W, H)
    assert ours == pytest.approx(_beta_divergence(X, W, H, beta), rel=1e-9)
