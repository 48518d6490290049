"""Faults 61 to 71: Zarr stores."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from nmfstream.errors import DataError, InputAbsentError, NmfstreamError, RemoteError, UsageError
from nmfstream.stores.protocols import Opening
from nmfstream.stores.registry import open_reader
from nmfstream.stores.zarr_remote import ATTEMPTS, RemoteFiles
from tests.faults.reading import failure, read

X = np.arange(1, 1201, dtype="f4").reshape(120, 10)
FILL = Opening(missing_chunks="fill")
LAYOUTS = {
    "v2": {"zarr_format": 2, "chunks": (16, 4)},
    "v2 nested": {"zarr_format": 2, "chunks": (16, 4), "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "v3": {"zarr_format": 3, "chunks": (16, 4)},
    "v3 dots": {"zarr_format": 3, "chunks": (16, 4), "chunk_key_encoding": {"name": "default", "separator": "."}},
    "v3 gzip": {"zarr_format": 3, "chunks": (16, 4), "compressors": zarr.codecs.GzipCodec()},
    "v3 blosc": {"zarr_format": 3, "chunks": (16, 4), "compressors": zarr.codecs.BloscCodec()},
    "v3 plain": {"zarr_format": 3, "chunks": (16, 4), "compressors": None},
}
SHARDS = {"zarr_format": 3, "chunks": (8, 5), "shards": (16, 10)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "d.zarr"


@pytest.fixture(params=LAYOUTS, ids=lambda name: name)
def store(request: pytest.FixtureRequest, path: Path) -> Path:
    return write(path, X, **LAYOUTS[request.param])


def write(path: Path, values: np.ndarray, *, fill: Any = 0, empty: bool = True, **layout: Any) -> Path:
    config = {"write_empty_chunks": empty}
    array = zarr.create_array(
        str(path), shape=values.shape, dtype=values.dtype, fill_value=fill, config=config, **layout
    )
    array[:] = values
    return path


def chunks(path: Path) -> list[Path]:
    """The files of the chunks, in the order of their keys."""
    documents = ("zarr.json", ".zarray", ".zattrs", ".zgroup")
    return sorted(p for p in path.rglob("*") if p.is_file() and p.name not in documents)


def key(path: Path, chunk: Path) -> str:
    return chunk.relative_to(path).as_posix()


def with_holes(X: np.ndarray) -> np.ndarray:
    holed = X.copy()
    holed[16:32, 4:8] = 0
    holed[96:112, :4] = 0
    return holed


def test_fault_61_missing_chunks(store: Path) -> None:
    gone = [chunks(store)[4], chunks(store)[-1]]
    for chunk in gone:
        chunk.unlink()
    error = failure(store)
    assert "2 of 24 chunks are missing" in error.what
    assert key(store, gone[0]) in error.what
    assert "--missing-chunks fill" in error.hint
    assert (read(store, FILL) == 0).sum() > 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fault_61_chunks_left_out_as_all_fill(path: Path, layout: str) -> None:
    write(path, with_holes(X), empty=False, **LAYOUTS[layout])
    error = failure(path)
    assert "2 of 24 chunks are missing" in error.what
    assert "all 0.0 by default" in error.hint
    np.testing.assert_array_equal(read(path, FILL), with_holes(X))


def test_fault_61_a_whole_folder_of_chunks_is_gone(path: Path) -> None:
    write(path, X, **LAYOUTS["v3"])
    shutil.rmtree(path / "c/3")
    assert "3 of 24 chunks are missing (first: c/3/0)" in failure(path).what


def test_fault_61_a_chunk_that_goes_while_it_is_read(store: Path) -> None:
    with open_reader(str(store), Opening()) as reader:
        reader.check()
        chunks(store)[3].unlink()
        from nmfstream.stores.protocols import ReadPolicy, allocate

        out = allocate(reader, 0, 120, np.dtype("f4"))
        tasks = reader.tasks(0, 120, out, ReadPolicy(np.dtype("f4")))
        with pytest.raises(DataError, match="missing"):
            [task() for task in tasks]


def test_fault_61_names_that_are_no_chunks_do_not_count(path: Path) -> None:
    write(path, X, **LAYOUTS["v3 dots"])
    (path / "c.0.0").rename(path / "c.00.0")
    (path / ".c.1.0.tmp").write_bytes(b"x")
    assert "1 of 24 chunks are missing (first: c.0.0)" in failure(path).what


def test_fault_62_a_folder_in_the_place_of_a_chunk(store: Path) -> None:
    chunk = chunks(store)[5]
    chunk.unlink()
    chunk.mkdir()
    for opening in (Opening(), FILL):
        error = failure(store, opening)
        assert "folder" in error.what
        assert key(store, chunk) in error.where


@pytest.mark.parametrize("location", ["start", "end"])
def test_fault_63_missing_inner_chunks(path: Path, location: str) -> None:
    holed = X.copy()
    holed[16:24, 5:], holed[112:, :] = 0, 0
    shards = {"shards": {"shape": (16, 10), "index_location": location}}
    write(path, holed, empty=False, **SHARDS | shards)
    error = failure(path)
    assert "3 of 30 chunks are missing" in error.what
    assert "c/1/0" in error.what
    assert "--missing-chunks fill" in error.hint
    np.testing.assert_array_equal(read(path, FILL), holed)


def test_fault_63_a_whole_shard_is_gone(path: Path) -> None:
    write(path, X, **SHARDS)
    (path / "c/7/0").unlink()
    assert "2 of 30 chunks are missing (first: c/7/0)" in failure(path).what


@pytest.mark.parametrize("fill", [float("nan"), float("inf")])
@pytest.mark.parametrize("layout", ["v2", "v3"])
def test_fault_64_fill_value_that_is_no_number(path: Path, fill: float, layout: str) -> None:
    write(path, X, fill=fill, **LAYOUTS[layout])
    np.testing.assert_array_equal(read(path), X)
    chunks(path)[0].unlink()
    error = failure(path, FILL)
    assert "1 of 24 chunks" in error.what
    assert "fill value is no number" in error.hint


def test_fault_64_fill_value_null(path: Path) -> None:
    write(path, X, **LAYOUTS["v2"])
    document = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps({**document, "fill_value": None}))
    chunks(path)[0].unlink()
    assert "fill value is no number" in failure(path, FILL).hint


def test_fault_64_negative_fill_value_is_a_negative_value(path: Path) -> None:
    write(path, X, fill=-1, **LAYOUTS["v3"])
    chunks(path)[0].unlink()
    assert "negative" in failure(path, FILL).what


@pytest.mark.parametrize("left", [0, 7, 30])
def test_fault_65_truncated_chunk(store: Path, left: int) -> None:
    chunk = chunks(store)[7]
    chunk.write_bytes(chunk.read_bytes()[:left])
    assert key(store, chunk) in failure(store).what


def test_fault_65_bytes_after_the_chunk(store: Path) -> None:
    chunk = chunks(store)[7]
    chunk.write_bytes(chunk.read_bytes() + bytes(64))
    found = outcome(store)
    assert found == key(store, chunk) or np.array_equal(found, X)


def outcome(store: Path) -> Any:
    """The values, or the key that the error names."""
    try:
        return read(store)
    except DataError as error:
        return error.what.split()[1].rstrip(":")


@pytest.mark.parametrize("keep", [0, 10, 100])
def test_fault_65_truncated_shard(path: Path, keep: int) -> None:
    write(path, X, **SHARDS)
    shard = path / "c/3/0"
    shard.write_bytes(shard.read_bytes()[:keep])
    assert "c/3/0" in str(failure(path))


def test_fault_65_a_shard_index_that_leads_outside(path: Path) -> None:
    codec = zarr.codecs.ShardingCodec(chunk_shape=(8, 5), index_codecs=[zarr.codecs.BytesCodec()])
    zarr.create(X.shape, chunks=(16, 10), dtype="f4", codecs=[codec], store=str(path), zarr_format=3)[:] = X
    shard = path / "c/3/0"
    raw = bytearray(shard.read_bytes())
    raw[-8:] = (2**40).to_bytes(8, "little")
    shard.write_bytes(raw)
    assert "c/3/0" in failure(path).what


def checksummed(path: Path, kind: str) -> Path:
    codecs = {
        "crc32c": [zarr.codecs.BloscCodec(), zarr.codecs.Crc32cCodec()],
        "zstd": zarr.codecs.ZstdCodec(checksum=True),
        "gzip": zarr.codecs.GzipCodec(),
    }
    return write(path, X, zarr_format=3, chunks=(16, 4), compressors=codecs[kind])


@pytest.mark.parametrize("kind", ["crc32c", "zstd", "gzip"])
@pytest.mark.parametrize("at", [20, -1, -3])
def test_fault_66_checksum_mismatch(path: Path, kind: str, at: int) -> None:
    chunk = chunks(checksummed(path, kind))[6]
    raw = bytearray(chunk.read_bytes())
    raw[at] ^= 0x10
    chunk.write_bytes(raw)
    assert key(path, chunk) in failure(path).what


def test_fault_66_checksum_of_a_shard_index(path: Path) -> None:
    write(path, X, **SHARDS)
    shard = path / "c/2/0"
    raw = bytearray(shard.read_bytes())
    raw[-6] ^= 1
    shard.write_bytes(raw)
    error = failure(path)
    assert "index" in error.what
    assert "c/2/0" in error.where


def test_fault_66_checksum_of_a_zip_member(tmp_path: Path) -> None:
    zipped = tmp_path / "d.zarr.zip"
    with zarr.storage.ZipStore(zipped, mode="w") as store:
        zarr.create_array(store, data=X, chunks=(16, 4), compressors=None)
    raw = zipped.read_bytes()
    at = raw.index(X[16:32, :4].tobytes())
    zipped.write_bytes(raw[:at] + b"\x01" + raw[at + 1 :])
    assert "c/1/0" in failure(zipped).what


@pytest.mark.parametrize(("layout", "name"), [("v2", ".zarray"), ("v3", "zarr.json")])
@pytest.mark.parametrize("keep", [0, 1, 50])
def test_fault_67_torn_metadata(path: Path, layout: str, name: str, keep: int) -> None:
    write(path, X, **LAYOUTS[layout])
    document = path / name
    document.write_bytes(document.read_bytes()[:keep])
    assert name in failure(path).where


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [120]},
        {"shape": [120, -10]},
        {"shape": "many"},
        {"shape": None},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 4]}}},
        {"chunk_grid": None},
        {"data_type": None},
        {"codecs": []},
        {"codecs": [7]},
        {"node_type": None},
    ],
    ids=str,
)
def test_fault_67_metadata_without_sense(path: Path, change: dict[str, Any]) -> None:
    write(path, X, **LAYOUTS["v3"])
    document = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps({**document, **change}))
    failure(path)


def declare(path: Path, **change: Any) -> None:
    document = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps({**document, **change}))


def test_fault_68_huge_declared_shape(path: Path) -> None:
    write(path, X, **LAYOUTS["v3"])
    declare(path, shape=[2**50, 10])
    assert "chunks are missing" in failure_at_check(path).what


@pytest.mark.parametrize("layout", ["v3", "v3 gzip", "v3 plain"])
def test_fault_68_huge_declared_chunk(path: Path, layout: str) -> None:
    write(path, X, **LAYOUTS[layout])
    huge = {"name": "regular", "configuration": {"chunk_shape": [2**40, 2**10]}}
    declare(path, shape=[2**40, 2**10], chunk_grid=huge)
    for chunk in chunks(path)[1:]:
        chunk.unlink()
    assert "declared" in failure_at_check(path).what


def failure_at_check(path: Path) -> NmfstreamError:
    """The error before a value is read."""
    with pytest.raises(DataError) as found, open_reader(str(path), Opening()) as reader:
        reader.check()
    return found.value


def test_fault_68_a_frame_that_decodes_to_more_than_its_chunk(path: Path) -> None:
    write(path, np.zeros((64, 1024), "f4"), zarr_format=3, chunks=(64, 1024))
    large = (path / "c/0/0").read_bytes()
    shutil.rmtree(path)
    write(path, X, **LAYOUTS["v3"])
    (path / "c/0/0").write_bytes(large)
    assert "262144 bytes where 256 belong" in failure(path).what


@pytest.mark.parametrize("codec", ["pickle", "json2", "msgpack2", "categorize", "vlen-array", "no-such-codec"])
def test_fault_69_codecs_outside_the_list(path: Path, codec: str) -> None:
    write(path, X, **LAYOUTS["v2"])
    document = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps({**document, "filters": [{"id": codec}]}))
    error = failure(path)
    assert codec in str(error) or "object" in str(error).lower()


def test_fault_69_a_v3_codec_outside_the_list(path: Path) -> None:
    write(path, X, **LAYOUTS["v3"])
    document = json.loads((path / "zarr.json").read_text())
    declare(path, codecs=[*document["codecs"], {"name": "numcodecs.pickle", "configuration": {}}])
    error = failure(path)
    assert "numcodecs.pickle" in error.what
    assert "zstd" in error.hint


def test_fault_69_object_arrays_are_never_decoded(path: Path) -> None:
    write(path, X, **LAYOUTS["v2"])
    document = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps({**document, "dtype": "|O", "filters": [{"id": "pickle"}]}))
    failure(path)


@pytest.mark.parametrize("inner", ["..", "../other.zarr", "a/../../other.zarr"])
def test_fault_70_dots_in_a_path(tmp_path: Path, path: Path, inner: str) -> None:
    write(path, X, **LAYOUTS["v3"])
    write(tmp_path / "other.zarr", X, **LAYOUTS["v3"])
    error = failure(f"{path}/{inner}", error=UsageError)
    assert ".." in error.what
    assert error.exit_code == 2


def test_fault_70_dots_before_the_store_are_fine(tmp_path: Path, path: Path) -> None:
    write(path, X, **LAYOUTS["v3"])
    (tmp_path / "sub").mkdir()
    np.testing.assert_array_equal(read(f"{tmp_path}/sub/../d.zarr"), X)


class Flaky:
    """A remote that fails some times before it answers."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures, self.error, self.asked = failures, error, 0

    def cat_file(self, path: str, start: Any = None, end: Any = None) -> bytes:
        self.asked += 1
        if self.asked <= self.failures:
            raise self.error
        return b"0123456789"[start:end]


