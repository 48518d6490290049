"""Matrices on a pipe: what goes in comes out, row by row, and what is broken is said to be."""

from __future__ import annotations

import io
import json
import os
import threading
import tracemalloc

import numpy as np
import pytest
from scipy import sparse

from nmfstream.errors import DataError, UsageError
from nmfstream.stores.chunks import checked, of_iterator
from nmfstream.stores.growing import GrowingNpy
from nmfstream.stores.protocols import ReadPolicy
from nmfstream.stores.stream import CHUNK_BYTES, open_stream
from nmfstream.stores.stream_writer import StreamWriter
from nmfstream.types import CSR
from tests.cli.helpers import npy

A = np.arange(12.0).reshape(3, 4)


def read(data, kind="npy"):
    return [np.concatenate([*a.chunks, np.empty((0, a.n_features))]) for a in open_stream(io.BytesIO(data), kind)]


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f8", "u1", ">i2", "?", "f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_back_to_back(dtype, order):
    one, two = np.asarray(A > 3 if dtype == "?" else A, dtype, order=order), np.ones((2, 5))
    back = read(npy(one, two, one[:0]))
    assert [b.shape for b in back] == [(3, 4), (2, 5), (0, 4)]
    np.testing.assert_array_equal(back[0], one)
    np.testing.assert_array_equal(back[1], two)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_header(version):
    out = io.BytesIO()
    np.lib.format.write_array(out, A, version=version)
    np.testing.assert_array_equal(read(out.getvalue())[0], A)


def test_what_is_left_of_an_array_is_skipped():
    shapes = [a.n_features for a in open_stream(io.BytesIO(npy(A, np.ones((2, 5)))))]
    assert shapes == [4, 5]


def test_a_long_array_never_lies_in_memory():
    n, m = 60_000, 400
    reading, writing = os.pipe()

    def feed():
        with os.fdopen(writing, "wb") as out:
            np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": (n, m)})
            block = np.ones((1000, m))
            for _ in range(n // 1000):
                out.write(block)

    thread = threading.Thread(target=feed)
    thread.start()
    tracemalloc.start()
    with os.fdopen(reading, "rb") as file:
        array = next(open_stream(file))
        total = sum(int(chunk.sum()) for chunk in array.chunks)
    thread.join()
    assert total == n * m
    assert tracemalloc.get_traced_memory()[1] < 60 << 20 < n * m * 8
    tracemalloc.stop()


def test_a_row_is_there_before_the_next_one_is_sent():
    reading, writing = os.pipe()
    os.write(writing, npy(A)[: -2 * 32])
    with os.fdopen(reading, "rb") as file:
        chunks = next(open_stream(file)).chunks
        np.testing.assert_array_equal(next(chunks), A[:1])
        os.write(writing, A[1:].tobytes())
        os.close(writing)
        np.testing.assert_array_equal(np.concatenate(list(chunks)), A[1:])


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("csv", "1,2.5\n3,4e1\n"),
        ("csv", "1,2.5\r\n3,4e1\r\n"),
        ("csv", '1,"2.5"\n\n3,4e1'),
        ("tsv", "1\t2.5\n3\t40\n"),
    ],
)
def test_text(kind, text):
    np.testing.assert_array_equal(read(text.encode(), kind)[0], [[1, 2.5], [3, 40]])


def test_lines_are_counted_over_all_pieces_that_come():
    with pytest.raises(DataError, match="line 100001, row 100000, column 1: 'x' is no number"):
        read(b"1,2\n" * 100_000 + b"1,x\n", "csv")


def test_a_byte_order_mark_is_no_part_of_the_first_number():
    np.testing.assert_array_equal(read("\ufeff1,2\n".encode(), "csv")[0], [[1, 2]])


def test_nothing_is_nothing():
    assert read(b"") == []
    assert read(b"\n", "csv") == []


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        ("npy", npy(A)[:-3], "array 0: truncated: 96 bytes expected for shape (3, 4), 93 came"),
        ("npy", npy(A, A)[:-1], "array 1: truncated"),
        ("npy", npy(np.asfortranarray(A))[:-1], "truncated"),
        ("npy", npy(A)[:40], "ends inside its header"),
        (
            "npy",
            b"hello, world, this is text",
            "array 0: not an NPY array, it begins with b'hello, world'; send what numpy.save writes, or say",
        ),
        ("npy", npy(A) + b"x", "array 1: not an NPY array"),
        ("npy", npy(np.ones(3)), "1-D array"),
        ("npy", npy(np.ones((2, 2), complex)), "complex"),
        ("npy", npy(np.array([[None]])), "Python objects (pickle), which are never read"),
        ("npy", npy(A).replace(b"(3, 4)", b"(-3,4)"), "impossible shape"),
        ("npy", npy(A)[:8] + b"\xff\xff" + npy(A)[10:], "header"),
        ("csv", b"a,b\n1,2\n", "line 1, row 0, column 0: 'a' is no number; drop a header line"),
        ("csv", b"1,2\n3\n", "line 2, row 1: 1 fields where the lines before have 2"),
        ("csv", b"1,2\n3,x\n", "line 2, row 1, column 1: 'x' is no number; every field"),
        ("csv", b"\n1,2\n\n\n3,x\n", "line 5, row 1, column 1"),
        ("csv", b"a,1,2\nb,3,4\n", "'a' is no number; drop a column of names, as with 'cut -d, -f2-'"),
        ("tsv", b"a\t1\t2\n", "drop a column of names, as with 'cut -f2-'"),
        ("csv", b"1;2\n", "fields are parted by commas"),
        ("csv", b"1,,2\n", "row 0, column 1: an empty field"),
        ("tsv", b"1,2\n", "'1,2' is no number; fields are parted by tabs"),
    ],
)
def test_what_is_broken_is_named(kind, data, said):
    with pytest.raises(DataError) as caught:
        read(data, kind)
    assert said in str(caught.value)


