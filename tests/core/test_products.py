"""Products, cuts and transposition of dense and sparse blocks."""

from __future__ import annotations

import numpy as np
import pytest

from nmfstream.core.kernels import sparse_products, thin_products
from nmfstream.core.products import Wt_times, sum_of_squares, times_Ht, total
from nmfstream.core.reduction import columns
from nmfstream.types import CSR, Array


def block(seed: int, n: int, m: int, dtype: str = "float64", density: float = 0.2) -> tuple[CSR, Array]:
    """A block cut from the middle of a larger array, as runs of rows are, and the same dense."""
    rng = np.random.default_rng(seed)
    X = np.where(rng.random((n + 4, m)) < density, rng.random((n + 4, m)), 0).astype(dtype)
    X[n // 2] = 0
    rows, cols = np.nonzero(X)
    whole = CSR(np.searchsorted(rows, np.arange(n + 5)).astype(np.int64), cols.astype(np.int32), X[rows, cols], m)
    return whole.rows(2, n + 2), X[2 : n + 2]


@pytest.fixture(params=["compiled", "numpy"])
def either(request, monkeypatch):
    least = {"compiled": 0, "numpy": 1 << 60}[request.param]
    monkeypatch.setattr(sparse_products, "COMPILED_WORK", least)
    monkeypatch.setattr(sparse_products, "COMPILED_NONZEROS", least)
    if request.param == "compiled":
        request.getfixturevalue("thin")


@pytest.fixture
def thin(monkeypatch):
    """Compiled products of dense blocks of any shape."""
    monkeypatch.setattr(thin_products, "COMPILED_WORK", 0)
    monkeypatch.setattr(thin_products, "FEATURES", dict.fromkeys(thin_products.FEATURES, (0, 1 << 60)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "m", "k"), [(1, 1, 1), (30, 50, 7), (200, 9, 20), (101, 213, 6), (6, 96, 64)])
def test_products(either, n, m, k, dtype):
    X, dense = block(0, n, m, dtype)
    rng = np.random.default_rng(1)
    H, W = rng.random((k, m)).astype(dtype), rng.random((n, k)).astype(dtype)
    close = {"rtol": 1e-5 if dtype == "float32" else 1e-13, "atol": 1e-12}
    for form in (X, dense):
        assert times_Ht(form, H).dtype == Wt_times(W, form).dtype == dtype
        assert np.allclose(times_Ht(form, H), dense.astype(float) @ H.T, **close)
        assert np.allclose(Wt_times(W, form), W.T @ dense.astype(float), **close)
        assert np.isclose(sum_of_squares(form), (dense.astype(float) ** 2).sum(), rtol=1e-12)
        assert np.isclose(total(form), dense.astype(float).sum(), rtol=1e-12)


def test_types_are_promoted(either):
    X, _dense = block(2, 20, 10, "float32")
    assert times_Ht(X, np.ones((3, 10))).dtype == np.float64
    assert Wt_times(np.ones((20, 3)), X).dtype == np.float64


def test_no_rows_and_no_nonzeros(either):
    X, _ = block(3, 6, 5)
    empty = X.rows(3, 3)
    zeros = CSR(np.zeros(4, np.int64), np.zeros(0, np.int32), np.zeros(0), 5)
    assert times_Ht(empty, np.ones((2, 5))).shape == (0, 2)
    assert not Wt_times(np.ones((0, 2)), empty).any()
    assert not times_Ht(zeros, np.ones((2, 5))).any()
    assert not Wt_times(np.ones((3, 2)), zeros).any()
    assert sum_of_squares(zeros) == total(zeros) == 0


@pytest.mark.parametrize(("start", "stop"), [(0, 50), (0, 1), (7, 31), (49, 50), (20, 20)])
def test_columns(either, start, stop):
    X, dense = block(4, 40, 50)
    cut = columns(X, start, stop)
    assert cut.shape == (40, stop - start)
    assert np.array_equal(cut.toarray(), dense[:, start:stop])
    assert np.array_equal(columns(dense, start, stop), dense[:, start:stop])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(40, 23), (1, 1), (0, 5), (5, 0), (300, 128)])
