"""A block of least squares in one visit: the same as in two, and the same bits wherever its parts end."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmfstream.core import frobenius as fro
from nmfstream.core.frobenius_rows import RowsAt
from nmfstream.core.kernels import hals_block, thin_products
from nmfstream.core.kernels.sweeps import clipped_least_squares, ridge_inverse
from nmfstream.core.parameters import Penalties
from nmfstream.core.protocols import Block
from nmfstream.types import Array, Matrix

CLOSE = {"float32": 2e-5, "float64": 1e-11}
SHARP = fro.Effort(400, 1e-9)


class InParts(Block):
    """A block whose rows do not lie together."""

    def __init__(self, X: Array, cuts: list[int]) -> None:
        super().__init__(0, len(X), X)
        self.bounds = [0, *sorted(cuts), len(X)]

    def parts(self) -> Any:
        return nullcontext([self.X[a:b] for a, b in zip(self.bounds, self.bounds[1:])])  # type: ignore[index]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hals_block, "pays", lambda shape, k: True)


def data(n: int, m: int, k: int, dtype: str, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    H = rng.random((k, m)) * (rng.random((k, m)) < 0.5) + 0.01
    X = np.maximum((rng.gamma(0.5, 1, (n, k)) @ H) * rng.random((n, m)), 0)
    return X.astype(dtype), H.astype(dtype)


def statistics(sums: fro.Sums) -> dict[str, Any]:
    return vars(sums)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (0.3, 0.0), (0.2, 0.5)])
@pytest.mark.parametrize(("n", "m", "k"), [(1, 1, 1), (37, 70, 5), (150, 33, 20), (200, 300, 6)])
def test_one_visit_gives_what_two_give(
    always: None, monkeypatch: pytest.MonkeyPatch, n: int, m: int, k: int, l1: float, l2: float, dtype: str
) -> None:
    X, H = data(n, m, k, dtype)
    rows, block = RowsAt(H, Penalties(l1, l2, 0.0, 0.0), SHARP), Block(0, n, X)
    monkeypatch.setattr(hals_block, "CACHED_BYTES", 1)
    once = statistics(rows.sums(block, squares=True))
    monkeypatch.setattr(hals_block, "pays", lambda shape, k: False)
    for name, expected in statistics(rows.sums(block, squares=True)).items():
        scale = np.abs(expected).max() if name != "half_square" else once["square"]
        assert np.abs(once[name] - expected).max() <= CLOSE[dtype] * scale, name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (33, 5), (100, 20)])
def test_its_start_is_the_clipped_one(n: int, k: int, dtype: str) -> None:
    X, H = data(n, 2 * k + 3, k, dtype)
    G = fro.gram(H)
    W = hals_block.BlockSolver(H, G, ridge_inverse(G), 0.0, 0, 0.0).solve([X]).W
    expected = clipped_least_squares(X @ H.T, G)
    assert np.abs(W - expected).max() <= 1e3 * np.finfo(dtype).eps * np.linalg.cond(G) * expected.max()


def test_rows_of_nothing_and_of_components_without_weight_are_zero() -> None:
    X, H = data(40, 30, 6, "float32")
    X[3], H[2] = 0, 0
    G = fro.gram(H)
    solved = hals_block.BlockSolver(H, G, ridge_inverse(G), 0.0, 20, 1e-3).solve([X])
    assert not solved.W[3].any() and not solved.W[:, 2].any()
    assert np.isfinite(solved.W).all() and np.isfinite(solved.WtX).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 160),
    m=st.integers(1, 60),
    k=st.integers(1, 9),
    cuts=st.lists(st.integers(0, 160), max_size=4),
    single=st.booleans(),
    tile=st.sampled_from([1, 512 << 10]),
)
def test_its_bits_do_not_depend_on_where_parts_or_tiles_end(
    n: int, m: int, k: int, cuts: list[int], single: bool, tile: int
) -> None:
    X, H = data(n, m, k, "float32" if single else "float64")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hals_block, "pays", lambda shape, k: True)
        whole = statistics(RowsAt(H, Penalties(0.1, 0.0, 0.0, 0.0), fro.COLD).sums(Block(0, n, X), squares=True))
        patch.setattr(hals_block, "CACHED_BYTES", tile)
        block = InParts(X, [min(cut, n) for cut in cuts])
        apart = statistics(RowsAt(H, Penalties(0.1, 0.0, 0.0, 0.0), fro.COLD).sums(block, squares=True))
    for name in whole:
        np.testing.assert_array_equal(whole[name], apart[name], err_msg=name)


@pytest.mark.parametrize("change", [np.asfortranarray, lambda X: X.astype(np.float64), lambda X: X[:, ::-1]])
def test_what_is_not_the_kernels_is_solved_in_two_visits(always: None, change: Any) -> None:
    X, H = data(60, 40, 4, "float32")
    rows = RowsAt(H, Penalties(0.0, 0.0, 0.0, 0.0), SHARP)
    other: Matrix = change(X)
    assert not hals_block.fits([other], H.dtype)
    same = np.ascontiguousarray(other, np.float32)
    found, expected = rows.sums(Block(0, 60, other), squares=True), rows.sums(Block(0, 60, same), squares=True)
    np.testing.assert_allclose(found.B, expected.B, rtol=1e-4, atol=1e-4 * expected.B.max())


def test_it_pays_where_both_products_do() -> None:
    both = [(4096, 300), (4096, 1000), (4096, 4096)]
    one = [(4096, 100), (4096, 5000), (400, 1000)]
    assert all(hals_block.pays(shape, 20) for shape in both)
    assert not any(hals_block.pays(shape, 20) for shape in one)
    assert not hals_block.pays((4096, 1000), thin_products.MOST_COMPONENTS + 1)
