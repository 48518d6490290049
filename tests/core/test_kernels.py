"""Compiled kernels against their numpy twins and against definitions."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmfstream.core.kernels import kl_rows, kl_statistics, newton_least_squares, sweeps
from nmfstream.types import CSR, Array

EPS = {"float32": 3e-5, "float64": 1e-12}
FORMS = {"dense": np.asarray, "sparse": lambda X: csr(X)}


def csr(X: Array) -> CSR:
    rows, columns = np.nonzero(X)
    indptr = np.searchsorted(rows, np.arange(len(X) + 1)).astype(np.int64)
    return CSR(indptr, columns.astype(np.int32), X[rows, columns], X.shape[1])


def least_squares(n: int, k: int, dtype: str, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    H = rng.random((k, 3 * k + 4)) ** 2
    X = rng.random((n, k)) @ H * rng.random((n, 3 * k + 4))
    return (X @ H.T).astype(dtype), (H @ H.T).astype(dtype)


def counts(n: int, k: int, m: int, dtype: str, scale: float = 1.0) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    H = rng.random((k, m)) ** 3 * (rng.random((k, m)) > 0.2)
    X = rng.poisson(0.7 * rng.random((n, k)) ** 3 @ H).astype(dtype)
    X[n // 2] = 0
    return (X * scale).astype(dtype), H.astype(dtype)


@pytest.fixture
def always_compiled(monkeypatch):
    for module in (kl_rows, kl_statistics, newton_least_squares):
        monkeypatch.setattr(module, "COMPILED_WORK", 0)


def compiled_sweeps(C: Array, G: Array, W: Array, max_sweeps: int, tol: float) -> Array:
    return sweeps.coordinate_sweeps(C, G, W, max_sweeps, tol, 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 3), (33, 4), (100, 21)])
def test_sweeps_equal_their_twin(n, k, dtype):
    C, G = least_squares(n, k, dtype)
    W = sweeps.clipped_least_squares(C, G)
    expected = W.copy()
    used_expected = sweeps.sweeps_numpy(C, G, expected, 7, 1e-3)
    used = compiled_sweeps(C, G, W, 7, 1e-3)
    assert np.abs(W - expected).max() <= EPS[dtype] * expected.max()
    assert (np.abs(used - used_expected) <= 1).all()


def test_sweeps_of_a_row_do_not_depend_on_the_others():
    C, G = least_squares(100, 6, "float32")
    together = np.zeros_like(C)
    compiled_sweeps(C, G, together, 50, 1e-4)
    for rows in (slice(0, 1), slice(37, 80), slice(99, 100)):
        alone = np.zeros_like(C[rows])
        compiled_sweeps(C[rows], G, alone, 50, 1e-4)
        assert np.array_equal(alone, together[rows])


def test_sweeps_say_which_rows_are_not_done():
    C, G = least_squares(50, 8, "float64")
    W = np.zeros_like(C)
    assert (compiled_sweeps(C, G, W, 2, 0.0) == 3).all()
    assert (compiled_sweeps(C, G, W, 200, 1e-3) < 200).all()
    assert (compiled_sweeps(C, G, W, 0, 1e-3) <= 1).all()


def test_components_without_weight_get_zero():
    C, G = least_squares(40, 5, "float64")
    C[:, 2], G[2], G[:, 2] = 0, 0, 0
    W = np.ones_like(C)
    compiled_sweeps(C, G, W, 20, 1e-3)
    assert not W[:, 2].any()


def test_sweeps_leave_no_denormal_numbers():
    C, G = least_squares(40, 5, "float32")
    C *= np.float32(1e-37)
    W = np.zeros_like(C)
    compiled_sweeps(C, G, W, 20, 1e-3)
    assert not ((W > 0) & (np.finfo(np.float32).tiny > W)).any()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 40), k=st.integers(1, 9), same=st.booleans())
def test_newton_ends_at_the_optimum_of_any_G(seed, n, k, same):
    rng = np.random.default_rng(seed)
    H = rng.random((k, max(1, k - 2))) ** 3
    H[-1] = H[0] if same else H[-1]
    G, C = H @ H.T, rng.random((n, H.shape[1])) @ H.T
    results = []
    for least in (0, 1 << 60):
        newton_least_squares.COMPILED_WORK, W = least, np.zeros_like(C)
        newton_least_squares.newton_least_squares(C, G, W, 200, 1e-12)
        results.append(0.5 * np.vecdot(W @ G, W) - np.vecdot(C, W))
        assert np.abs(np.minimum(W, W @ G - C)).max() < 1e-11
    newton_least_squares.COMPILED_WORK = 1 << 17
    assert np.allclose(*results, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("l2", [0.0, 0.2])
@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("k", [1, 4, 7])
def test_kl_rows_equal_their_twin(monkeypatch, form, dtype, l2, prior, k):
    X, H = counts(40, k, 60, dtype)
    X, V0 = FORMS[form](X), np.random.default_rng(3).random((40, k)).astype(dtype) if prior else None
    found = []
    for least in (0, 1 << 60):
        monkeypatch.setattr(kl_rows, "COMPILED_WORK", least)
        W = kl_rows.kl_flat_start(X, H)
        kl_rows.kl_rows_ccd(X, H, W, H.sum(axis=1), 5, 1e-4, l2=l2, V0=V0, mu_steps=2)
        found.append(W)
    assert np.abs(found[0] - found[1]).max() <= EPS[dtype] * found[1].max()


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("form", FORMS)
def test_kl_rows_at_any_scale_in_single_precision(always_compiled, form, scale):
    X, H = counts(30, 5, 50, "float32")
    W, V = (kl_rows.kl_flat_start(FORMS[form](x), H) for x in (X, X * np.float32(scale)))
    for x, w in ((X, W), (X * np.float32(scale), V)):
        kl_rows.kl_rows_ccd(FORMS[form](x), H, w, H.sum(axis=1), 100, 1e-5)
    assert np.abs(V / np.float32(scale) - W).max() < 1e-3 * W.max()


@pytest.mark.parametrize("form", FORMS)
def test_kl_sweeps_lower_the_divergence_to_a_minimum(always_compiled, form):
    X, H = counts(30, 5, 50, "float64")
    W, loss = kl_rows.kl_flat_start(FORMS[form](X), H), np.inf
    for _ in range(6):
        kl_rows.kl_rows_ccd(FORMS[form](X), H, W, H.sum(axis=1), 20, 0.0)
        now = kl_statistics.kl_statistics(FORMS[form](X), H, W).loss
        assert now <= loss + 1e-9
        loss = now
    gradient = H.sum(axis=1) - np.divide(X, W @ H, out=np.zeros_like(X), where=X > 0) @ H.T
    assert np.abs(np.minimum(W, gradient)).max() < 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("least", [0, 1 << 60])
def test_kl_statistics_are_those_of_the_definition(monkeypatch, form, dtype, least):
    monkeypatch.setattr(kl_statistics, "COMPILED_WORK", least)
    X, H = counts(50, 6, 3000, dtype)
    W = np.random.default_rng(5).random((50, 6)).astype(dtype) + dtype_one(dtype)
    H += dtype_one(dtype)
    found = kl_statistics.kl_statistics(FORMS[form](X), H, W)
    x, w, h = X.astype(float), W.astype(float), H.astype(float)
    V = w @ h
    loss = (x * np.log(np.where(x > 0, x, 1) / V) - x + V).sum()
    assert np.abs(found.P - w.T @ (x / V)).max() < EPS[dtype] * (w.T @ (x / V)).max()
    assert np.abs(found.Q - (w * w).T @ (x / V**2)).max() < EPS[dtype] * found.Q.max()
    assert abs(found.loss / loss - 1) < EPS[dtype] / 10
    assert kl_statistics.kl_statistics(FORMS[form](X), H, W, second=False).Q.size == 0


def dtype_one(dtype: str) -> Array:
    return np.ones((), dtype) / 10


@pytest.mark.parametrize("form", FORMS)
def test_vanishing_cells_give_finite_statistics(form):
    X, H = counts(20, 3, 10, "float32")
    H[:, 4] = 0
    X[:, 4] = 1
    found = kl_statistics.kl_statistics(FORMS[form](X), H, np.ones((20, 3), np.float32))
    assert np.isfinite(found.P).all()
    assert np.isfinite(found.Q).all()
    assert np.isfinite(found.loss)


def test_small_inputs_do_not_load_the_compiler():
    code = """
import sys, numpy as np
from nmfstream.core.parameters import Objective
from nmfstream.core.rowsolve import row_solver
from nmfstream.types import CSR
H, x = np.random.rand(20, 1000), np.random.rand(1, 1000)
row = CSR(np.array([0, 1000]), np.arange(1000, dtype=np.int32), x[0], 1000)
for beta in (0, 1, 2):
    row_solver(H, Objective(20, beta), "float64")(x)
    row_solver(H, Objective(20, beta), "float64")(row)
assert not {"numba", "scipy"} & set(sys.modules), "loaded"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
