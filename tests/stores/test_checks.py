"""Values and sparse structure against plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nmfstream.errors import DataError
from nmfstream.stores import checks
from nmfstream.stores.checks import DenseOrigin, EntryOrigin, canonical, fill, fill_indices
from nmfstream.stores.protocols import ReadPolicy
from nmfstream.types import CSR

ORIGIN = DenseOrigin("x", 100, 10, "chunk (1, 2)")
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=300)
DTYPES = st.sampled_from(["f2", "f4", "f8", ">f4", ">f8", "i1", "i2", ">i4", "i8", "u1", "u8", "?"])


@given(st.integers(0, 2**32), SHAPES, DTYPES, st.sampled_from(["f4", "f8"]), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_healthy_values_arrive(seed: int, shape: tuple, stored: str, dtype: str, turned: bool, wide: bool) -> None:
    block = np.random.default_rng(seed).integers(0, 120, shape).astype(stored)
    block = np.asfortranarray(block) if turned else block
    whole = np.full((shape[0], shape[1] + 3 * wide), -1, dtype)
    fill(whole[:, : shape[1]], block, ReadPolicy(np.dtype(dtype)), ORIGIN)
    np.testing.assert_array_equal(whole[:, : shape[1]], block.astype(dtype))
    assert (whole[:, shape[1] :] == -1).all()


BAD = [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite"), (-1e-30, "negative"), (-np.nan, "NaN")]


@pytest.mark.parametrize("value, text", BAD)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("row, column", [(0, 0), (199, 299), (130, 7), (128, 128)])
def test_one_bad_value_is_found(value: float, text: str, dtype: str, order: str, row: int, column: int) -> None:
    block = np.ones((200, 300), dtype, order)
    block[row, column] = value
    with pytest.raises(DataError, match=text) as caught:
        fill(np.empty((200, 300), dtype), block, ReadPolicy(np.dtype(dtype)), ORIGIN)
    assert caught.value.where == f"x: row {100 + row}, column {10 + column}, chunk (1, 2)"


def test_block_that_is_its_own_output_is_checked() -> None:
    block = np.ones((500, 300), "f4")
    block[400, 3] = -1
    with pytest.raises(DataError, match="negative"):
        fill(block, block, ReadPolicy(np.dtype("f4")), ORIGIN)
    policy = ReadPolicy(np.dtype("f4"), negative="clip")
    fill(block, block, policy, ORIGIN)
    assert (policy.clipped, block.min(), block.max()) == (1, 0, 1)


def test_healthy_blocks_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_judge", None)
    for dtype in ("f4", "f8", "u1", ">i4"):
        fill(np.empty((400, 300), "f4"), np.ones((400, 300), dtype), ReadPolicy(np.dtype("f4")), ORIGIN)


def test_origin_of_an_entry() -> None:
    origin = EntryOrigin("s", 4, np.array([0, 0, 3, 3, 6]), 50)
    assert origin.where((0,)) == "s: row 53, stored entry 1 of it"
    assert origin.where((-1,)) == "s: row 53, stored entry 0 of it"
    assert origin.where((-2,)) == "s: row 51, stored entry 2 of it"


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 30), st.integers(0, 300), st.booleans())
@settings(max_examples=100, deadline=None)
def test_canonical_as_scipy(seed: int, n_rows: int, n_columns: int, nnz: int, offset: bool) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(nnz, np.full(n_rows, 1 / n_rows))
    indptr = np.r_[0, np.cumsum(counts)].astype("i8")
    indices = rng.integers(0, n_columns, indptr[-1]).astype("i4")
    data = rng.integers(0, 100, indptr[-1]).astype("f4")
    reference = sp.csr_matrix((data.astype("f8"), indices.copy(), indptr.copy()), (n_rows, n_columns))
    reference.sum_duplicates()
    pad = 5 * offset
    rows = CSR(indptr + pad, np.r_[np.zeros(pad, "i4"), indices], np.r_[np.zeros(pad, "f4"), data], n_columns)
    found = canonical(rows)
    np.testing.assert_array_equal(found.indptr, reference.indptr)
    np.testing.assert_array_equal(found.indices, reference.indices)
    np.testing.assert_array_equal(found.data, reference.data)
    assert (found.indptr.dtype, found.indices.dtype, found.data.dtype) == (np.int64, np.int32, np.float32)


def test_canonical_leaves_what_is_canonical(monkeypatch: pytest.MonkeyPatch) -> None:
    S = sp.random(3000, 200, 0.2, "csr", random_state=0)
    rows = CSR(S.indptr.astype("i8"), S.indices, S.data, 200)
    assert canonical(rows) is rows
    S.indices[[-1, -2]] = S.indices[[-2, -1]]
    assert not np.array_equal(canonical(rows).indices, S.indices)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i4", ">i4", "i8", "u8", ">u8"])
def test_indices_in_range(dtype: str) -> None:
    out = np.empty(4, "i4")
    fill_indices(out, np.array([0, 3, 99, 1], dtype), 100, ORIGIN)
    assert out.tolist() == [0, 3, 99, 1]
    with pytest.raises(DataError, match="column index 99 outside 0 to 98"):
        fill_indices(out, np.array([0, 3, 99, 1], dtype), 99, EntryOrigin("s", 0, np.array([0, 4]), 0))