def test_positive_cells(either, shape, dtype):
    X = np.random.default_rng(6).normal(size=shape).astype(dtype)
    X[X > 1] = 0
    for form in (X, X.T, X[::2]):
        found, expected = sparse_products.positive(form), np.maximum(form, 0)
        assert found.shape == form.shape
        assert (found.dtype, found.indices.dtype, found.indptr.dtype) == (X.dtype, np.int32, np.int64)
        assert found.nnz == np.count_nonzero(expected) == len(found.data) == len(found.indices)
        assert np.array_equal(found.toarray(), expected)


def test_transposition(either):
    X, dense = block(5, 40, 23)
    turned = sparse_products.transposed(X)
    assert turned.shape == (23, 40)
    assert np.array_equal(turned.toarray(), dense.T)
    assert all((np.diff(turned.indices[a:b]) > 0).all() for a, b in zip(turned.indptr, turned.indptr[1:], strict=False))


def test_sparse_sums_are_exact_in_single_precision(either):
    """Ten million to which ones are added: float32 alone would lose every other."""
    X = CSR(np.array([0, 5001]), np.arange(5001, dtype=np.int32), np.ones(5001, np.float32), 5001)
    X.data[0] = 3e7
    assert times_Ht(X, np.ones((2, 5001), np.float32))[0, 0] == np.float32(3e7 + 5000)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_sum_of_squares_at_every_scale(scale: float, dtype: type) -> None:
    X = (scale * np.random.RandomState(0).random_sample((700, 211))).astype(dtype)
    expected = float((X.astype(np.float64) ** 2).sum())
    assert sum_of_squares(X) == pytest.approx(expected, rel=1e-12)
    assert sum_of_squares(X[:, 3:50]) == pytest.approx(float((X[:, 3:50].astype(np.float64) ** 2).sum()), rel=1e-12)
    assert sum_of_squares(np.zeros_like(X)) == 0


@pytest.mark.parametrize(("dtype", "factor"), [("float32", "float32"), ("float32", "float64"), ("float64", "float64")])
def test_a_rows_products_are_the_same_bits_wherever_it_lies(thin, dtype, factor):
    rng = np.random.default_rng(4)
    X, H = rng.random((50, 301)).astype(dtype), rng.random((7, 301)).astype(factor)
    C = times_Ht(X, H)
    for a in (1, 5, 48):
        np.testing.assert_array_equal(times_Ht(X[a:], H), C[a:])
        np.testing.assert_array_equal(times_Ht(X[:a], H), C[:a])


@pytest.mark.parametrize(("n", "m", "k"), [(1, 1, 1), (13, 5, 3), (50, 301, 7), (7, 64, 8)])
def test_single_rows_times_double_components_are_summed_in_double(thin, n, m, k):
    rng = np.random.default_rng(5)
    X, H = rng.random((n, m)).astype(np.float32), rng.random((k, m)) + 1e-9 * rng.random((k, m))
    assert thin_products.compiled("rows_times", X, H, k)
    assert not thin_products.compiled("add_outer", X, H, k)
    found = times_Ht(X, H)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, X.astype(np.float64) @ H.T, rtol=1e-14)


def test_other_byte_orders_and_types_are_left_to_numpy(thin):
    X, H = np.arange(12.0).reshape(3, 4), np.ones((2, 4))
    for other in (">f4", ">f8", "f2", "i4"):
        assert not thin_products.compiled("rows_times", X.astype(other), H, 2)
        np.testing.assert_array_equal(times_Ht(X.astype(other), H), X @ H.T)


def test_compiled_products_write_only_what_is_theirs(thin):
    """Rows and columns beyond the arrays are neither read (NaN would spread) nor written."""
    room = np.full((40, 64), np.nan, np.float32)
    X, W = np.ones((13, 37), np.float32), np.ones((13, 5), np.float32)
    room.reshape(-1)[: X.size] = 1
    X = room.reshape(-1)[: X.size].reshape(X.shape)
    assert (times_Ht(X, np.ones((5, 37), np.float32)) == 37).all()
    assert (times_Ht(X, np.ones((5, 37), np.float64)) == 37).all()
    assert (Wt_times(W, X) == 13).all()
    assert np.isnan(room.reshape(-1)[X.size :]).all()