def test_a_header_alone_allocates_nothing():
    huge = npy(A).replace(b"(3, 4), }      ", b"(3, 1099511627), }")[:128]
    tracemalloc.start()
    with pytest.raises(DataError):
        read(huge)
    assert tracemalloc.get_traced_memory()[1] < 4 * CHUNK_BYTES
    tracemalloc.stop()


@pytest.mark.parametrize(("bad", "said"), [(np.nan, "NaN"), (-1.0, "negative value"), (1e39, "does not fit float32")])
def test_values_are_checked_where_they_lie(bad, said):
    X = np.ones((5, 3))
    X[4, 1] = bad
    array = next(open_stream(io.BytesIO(npy(X))))
    with pytest.raises(DataError, match=f"row 14, column 1: .*{said}"):
        list(checked(array, ReadPolicy(np.dtype(np.float32)), "standard input", first_row=10))


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array, sparse.coo_matrix])
def test_a_users_own_loader(make):
    array = next(of_iterator(make(A[i : i + 1]) for i in range(3)))
    rows = [c.toarray() if isinstance(c, CSR) else c for c in checked(array, ReadPolicy(np.dtype("f4")), "X")]
    np.testing.assert_array_equal(np.concatenate(rows), A.astype("f4"))


def test_a_loader_whose_chunks_do_not_fit():
    array = next(of_iterator(iter([A, np.ones((2, 3))])))
    with pytest.raises(DataError, match=r"the chunks given, chunk 1: has the shape \(2, 3\)"):
        list(array.chunks)


def test_an_unknown_format():
    with pytest.raises(UsageError, match="npy, csv, tsv"):
        open_stream(io.BytesIO(), "arrow")


VALUES = {
    "f4": np.array([[0.1, 1e-30, 3.4e38], [1 / 3, 0, 16777217]], "f4"),
    "f8": np.array([[0.1, 5e-324, 1.7e308], [1 / 3, 0, 2.0**53 + 1]], "f8"),
}


@pytest.mark.parametrize("dtype", VALUES)
@pytest.mark.parametrize(("kind", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_text_comes_back_to_the_last_bit(kind, delimiter, dtype):
    out, W = io.BytesIO(), VALUES[dtype]
    StreamWriter(out, kind, W.shape, W.dtype).write(0, W)
    back = np.loadtxt(io.StringIO(out.getvalue().decode()), delimiter=delimiter).astype(dtype)
    np.testing.assert_array_equal(back, W)


@pytest.mark.parametrize("dtype", VALUES)
def test_json_lines_come_back_to_the_last_bit(dtype):
    out, W = io.BytesIO(), VALUES[dtype]
    writer = StreamWriter(out, "jsonl", W.shape, W.dtype, first_row=7)
    writer.write(0, W[:1])
    writer.write(1, W[1:])
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["row"] for line in lines] == [7, 8]
    np.testing.assert_array_equal(np.array([line["w"] for line in lines], dtype), W)


@pytest.mark.parametrize("n_rows", [3, None])
def test_npy_out(n_rows):
    out = io.BytesIO()
    writer = StreamWriter(out, "npy", (n_rows, 4), A.dtype)
    writer.write(0, A)
    writer.commit()
    np.testing.assert_array_equal(np.load(io.BytesIO(out.getvalue())), A)


def test_rows_come_in_order_only():
    with pytest.raises(ValueError, match="row 2 where row 0 comes next"):
        StreamWriter(io.BytesIO(), "csv", (3, 4), A.dtype).write(2, A[2:])


def test_a_growing_file_is_named_when_whole(tmp_path):
    rows = GrowingNpy(tmp_path / "W.npy", 4, A.dtype)
    rows.append(A)
    rows.append(A[:1])
    assert not (tmp_path / "W.npy").exists()
    rows.commit()
    np.testing.assert_array_equal(np.load(tmp_path / "W.npy"), np.vstack([A, A[:1]]))
    assert [p.name for p in tmp_path.iterdir()] == ["W.npy"]


def test_a_growing_file_that_is_given_up_leaves_nothing(tmp_path):
    rows = GrowingNpy(tmp_path / "W.npy", 4, A.dtype)
    rows.append(A)
    rows.abort()
    assert list(tmp_path.iterdir()) == []
