"""Zarr stores of every kind that other software writes."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from zarr import codecs

from nmfstream.errors import DataError, InputAbsentError, UsageError
from nmfstream.stores import zarr_files
from nmfstream.stores.protocols import Opening, ReadPolicy, allocate
from nmfstream.stores.registry import candidates, open_reader
from nmfstream.stores.zarr_array import ZarrArray
from nmfstream.stores.zarr_library import LibraryArray
from nmfstream.types import CSR
from tests.faults.reading import failure, read

ROWS, COLUMNS = 203, 31
X = (np.random.default_rng(2).integers(0, 900, (ROWS, COLUMNS)) % 97).astype("f4")
S = sp.csr_matrix(np.where(X > 60, X, 0))
EAGER = {"write_empty_chunks": True}


def make(path: Path, values: np.ndarray = X, **layout: Any) -> Path:
    layout = {"chunks": (40, 31), "zarr_format": 3, "config": EAGER} | layout
    zarr.create_array(str(path), data=values, **layout)
    return path


V2_COMPRESSORS = {
    "blosc lz4": numcodecs.Blosc("lz4"),
    "blosc zstd bitshuffle": numcodecs.Blosc("zstd", 3, numcodecs.Blosc.BITSHUFFLE),
    "blosc blosclz": numcodecs.Blosc("blosclz", shuffle=numcodecs.Blosc.NOSHUFFLE),
    "zstd": numcodecs.Zstd(),
    "zstd checksum": numcodecs.Zstd(checksum=True),
    "lz4": numcodecs.LZ4(),
    "gzip": numcodecs.GZip(),
    "zlib": numcodecs.Zlib(),
    "bz2": numcodecs.BZ2(),
    "lzma": numcodecs.LZMA(),
    "none": None,
}
V2_FILTERS = {
    "shuffle": [numcodecs.Shuffle(4)],
    "delta": [numcodecs.Delta("<f4")],
    "delta shuffle": [numcodecs.Delta("<f4"), numcodecs.Shuffle(4)],
    "fixedscaleoffset": [numcodecs.FixedScaleOffset(0, 1, "<f4", "<i4")],
    "astype": [numcodecs.AsType("<f8", "<f4")],
    "crc32": [numcodecs.CRC32()],
    "adler32": [numcodecs.Adler32()],
    "fletcher32": [numcodecs.Fletcher32()],
}


@pytest.mark.parametrize("name", V2_COMPRESSORS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_v2_compressors(tmp_path: Path, name: str, order: str) -> None:
    make(tmp_path / "d.zarr", zarr_format=2, compressors=V2_COMPRESSORS[name], order=order)
    np.testing.assert_array_equal(read(tmp_path / "d.zarr"), X)


@pytest.mark.parametrize("name", V2_FILTERS)
@pytest.mark.parametrize("compressor", ["zstd", "lz4", "zlib", "none"])
def test_v2_filters(tmp_path: Path, name: str, compressor: str) -> None:
    layout = {"filters": V2_FILTERS[name], "compressors": V2_COMPRESSORS[compressor]}
    make(tmp_path / "d.zarr", zarr_format=2, **layout)
    np.testing.assert_array_equal(read(tmp_path / "d.zarr"), X)


V3_LAYOUTS: dict[str, dict[str, Any]] = {
    "zstd": {"compressors": codecs.ZstdCodec(level=3)},
    "gzip": {"compressors": codecs.GzipCodec()},
    "blosc": {"compressors": codecs.BloscCodec(cname="lz4")},
    "none": {"compressors": None},
    "crc32c": {"compressors": [codecs.Crc32cCodec()]},
    "zstd crc32c": {"compressors": [codecs.ZstdCodec(), codecs.Crc32cCodec()]},
    "crc32c gzip": {"compressors": [codecs.Crc32cCodec(), codecs.GzipCodec()]},
    "transpose": {"filters": codecs.TransposeCodec(order=(1, 0)), "chunks": (40, 10)},
    "big-endian": {"serializer": codecs.BytesCodec(endian="big")},
    "features": {"chunks": (203, 4)},
    "edges": {"chunks": (150, 30)},
    "larger than the array": {"chunks": (500, 64)},
    "tiny": {"chunks": (1, 31)},
    "v2 keys": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    "dotted keys": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "shards": {"chunks": (20, 31), "shards": (80, 31)},
    "shards of features": {"chunks": (20, 8), "shards": (80, 16)},
    "shards crc32c": {"chunks": (20, 31), "shards": (80, 31), "compressors": [codecs.Crc32cCodec()]},
    "shards transposed": {"chunks": (20, 31), "shards": (80, 31), "filters": codecs.TransposeCodec(order=(1, 0))},
    "shards, index first": {"chunks": (20, 31), "shards": {"shape": (80, 31), "index_location": "start"}},
}


@pytest.mark.parametrize("name", V3_LAYOUTS)
@pytest.mark.parametrize("dtype", ["f4", "f8", "u2"])
def test_v3_layouts(tmp_path: Path, name: str, dtype: str) -> None:
    make(tmp_path / "d.zarr", X.astype(dtype), **V3_LAYOUTS[name])
    np.testing.assert_array_equal(read(tmp_path / "d.zarr"), X)


@pytest.mark.parametrize("name", V3_LAYOUTS)
def test_pieces_of_rows(tmp_path: Path, name: str) -> None:
    make(tmp_path / "d.zarr", **V3_LAYOUTS[name])
    with open_reader(str(tmp_path / "d.zarr"), Opening()) as reader:
        for start, stop in [(0, 1), (39, 42), (40, 80), (77, 203), (202, 203), (90, 90)]:
            out = allocate(reader, start, stop, np.dtype("f4"))
            for task in reader.tasks(start, stop, out, ReadPolicy(np.dtype("f4"))):
                task()
            np.testing.assert_array_equal(out, X[start:stop])


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "i4", "i8", "u4", "u8", "f2", "f4", "f8", "bool"])
@pytest.mark.parametrize("version", [2, 3])
def test_types(tmp_path: Path, dtype: str, version: int) -> None:
    values = X.astype(dtype)
    make(tmp_path / "d.zarr", values, zarr_format=version)
    np.testing.assert_array_equal(read(tmp_path / "d.zarr"), values.astype("f4"))


@pytest.mark.parametrize("name", ["zstd", "blosc", "gzip", "shards", "features", "none"])
def test_full_chunks_are_decoded_in_place(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read through the zarr library, whatever the layout."""
    make(tmp_path / "d.zarr", **V3_LAYOUTS[name])
    monkeypatch.setattr(zarr, "open_array", None)
    np.testing.assert_array_equal(read(tmp_path / "d.zarr"), X)


