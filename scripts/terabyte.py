"""One pass of `fit` and a `transform` over a store of any logical size, which takes little room on the disk.

The chunks of the store are hard links to a few hundred distinct files, so that what is measured is sustained
decoding and computing, not the disk: the files lie in the page cache.

    python scripts/terabyte.py --size 100GB --folder /tmp/terabyte
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from nmfstream.stores.files import scratch
from nmfstream.stores.zarr_codecs import Chain, Codec
from nmfstream.stores.zarr_writer import array_metadata, encode

FEATURES = 1000
CHUNK_ROWS = 2000
CHUNK_BYTES = CHUNK_ROWS * FEATURES * 4
UNITS = {"B": 1, "MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


class Run(NamedTuple):
    """A command that ended: wall seconds and peak resident bytes."""

    seconds: float
    peak: int


def parse_size(text: str) -> int:
    number = text.rstrip("BMGTiKk")
    return int(float(number) * UNITS[text[len(number) :].strip() or "B"])


def counts(rng: np.random.Generator, H: np.ndarray) -> np.ndarray:
    """A chunk of Poisson counts around a low-rank mean."""
    W = rng.gamma(0.5, 1.0, (CHUNK_ROWS, len(H)))
    return rng.poisson(W @ H).astype(np.float32)


def build(folder: Path, size: int, distinct: int) -> tuple[Path, list[Path], int]:
    """The store, its distinct files, and its number of chunks."""
    store, real = folder / "data.zarr", folder / "distinct"
    shutil.rmtree(folder, ignore_errors=True)
    real.mkdir(parents=True)
    store.mkdir()
    rng = np.random.default_rng(0)
    H = rng.gamma(0.3, 1.0, (20, FEATURES))
    files = [real / str(i) for i in range(distinct)]
    for file in files:
        file.write_bytes(encode(counts(rng, H)))
    n_chunks = max(1, size // CHUNK_BYTES)
    shape = (n_chunks * CHUNK_ROWS, FEATURES)
    document = array_metadata(shape, (CHUNK_ROWS, FEATURES), np.dtype(np.float32))
    (store / "zarr.json").write_text(json.dumps(document))
    for i in range(n_chunks):
        os.link(files[i * 7919 % distinct], store / f"c.{i}.0")
    return store, files, n_chunks


def command(*args: object) -> Run:
    """Run the command line and wait for it."""
    began = time.perf_counter()
    process = subprocess.Popen([str(Path(sys.executable).with_name("nmfstream")), *map(str, args)])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(map(str, args))} ended with status {os.waitstatus_to_exitcode(status)}")
    return Run(seconds, usage.ru_maxrss * 1024)


def on_all_cores(task: Callable[[int], Any], n: int) -> float:
    """Seconds that `n` calls take."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool, threadpool_limits(1, "blas"):
        list(pool.map(task, range(8)))
        began = time.perf_counter()
        list(pool.map(task, range(n)))
        return time.perf_counter() - began


def floor(files: list[Path], n_chunks: int, k: int) -> dict[str, float]:
    """Seconds of a pass that only decodes every chunk, and of the two products, on all cores.

    Extrapolated from a few seconds, which may be slow ones of a shared machine: measured before and after the
    commands, and the lesser counts.
    """
    chain = Chain((Codec("zstd", ()),), np.dtype("<f4"), (0, 1))
    rng = np.random.default_rng(1)
    X = chain.decode(np.fromfile(files[0], np.uint8), (CHUNK_ROWS, FEATURES)).copy()
    H, W = rng.random((k, FEATURES), np.float32), rng.random((CHUNK_ROWS, k), np.float32)

    def decode(i: int) -> None:
        raw = np.fromfile(files[i % len(files)], np.uint8)
        chain.decode(raw, (CHUNK_ROWS, FEATURES), scratch(CHUNK_BYTES, "floor"))

    def products(i: int) -> None:
        for a in range(0, CHUNK_ROWS, 500):
            X[a : a + 500] @ H.T
            W[a : a + 500].T @ X[a : a + 500]

    def project(i: int) -> None:
        for a in range(0, CHUNK_ROWS, 500):
            X[a : a + 500] @ H.T

    n = min(n_chunks, 2 * len(files))
    seconds = {"decode": decode, "two_products": products, "one_product": project}
    return {name: on_all_cores(task, n) * n_chunks / n for name, task in seconds.items()}


def report(name: str, run: Run, lowest: float, size: int) -> dict[str, Any]:
    found = {
        "seconds": round(run.seconds, 2),
        "gigabytes_a_second": round(size / run.seconds / 1e9, 3),
        "peak_bytes": run.peak,
        "floor_seconds": round(lowest, 2),
        "ratio_to_floor": round(run.seconds / lowest, 3),
    }
    print(
        f"{name}: {run.seconds:.1f} s, {size / run.seconds / 1e9:.2f} GB/s, peak {run.peak / 2**20:.0f} MiB, "
        f"{run.seconds / lowest:.2f} x floor",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="100GB", help="logical size of the store")
    parser.add_argument("--folder", type=Path, default=Path("terabyte"), help="where the store is built (replaced)")
    parser.add_argument("--distinct", type=int, default=200, help="distinct chunk files")
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("-k", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--keep", action="store_true", help="leave the store")
    given = parser.parse_args()
    store, files, n_chunks = build(given.folder, parse_size(given.size), given.distinct)
    size = n_chunks * CHUNK_BYTES
    stored = sum(file.stat().st_size for file in files)
    print(
        f"{n_chunks} chunks, {size / 1e9:.1f} GB, hard links to {len(files)} files of {stored / 1e6:.0f} MB in all: "
        "they lie in the page cache, so this is sustained decoding and computing without a disk",
        flush=True,
    )
    before = floor(files, n_chunks, given.k)
    model, quiet = given.folder / "model.h5", ("--memory", given.memory, "--no-progress")
    fit = command("fit", store, "-k", given.k, "-o", model, "--max-iter", 1, "--overwrite", *quiet)
    solve = command("transform", store, "-m", model, "-o", given.folder / "W.npy", "--overwrite", *quiet)
    after = floor(files, n_chunks, given.k)
    lowest = {name: min(before[name], after[name]) for name in before}
    figures = {"size": size, "chunks": n_chunks, "distinct": len(files), "page_cache": True, "memory": given.memory}
    figures["fit"] = report("fit, one pass", fit, lowest["decode"] + lowest["two_products"], size)
    figures["transform"] = report("transform", solve, lowest["decode"] + lowest["one_product"], size)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    if not given.keep:
        shutil.rmtree(given.folder)


if __name__ == "__main__":
    main()
