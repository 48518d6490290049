"""How HDF5 is read: which chunks are decoded outside the library, how often, and what falls back to it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import scipy.sparse as sp

from nmfstream.stores import hdf5_nodes, transpose
from nmfstream.stores.dense import DenseReader
from nmfstream.stores.filters import Damaged, Filter, Pipeline, fletcher32
from nmfstream.stores.hdf5_chunks import ChunkedSource, LibrarySource
from nmfstream.stores.protocols import Opening, ReadPolicy, allocate
from nmfstream.stores.registry import open_reader
from nmfstream.types import CSR

X = np.arange(1, 12001, dtype="f4").reshape(400, 30) % 97


def write(path: Path, dtype: str = "f4", userblock: int = 0, **layout: Any) -> str:
    with h5py.File(path, "w", userblock_size=userblock) as f:
        f.create_dataset("X", data=X.astype(dtype), **layout)
    return str(path)


def read(spec: str, step: int, opening: Opening | None = None) -> np.ndarray:
    policy = ReadPolicy(np.dtype("f4"))
    parts = []
    with open_reader(spec, opening or Opening()) as reader:
        reader.check()
        for start in range(0, reader.shape[0], step):
            stop = min(start + step, reader.shape[0])
            out = allocate(reader, start, stop, policy.dtype)
            for task in reader.tasks(start, stop, out, policy):
                task()
            parts.append(out.toarray() if isinstance(out, CSR) else out)
    return np.concatenate(parts)


DIRECT = {
    "none": {},
    "gzip": {"compression": "gzip"},
    "shuffle": {"shuffle": True},
    "gzip shuffle": {"compression": "gzip", "shuffle": True},
    "all": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf": {"compression": "lzf"},
    "lzf all": {"compression": "lzf", "shuffle": True, "fletcher32": True},
    "blosc": dict(hdf5plugin.Blosc(cname="lz4", shuffle=1)),
    "blosc zstd bits": dict(hdf5plugin.Blosc(cname="zstd", shuffle=2)),
    "zstd": dict(hdf5plugin.Zstd()),
    "zstd shuffle": {**hdf5plugin.Zstd(), "shuffle": True},
    "lz4": dict(hdf5plugin.LZ4()),
    "lz4 blocks": dict(hdf5plugin.LZ4(nbytes=1024)),
    "user block": {"compression": "gzip", "userblock": 2048},
}


@pytest.mark.parametrize("name", DIRECT)
@pytest.mark.parametrize("dtype", ["f4", ">f4", "u2", "f8"])
def test_decoded_outside_the_library(tmp_path: Path, name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_nodes, "LZF_LEAST", 0)
    spec = write(tmp_path / "d.h5", dtype, chunks=(64, 7), **DIRECT[name])
    with open_reader(spec, Opening()) as reader:
        assert isinstance(reader, DenseReader)
        assert isinstance(reader.source, ChunkedSource)
        reader.check()
        assert reader.source._through_library is None
    np.testing.assert_array_equal(read(spec, 90), X)


LIBRARY = {
    "scale-offset": {"scaleoffset": 0, "dtype": "i4"},
    "bitshuffle": {**hdf5plugin.Bitshuffle(), "dtype": "f4"},
    "blosc2": {**hdf5plugin.Blosc2(), "dtype": "f4"},
}


@pytest.mark.parametrize("name", LIBRARY)
def test_left_to_the_library(tmp_path: Path, name: str) -> None:
    spec = write(tmp_path / "d.h5", chunks=(64, 7), **LIBRARY[name])
    with open_reader(spec, Opening()) as reader:
        assert isinstance(reader, DenseReader)
        assert isinstance(reader.source, LibrarySource)
    np.testing.assert_array_equal(read(spec, 90), X)


def test_chunk_that_the_library_reads_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong with our decoding of the first chunk, the library then reads them all."""
    spec = write(tmp_path / "d.h5", chunks=(64, 30), compression="gzip")
    monkeypatch.setattr(Pipeline, "decode", lambda self, data, mask=0, out=None: bytes(self.size))
    np.testing.assert_array_equal(read(spec, 90), X)


@pytest.mark.parametrize("step", [64, 100, 37, 1000])
def test_each_chunk_is_decoded_once_a_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    spec = write(tmp_path / "d.h5", chunks=(64, 15), compression="gzip")
    decoded: Counter[tuple[int, ...]] = Counter()
    plain = ChunkedSource._decode

    def counting(self: ChunkedSource, table: Any, cell: tuple[int, ...], into: Any = None) -> Any:
        decoded[cell] += 1
        return plain(self, table, cell, into)

    monkeypatch.setattr(ChunkedSource, "_compare", lambda self, table: None)
    monkeypatch.setattr(ChunkedSource, "_decode", counting)
    np.testing.assert_array_equal(read(spec, step), X)
    assert set(decoded.values()) == {1}
    assert len(decoded) == 14


@pytest.mark.parametrize("step", [1, 7, 50, 400])
def test_each_chunk_of_a_sparse_group_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    S = sp.csr_matrix(X * (X % 3 == 0))
    with h5py.File(tmp_path / "s.h5", "w") as f:
        for name in ("data", "indices", "indptr"):
            f.create_dataset(f"S/{name}", data=getattr(S, name), chunks=(100,), compression="gzip")
        f["S"].attrs["shape"] = S.shape
    decoded: Counter[tuple[str, tuple[int, ...]]] = Counter()
    plain = ChunkedSource._decode

    def counting(self: ChunkedSource, table: Any, cell: tuple[int, ...], into: Any = None) -> Any:
        decoded[self._name[-4:], cell] += 1
        return plain(self, table, cell, into)

    monkeypatch.setattr(ChunkedSource, "_compare", lambda self, table: None)
    monkeypatch.setattr(ChunkedSource, "_decode", counting)
    np.testing.assert_array_equal(read(str(tmp_path / "s.h5"), step), S.toarray())
    assert {n for (part, _), n in decoded.items() if part != "dptr"} == {1}


