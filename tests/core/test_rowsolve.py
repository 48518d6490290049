"""Rows of W with H fixed: the residual they report, the optimum, and that a row does not depend on its company."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from nmfstream.core.kernels import thin_products
from nmfstream.core.parameters import Objective
from nmfstream.core.rows_divergence import START
from nmfstream.core.rowsolve import row_solver
from nmfstream.types import CSR, Array

BETAS = [-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
CONVEX = [1.0, 1.5, 2.0]
TOL = {"float32": 1e-5, "float64": 1e-9}
AGREE = {"float32": 1e-4, "float64": 1e-9}


class Case(NamedTuple):
    X: Array
    H: Array
    objective: Objective


def csr(X: Array) -> CSR:
    rows, columns = np.nonzero(X)
    indptr = np.searchsorted(rows, np.arange(len(X) + 1)).astype(np.int64)
    return CSR(indptr, columns.astype(np.int32), X[rows, columns], X.shape[1])


def gradient(x: Array, H: Array, w: Array, objective: Objective) -> Array:
    """∂ of one row's objective by the definition, in float64."""
    p, beta = objective.penalties(H.shape[1], 1), objective.beta
    seen = H.any(axis=0)
    v = np.maximum(w @ H[:, seen], 1e-30 * x.max(initial=0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = v ** (beta - 1.0) - np.where(x[seen] > 0, x[seen] * v ** (beta - 2.0), 0.0)
    return np.asarray(factor @ H[:, seen].T + p.l1_W + p.l2_W * w)


def residual(x: Array, H: Array, w: Array, objective: Objective) -> float:
    """The relative KKT residual of one row."""
    start = START * x.sum() / H.sum() * (H.sum(axis=1) > 0) if objective.beta != 2 else np.zeros(len(H))
    reference = np.abs(gradient(x, H, start, objective)).max()
    worst = np.abs(np.minimum(w, gradient(x, H, w, objective))).max()
    return float(worst / reference) if reference > 0 else float(worst)


def residuals(case: Case, W: Array) -> Array:
    X, H, W = (a.astype(np.float64) for a in (case.X, case.H, W))
    filled = X[:, H.any(axis=0)].any(axis=1)
    return np.array([residual(x, H, w, case.objective) for x, w in zip(X[filled], W[filled], strict=True)])


def make(
    seed: int,
    n: int,
    k: int,
    m: int,
    beta: float,
    dtype: str = "float64",
    *,
    sparse: float = 0.3,
    scale: float = 1.0,
    H_scale: float = 1.0,
    alpha: float = 0.0,
) -> Case:
    rng = np.random.default_rng(seed)
    H = rng.random((k, m)) * (rng.random((k, m)) > 0.2)
    H[:, ~H.any(axis=0)] = 0.1
    X = rng.random((n, k)) ** 3 @ H * rng.gamma(2.0, 0.5, (n, m))
    X = np.where(rng.random((n, m)) < sparse, 0, X) if beta > 0 else X + 1e-3
    return Case((X * scale).astype(dtype), (H * H_scale).astype(dtype), Objective(k, beta, alpha, 0.0, 0.5))


def largest_difference(A: Array, B: Array) -> float:
    size = np.maximum(np.abs(A).max(axis=1), np.finfo(A.dtype).tiny)
    return float((np.abs(A - B).max(axis=1) / size).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("alpha", [0.0, 0.01])
def test_rows_reach_the_residual_they_report(beta, dtype, alpha):
    case = make(1, 40, 5, 30, beta, dtype, alpha=alpha)
    solution = row_solver(case.H, case.objective, dtype)(case.X)
    assert solution.W.dtype == dtype
    assert solution.converged.all()
    assert (solution.W >= 0).all()
    assert residuals(case, solution.W).max() <= TOL[dtype]
    assert np.array_equal(solution.converged, solution.residual <= TOL[dtype])


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1e6, 1e12])
@pytest.mark.parametrize("H_scale", [1e-6, 1e6])
def test_single_precision_at_any_scale(beta, scale, H_scale):
    case = make(2, 12, 4, 20, beta, "float32", scale=scale, H_scale=H_scale)
    plain = make(2, 12, 4, 20, beta, "float32")
    solution = row_solver(case.H, case.objective, "float32")(case.X)
    expected = row_solver(plain.H, plain.objective, "float32")(plain.X)
    assert solution.converged.all()
    assert largest_difference(expected.W, solution.W * np.float32(H_scale / scale)) < 1e-4


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1 << 30),
    n=st.integers(1, 20),
    k=st.integers(1, 9),
    m=st.integers(1, 12),
    beta=st.sampled_from(BETAS),
    dtype=st.sampled_from(["float32", "float64"]),
    alpha=st.sampled_from([0.0, 0.0, 1e-3, 0.1]),
    damage=st.sampled_from(["none", "equal", "zero", "close"]),
)
def test_any_shape_and_any_H(seed, n, k, m, beta, dtype, alpha, damage):
    case = make(seed, n, k, m, beta, dtype, alpha=alpha)
    case.H[-1] = {"none": case.H[-1], "equal": case.H[0], "zero": 0 * case.H[0], "close": case.H[0] * 1.0001}[damage]
    solution = row_solver(case.H, case.objective, dtype)(case.X)
    assert np.isfinite(solution.W).all()
    assert np.isfinite(solution.residual).all()
    assert residuals(case, solution.W).max(initial=0.0) <= TOL[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("sparse", [False, True])
def test_a_row_does_not_depend_on_its_company(beta, dtype, sparse):
    case = make(3, 700, 6, 40, beta, dtype)
    solver = row_solver(case.H, case.objective, dtype)
    form = csr if sparse else np.asarray
    together = solver(form(case.X)).W
    for start, stop in [(0, 1), (699, 700), (5, 40), (37, 600)]:
        assert largest_difference(together[start:stop], solver(form(case.X[start:stop])).W) < AGREE[dtype] / 10
    assert np.array_equal(together, solver(form(case.X)).W)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta", CONVEX)
def test_dense_and_sparse_rows_agree(beta, dtype):
    case = make(4, 60, 6, 50, beta, dtype, sparse=0.7)
    solver = row_solver(case.H, case.objective, dtype)
    assert largest_difference(solver(case.X).W, solver(csr(case.X)).W) < AGREE[dtype]


@pytest.mark.parametrize(("dtype", "n"), [("float32", 30), ("float64", 30), ("float32", 2000), ("float64", 2000)])
@pytest.mark.parametrize("close", [0.0, 0.8, 0.9])
def test_least_squares_against_scipy(dtype, n, close):
    """From well-conditioned to nearly collinear rows of H."""
    case = make(5, n, 12, 60, 2.0, dtype)
    case.H[1:] = (1 - close) * case.H[1:] + close * case.H[0]
    assert np.linalg.cond(case.H.astype(float) @ case.H.T.astype(float)) < 1e4
    W = row_solver(case.H, case.objective, dtype)(case.X).W[:30]
    exact = np.array([nnls(case.H.T.astype(float), x.astype(float), maxiter=500)[0] for x in case.X[:30]])
    assert largest_difference(exact, W.astype(float)) < AGREE[dtype]


@pytest.mark.parametrize("beta", CONVEX)
def test_the_optimum_is_no_worse_than_from_other_starts(beta):
    """Convex rows: a long multiplicative run ends above (or at) the rows' objective."""
    case = make(6, 20, 4, 30, beta)
    W = row_solver(case.H, case.objective, "float64")(case.X).W
    other = np.random.default_rng(0).random(W.shape) + 0.1
    for _ in range(3000):
        v = other @ case.H
        other *= (case.X * v ** (beta - 2)) @ case.H.T / (v ** (beta - 1) @ case.H.T)
    assert (divergence(case.X, W @ case.H, beta) <= divergence(case.X, other @ case.H, beta) + 1e-9).all()


def divergence(X: Array, V: Array, beta: float) -> Array:
    if beta == 1:
        ratio = np.divide(X, V, out=np.ones_like(V), where=X > 0)
        return np.asarray((X * np.log(ratio) - X + V).sum(axis=1))
    return np.asarray(((X**beta + (beta - 1) * V**beta - beta * X * V ** (beta - 1)) / (beta * (beta - 1))).sum(axis=1))


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0, 2.5])
@pytest.mark.parametrize("form", [np.asarray, csr])
def test_rows_of_zeros_give_zeros(beta, form):
    case = make(7, 9, 3, 8, beta, "float32")
    case.X[[0, 4, 8]] = 0
    solution = row_solver(case.H, case.objective, "float32")(form(case.X))
    assert not solution.W[[0, 4, 8]].any()
    assert not solution.residual[[0, 4, 8]].any()
    assert solution.converged.all()


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_no_rows(beta):
    case = make(8, 3, 2, 5, beta)
    solution = row_solver(case.H, case.objective, "float64")(case.X[:0])
    assert solution.W.shape == (0, 2)
    assert solution.residual.shape == solution.converged.shape == (0,)


