"""45, 54, 66: one byte of a store with checksums is flipped: an error, or the very values; never others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from nmfstream.errors import NmfstreamError
from tests.faults.reading import read

_rng = np.random.default_rng(0)
X = (_rng.integers(1, 9, (12, 7)) * (_rng.random((12, 7)) < 0.5)).astype("f4")


def npz(save: Callable[..., None]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save(folder / "x.npz", X=X, labels=np.arange(12))
        return folder / "x.npz"

    return write


def npz_sparse(form: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        sp.save_npz(folder / "x.npz", getattr(sp, f"{form}_matrix")(X))
        return folder / "x.npz"

    return write


def hdf5(**layout: Any) -> Callable[[Path], Path]:
    """In the format whose metadata have checksums as well."""

    def write(folder: Path) -> Path:
        with h5py.File(folder / "d.h5", "w", libver="latest") as f:
            f.create_dataset("X", data=X, fletcher32=True, **layout)
        return folder / "d.h5"

    return write


def zarr_array(**layout: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        config = {"write_empty_chunks": True}
        zarr.create_array(folder / "d.zarr", data=X, chunks=(5, 4), config=config, **layout)
        return folder / "d.zarr"

    return write


STORES = {
    "npz stored": npz(np.savez),
    "npz deflated": npz(np.savez_compressed),
    **{f"npz {form}": npz_sparse(form) for form in ("csr", "csc", "coo")},
    "hdf5": hdf5(chunks=(5, 7)),
    "hdf5 gzip": hdf5(chunks=(5, 4), compression="gzip", shuffle=True),
    "hdf5 growing": hdf5(chunks=(5, 7), maxshape=(None, 7)),
    "zarr": zarr_array(compressors=[ZstdCodec(), Crc32cCodec()]),
    "zarr shards": zarr_array(compressors=[Crc32cCodec()], shards=(10, 8)),
}


def outcome(store: Path) -> Any:
    """Values, or the error's exit code."""
    try:
        return read(store)
    except NmfstreamError as error:
        assert "\n" not in str(error)
        return error.exit_code


@pytest.mark.parametrize("name", STORES)
def test_a_flipped_byte_never_gives_other_values(tmp_path: Path, name: str) -> None:
    store = STORES[name](tmp_path)
    # Zarr's metadata are plain JSON without a checksum.
    files = [p for p in (store, *store.rglob("*")) if p.is_file() and p.suffix != ".json"]
    places = [(path, at) for path in files for at in range(path.stat().st_size)]
    step = 1 if len(places) < 3000 and store.suffix != ".h5" else 17
    refused = 0
    for path, at in places[::step]:
        raw = path.read_bytes()
        path.write_bytes(raw[:at] + bytes([raw[at] ^ (1, 0x80, 0xFF)[at % 3]]) + raw[at + 1 :])
        found = outcome(store)
        refused += isinstance(found, int)
        if isinstance(found, int):
            assert found in (2, 65, 66), f"{path.name}, byte {at}"
        else:
            np.testing.assert_array_equal(found, X, err_msg=f"{path.name}, byte {at}")
        path.write_bytes(raw)
    assert refused > 5


def test_a_flipped_byte_of_data_without_a_checksum_changes_that_value_alone(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "d.h5", "w") as f:
        begin = f.create_dataset("X", data=X).id.get_offset()
    raw = (tmp_path / "d.h5").read_bytes()
    for at in range(2, X.nbytes, 37):
        damaged = bytearray(raw)
        damaged[begin + at] ^= 1
        (tmp_path / "d.h5").write_bytes(damaged)
        changed = np.flatnonzero(read(tmp_path / "d.h5").ravel() != X.ravel())
        assert changed.tolist() == [at // 4]


def test_a_chunk_that_the_index_lists_but_does_not_lead_to(tmp_path: Path) -> None:
    """The library reads it as fill values; a key of the old index has no checksum."""
    with h5py.File(tmp_path / "d.h5", "w") as f:
        info = f.create_dataset("X", data=X, chunks=(5, 7), fletcher32=True).id.get_chunk_info(0)
    raw = bytearray((tmp_path / "d.h5").read_bytes())
    at = raw.index(bytes(8) + info.byte_offset.to_bytes(8, "little"))
    raw[at] ^= 1
    (tmp_path / "d.h5").write_bytes(raw)
    assert outcome(tmp_path / "d.h5") == 65
