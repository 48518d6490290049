"""One conformance suite for all writers: a format is one more line in the table."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import zarr

from nmfstream.errors import CheckpointMismatchError, OutputExistsError, UsageError
from nmfstream.storage import durable
from nmfstream.stores.outputs import parse_output
from nmfstream.stores.protocols import Opening
from nmfstream.stores.registry import open_reader, open_writer
from tests.faults.reading import read
from tests.storage.memory import ROOT, MemoryDisk, Node

ROWS, COLUMNS = 103, 7
X = np.random.default_rng(0).random((ROWS, COLUMNS)).astype("f4")
ORDERED = [(0, 40), (40, 80), (80, 103)]
SHUFFLED = [(57, 103), (0, 13), (13, 27), (27, 57)]
TWICE = [(0, 60), (20, 30), (50, 103), (0, 103), (99, 103)]


class Case(NamedTuple):
    spec: str
    load: Callable[[Path], Any]


CASES = [
    Case("w.npy", lambda path: np.load(path)),
    Case("w.npz", lambda path: np.load(path)["W"]),
    Case("w.npz/scores", lambda path: np.load(path)["scores"]),
    Case("w.h5", lambda path: h5py.File(path)["W"][:]),
    Case("w.hdf5/a/b/scores", lambda path: h5py.File(path)["a/b/scores"][:]),
    Case("w.zarr", lambda path: zarr.open_group(path, mode="r")["W"][:]),
    Case("w.zarr/a/scores", lambda path: zarr.open_group(path, mode="r")["a/scores"][:]),
]


@pytest.fixture(params=CASES, ids=lambda case: case.spec)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def begin(folder: Path, case: Case, **options: Any) -> Any:
    return open_writer(str(folder / case.spec), X.shape, X.dtype, chunk_rows=10, **options)


def put(writer: Any, ranges: list[tuple[int, int]]) -> None:
    for start, stop in ranges:
        writer.write(start, X[start:stop])


def final(folder: Path, case: Case) -> Path:
    return parse_output(str(folder / case.spec)).path


@pytest.mark.parametrize("ranges", [ORDERED, SHUFFLED, TWICE], ids=["ordered", "shuffled", "twice"])
def test_rows_in_any_order_and_again(tmp_path: Path, case: Case, ranges: list[tuple[int, int]]) -> None:
    writer = begin(tmp_path, case)
    put(writer, ranges)
    writer.commit()
    np.testing.assert_array_equal(case.load(final(tmp_path, case)), X)
    np.testing.assert_array_equal(read(tmp_path / case.spec), X)


@pytest.mark.parametrize("dtype", ["f8", ">f4", "i4", "u1", "?"])
def test_types(tmp_path: Path, case: Case, dtype: str) -> None:
    values = (X * 200).astype(dtype)
    writer = open_writer(str(tmp_path / case.spec), X.shape, dtype)
    writer.write(0, values)
    writer.commit()
    loaded = case.load(final(tmp_path, case))
    np.testing.assert_array_equal(loaded, values)
    assert loaded.dtype == np.dtype(dtype).newbyteorder("=")


@pytest.mark.parametrize("shape", [(0, 7), (5, 0), (1, 1)])
def test_small_shapes(tmp_path: Path, case: Case, shape: tuple[int, int]) -> None:
    writer = open_writer(str(tmp_path / case.spec), shape, "f4")
    writer.write(0, np.ones(shape, "f4"))
    writer.commit()
    with open_reader(str(tmp_path / case.spec), Opening()) as reader:
        assert reader.shape == shape


def test_final_name_only_on_commit(tmp_path: Path, case: Case) -> None:
    writer = begin(tmp_path, case)
    put(writer, ORDERED)
    writer.flush()
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
    writer.commit()
    assert [path.name for path in tmp_path.iterdir()] == [final(tmp_path, case).name]


def test_abort_leaves_nothing(tmp_path: Path, case: Case) -> None:
    writer = begin(tmp_path, case)
    put(writer, [(0, 15)])
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_kept(tmp_path: Path, case: Case) -> None:
    first = begin(tmp_path, case)
    put(first, ORDERED)
    first.commit()
    second = begin(tmp_path, case)
    second.write(0, np.zeros_like(X))
    with pytest.raises(OutputExistsError, match="exists"):
        second.commit()
    second.abort()
    np.testing.assert_array_equal(case.load(final(tmp_path, case)), X)
    assert [path.name for path in tmp_path.iterdir()] == [final(tmp_path, case).name]


def test_overwrite_replaces_the_whole_store(tmp_path: Path, case: Case) -> None:
    first = open_writer(str(final(tmp_path, case)), (2, 3), "f8", dataset="other")
    first.write(0, np.ones((2, 3)))
    first.commit()
    second = begin(tmp_path, case)
    put(second, ORDERED)
    second.commit(overwrite=True)
    np.testing.assert_array_equal(case.load(final(tmp_path, case)), X)
    assert [path.name for path in tmp_path.iterdir()] == [final(tmp_path, case).name]


def test_resume_continues_the_partial(tmp_path: Path, case: Case) -> None:
    partial = tmp_path / "w.partial"
    writer = begin(tmp_path, case, partial=partial)
    put(writer, [(0, 33)])
    writer.flush()  # and the process is gone
    again = begin(tmp_path, case, partial=partial, resume=True)
    assert again.resumed
    put(again, [(33, 103)])
    again.commit()
    np.testing.assert_array_equal(case.load(final(tmp_path, case)), X)
    assert not partial.exists()


def test_resume_of_nothing_begins(tmp_path: Path, case: Case) -> None:
    writer = begin(tmp_path, case, partial=tmp_path / "w.partial", resume=True)
    assert not writer.resumed
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_partial_that_is_there_is_refused_without_resume(tmp_path: Path, case: Case) -> None:
    begin(tmp_path, case, partial=tmp_path / "w.partial").close()
    with pytest.raises(OutputExistsError):
        begin(tmp_path, case, partial=tmp_path / "w.partial")


def test_resume_of_another_array_is_refused(tmp_path: Path, case: Case) -> None:
    partial = tmp_path / "w.partial"
    open_writer(str(tmp_path / case.spec), (ROWS, COLUMNS + 1), "f4", partial=partial).close()
    with pytest.raises(CheckpointMismatchError, match="another array"):
        begin(tmp_path, case, partial=partial, resume=True)


@pytest.mark.parametrize("start", [-1, 100])
def test_rows_outside_are_refused(tmp_path: Path, case: Case, start: int) -> None:
    writer = begin(tmp_path, case)
    with pytest.raises(ValueError, match="do not fit"):
        writer.write(start, X[:10])
    writer.abort()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("w.csv", "outputs end in"),
        ("w.zar", "did you mean .*w.zarr"),
        ("w.nyp", "did you mean .*w.npy"),
        ("w.csv", "as text: transform -o - --output-format csv > .*w.csv"),
        ("w.npy/W", "one array without a name"),
        ("w.h5/../x", "no place"),
        ("plain", "outputs end in"),
    ],
)
def test_names_that_no_writer_takes(tmp_path: Path, spec: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as found:
        open_writer(str(tmp_path / spec), (3, 3), "f4")
    assert found.value.exit_code == 2


def test_a_folder_with_a_suffix_is_only_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run.zarr").mkdir()
    (tmp_path / "run.h5").mkdir()
    assert parse_output(str(tmp_path / "run.zarr/w.npy")).path == tmp_path / "run.zarr/w.npy"
    assert parse_output(str(tmp_path / "run.h5/w.zarr/a")).dataset == "a"


def test_a_missing_folder_is_said(tmp_path: Path, case: Case) -> None:
    with pytest.raises(OutputExistsError, match="cannot be created"):
        begin(tmp_path / "absent", case)


def fresh_disk() -> MemoryDisk:
    return MemoryDisk({ROOT: Node(True, names={"d": 2}), 2: Node(True)})


def dump(disk: MemoryDisk, at: str, to: Path) -> Path:
    """Copy what a simulated disk holds to the real one."""
    if disk.stat(at).folder:
        to.mkdir()
        for name in disk.listdir(at):
            dump(disk, f"{at}/{name}", to / name)
    else:
        fd = disk.open(at, 0)
        to.write_bytes(disk.pread(fd, disk.size(fd), 0))
    return to


@pytest.mark.parametrize("seed", range(4))
def test_flushed_rows_survive_a_power_cut(tmp_path: Path, case: Case, seed: int) -> None:
    disk, partial = fresh_disk(), Path("/d/partial")
    with durable.use(disk):
        writer = begin(Path("/d"), case, partial=partial)
        put(writer, [(0, 33)])
        writer.flush()
        flushed = len(disk.journal)
        put(writer, [(33, 64)])
    rng = random.Random(seed)
    after = disk.after_power_loss(rng.randrange(flushed, len(disk.journal) + 1), rng)
    with durable.use(after):
        again = begin(Path("/d"), case, partial=partial, resume=True)
        assert again.resumed
        put(again, [(33, 103)])
        again.commit()
    found = dump(after, str(final(Path("/d"), case)), final(tmp_path, case))
    np.testing.assert_array_equal(case.load(found), X)


@pytest.mark.parametrize("seed", range(4))
def test_a_power_cut_never_leaves_half_an_output(tmp_path: Path, case: Case, seed: int) -> None:
    disk, name = fresh_disk(), str(final(Path("/d"), case))
    with durable.use(disk):
        writer = begin(Path("/d"), case)
        put(writer, SHUFFLED)
        writer.commit()
    rng = random.Random(seed)
    names = [(disk.after_power_loss(at, rng), at) for at in range(0, len(disk.journal), 3)]
    whole = [(after, at) for after, at in names if Path(name).name in after.listdir("/d")]
    for after, at in whole:
        np.testing.assert_array_equal(case.load(dump(after, name, tmp_path / f"{at}-{Path(name).name}")), X)
    kept = dump(disk.after_power_loss(len(disk.journal), rng), name, final(tmp_path, case))
    np.testing.assert_array_equal(case.load(kept), X)
