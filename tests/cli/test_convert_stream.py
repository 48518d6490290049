"""``convert`` from standard input and to standard output."""

from __future__ import annotations

import io
import subprocess

import numpy as np
import pytest

import nmfstream
from nmfstream.stores.protocols import Opening
from nmfstream.stores.registry import open_reader
from tests.cli.helpers import PROGRAM, complaint, npy, run
from tests.cli.test_pipe import arrays
from tests.faults.reading import read
from tests.stores.conformance import CASES, matrix

TARGETS = ["y.npy", "y.npz", "y.npz/X", "y.h5", "y.h5/deep/X", "y.zarr", "y.zarr/deep/X"]
X = matrix()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ["f4", "<f8", ">f4", "u1", "i8"])
def test_the_arrays_of_a_stream_become_one_store(target, dtype, tmp_path):
    done = run("convert", "-", "-o", target, stdin=npy(*np.split(X.astype(dtype), [7, 7, 100])), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with open_reader(str(tmp_path / target), Opening()) as reader:
        assert np.dtype(reader.dtype).newbyteorder("=") == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(read(str(tmp_path / target)), X)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_any_store_goes_to_standard_output(case, tmp_path):
    if set(case.opening) - {"transpose"}:
        pytest.skip("opened by more than its name")
    options = ("--transpose",) if case.opening.get("transpose") else ()
    done = run("convert", case.write(tmp_path, X), "-o", "-", "-q", *options)
    assert (done.returncode, done.stderr) == (0, b"")
    (out,) = arrays(done.stdout)
    np.testing.assert_array_equal(out, X)


def test_one_array_out_for_each_array_in():
    done = run("convert", "-", "-o", "-", "--dtype", "float64", stdin=npy(X[:5], X[:0], X[5:]))
    assert [(a.shape, a.dtype) for a in arrays(done.stdout)] == [((n, 47), np.float64) for n in (5, 0, 296)]
    np.testing.assert_array_equal(np.vstack(arrays(done.stdout)), X)


def test_text_becomes_a_store_of_chosen_chunks(tmp_path):
    text = io.StringIO()
    np.savetxt(text, X, "%g", ",")
    args = ("convert", "-", "-o", "y.zarr", "--input-format", "csv", "--dtype", "float32", "--chunk-rows", 32)
    assert run(*args, stdin=text.getvalue().encode(), cwd=tmp_path).returncode == 0
    with nmfstream.open(tmp_path / "y.zarr") as rows:
        assert (rows.dtype, rows.reader.chunk_rows) == (np.float32, 32)
        np.testing.assert_array_equal(rows[:], X)


@pytest.mark.parametrize(
    ("stdin", "args", "code", "said"),
    [
        (b"", (), 65, "standard input: no array came"),
        (npy(X, X[:, :5]), (), 65, "standard input, array 1: has 5 features, the first array 47"),
        (npy(X, X.astype("f8")), (), 65, "array 1: is float64, the first array float32; say which it shall be"),
        (npy(X)[:-5], (), 65, "truncated"),
        (npy(X, -X), (), 65, "row 301, column "),
        (npy(np.full((2, 3), 2**60)), (), 65, "give --dtype float64 to round it"),
        (npy(X), ("--transpose",), 2, "--transpose: a stream is read once"),
    ],
    ids=["nothing", "features", "types", "cut short", "negative", "rounded", "transpose"],
)
def test_what_goes_wrong_leaves_no_store(stdin, args, code, said, tmp_path):
    done = run("convert", "-", "-o", "y.zarr", *args, stdin=stdin, cwd=tmp_path)
    assert done.returncode == code
    assert said in complaint(done)
    assert not list(tmp_path.iterdir())


def test_arrays_of_several_types_where_one_is_asked_for(tmp_path):
    args = ("convert", "-", "-o", "y.npy", "--dtype", "float32")
    assert run(*args, stdin=npy(X[:9], X[9:].astype("f8")), cwd=tmp_path).returncode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), X)


def test_json_and_data_do_not_share_standard_output():
    done = run("convert", "-", "-o", "-", "--json", stdin=npy(X))
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize("data", ["-", "x.npy"])
def test_83_into_head(data, tmp_path):
    np.save(tmp_path / "x.npy", np.tile(X, (300, 1)))
    command = [*PROGRAM, "convert", data, "-o", "-"]
    with open(tmp_path / "x.npy", "rb") as source:
        writer = subprocess.Popen(
            command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
        )  # fmt: skip
        assert writer.stdout.read(1)
        writer.stdout.close()
        assert writer.stderr.read() == b""
        writer.stderr.close()
    assert writer.wait(60) in (141, -13)
