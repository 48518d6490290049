"""A sample's levels as views: always the rows that were asked for, in their order, whatever was asked for before."""

from __future__ import annotations

import numpy as np
import pytest
from fewpass_tools import as_csr
from hypothesis import given
from hypothesis import strategies as st

from nmfstream.core import sample_rows
from nmfstream.core.holdout import learnt
from nmfstream.core.sample import level_rows, spaced
from nmfstream.core.sample_rows import SampleRows
from nmfstream.run.sources import MemorySource


@given(st.data(), st.integers(0, 60), st.integers(1, 9))
def test_levels_are_the_rows_asked_for_and_views(data: st.DataObject, n: int, moved: int) -> None:
    X = np.arange(2.0 * n).reshape(n, 2)
    mask = data.draw(st.one_of(st.none(), st.lists(st.booleans(), min_size=n, max_size=n).map(np.array)))
    want = X.copy() if mask is None else X[mask.astype(bool)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_rows, "MOVED_BYTES", moved * 16)
        sample = SampleRows(X, None if mask is None else mask.astype(bool))
        for rows in data.draw(st.lists(st.integers(0, n + 2), max_size=6)):
            level = sample.level(rows)
            np.testing.assert_array_equal(level, level_rows(want, rows))
            assert np.may_share_memory(level, X) or not len(level)
        np.testing.assert_array_equal(sample.whole(), want)


@pytest.mark.parametrize("sparse", [False, True])
def test_data_that_are_not_ours_stay(sparse: bool) -> None:
    X = np.random.RandomState(0).poisson(1.0, (50, 4)).astype(np.float32)
    rows = MemorySource(as_csr(X) if sparse else X).gather(((0, 50),))
    before, kept = X.copy(), learnt(((0, 50),), 0.3)
    assert kept is not None and 0 < kept.sum() < 50
    sample = SampleRows(rows, kept)
    for ask in (lambda: sample.level(7), sample.whole):
        level = ask()
        dense = level if isinstance(level, np.ndarray) else level.toarray()
        np.testing.assert_array_equal(dense, X[kept][spaced(int(kept.sum()), len(dense))])
    np.testing.assert_array_equal(X, before)


def test_several_runs_of_data_in_memory_are_a_copy() -> None:
    X = np.arange(40.0).reshape(20, 2)
    rows = MemorySource(X).gather(((0, 5), (9, 20)))
    assert isinstance(rows, np.ndarray) and rows.flags.writeable and not np.may_share_memory(rows, X)
