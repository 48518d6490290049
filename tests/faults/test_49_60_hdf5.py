"""Faults 49 to 60: HDF5 files."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nmfstream.errors import NmfstreamError
from nmfstream.stores import hdf5_file, hdf5_nodes, probe
from nmfstream.stores.describe import describe
from nmfstream.stores.protocols import Opening
from tests.faults.reading import failure, read

X = np.arange(1, 1201, dtype="f4").reshape(120, 10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "d.h5"


def write(path: Path, **layout: Any) -> Path:
    with h5py.File(path, "w") as f:
        f.create_dataset("X", data=X, **layout)
    return path


def test_fault_49_external_raw_storage(tmp_path: Path, path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(X.tobytes())
    with h5py.File(path, "w") as f:
        f.create_dataset("X", X.shape, "f4", external=[(str(tmp_path / "secret.bin"), 0, X.nbytes)])
    error = failure(path)
    assert "secret.bin" in error.what
    assert "--allow-external" in error.hint
    np.testing.assert_array_equal(read(path, Opening(allow_external=True)), X)


@pytest.mark.parametrize("inner", ["link", "group/link", "soft"])
def test_fault_50_external_link_on_the_path(tmp_path: Path, path: Path, inner: str) -> None:
    write(tmp_path / "other.h5")
    with h5py.File(path, "w") as f:
        f["link"] = h5py.ExternalLink("other.h5", "/X")
        f["group/link"] = h5py.ExternalLink("other.h5", "/X")
        f["soft"] = h5py.SoftLink("/group/link")
    error = failure(f"{path}/{inner}")
    assert "other.h5" in error.what
    assert "--allow-external" in error.hint
    np.testing.assert_array_equal(read(f"{path}/{inner}", Opening(allow_external=True)), X)


def test_fault_50_external_links_are_no_candidates(tmp_path: Path, path: Path) -> None:
    write(tmp_path / "other.h5")
    with h5py.File(path, "w") as f:
        f["link"] = h5py.ExternalLink("other.h5", "/X")
    assert "no matrix" in failure(path).what


def test_fault_51_virtual_dataset_without_its_source(tmp_path: Path, path: Path) -> None:
    layout = h5py.VirtualLayout(X.shape, "f4")
    for i in range(2):
        with h5py.File(tmp_path / f"part{i}.h5", "w") as f:
            f["X"] = X[60 * i : 60 * i + 60]
        layout[60 * i : 60 * i + 60] = h5py.VirtualSource(f"part{i}.h5", "X", (60, 10))
    with h5py.File(path, "w") as f:
        f.create_virtual_dataset("X", layout)
    (tmp_path / "part1.h5").unlink()
    opening = Opening(allow_external=True)
    assert "part1.h5" in failure(path, opening).what
    filled = read(path, Opening(allow_external=True, missing_chunks="fill"))
    np.testing.assert_array_equal(filled, np.r_[X[:60], np.zeros((60, 10))])


def test_fault_51_sources_that_are_not_whole(tmp_path: Path, path: Path) -> None:
    layout = h5py.VirtualLayout(X.shape, "f4")
    layout[:60] = h5py.VirtualSource("part.h5", "X", (60, 10))
    with h5py.File(path, "w") as f:
        f.create_virtual_dataset("X", layout)
    with h5py.File(tmp_path / "part.h5", "w") as f:
        f["X"] = X[:60]
    assert "600 of 1200 values have no source" in failure(path).what
    with h5py.File(tmp_path / "part.h5", "w") as f:
        f.create_dataset("X", (60, 10), "f4", chunks=(10, 10))[:20] = 1
    assert "part.h5:X (chunks never written)" in failure(path).what


@pytest.mark.parametrize("layout", [{"chunks": (10, 10)}, {"chunks": (10, 5), "compression": "gzip"}])
def test_fault_52_chunks_that_were_never_written(path: Path, layout: dict[str, Any]) -> None:
    with h5py.File(path, "w") as f:
        f.create_dataset("X", X.shape, "f4", fillvalue=3, **layout)[:40] = X[:40]
    total = 12 * 10 // layout["chunks"][1]
    error = failure(path)
    assert f"{total * 2 // 3} of {total} chunks" in error.what
    assert "--missing-chunks fill" in error.hint
    np.testing.assert_array_equal(read(path, Opening(missing_chunks="fill")), np.r_[X[:40], np.full((80, 10), 3)])


def test_fault_52_contiguous_that_was_never_written(path: Path) -> None:
    with h5py.File(path, "w") as f:
        f.create_dataset("X", X.shape, "f4")
    assert "never written" in failure(path).what
    assert not read(path, Opening(missing_chunks="fill")).any()


@pytest.mark.parametrize("part", ["data", "indices", "indptr"])
def test_fault_52_in_a_sparse_group(path: Path, part: str) -> None:
    with h5py.File(path, "w") as f:
        g = f.create_group("S")
        g.attrs["shape"] = (3, 4)
        for name, values in (("data", [1.0, 2.0]), ("indices", [0, 1]), ("indptr", [0, 1, 2, 2])):
            d = g.create_dataset(name, (len(values),), "f4" if name == "data" else "i4", chunks=(1,))
            d[: -1 if name == part else None] = values[: -1 if name == part else None]
    assert "never written" in failure(path).what


@pytest.mark.parametrize("layout", [{}, {"chunks": (10, 10)}, {"chunks": (10, 10), "compression": "gzip"}])
def test_fault_53_truncated(path: Path, layout: dict[str, Any]) -> None:
    write(path, **layout)
    path.write_bytes(path.read_bytes()[:-300])
    error = failure(path)
    assert "truncated" in str(error)
    assert "h5clear" in error.hint


def test_fault_53_room_that_does_not_fit_the_shape(path: Path) -> None:
    """A flipped bit in the shape of a contiguous dataset leaves its rows in the wrong places."""
    with h5py.File(path, "w") as f:
        f["X"] = np.ones((12, 7), "f4")
    raw = path.read_bytes()
    extents = np.array([12, 7], "<u8").tobytes()
    path.write_bytes(raw.replace(extents, np.array([12, 6], "<u8").tobytes()))
    assert raw.count(extents) >= 1
    assert "336 bytes are stored, 288 expected" in failure(path).what


def test_fault_53_killed_writer(path: Path) -> None:
    code = f"""if True:
        import h5py, os, numpy as np
        f = h5py.File({str(path)!r}, "w", libver="latest"); f["X"] = np.ones((100, 100))
        f.swmr_mode = True; f.flush(); os._exit(1)"""
    subprocess.run([sys.executable, "-c", code], check=False)
    error = failure(path)
    assert "h5clear" in error.hint


@pytest.mark.parametrize("layout", [{}, {"compression": "gzip"}, {"shuffle": True}, {"compression": "lzf"}])
def test_fault_54_checksum(path: Path, layout: dict[str, Any]) -> None:
    write(path, chunks=(10, 10), fletcher32=True, **layout)
    with h5py.File(path) as f:
        where = f["X"].id.get_chunk_info(7)
    raw = bytearray(path.read_bytes())
    raw[where.byte_offset + where.size // 2] ^= 4
    path.write_bytes(raw)
    assert "chunk (7, 0)" in str(failure(path))


def test_fault_55_no_checksum_is_told(path: Path) -> None:
    assert any("flipped bit" in text for text in describe(str(write(path, chunks=(10, 10))), Opening()).warnings)
    write(path, chunks=(10, 10), fletcher32=True)
    assert not any("flipped bit" in text for text in describe(str(path), Opening()).warnings)


@pytest.mark.parametrize("code, named", [(32013, "zfp"), (300, "filter 300")])
def test_fault_56_unknown_filter(path: Path, code: int, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_nodes.h5py.h5z, "filter_avail", lambda number: False)
    with h5py.File(path, "w") as f:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((10, 10))
        plan.set_filter(code, h5py.h5z.FLAG_OPTIONAL, ())
        h5py.h5d.create(f.id, b"X", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple(X.shape), plan)
    error = failure(path, Opening(missing_chunks="fill"))
    assert named in error.what
    assert "hdf5plugin" in error.hint


def test_fault_57_file_that_crashes_the_library(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "child.py"
    child.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(probe, "_CHILD", child)
    error = failure(write(path))
    assert "SIGSEGV" in error.what


def test_fault_57_file_that_keeps_the_library_busy(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "child.py"
    child.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(probe, "_CHILD", child)
    monkeypatch.setattr(probe, "TIMEOUT", 0.2)
    assert "busy" in failure(write(path)).what


@pytest.mark.parametrize("seed", range(40))
def test_fault_57_damaged_anywhere(path: Path, seed: int) -> None:
    """Whatever byte is damaged: one of our errors or values, never a crash and never another exception."""
    write(path, chunks=(10, 10), compression="gzip", shuffle=True)
    rng = np.random.default_rng(seed)
    raw = bytearray(path.read_bytes())
    for at in rng.integers(0, min(len(raw), 6000), 6):
        raw[at] = rng.integers(0, 256)
    path.write_bytes(raw)
    try:
        read(path)
    except NmfstreamError as error:
        assert error.exit_code in (2, 65, 66, 74)


@pytest.mark.parametrize("number", [11, 524])
def test_fault_58_lock_refused(path: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    write(path)
    real = h5py.File

    def refusing(name: Any, mode: str = "r", **options: Any) -> Any:
        if options.get("locking") is not False:
            raise OSError(
                f"Unable to synchronously open file (unable to lock file, errno = {number}, error message = 'x')"
            )
        return real(name, mode, **options)

    monkeypatch.setattr(hdf5_file.h5py, "File", refusing)
    np.testing.assert_array_equal(read(path), X)
    assert "without a lock" in caplog.text


def test_fault_58_lock_of_another_process(path: Path, caplog: Any) -> None:
    write(path)
    with path.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        np.testing.assert_array_equal(read(path), X)
    assert "without a lock" in caplog.text


def test_fault_59_no_fork_with_open_handles() -> None:
    """Nothing in the readers forks: the probe is a fresh program that inherits no descriptor."""
    folder = Path(hdf5_file.__file__).parent
    assert not [file.name for file in folder.glob("*.py") if "os.fork" in file.read_text()]


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((4, 3), [("a", "f4"), ("b", "i4")]),
        np.zeros((4, 3), "S3"),
        np.zeros((4, 3), "c8"),
        np.zeros(5),
        np.zeros((2, 3, 4)),
        np.float32(3),
    ],
    ids=["compound", "string", "complex", "1-D", "3-D", "scalar"],
)
def test_fault_60_no_matrix(path: Path, values: Any) -> None:
    with h5py.File(path, "w") as f:
        f["X"] = values
        f["text"] = "abc"
        f.create_dataset("refs", (2, 2), h5py.ref_dtype)
    failure(path)
    failure(f"{path}/X")
    failure(f"{path}/refs")
    failure(f"{path}/text")


def virtual(path: Path, source: str, dataset: str = "X") -> None:
    layout = h5py.VirtualLayout(X.shape, "f4")
    layout[:] = h5py.VirtualSource(source, dataset, X.shape)
    with h5py.File(path, "w") as f:
        f.create_virtual_dataset("X", layout)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A folder beside a file that is none of its business."""
    write(tmp_path / "secret.h5")
    (tmp_path / "job").mkdir()
    return tmp_path / "job"


