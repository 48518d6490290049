"""Outputs that several jobs write."""

from __future__ import annotations

import json
import multiprocessing
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmfstream.errors import DataError, OutputExistsError, UsageError
from nmfstream.stores import outputs, shards
from nmfstream.stores.outputs import open_writer
from nmfstream.stores.protocols import Opening
from nmfstream.stores.registry import open_reader
from nmfstream.stores.shard_record import covers, gaps
from tests.faults.reading import read

ROWS, COLUMNS = 103, 5
X = np.random.default_rng(1).random((ROWS, COLUMNS)).astype("f4")
JOB = {"H": "abc", "data": "def"}
NAMES = ["w.npy", "w.zarr", "w.zarr/a/scores"]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten rows a chunk."""
    monkeypatch.setattr(outputs, "CHUNK_BYTES", 10 * COLUMNS * 4)


@pytest.fixture(params=NAMES)
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / request.param)


def job(spec: str, start: int, stop: int, *, batch: int = 7, identity: dict[str, Any] = JOB, dtype: str = "f4") -> None:
    with shards.open_shard(spec, (ROWS, COLUMNS), dtype, (start, stop), identity) as shard:
        for a in range(shard.done, stop, batch):
            shard.write(a, X[a : min(a + batch, stop)])
        shard.commit()


def store(spec: str) -> Path:
    return outputs.parse_output(spec).path


@pytest.mark.parametrize(
    "ranges",
    [
        [(0, 103)],
        [(0, 50), (50, 103)],
        [(55, 103), (0, 3), (3, 7), (7, 55)],
        [(0, 60), (40, 103)],
        [(95, 103), (90, 95), (0, 91), (0, 1)],
        [(a, a + 1) for a in range(ROWS)],
    ],
    ids=["one", "aligned", "cut", "overlapping", "nested", "rows"],
)
def test_any_ranges_make_one_output(spec: str, ranges: list[tuple[int, int]]) -> None:
    for start, stop in ranges:
        job(spec, start, stop)
    assert shards.missing_rows(store(spec)) == []
    np.testing.assert_array_equal(read(spec), X)


def test_unfinished_output_is_refused_with_what_is_missing(spec: str) -> None:
    job(spec, 0, 13)
    job(spec, 31, 70)
    assert shards.missing_rows(store(spec)) == [(13, 31), (70, 103)]
    with pytest.raises(DataError, match="rows 13:31, 70:103") as found:
        open_reader(spec, Opening())
    assert "--rows" in str(found.value)


def test_a_killed_range_is_run_again(spec: str) -> None:
    job(spec, 0, 45)
    with shards.open_shard(spec, (ROWS, COLUMNS), "f4", (45, 103), JOB) as shard:
        shard.write(45, X[45:72])  # and the process is gone
    assert shards.missing_rows(store(spec)) == [(45, 103)]
    job(spec, 45, 103)
    np.testing.assert_array_equal(read(spec), X)


def test_a_finished_range_is_not_made_again(spec: str) -> None:
    job(spec, 20, 60)
    with shards.open_shard(spec, (ROWS, COLUMNS), "f4", (25, 50), JOB) as shard:
        assert shard.done == 50


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"identity": {**JOB, "H": "xyz"}}, "H is 'abc' there"), ({"dtype": "f8"}, "dtype is 'float32' there")],
)
def test_another_job_is_refused(spec: str, changed: dict[str, Any], said: str) -> None:
    job(spec, 0, 13)
    with pytest.raises(OutputExistsError, match=said):
        job(spec, 13, 26, **changed)


def test_another_shape_is_refused(spec: str) -> None:
    job(spec, 0, 13)
    with (
        pytest.raises(OutputExistsError, match="shape is"),
        shards.open_shard(spec, (ROWS, COLUMNS + 1), "f4", (13, 26), JOB),
    ):
        pass


def test_a_whole_output_is_never_written_into(spec: str) -> None:
    writer = open_writer(spec, X.shape, "f4")
    writer.write(0, X)
    writer.commit()
    with pytest.raises(OutputExistsError, match="exists already"):
        job(spec, 0, 13)
    np.testing.assert_array_equal(read(spec), X)


def test_replacing_the_whole_forgets_the_ranges(spec: str) -> None:
    job(spec, 0, 13)
    writer = open_writer(spec, X.shape, "f4")
    writer.write(0, X)
    writer.commit(overwrite=True)
    np.testing.assert_array_equal(read(spec), X)


def test_a_record_without_its_output_is_refused(spec: str) -> None:
    job(spec, 0, 13)
    (store(spec)).rename(store(spec).with_name("moved"))
    with pytest.raises(OutputExistsError, match="output is gone"):
        job(spec, 13, 26)


@pytest.mark.parametrize("name", ["w.h5", "w.npz"])
def test_formats_that_cannot_be_shared(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot share"):
        job(str(tmp_path / name), 0, 5)


def test_a_torn_record_is_said(spec: str) -> None:
    job(spec, 0, 13)
    (shards.record_folder(store(spec)) / "output.json").write_text('{"shape": [')
    with pytest.raises(DataError, match="cannot be read"):
        open_reader(spec, Opening())


def test_threads_that_share_every_chunk(spec: str) -> None:
    ranges = [(a, min(a + 3, ROWS)) for a in range(0, ROWS, 3)]
    random.Random(0).shuffle(ranges)
    threads = [threading.Thread(target=job, args=(spec, a, b)) for a, b in ranges]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(read(spec), X)
    assert not list(shards.record_folder(store(spec)).glob("*.piece"))


def _process(spec: str, start: int, stop: int) -> None:
    outputs.CHUNK_BYTES = 10 * COLUMNS * 4
    job(spec, start, stop, batch=2)


def test_processes_that_come_at_the_same_time(spec: str) -> None:
    context = multiprocessing.get_context("fork")
    ranges = [(0, 27), (27, 54), (54, 81), (81, 103)]
    processes = [context.Process(target=_process, args=(spec, *r)) for r in ranges]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    np.testing.assert_array_equal(read(spec), X)


def test_the_record_says_what_the_output_is(spec: str) -> None:
    job(spec, 0, 13)
    record = json.loads((shards.record_folder(store(spec)) / "output.json").read_text())
    assert record["shape"] == [ROWS, COLUMNS]
    assert record["H"] == "abc"


@pytest.mark.parametrize(
    ("ranges", "missing"),
    [
        ([], [(0, 9)]),
        ([(0, 9)], []),
        ([(2, 4), (3, 6)], [(0, 2), (6, 9)]),
        ([(0, 3), (1, 2), (3, 20)], []),
    ],
)
def test_gaps(ranges: list[tuple[int, int]], missing: list[tuple[int, int]]) -> None:
    assert gaps(ranges, (0, 9)) == missing
    assert covers(ranges, (0, 9)) is (not missing)
