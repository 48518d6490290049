"""Compiled kernels against their numpy twins and against definitions."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmfstream.core.kernels import kl_newton, newton_least_squares, sweeps
from nmfstream.core.kernels import least_squares as steps
from nmfstream.types import CSR, Array

EPS = {"float32": 3e-5, "float64": 1e-12}


def csr(X: Array) -> CSR:
    rows, columns = np.nonzero(X)
    indptr = np.searchsorted(rows, np.arange(len(X) + 1)).astype(np.int64)
    return CSR(indptr, columns.astype(np.int32), X[rows, columns], X.shape[1])


def least_squares(n: int, k: int, dtype: str, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    H = rng.random((k, 3 * k + 4)) ** 2
    X = rng.random((n, k)) @ H * rng.random((n, 3 * k + 4))
    return (X @ H.T).astype(dtype), (H @ H.T).astype(dtype)


def counts(n: int, k: int, m: int, dtype: str) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    H = rng.random((k, m)) ** 3 * (rng.random((k, m)) > 0.2)
    X = rng.poisson(0.7 * rng.random((n, k)) ** 3 @ H).astype(dtype)
    X[n // 2] = 0
    return X, H.astype(dtype)


@pytest.fixture(params=["compiled", "numpy"])
def either(request, monkeypatch):
    monkeypatch.setattr(kl_newton, "COMPILED_WORK", {"compiled": 0, "numpy": 1 << 60}[request.param])


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


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 40), k=st.integers(1, 20), size=st.integers(-300, 300))
def test_the_steps_around_the_sweeps_equal_their_twins(seed, n, k, size):
    rng = np.random.default_rng(seed)
    products, G = least_squares(n, k, "float64", seed)
    products = (products - 0.3 * products.mean()) * 2.0**size
    products[n // 2] = 0
    scale, inverse = 2.0 ** rng.integers(-20, 20, k), sweeps.ridge_inverse(G)
    found = []
    for compiled in (True, False):
        C = products.copy()
        W, unit, reference = steps.begin(C, scale, inverse, compiled=compiled)
        residual, unsure = steps.judge(C, G, W, scale, reference, 1e-3, compiled=compiled)
        small = unit * 2.0**-size  # what float32 holds
        out, left = steps.rounded(C, G, W, scale, reference, small, compiled=compiled)
        assert np.array_equal(C * unit[:, np.newaxis], products)
        assert ((np.abs(C).max(axis=1) >= 1) | (products == 0).all(axis=1)).all() and np.abs(C).max() < 2
        found.append((C, W, unit, reference, residual, unsure, out, left))
    for ours, twin in zip(*found, strict=True):
        assert ours.dtype == twin.dtype and ours.shape == twin.shape
        assert np.allclose(ours, twin, rtol=1e-6, atol=1e-9 * float(np.abs(twin).max(initial=0.0)))
    assert found[0][4][n // 2] == 0 and np.array_equal(found[0][2], found[1][2])


@pytest.mark.parametrize("value", [1.0, np.nextafter(1.0, 0), 1.5, 2.0, 3e-300, 5e-324, 1e308, 0.0, np.inf, np.nan])
def test_the_power_of_two_below_a_number(value):
    (power,) = steps.power_of_two(np.array([value]))
    if 0 < value < np.inf:
        assert 1 <= value / power < 2
        assert np.frexp(power)[0] == 0.5
    else:
        assert power == 1


def kl_problem(n: int, k: int, m: int, l2: float) -> tuple[kl_newton.KLRows, Array]:
    X, H = counts(n, k, m, "float64")
    weights = np.full((n, k), l2)
    return kl_newton.KLRows(csr(X), np.ascontiguousarray(H.T), np.full(n, 2.0), H.sum(axis=1) + 0.1, weights), X / 2.0


@pytest.mark.parametrize("l2", [0.0, 0.2])
@pytest.mark.parametrize("k", [1, 4, 7])
def test_kl_gradient_is_that_of_the_definition(either, k, l2):
    rows, X = kl_problem(40, k, 60, l2)
    W = np.random.default_rng(3).random((40, k)) + 0.1
    V = np.maximum(W @ rows.Ht.T, 1e-30)
    assert np.allclose(kl_newton.kl_gradient(rows, W), rows.linear + l2 * W - (X / V) @ rows.Ht, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("l2", [0.0, 0.2])
@pytest.mark.parametrize("k", [1, 4, 7, 30])
def test_kl_newton_ends_at_the_optimum(either, k, l2):
    rows, _ = kl_problem(40, k, 60, l2)
    W = np.ones((40, k))
    kl_newton.kl_newton(rows, W, np.full(W.shape, 1e-9), 200)
    assert np.abs(np.minimum(W, kl_newton.kl_gradient(rows, W))).max() < 1e-9


def test_kl_newton_equals_its_twin():
    rows, _ = kl_problem(60, 6, 50, 0.1)
    W, V = np.ones((60, 6)), np.ones((60, 6))
    kl_newton.newton_numpy(rows, W, np.full(W.shape, 1e-10), 200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kl_newton, "COMPILED_WORK", 0)
        kl_newton.kl_newton(rows, V, np.full(W.shape, 1e-10), 200)
    assert np.abs(W - V).max() < 1e-8 * W.max()


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