def remote(monkeypatch: pytest.MonkeyPatch, fs: Flaky) -> tuple[RemoteFiles, list[float]]:
    waited: list[float] = []

    def connect(files: RemoteFiles) -> None:
        files._fs, files._root = fs, "bucket/d.zarr"

    monkeypatch.setattr(RemoteFiles, "_connect", connect)
    return RemoteFiles("s3://bucket/d.zarr", waited.append), waited


@pytest.mark.parametrize("error", [ConnectionError("reset"), TimeoutError("slow"), OSError("503"), ValueError("odd")])
def test_fault_71_a_remote_error_is_tried_again(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    files, waited = remote(monkeypatch, Flaky(ATTEMPTS - 1, error))
    assert files.get("c/0/0") == b"0123456789"
    assert len(waited) == ATTEMPTS - 1


def test_fault_71_a_remote_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = Flaky(99, ConnectionError("reset by peer"))
    files, _ = remote(monkeypatch, fs)
    with pytest.raises(RemoteError, match="reset by peer") as found:
        files.read("c/0/0")
    assert found.value.exit_code == 69
    assert "c/0/0" in found.value.where
    assert fs.asked == ATTEMPTS


def test_fault_71_not_found_is_an_absence_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = Flaky(99, FileNotFoundError("c/0/0"))
    files, waited = remote(monkeypatch, fs)
    assert files.read("c/0/0") is None
    assert (fs.asked, waited) == (1, [])


@pytest.mark.parametrize("offset", [0, 2, -4, -3])
def test_fault_71_ranges_of_a_remote(monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    files, _ = remote(monkeypatch, Flaky(0, OSError()))
    data = files.read("k", offset, 3)
    assert data is not None
    assert data.tobytes() == b"0123456789"[offset:][:3]


class NoRanges(Flaky):
    """A server that sends the whole whatever it is asked for."""

    def cat_file(self, path: str, start: Any = None, end: Any = None) -> bytes:
        return super().cat_file(path)


@pytest.mark.parametrize("offset", [0, 2, -4, -3])
def test_fault_71_a_server_without_ranges(monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    files, _ = remote(monkeypatch, NoRanges(0, OSError()))
    data = files.read("k", offset, 3)
    assert data is not None
    assert data.tobytes() == b"0123456789"[offset:][:3]


def test_an_absent_store(path: Path) -> None:
    assert failure(path, error=InputAbsentError).exit_code == 66


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil"])
def test_fault_70_dots_in_a_member_of_a_zip(tmp_path: Path, name: str) -> None:
    with zarr.storage.ZipStore(tmp_path / "d.zarr.zip", mode="w") as store:
        zarr.create_array(store, data=X, chunks=(10, 10))
    np.testing.assert_array_equal(read(tmp_path / "d.zarr.zip"), X)
    with zipfile.ZipFile(tmp_path / "d.zarr.zip", "a") as archive:
        archive.writestr(name, b"x")
    error = failure(tmp_path / "d.zarr.zip")
    assert name in error.what
    assert error.exit_code == 65
