"""Compiled kernels are kept, found again without the compiler, and made anew where what is kept is no good."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nmfstream import machine_code
from nmfstream.machine_code import Kernel

SOURCE = """
import numba
import numpy as np
from nmfstream.machine_code import NATIVE

@numba.njit(**NATIVE)
def combine(x, y, factor, shift, twice):
    room = np.zeros(x.shape[0], x.dtype)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            room[i] += x[i, j] * factor + shift
    for i in range(x.shape[0]):
        y[i] = room[i] + room[i] if twice else room[i]
    return room.sum()

@numba.njit(**NATIVE)
def count(x):
    return x.size

@numba.njit(**NATIVE)
def too_much(x):
    return np.zeros(1 << 60, x.dtype).size
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of kernels with a place of its own for their code."""
    (tmp_path / "some_kernels.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(machine_code, "_places", lambda: [tmp_path / "kept"])
    yield "some_kernels"
    sys.modules.pop("some_kernels", None)


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "kept").iterdir())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("twice", [True, False])
@pytest.mark.parametrize("strided", [True, False])
def test_arguments_arrive(module, dtype, twice, strided):
    x = np.arange(24, dtype=dtype).reshape(4, 6)[:: 2 if strided else 1]
    y = np.full(len(x), -1, dtype)
    total = Kernel(module, "combine")(x, y, np.dtype(dtype).type(0.5), 3, twice)
    expected = (x * 0.5 + 3).sum(axis=1)
    assert np.array_equal(y, expected * (2 if twice else 1))
    assert total == expected.sum()


def test_other_types_get_code_of_their_own(module, tmp_path):
    count = Kernel(module, "count")
    assert [count(np.zeros(5, "uint8")), count(np.zeros((5, 2), "int32")), count(np.zeros(7, "uint8"))] == [5, 10, 7]
    assert len(kept(tmp_path)) == 2


def test_kept_code_is_used(module, tmp_path, monkeypatch):
    assert Kernel(module, "count")(np.zeros(3)) == 3
    monkeypatch.setattr(machine_code, "_compiled_elsewhere", None)
    assert Kernel(module, "count")(np.zeros(4)) == 4


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:40] + b"?" + b[41:], lambda b: b""])
def test_damaged_code_is_made_anew(module, tmp_path, damage):
    Kernel(module, "count")(np.zeros(3))
    (path,) = kept(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert Kernel(module, "count")(np.zeros(3)) == 3
    assert path.read_bytes() == whole
    assert kept(tmp_path) == [path]


def test_nowhere_to_keep_it(module, tmp_path):
    (tmp_path / "kept").write_text("a file where the folder should be")
    assert Kernel(module, "count")(np.zeros(3)) == 3


def test_the_next_place_where_the_first_is_not_writable(module, tmp_path, monkeypatch):
    (tmp_path / "kept").write_text("")
    monkeypatch.setattr(machine_code, "_places", lambda: [tmp_path / "kept", tmp_path / "other"])
    assert Kernel(module, "count")(np.zeros(3)) == 3
    assert len(list((tmp_path / "other").iterdir())) == 1


def test_where_no_process_can_be_started(module, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert Kernel(module, "count")(np.zeros(3)) == 3


def test_no_memory(module):
    with pytest.raises(MemoryError):
        Kernel(module, "too_much")(np.zeros(3))


def test_code_that_needs_what_is_not_there(module, monkeypatch):
    """The linker would end the process."""
    compiled = machine_code._compiled_elsewhere
    monkeypatch.setattr(
        machine_code, "_compiled_elsewhere", lambda *a: compiled(*a)._replace(needs=["no_such_function"])
    )
    with pytest.raises(RuntimeError, match="no_such_function"):
        Kernel(module, "count")(np.zeros(3))


LARGE = """
import sys, numpy as np
from nmfstream.core.kernels import sparse_products, sweeps
from nmfstream.types import CSR
C = np.ones((100, 8), "float32")
sweeps.coordinate_sweeps(C, np.eye(8), np.ones_like(C), 3, 1e-3, 0)
sparse_products.COMPILED_WORK = 0
X = CSR(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1), 1)
assert sparse_products.times_dense(X, np.full((1, 4), 2.0)).tolist() == [[2.0] * 4]
print("numba" in sys.modules)
"""


def test_the_compiler_is_not_loaded(tmp_path):
    """Neither by the process that has code compiled nor by the next; of a copy of the program without any code."""
    copy = tmp_path / "nmfstream"
    shutil.copytree(Path(machine_code.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-c", LARGE],
            cwd=tmp_path, env={"PYTHONPATH": str(tmp_path), "PATH": ""}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert run.stdout.split() == ["False"]
    assert list((copy / "__pycache__").glob("*.machine"))
