"""Every store of the conformance table gives the same matrix, whatever rows are asked for and in whatever threads."""

from __future__ import annotations

import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from nmfstream.stores.checks import canonical
from nmfstream.stores.protocols import ReadPolicy, RowReader, allocate
from nmfstream.stores.registry import candidates, open_reader, split
from nmfstream.types import CSR
from tests.stores.conformance import CASES, COLUMNS, ROWS, Case, matrix

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

RANGES = [(0, ROWS), (0, 1), (13, 14), (16, 19), (31, 33), (150, 151), (64, 128), (ROWS - 1, ROWS), (40, 40), (3, 299)]
X = matrix()


def read(reader: RowReader, start: int, stop: int, dtype: str = "f4", pool: ThreadPoolExecutor | None = None):
    policy = ReadPolicy(np.dtype(dtype))
    out = allocate(reader, start, stop, policy.dtype)
    tasks = reader.tasks(start, stop, out, policy)
    list((pool.map if pool else map)(lambda task: task(), tasks))
    return canonical(out, name=reader.name, first_row=start, policy=policy) if isinstance(out, CSR) else out


def dense(block) -> np.ndarray:
    return block.toarray() if isinstance(block, CSR) else block


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def reader(case: Case, tmp_path: Path):
    (tmp_path / "scratch").mkdir()
    with open_reader(case.write(tmp_path, X), case.open_with(tmp_path / "scratch")) as opened:
        opened.check()
        yield opened


def test_rows(reader: RowReader, case: Case) -> None:
    assert reader.shape == (ROWS, COLUMNS)
    assert (reader.nnz is not None) == case.sparse
    for start, stop in RANGES:
        np.testing.assert_array_equal(dense(read(reader, start, stop)), X[start:stop])


def test_slabs_in_threads_and_float64(reader: RowReader) -> None:
    with ThreadPoolExecutor(3) as pool:
        slabs = [dense(read(reader, at, min(at + 50, ROWS), "f8", pool)) for at in range(0, ROWS, 50)]
    np.testing.assert_array_equal(np.concatenate(slabs), X.astype("f8"))


def test_canonical_form(reader: RowReader, case: Case) -> None:
    block = read(reader, 0, ROWS)
    assert isinstance(block, CSR) == case.sparse
    reference = CSR(np.r_[0, np.cumsum((X != 0).sum(1))], np.nonzero(X)[1].astype("i4"), X[X != 0], COLUMNS)
    pairs = list(zip(block, reference))[: 3 * case.sparse]
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def test_fingerprint_belongs_to_the_values_not_the_place(case: Case, tmp_path: Path) -> None:
    prints = []
    for name, values in (("a", X), ("b", X), ("c", X + (X > 100) * (np.arange(ROWS) == ROWS - 2)[:, None])):
        folder = tmp_path / name
        folder.mkdir()
        spec = case.write(folder, values)
        moved = shutil.move(folder, tmp_path / f"moved-{name}") if name == "b" else folder
        with open_reader(spec.replace(str(folder), str(moved)), case.open_with(tmp_path)) as opened:
            prints.append(opened.fingerprint())
    assert prints[0] == prints[1]
    assert prints[0] != prints[2]


def test_pickled_readers_read_on(reader: RowReader) -> None:
    with pickle.loads(pickle.dumps(reader)) as again:
        np.testing.assert_array_equal(dense(read(again, 20, 90)), X[20:90])


def test_listed_as_candidate(case: Case, tmp_path: Path) -> None:
    spec = case.write(tmp_path, X)
    shapes = {one.shape for one in candidates(split(spec)[0], case.open_with(tmp_path))}
    assert shapes <= {(ROWS, COLUMNS), (COLUMNS, ROWS)}
    assert shapes