def nested_shards(path: Path) -> Path:
    inner = codecs.ShardingCodec(chunk_shape=(10, 31))
    outer = codecs.ShardingCodec(chunk_shape=(20, 31), codecs=[inner])
    layout = {"chunks": (80, 31), "codecs": [outer], "zarr_format": 3, "config": EAGER}
    zarr.create(X.shape, dtype="f4", store=str(path), **layout)[:] = X
    return path


def test_what_is_left_to_the_library(tmp_path: Path) -> None:
    before = json.dumps(zarr.config.to_dict() if hasattr(zarr.config, "to_dict") else zarr.config.config, default=str)
    nested_shards(tmp_path / "d.zarr")
    with open_reader(str(tmp_path / "d.zarr"), Opening()) as reader:
        assert isinstance(reader.source, LibraryArray)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(read(tmp_path / "d.zarr"), X)
    after = json.dumps(zarr.config.to_dict() if hasattr(zarr.config, "to_dict") else zarr.config.config, default=str)
    assert before == after


def test_what_we_read_ourselves(tmp_path: Path) -> None:
    make(tmp_path / "d.zarr", **V3_LAYOUTS["shards of features"])
    with open_reader(str(tmp_path / "d.zarr"), Opening()) as reader:
        assert isinstance(reader.source, ZarrArray)  # type: ignore[attr-defined]
        assert reader.chunk_rows == 20
        assert reader.source.layout.kind == "sharded"  # type: ignore[attr-defined]


def zipped(folder: Path, method: int = zipfile.ZIP_STORED, **layout: Any) -> Path:
    path = folder / "d.zarr.zip"
    with zarr.storage.ZipStore(path, mode="w", compression=method) as store:
        zarr.create_array(store, data=X, config=EAGER, **{"chunks": (40, 31), "zarr_format": 3} | layout)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ["zstd", "shards", "none"])
