"""The floor of a pass: every chunk decoded on all cores by the fastest decoder at hand, and the thin products."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bench_data import CHUNK_ROWS, N_FEATURES

CORES = len(os.sched_getaffinity(0))
BLOCK = 1024
Task = Callable[[], Any]


def on_all_cores(tasks: Sequence[Task]) -> float:
    """Seconds until all are done, on one thread a core."""
    began = time.perf_counter()
    with ThreadPoolExecutor(CORES) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()
    return time.perf_counter() - began


def decode_seconds(kind: str, path: Path) -> float:
    """Seconds to read and decode every chunk, the values dropped."""
    return on_all_cores(DECODERS[kind](path))


def _npy(path: Path) -> list[Task]:
    raw = os.open(path, os.O_RDONLY)
    size, piece = path.stat().st_size, CHUNK_ROWS * N_FEATURES * 4
    buffers = _PerThread(piece)
    return [lambda at=at: os.preadv(raw, [buffers.mine()], at) for at in range(128, size, piece)]  # type: ignore[misc]


def _zarr(path: Path) -> list[Task]:
    from numcodecs.zstd import decompress

    names = [p for p in (path / "c").rglob("*") if p.is_file()]
    assert names, "no chunks"
    buffers = _PerThread(CHUNK_ROWS * N_FEATURES * 4)
    return [lambda p=p: decompress(p.read_bytes(), buffers.mine()) for p in names]  # type: ignore[misc]


def _gzip(path: Path, shuffled: bool = False) -> list[Task]:
    import h5py

    from nmfstream.stores.libdeflate import inflate_into

    with h5py.File(path, "r") as file:
        data = file["X"]
        places: list[tuple[int, int]] = []
        data.id.chunk_iter(lambda chunk: places.append((chunk.byte_offset, chunk.size)))
        size = int(np.prod(data.chunks)) * data.dtype.itemsize
    raw, inflated, buffers = os.open(path, os.O_RDONLY), _PerThread(size), _PerThread(size)
    finish = _fastest_unshuffle(size) if shuffled else lambda plain, out: plain

    def task(place: tuple[int, int]) -> None:
        plain = inflated.mine()
        assert inflate_into(os.pread(raw, place[1], place[0]), plain)
        finish(plain, buffers.mine())

    return [partial(task, place) for place in places]


def _fastest_unshuffle(size: int) -> Callable[[np.ndarray, np.ndarray], Any]:
    from numcodecs import Shuffle

    from nmfstream.stores.filters import unshuffle

    codec = Shuffle(4)
    ways = [
        lambda plain, out: codec.decode(plain, out),
        lambda plain, out: unshuffle(plain, size, (4,), out),
    ]
    sample, out = np.zeros(size, np.uint8), np.empty(size, np.uint8)

    def cost(way: Callable[[np.ndarray, np.ndarray], Any]) -> float:
        way(sample, out)
        began = time.perf_counter()
        way(sample, out)
        return time.perf_counter() - began

    return min(ways, key=cost)


class _PerThread:
    """A buffer for each thread, used again and again."""

    def __init__(self, size: int) -> None:
        import threading

        self._size, self._local = size, threading.local()

    def mine(self) -> np.ndarray:
        if not hasattr(self._local, "buffer"):
            self._local.buffer = np.empty(self._size, np.uint8)
        buffer: np.ndarray = self._local.buffer
        return buffer


DECODERS: dict[str, Callable[[Path], list[Task]]] = {
    "npy": _npy,
    "zarr": _zarr,
    "gzip": _gzip,
    "shuffle": partial(_gzip, shuffled=True),
}


def product_seconds(n_rows: int, k: int, products: int) -> float:
    """Seconds of X·Hᵀ (1) and WᵀX (2) over blocks that lie in memory, one block a task and one BLAS thread each."""
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(0)
    X = rng.random((32 * BLOCK, N_FEATURES), dtype=np.float32)
    H = np.ascontiguousarray(rng.random((k, N_FEATURES), dtype=np.float32))
    W = rng.random((BLOCK, k), dtype=np.float32)

    def task(i: int) -> None:
        block = X[(i % 32) * BLOCK :][:BLOCK]
        block @ H.T
        if products == 2:
            W.T @ block

    with threadpool_limits(1, user_api="blas"):
        task(0)
        return on_all_cores([partial(task, i) for i in range(-(-n_rows // BLOCK))])


def solve_seconds(model: Path, X: np.ndarray) -> float:
    """Seconds to solve W of rows that lie in memory, on all cores, less X·Hᵀ."""
    from threadpoolctl import threadpool_limits

    from nmfstream.core.rowsolve import row_solver
    from nmfstream.model import read_model

    fitted = read_model(model)
    solver = row_solver(fitted.components, fitted.objective, X.dtype)
    with threadpool_limits(1, user_api="blas"):
        solver(X[:BLOCK])
        whole = on_all_cores([partial(solver, X[at : at + BLOCK]) for at in range(0, len(X), BLOCK)])
    return max(0.0, whole - product_seconds(len(X), fitted.n_components, 1))


if __name__ == "__main__":
    import sys

    print(json.dumps(decode_seconds(sys.argv[1], Path(sys.argv[2]))))
