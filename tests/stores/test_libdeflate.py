"""Inflating straight into memory at hand, and what happens where that cannot be done."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from nmfstream.stores import filters, libdeflate, zarr_codecs
from nmfstream.stores.libdeflate import inflate_into

PLAIN = np.random.default_rng(0).integers(0, 40, 100_000).astype(np.uint8).tobytes()
PACKERS = {"zlib": zlib.compress, "gzip": gzip.compress}


@pytest.fixture(params=["libdeflate", "without it"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "without it":
        monkeypatch.setattr(libdeflate, "_library", lambda: None)


def test_the_library_is_there() -> None:
    """The package keeps its C functions visible; without them everything is read, at half the speed."""
    assert libdeflate._library() is not None


@pytest.mark.parametrize("wrapper", PACKERS)
def test_a_stream_fills_the_memory_at_hand(wrapper: str) -> None:
    out = np.empty(len(PLAIN), np.uint8)
    assert inflate_into(PACKERS[wrapper](PLAIN), out, wrapper)
    assert out.tobytes() == PLAIN


@pytest.mark.parametrize("wrapper", PACKERS)
@pytest.mark.parametrize(
    "spoil",
    [lambda b: b[:-1], lambda b: b[: len(b) // 2], lambda b: b + b"x", lambda b: b[:-2] + b"zz", lambda b: b""],
    ids=["cut", "half", "longer", "checksum", "empty"],
)
def test_anything_else_is_left_to_others(wrapper: str, spoil: Callable[[bytes], bytes]) -> None:
    assert not inflate_into(spoil(PACKERS[wrapper](PLAIN)), np.empty(len(PLAIN), np.uint8), wrapper)


@pytest.mark.parametrize("more", [-1, 1])
def test_another_length_is_left_to_others(more: int) -> None:
    room = np.full(len(PLAIN) + 8, 7, np.uint8)
    assert not inflate_into(zlib.compress(PLAIN), room[: len(PLAIN) + more])
    assert (room[len(PLAIN) + max(0, more) :] == 7).all()


def test_each_thread_has_working_memory_of_its_own() -> None:
    packed, failed = zlib.compress(PLAIN), []

    def work() -> None:
        out = np.empty(len(PLAIN), np.uint8)
        for _ in range(50):
            out[:] = 0
            if not inflate_into(packed, out) or out.tobytes() != PLAIN:
                failed.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.parametrize("given", [True, False], ids=["memory given", "none given"])
def test_hdf5_chunks_are_the_same_either_way(either: None, given: bool) -> None:
    out = np.empty(len(PLAIN), np.uint8) if given else None
    assert bytes(filters.inflate(zlib.compress(PLAIN), len(PLAIN), out=out)) == PLAIN
    for packed in (zlib.compress(PLAIN)[:-3], zlib.compress(PLAIN + b"x"), b"", zlib.compress(PLAIN)[:-1] + b"?"):
        with pytest.raises(filters.Damaged):
            filters.inflate(packed, len(PLAIN), out=out)


def test_members_of_gzip_follow_one_another(either: None) -> None:
    packed = gzip.compress(PLAIN[:300]) + gzip.compress(PLAIN[300:])
    found = zarr_codecs.run(zarr_codecs.Codec("gzip", ()), np.frombuffer(packed, np.uint8), len(PLAIN))
    assert found.tobytes() == PLAIN


@pytest.mark.parametrize("name", PACKERS)
def test_zarr_chunks_fill_the_memory_given(either: None, name: str) -> None:
    packed, out = np.frombuffer(PACKERS[name](PLAIN), np.uint8), np.empty(len(PLAIN), np.uint8)
    assert zarr_codecs.run(zarr_codecs.Codec(name, ()), packed, len(PLAIN), out).tobytes() == PLAIN
    with pytest.raises((zarr_codecs.Damaged, zlib.error)):
        zarr_codecs.run(zarr_codecs.Codec(name, ()), packed[:-9], len(PLAIN), out)