def test_zip_stores(tmp_path: Path, method: int, name: str) -> None:
    np.testing.assert_array_equal(read(zipped(tmp_path, method, **V3_LAYOUTS[name])), X)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_last_of_several_zip_members_counts(tmp_path: Path) -> None:
    path = zipped(tmp_path, compressors=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("c/0/0", np.full((40, 31), 7, "f4").tobytes())
    assert (read(path)[:40] == 7).all()


@pytest.mark.parametrize("keep", [0, 200, -30])
def test_a_torn_zip(tmp_path: Path, keep: int) -> None:
    path = zipped(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    failure(path)


def test_a_reader_goes_to_another_process(tmp_path: Path) -> None:
    for path in (zipped(tmp_path), make(tmp_path / "d.zarr")):
        with open_reader(str(path), Opening()) as reader:
            again = pickle.loads(pickle.dumps(reader))
            assert (again.name, again.shape) == (reader.name, reader.shape)
            again.close()


# groups


def group(folder: Path, version: int = 3) -> Any:
    return zarr.open_group(folder / "g.zarr", mode="w", zarr_format=version)


@pytest.mark.parametrize("version", [2, 3])
def test_the_only_candidate(tmp_path: Path, version: int) -> None:
    g = group(tmp_path, version)
    g.create_array("deep/er/X", data=X)
    g.create_array("vector", data=np.arange(5))
    g.create_array("cube", data=np.zeros((2, 2, 2)))
    np.testing.assert_array_equal(read(tmp_path / "g.zarr"), X)
    np.testing.assert_array_equal(read(tmp_path / "g.zarr/deep"), X)


def test_several_candidates_are_listed(tmp_path: Path) -> None:
    g = group(tmp_path)
    g.create_array("a", data=X)
    g.create_array("b/c", data=X.astype("u1"))
    error = failure(tmp_path / "g.zarr", error=UsageError)
    assert "a (203 x 31 float32)" in error.what
    assert "b/c (203 x 31 uint8)" in error.what
    assert [c.path for c in candidates(str(tmp_path / "g.zarr"), Opening())] == ["a", "b/c"]


def test_no_candidate(tmp_path: Path) -> None:
    group(tmp_path).create_array("v", data=np.arange(5))
    assert failure(tmp_path / "g.zarr").exit_code == 65


def test_a_misspelt_dataset(tmp_path: Path) -> None:
    group(tmp_path).create_array("counts/matrix", data=X)
    error = failure(tmp_path / "g.zarr/counts/matrx", error=InputAbsentError)
    assert "did you mean" in error.hint


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), ()])
def test_arrays_that_are_no_matrix(tmp_path: Path, shape: tuple[int, ...]) -> None:
    group(tmp_path).create_array("v", data=np.ones(shape))
    assert failure(tmp_path / "g.zarr/v").exit_code == 65


def sparse_group(g: Any, name: str, matrix: Any, *, index: str = "i4", **layout: Any) -> None:
    part = g.create_group(name)
    part.attrs.update({"encoding-type": f"{matrix.format}_matrix", "shape": list(matrix.shape)})
    for key, dtype in (("data", matrix.data.dtype), ("indices", index), ("indptr", index)):
        part.create_array(key, data=getattr(matrix, key).astype(dtype), **layout)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("form", ["csr", "csc"])
@pytest.mark.parametrize("index", ["i4", "i8", "u4"])
def test_sparse_groups(tmp_path: Path, version: int, form: str, index: str) -> None:
    sparse_group(group(tmp_path, version), "m", getattr(S, f"to{form}")(), index=index, chunks=(100,))
    np.testing.assert_array_equal(read(tmp_path / "g.zarr"), S.toarray())


def test_sharded_sparse_groups(tmp_path: Path) -> None:
    sparse_group(group(tmp_path), "m", S, chunks=(17,), shards=(170,))
    np.testing.assert_array_equal(read(tmp_path / "g.zarr/m"), S.toarray())


