"""Decoded chunks that several reads share: each decoded once, and few of them held."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from nmfstream.stores.arrays import HELD_BYTES, HELD_CHUNKS, Shared
from nmfstream.types import Array


class Chunk(np.ndarray[Any, Any]):
    """Of an array's own class, so that it can be watched."""


def made(size: int) -> Array:
    return np.zeros(size, np.uint8).view(Chunk)


def test_both_sides_of_a_cut_take_one_decoding() -> None:
    shared, decoded = Shared(100), []

    def decode() -> Array:
        decoded.append(1)
        return made(100)

    shared.take("cut", 60, decode)
    shared.take("cut", 40, decode)
    assert len(decoded) == 1
    shared.take("cut", 60, decode)
    assert len(decoded) == 2  # all of it had been served: it was forgotten


@pytest.mark.parametrize(
    ("chunk_bytes", "most"), [(1 << 10, HELD_CHUNKS), (HELD_BYTES // 2, 2), (HELD_BYTES, 2), (HELD_BYTES // 3, 3)]
)
def test_few_chunks_are_held_where_they_are_large(chunk_bytes: int, most: int) -> None:
    shared, seen = Shared(chunk_bytes), []

    def decode() -> Array:
        chunk = made(8)
        seen.append(weakref.ref(chunk))
        return chunk

    for key in range(20):
        shared.take(key, 1, decode)
    gc.collect()
    assert sum(ref() is not None for ref in seen) == most