@pytest.mark.parametrize("beta", BETAS)
def test_the_limit_ends_rows_early_and_says_so(beta):
    case = make(9, 30, 8, 40, beta)
    solution = row_solver(case.H, case.objective, "float64", max_iter=1)(case.X)
    assert not solution.converged.all()
    assert np.isfinite(solution.W).all()
    assert np.allclose(residuals(case, solution.W), solution.residual, rtol=1e-6)


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("tol", [1e-8, 1e-3])
def test_the_tolerance_is_kept_in_single_precision(beta, tol):
    case = make(10, 50, 6, 60, beta, "float32")
    solution = row_solver(case.H, case.objective, "float32", tol=tol)(case.X)
    assert residuals(case, solution.W).max() <= max(tol, 3e-7)


@pytest.mark.parametrize("beta", BETAS)
def test_one_component_and_one_feature(beta):
    for k, m in [(1, 6), (1, 1), (4, 1)]:
        case = make(11, 8, k, m, beta)
        assert row_solver(case.H, case.objective, "float64")(case.X).converged.all()


@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize("form", [np.asarray, csr])
def test_data_off_the_support_of_H_gives_zeros(beta, form):
    H, X = np.zeros((2, 6)), np.zeros((1, 6))
    H[:, :3], X[:, 3:] = [[1, 2, 3], [3, 2, 1]], 5.0
    solution = row_solver(H, Objective(2, beta), "float64")(form(X))
    assert not solution.W.any()
    assert solution.converged.all()