def test_chunks_cut_by_rows_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse_group(group(tmp_path), "m", S, chunks=(S.nnz // 6 + 1,))
    decoded: list[tuple[int, ...]] = []
    original = ZarrArray._decoded

    def counted(self: ZarrArray, cell: Any, whole: Any, into: Any) -> Any:
        decoded.append((self.path if hasattr(self, "path") else self.name, *cell))  # type: ignore[arg-type]
        return original(self, cell, whole, into)

    with open_reader(str(tmp_path / "g.zarr/m"), Opening()) as reader:
        reader.check()
        monkeypatch.setattr(ZarrArray, "_decoded", counted)
        for start in range(0, ROWS, 11):
            out = allocate(reader, start, min(start + 11, ROWS), np.dtype("f4"))
            assert isinstance(out, CSR)
            for task in reader.tasks(start, min(start + 11, ROWS), out, ReadPolicy(np.dtype("f4"))):
                task()
    of_values = [key for key in decoded if not str(key[0]).endswith("indptr")]
    assert len(of_values) == len(set(of_values)) == 12


def test_a_sparse_group_with_missing_chunks(tmp_path: Path) -> None:
    sparse_group(group(tmp_path), "m", S, chunks=(100,))
    (tmp_path / "g.zarr/m/data/c/3").unlink()
    assert "are missing" in failure(tmp_path / "g.zarr").what


def test_a_sparse_group_without_one_part(tmp_path: Path) -> None:
    g = group(tmp_path)
    sparse_group(g, "m", S)
    del g["m/indices"]
    assert "indices" in failure(tmp_path / "g.zarr/m").where


# AnnData


@pytest.fixture(scope="module", params=[2, 3])
def cells(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import anndata
    import pandas as pd

    folder = tmp_path_factory.mktemp("cells")
    names = pd.DataFrame(index=[f"gene{i}" for i in range(COLUMNS)])
    data = anndata.AnnData(X, var=names, obs=pd.DataFrame(index=[f"c{i}" for i in range(ROWS)]))
    data.layers["counts"] = S
    data.layers["columns"] = S.tocsc()
    data.raw = anndata.AnnData(S, var=names.rename(index=str.upper))
    with anndata.settings.override(zarr_write_format=request.param):
        data.write_zarr(folder / "c.zarr", chunks=(50, 10))
    return folder / "c.zarr"


FILL = Opening(missing_chunks="fill")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("part", "expected", "first"),
    [
        ("", X, "gene0"),
        ("X", X, "gene0"),
        ("layers/counts", S.toarray(), "gene0"),
        ("layers/columns", S.toarray(), "gene0"),
        ("raw/X", S.toarray(), "GENE0"),
        ("raw", S.toarray(), "GENE0"),
    ],
)
def test_anndata(cells: Path, part: str, expected: np.ndarray, first: str) -> None:
    np.testing.assert_array_equal(read(f"{cells}/{part}", FILL), expected)
    with open_reader(f"{cells}/{part}", FILL) as reader:
        assert reader.feature_names is not None
        assert (len(reader.feature_names), reader.feature_names[0]) == (COLUMNS, first)


# fingerprints


def fingerprint(path: Path) -> str:
    with open_reader(str(path), Opening()) as reader:
        return reader.fingerprint()


def test_a_copy_has_the_same_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert fingerprint(make(tmp_path / "d.zarr")) == fingerprint(make(tmp_path / "elsewhere/e.zarr"))


def halved(values: np.ndarray) -> np.ndarray:
    changed = values.copy()
    changed[50:60] /= 2
    return changed


@pytest.mark.parametrize("change", [halved, lambda v: v[:-1], lambda v: v.astype("f8")], ids=["values", "rows", "type"])
def test_other_data_have_another(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    assert fingerprint(make(tmp_path / "d.zarr")) != fingerprint(make(tmp_path / "e.zarr", change(X)))


def test_sizes_come_from_metadata_and_a_few_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening looks at a bounded number of chunks and decodes none."""
    make(tmp_path / "d.zarr", np.ones((4000, 3), "f4"), chunks=(2, 3), compressors=None)
    looked: list[str] = []
    size = zarr_files.FolderFiles.size
    monkeypatch.setattr(zarr_files.FolderFiles, "size", lambda self, key: looked.append(key) or size(self, key))
    with open_reader(str(tmp_path / "d.zarr"), Opening()) as reader:
        assert reader.stored_bytes == 4000 * 12
    assert len(looked) < 100


# real files


@pytest.mark.parametrize(
    ("name", "shape", "total"),
    [
        ("cells/10x-10k-subset.zarr", (10000, 1000), 1597698),
        ("cells/10x_pbmc68k_reduced.zarr.zip/layers/counts", (700, 765), 486651),
        ("formats/anndata_v0.7.0.zarr.zip", (30, 20), 285),
        ("formats/anndata_v0.7.0.zarr.zip/layers/array", (30, 20), 302.8304512),
        ("formats/anndata_v0.7.0.zarr.zip/raw/X", (30, 40), 627),
    ],
)
def test_real_files(shared_data: Path, name: str, shape: tuple[int, int], total: float) -> None:
    values = read(shared_data / name, policy=ReadPolicy(np.dtype("f8")))
    assert values.shape == shape
    np.testing.assert_allclose(values.sum(), total, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "said"),
    [("cells/10x_pbmc68k_reduced.zarr.zip", "negative"), ("formats/anndata_v0.11.4.zarr.zip", "without X")],
)
def test_real_files_that_are_refused(shared_data: Path, name: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(shared_data / name)


def test_real_names(shared_data: Path) -> None:
    with open_reader(str(shared_data / "cells/10x_pbmc68k_reduced.zarr.zip/layers/counts"), Opening()) as reader:
        assert list(reader.feature_names or ())[:2] == ["HES4", "TNFRSF4"]
    with open_reader(str(shared_data / "cells/10x-10k-subset.zarr"), Opening()) as reader:
        assert list(reader.feature_names or ())[:2] == ["Xkr4", "Gm1992"]
