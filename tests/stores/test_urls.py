"""Stores behind URLs: Zarr over HTTP from a server that lists nothing; all else is refused in one line."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from zarr.codecs import BytesCodec, ShardingCodec, TransposeCodec

from nmfstream.errors import DataError, InputAbsentError, NmfstreamError, RemoteError, UsageError
from nmfstream.stores import zarr_remote
from nmfstream.stores.protocols import Opening
from nmfstream.stores.registry import candidates
from tests.cli.helpers import complaint, run
from tests.faults.reading import failure, read

X = (np.arange(53 * 31, dtype="f4") % 13).reshape(53, 31)
WHOLE = {"write_empty_chunks": True}
pytestmark = pytest.mark.filterwarnings("ignore")


class Server(SimpleHTTPRequestHandler):
    """Files of a folder, whole or in ranges; folders are not listed."""

    def log_message(self, *_: Any) -> None:
        pass

    def list_directory(self, path: Any) -> None:
        self.send_error(404)

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        asked = re.match(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked or not path.is_file():
            super().do_GET()
            return
        size, (first, last) = path.stat().st_size, asked.groups()
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(path.read_bytes()[start:stop])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("served")
    zarr.create_array(here / "v2.zarr", data=X, chunks=(10, 8), zarr_format=2, config=WHOLE)
    zarr.create_array(here / "v3.zarr", data=X, chunks=(10, 8), config=WHOLE)
    zarr.create_array(here / "shards.zarr", data=X, chunks=(5, 4), shards=(20, 16), config=WHOLE)
    group = zarr.open_group(here / "group.zarr", mode="w").create_group("deep")
    group.create_array("X", data=X, chunks=(10, 8), config=WHOLE)
    S = sp.csr_matrix(X)
    sparse = group.create_group("S", attributes={"encoding-type": "csr_matrix", "shape": list(X.shape)})
    for part in ("data", "indices", "indptr"):
        sparse.create_array(part, data=getattr(S, part), config=WHOLE)
    zarr.consolidate_metadata(here / "group.zarr")
    holes = zarr.create_array(here / "holes.zarr", data=X, chunks=(10, 8), config=WHOLE)
    assert holes.nchunks == 24
    (here / "holes.zarr/c/3/1").unlink()
    codecs = [TransposeCodec(order=(1, 0)), ShardingCodec(chunk_shape=(4, 4), codecs=[BytesCodec()])]
    zarr.create(store=here / "odd.zarr", shape=X.shape, dtype="f4", chunks=(20, 16), codecs=codecs)[:] = X
    np.save(here / "x.npy", X)
    return here


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: Server(*given, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("name", ["v2.zarr", "v3.zarr", "shards.zarr", "group.zarr/deep/X", "group.zarr/deep/S"])
def test_zarr_over_http(url: str, name: str) -> None:
    np.testing.assert_array_equal(read(f"{url}/{name}"), X)


def test_candidates_come_from_consolidated_metadata(url: str) -> None:
    assert [one.path for one in candidates(f"{url}/group.zarr", Opening())] == ["deep/S", "deep/X"]


REFUSED = [
    ("holes.zarr", DataError, "c/3/1"),
    ("odd.zarr", UsageError, "download"),
    ("nothing.zarr", InputAbsentError, "no Zarr store"),
    ("v3.zarr/X", InputAbsentError, "one array"),
    ("group.zarr/deep/Y", InputAbsentError, "deep/X"),
    ("x.npy", UsageError, "not read from a URL"),
    ("x.h5/X", UsageError, "not read from a URL"),
]


@pytest.mark.parametrize(("name", "error", "said"), REFUSED)
def test_refused(url: str, name: str, error: type[NmfstreamError], said: str) -> None:
    assert said in str(failure(f"{url}/{name}", error=error))


def test_a_server_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(zarr_remote.time, "sleep", lambda seconds: None)
    assert "failed 4 times" in failure("http://127.0.0.1:9/x.zarr", error=RemoteError).what


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert "nmfstream[remote]" in failure("https://example.org/x.zarr", error=RemoteError).hint


def test_of_this_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    np.testing.assert_array_equal(read(f"file://{folder}/x.npy"), X)
    np.testing.assert_array_equal(read(f"file://{folder}/group.zarr/deep/X"), X)


COMMANDS = [
    (("info", "http://127.0.0.1:9/x.h5"), 2, "HDF5 is not read from a URL"),
    (("convert", "https://127.0.0.1:9/x.npz", "-o", "{}/y.npy"), 2, "NPZ is not read from a URL"),
    (("convert", "{}/x.npy", "-o", "s3://bucket/y.zarr"), 2, "outputs are not written to URLs"),
    (("convert", "file://{}/x.npy", "-o", "{}/x.npy", "--overwrite"), 2, "also an input"),
]


@pytest.mark.parametrize(("args", "code", "said"), COMMANDS)
def test_commands_say_so_in_one_line(folder: Path, args: tuple[str, ...], code: int, said: str) -> None:
    done = run(*(arg.format(folder) for arg in args))
    assert done.returncode == code
    assert said in complaint(done)
    np.testing.assert_array_equal(np.load(folder / "x.npy"), X)