def test_skipped_filters(tmp_path: Path) -> None:
    """A writer may skip filters for a chunk that they do not help: the mask says which."""
    path = tmp_path / "d.h5"
    write(path, chunks=(100, 30), compression="gzip", shuffle=True)
    with h5py.File(path, "r+") as f:
        f["X"].id.write_direct_chunk((100, 0), X[100:200].tobytes(), filter_mask=3)
    np.testing.assert_array_equal(read(str(path), 64), X)


@pytest.mark.parametrize("form, memory", [("csc", 1 << 14), ("csc", 1 << 28)])
def test_columns_are_sorted_in_scratch(tmp_path: Path, form: str, memory: int, caplog: Any) -> None:
    caplog.set_level("INFO", "nmfstream")
    S = sp.random(5000, 40, 0.2, form, random_state=1, dtype="f4")
    sp.save_npz(tmp_path / "s.npz", S)
    found = read(str(tmp_path / "s.npz"), 999, Opening(memory=memory, scratch=tmp_path))
    np.testing.assert_array_equal(found, S.toarray())
    assert "840.0 kB of scratch" in caplog.text
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["s.npz"]


def test_rearranged_once_and_announced(tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level("INFO", "nmfstream")
    monkeypatch.setattr(transpose, "BAND_BYTES", 7 * 30 * 4)
    spec = write(tmp_path / "d.h5", chunks=(400, 4), compression="gzip")
    np.testing.assert_array_equal(read(spec, 90, Opening(memory=1 << 12, scratch=tmp_path)), X)
    assert caplog.text.count("rearranged by rows") == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["d.h5"]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000, 8192 * 2, 100_001])
def test_fletcher32_is_the_library_s(size: int) -> None:
    from numcodecs import Fletcher32

    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    encoded = bytes(Fletcher32().encode(np.r_[data, np.zeros(0, np.uint8)])) if size else bytes(4)
    assert fletcher32(data) == int.from_bytes(encoded[-4:], "little")


def test_fletcher32_of_old_writers() -> None:
    data = X.tobytes()
    value = fletcher32(data)
    swapped = (value & 0x00FF00FF) << 8 | (value >> 8) & 0x00FF00FF
    pipeline = Pipeline([Filter(3, ())], len(data))
    assert bytes(pipeline.decode(data + swapped.to_bytes(4, "little"))) == data
    with pytest.raises(Damaged):
        pipeline.decode(data + (value ^ 1).to_bytes(4, "little"))


@pytest.mark.parametrize("number", [1, 32000, 32001, 32004, 32015])
@pytest.mark.parametrize("data", [b"", b"\x00" * 40, b"\xff" * 40, bytes(range(200)), b"\x78\x9c\xed"])
def test_rubbish_is_refused(number: int, data: bytes) -> None:
    with pytest.raises(Damaged):
        Pipeline([Filter(number, ())], 1000).decode(data)


@pytest.mark.parametrize("number, encode", [(1, "zlib"), (32015, "zstd")])
def test_more_than_a_chunk_is_refused(number: int, encode: str) -> None:
    import numcodecs

    bomb = bytes(numcodecs.get_codec({"id": encode}).encode(bytes(10_000_000)))
    with pytest.raises(Damaged):
        Pipeline([Filter(number, ())], 1000).decode(bomb)


def test_matlab_sparse_without_entries(tmp_path: Path) -> None:
    """MATLAB stores only jc of a sparse matrix that is all zero."""
    with h5py.File(tmp_path / "m.mat", "w", userblock_size=512) as f:
        group = f.create_group("S")
        group.attrs["MATLAB_class"], group.attrs["MATLAB_sparse"] = np.bytes_("double"), np.uint64(7)
        group["jc"] = np.zeros(5, "u8")
    for spec, turned, shape in (("m.mat", False, (4, 7)), ("m.mat/S", True, (7, 4))):
        with open_reader(str(tmp_path / spec), Opening(transpose=turned, scratch=tmp_path)) as reader:
            reader.check()
            assert (reader.shape, reader.nnz) == (shape, 0)
            out = allocate(reader, 0, shape[0], np.dtype("f4"))
            for task in reader.tasks(0, shape[0], out, ReadPolicy(np.dtype("f4"))):
                task()
            assert not out.toarray().any()


def test_matlab_sparse_is_found_without_its_name(tmp_path: Path) -> None:
    S = sp.csr_matrix(X * (X > 60))
    with h5py.File(tmp_path / "m.mat", "w", userblock_size=512) as f:
        group = f.create_group("S")
        group.attrs["MATLAB_class"], group.attrs["MATLAB_sparse"] = np.bytes_("double"), np.uint64(30)
        group["data"], group["ir"], group["jc"] = S.data.astype("f8"), S.indices.astype("u8"), S.indptr.astype("u8")
    with open_reader(str(tmp_path / "m.mat"), Opening()) as reader:
        assert (reader.shape, reader.nnz) == (X.shape, S.nnz)