def direct(job: Path) -> None:
    virtual(job / "d.h5", "../secret.h5")


def absolute(job: Path) -> None:
    virtual(job / "d.h5", str(job.parent / "secret.h5"))


def by_a_link(job: Path) -> None:
    with h5py.File(job / "hop.h5", "w") as f:
        f["X"] = h5py.ExternalLink("../secret.h5", "X")
    virtual(job / "d.h5", "hop.h5")


def by_a_virtual_one(job: Path) -> None:
    virtual(job / "hop.h5", "../secret.h5")
    virtual(job / "d.h5", "hop.h5")


def by_raw_data(job: Path) -> None:
    (job.parent / "secret.h5").write_bytes(X.tobytes())
    with h5py.File(job / "hop.h5", "w") as f:
        f.create_dataset("X", X.shape, "f4", external=[(str(job.parent / "secret.h5"), 0, X.nbytes)])
    virtual(job / "d.h5", "hop.h5")


@pytest.mark.parametrize("make", [direct, absolute, by_a_link, by_a_virtual_one, by_raw_data])
@pytest.mark.parametrize("missing", ["error", "fill"])
def test_fault_50_virtual_sources_outside_the_folder(job: Path, make: Any, missing: Any) -> None:
    make(job)
    error = failure(job / "d.h5", Opening(missing_chunks=missing))
    assert "secret.h5" in error.what
    assert "--allow-external" in error.hint
    np.testing.assert_array_equal(read(job / "d.h5", Opening(allow_external=True)), X)


def test_fault_50_virtual_sources_in_the_folder_are_fine(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts" / "a.h5")
    write(tmp_path / "b.h5")
    virtual(tmp_path / "below.h5", "parts/a.h5")
    virtual(tmp_path / "absolute.h5", str(tmp_path / "b.h5"))
    for name in ("below.h5", "absolute.h5"):
        np.testing.assert_array_equal(read(tmp_path / name), X)
