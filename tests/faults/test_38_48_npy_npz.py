"""Faults 38 to 48: NPY and NPZ files."""

from __future__ import annotations

import resource
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from nmfstream.errors import DataError, NmfstreamError
from nmfstream.stores.protocols import Opening, ReadPolicy, allocate
from nmfstream.stores.registry import open_reader
from tests.faults.reading import failure, read

X = np.arange(600, dtype="f4").reshape(60, 10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", X)
    return tmp_path / "x.npy"


def header(path: Path, text: str, version: int = 1) -> Path:
    body = text.encode()
    length = struct.pack("<H" if version == 1 else "<I", len(body))
    path.write_bytes(b"\x93NUMPY" + bytes([version, 0]) + length + body)
    return path


def test_fault_38_object_dtype(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([[1, "a"]], dtype=object), allow_pickle=True)
    assert "pickle" in failure(tmp_path / "o.npy").what
    np.savez(tmp_path / "o.npz", x=np.array([[1, "a"]], dtype=object))
    assert "pickle" in failure(tmp_path / "o.npz/x").what


def test_fault_39_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    path = header(tmp_path / "x.npy", "{'descr': '<f8', 'fortran_order': False, 'shape': (65536, 65536), }\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "truncated: 34359738" in failure(path).what
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_fault_40_huge_header(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b" " * 100)
    assert "header" in failure(path).what


@pytest.mark.parametrize(
    "shape", ["(-1, 4)", "(4294967296, 4294967296)", "(2**40, 4)", "('a', 4)", "4", "(1e3, 2)", "(3,)"]
)
def test_fault_41_impossible_shape(tmp_path: Path, shape: str) -> None:
    failure(header(tmp_path / "x.npy", f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n"))


@pytest.mark.parametrize("text", ["", "{", "{'descr': 'nonsense'}", "[1]", "(" * 5000, "__import__('os')"])
def test_fault_40_unreadable_header(tmp_path: Path, text: str) -> None:
    failure(header(tmp_path / "x.npy", text))


def test_fault_42_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])
    assert f"{128 + X.nbytes} bytes expected for shape (60, 10), {124 + X.nbytes} there" in failure(path).what


def test_fault_43_trailing_bytes(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"abc")
    assert "3 bytes after the array" in failure(path).what


@pytest.mark.parametrize("name", ["e.npy", "e.npz", "e.h5"])
def test_fault_44_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert "empty" in failure(tmp_path / name).what


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("memory", [1 << 28, 1 << 10])
def test_fault_45_flipped_byte(tmp_path: Path, save: type, memory: int) -> None:
    path = tmp_path / "x.npz"
    save(path, X=X)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    assert failure(path, Opening(memory=memory, scratch=tmp_path)).where.startswith(str(path))


def forged(path: Path, stated: int) -> Path:
    """An archive whose member says another size in the local header and in the directory."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("X.npy", "w") as member:
        np.lib.format.write_array(member, X)
    raw, true = path.read_bytes(), 128 + X.nbytes
    assert struct.pack("<I", true) in raw
    path.write_bytes(raw.replace(struct.pack("<I", true), struct.pack("<I", stated)))
    return path


@pytest.mark.parametrize("stated", [100, 1 << 31])
def test_fault_46_forged_size(tmp_path: Path, stated: int) -> None:
    failure(forged(tmp_path / "x.npz", stated))


def test_fault_46_bomb_is_read_in_bounded_memory(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("X.npy", "w") as member,
    ):
        np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (200, 1 << 20)})
        for _ in range(200):
            member.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    policy = ReadPolicy(np.dtype("f4"))
    with open_reader(str(tmp_path / "x.npz"), Opening(memory=8 << 20, scratch=tmp_path)) as reader:
        out = allocate(reader, 100, 101, policy.dtype)
        for task in reader.tasks(100, 101, out, policy):
            task()
    assert not out.any()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 << 10


@pytest.mark.parametrize("name", ["X.npy", "../Y.npy"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_fault_47_names_twice_or_outside(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "x.npz", X=X)
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.write(tmp_path / "x.npz", name)
    assert f"'{name}'" in failure(tmp_path / "x.npz/X").what


def test_fault_48_file_shrinks_while_it_is_read(tmp_path: Path) -> None:
    big = np.ones((4000, 100), "f4")
    np.save(tmp_path / "x.npy", big)
    policy = ReadPolicy(np.dtype("f4"))
    with open_reader(str(tmp_path / "x.npy"), Opening()) as reader:
        out = allocate(reader, 0, 4000, policy.dtype)
        tasks = reader.tasks(0, 4000, out, policy)
        with (tmp_path / "x.npy").open("r+b") as file:
            file.truncate(5000)
        with pytest.raises(NmfstreamError, match="too early") as caught:
            for task in tasks:
                task()
    assert caught.value.exit_code in (65, 74)


def test_npz_kinds_that_are_no_rows(tmp_path: Path) -> None:
    sp.save_npz(tmp_path / "b.npz", sp.bsr_matrix(np.eye(4)))
    assert "bsr" in failure(tmp_path / "b.npz").what
    np.savez(tmp_path / "v.npz", a=np.arange(3), b=np.array(["x"]))
    assert "no matrix" in failure(tmp_path / "v.npz").what


def test_healthy_ones_are_read(path: Path) -> None:
    np.testing.assert_array_equal(read(path), X)


def test_not_a_zip(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 and nothing more")
    assert isinstance(failure(tmp_path / "x.npz"), DataError)