def test_a_heavy_penalty_empties_rows():
    case = make(12, 5, 3, 20, 2.0, alpha=1e6)
    solution = row_solver(case.H, case.objective, "float64")(case.X)
    assert not solution.W.any()
    assert solution.converged.all()


@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize("close", [0.0, 0.35, 0.75])
def test_single_precision_rows_agree_at_any_place_of_a_tile(beta, close):
    """BLAS rounds a row by its place in a tile, and a kernel for many rows otherwise; nearly collinear rows of H would
    magnify that beyond the law.
    """
    rng = np.random.default_rng(2)
    H = rng.gamma(0.5, size=(20, 300))
    H[1:] = (1 - close) * H[1:] + close * H[0]
    assert np.linalg.cond(H @ H.T) < 1e3
    X = (rng.gamma(0.5, size=(1000, 20)) @ H * rng.gamma(3.0, 1 / 3, (1000, 300))).astype(np.float32)
    solver = row_solver(H.astype(np.float32), Objective(20, beta), "float32")
    together = solver(X).W
    assert largest_difference(together[7:], solver(X[7:]).W) < AGREE["float32"] / 2
    few = np.concatenate([solver(X[start : start + 50]).W for start in range(0, len(X), 50)])
    assert thin_products.pays("rows_times", X.shape, 20)
    assert not thin_products.pays("rows_times", (50, 300), 20)
    assert largest_difference(together, few) < AGREE["float32"] / 2


def test_indefinite_rows_end_within_the_limit():
    """Steps by the convex part of the Hessian alone crawl on one of these rows."""
    for seed in range(500, 515):
        rng = np.random.default_rng(seed)
        W, H = rng.gamma(0.5, size=(100, 8)), rng.gamma(0.5, size=(8, 40))
        X = W @ H * rng.gamma(1.0, 1.0, (100, 40)) + 1e-3
        assert row_solver(H, Objective(8, -1.0), "float64")(X).converged.all()
