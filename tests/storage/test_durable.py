"""Files that are whole under their names or not there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from nmfstream.errors import AccessDeniedError, InputAbsentError, OutputExistsError, StorageError
from nmfstream.storage import durable
from nmfstream.storage.disk import RealDisk
from tests.storage.faulty import FaultyDisk, failing


def test_a_file_in_progress_serves_h5py_and_zipfile(tmp_path: Path) -> None:
    with durable.temporary(tmp_path / "m.h5") as file:
        with h5py.File(file, "w") as h5:
            h5["a"] = np.arange(1000.0)
        file.sync()
    durable.publish(file.path, tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5") as h5:
        np.testing.assert_array_equal(h5["a"], np.arange(1000.0))
    with durable.temporary(tmp_path / "m.npz") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"x" * 100)
    durable.publish(file.path, tmp_path / "m.npz")
    assert zipfile.ZipFile(tmp_path / "m.npz").testzip() is None
    assert sorted(os.listdir(tmp_path)) == ["m.h5", "m.npz"]


def test_a_name_that_is_taken_stays_as_it_is(tmp_path: Path) -> None:
    durable.write_whole(tmp_path / "a", b"1")
    with pytest.raises(OutputExistsError):
        durable.write_whole(tmp_path / "a", b"2")
    assert (tmp_path / "a").read_bytes() == b"1"
    durable.write_whole(tmp_path / "a", b"3", overwrite=True)
    assert (tmp_path / "a").read_bytes() == b"3"
    assert os.listdir(tmp_path) == ["a"]


def tree(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "x").write_text(text)
    return path


@pytest.mark.parametrize("without", ["nothing", "exchange"])
def test_folders(tmp_path: Path, without: str) -> None:
    disk = FaultyDisk(RealDisk(), failing(errno.ENOSYS), range(100), frozenset({without}))
    with durable.use(disk):
        durable.publish_tree(tree(tmp_path / "new", "1"), tmp_path / "final")
        with pytest.raises(OutputExistsError):
            durable.publish_tree(tree(tmp_path / "newer", "2"), tmp_path / "final")
        durable.publish_tree(tmp_path / "newer", tmp_path / "final", overwrite=True)
    assert (tmp_path / "final" / "x").read_text() == "2"
    assert os.listdir(tmp_path) == ["final"]


def test_a_file_system_without_links(tmp_path: Path) -> None:
    disk = FaultyDisk(RealDisk(), failing(errno.EPERM), range(100), frozenset({"link"}))
    with durable.use(disk):
        durable.write_whole(tmp_path / "a", b"1")
        with pytest.raises(OutputExistsError):
            durable.write_whole(tmp_path / "a", b"2")
        durable.second_name(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"1"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        (errno.ENOENT, InputAbsentError, 66),
        (errno.EACCES, AccessDeniedError, 77),
        (errno.EPERM, AccessDeniedError, 77),
        (errno.EEXIST, OutputExistsError, 73),
        (errno.EROFS, OutputExistsError, 73),
        (errno.ENOSPC, StorageError, 74),
        (errno.EDQUOT, StorageError, 74),
        (errno.EIO, StorageError, 74),
    ],
)
def test_errors_of_the_system(code: int, kind: type[Exception], exit_code: int) -> None:
    error = durable.translate(OSError(code, os.strerror(code)), "a/b")
    assert isinstance(error, kind)
    assert (error.exit_code, error.where, bool(error.hint)) == (exit_code, "a/b", True)


def test_what_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "absent" / "a", tmp_path / "file" / "a", tmp_path / ("x" * 300)):
        with pytest.raises(OutputExistsError, match="cannot be created"):
            durable.create(path)


def test_links_are_removed_not_followed(tmp_path: Path) -> None:
    tree(tmp_path / "precious", "x")
    folder = tree(tmp_path / "folder", "y")
    (folder / "link").symlink_to(tmp_path / "precious")
    durable.remove_tree(folder)
    assert (tmp_path / "precious" / "x").exists()
    assert not folder.exists()


def test_fault_31_only_the_dead_are_swept(tmp_path: Path) -> None:
    durable.temporary(tmp_path / "a").close()
    imports = "import sys, pathlib; from nmfstream.storage import durable"
    program = f"{imports}; durable.temporary(pathlib.Path(sys.argv[1])).close()"
    subprocess.run([sys.executable, "-c", program, tmp_path / "a"], check=True)
    (tmp_path / ".a.ffffffff-1-0.tmp").write_text("of another host")
    assert len(os.listdir(tmp_path)) == 3
    durable.sweep(tmp_path / "a")
    assert len(os.listdir(tmp_path)) == 2
