"""Rows of the table about time: passes against the floor, reading against h5py, threads, start-up."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bench_data import CHUNK_ROWS, Stores
from bench_floor import CORES, decode_seconds, product_seconds, solve_seconds
from bench_run import COMMAND, Figure, at_least, at_most, in_turn, measured, nmfstream, warm

K = 20
NAMES = {"npy": "NPY in the page cache", "zarr": "Zarr zstd", "gzip": "gzip HDF5", "shuffle": "gzip HDF5, shuffled"}
GOALS = {"npy": 2.0}


@dataclass(frozen=True)
class Bench:
    """What every row needs.

    Parameters
    ----------
    stores : Stores
    repeats : int
        Turns of each side.
    """

    stores: Stores
    repeats: int

    @property
    def folder(self) -> Path:
        """Where outputs go."""
        return self.stores.folder

    def model(self) -> Path:
        """A model of the dense data."""
        path = self.folder / f"model-{self.stores.n_rows}.h5"
        if not path.exists():
            nmfstream("fit", self.stores.spec("npy"), "-o", path, "-k", K, "--solver", "hals", "--max-iter", 2)
        return path

    def fit(self, data: str | Path, *more: Any) -> float:
        """Seconds of one pass of hals, as a whole process."""
        out = ("-o", self.folder / "out.h5", "--overwrite", "-k", K)
        how = ("--solver", "hals", "--max-iter", 1, "--batch-size", 8192)
        return nmfstream("fit", data, *out, *how, *(more or ("--sample-rows", 0))).seconds

    def transform(self, data: str | Path, *more: Any) -> float:
        """Seconds of a transform to NPY, as a whole process."""
        out = ("-o", self.folder / "W.npy", "--overwrite")
        return nmfstream("transform", data, "-m", self.model(), *out, *more).seconds


def fit_pass(kind: str, bench: Bench) -> list[Figure]:
    """One pass of hals against decoding and two products."""
    path, ten, n = bench.stores.path(kind), bench.stores.some(10), bench.stores.n_rows
    bench.fit(path)
    whole, start, decode, products = in_turn(
        bench.repeats,
        lambda: bench.fit(path),
        lambda: bench.fit(ten),
        lambda: decode_seconds(kind, path),
        lambda: product_seconds(n, K, 2),
    )
    details = {"pass_s": whole - start, "startup_s": start, "decode_s": decode, "products_s": products}
    ratio = (whole - start) / (decode + products)
    return [at_most(f"one pass of `fit --solver hals`, {NAMES[kind]}", ratio, GOALS.get(kind, 1.35), **details)]


def transform_pass(kind: str, bench: Bench) -> list[Figure]:
    """Transform against decoding and one product, the solve for W apart."""
    path, ten, n, model = bench.stores.path(kind), bench.stores.some(10), bench.stores.n_rows, bench.model()
    X = np.load(bench.stores.path("npy"), mmap_mode="r")
    part = np.ascontiguousarray(X[: 64 * CHUNK_ROWS])
    bench.transform(path)
    whole, start, decode, product, solve = in_turn(
        bench.repeats,
        lambda: bench.transform(path),
        lambda: bench.transform(ten),
        lambda: decode_seconds(kind, path),
        lambda: product_seconds(n, K, 1),
        lambda: solve_seconds(model, part) * n / len(part),
    )
    details = {"transform_s": whole - start, "solve_s": solve, "decode_s": decode, "product_s": product}
    name = f"`transform` to `.npy`, {NAMES[kind]}, without the solve for W ({solve:.2f} s)"
    ratio = (whole - start - solve) / (decode + product)
    return [at_most(name, ratio, GOALS.get(kind, 1.35), **details)]


def read_hdf5(kind: str, bench: Bench) -> list[Figure]:
    """All rows of a gzip dataset, decoded by us and by h5py."""
    path = bench.stores.path(kind)
    ours, theirs = in_turn(bench.repeats, lambda: _warm("read_all", path), lambda: _warm("read_slices", path))
    goal = 3.0 if kind == "gzip" else 2.5
    size = bench.stores.n_rows * 4000 / 1e9
    return [at_least(f"{NAMES[kind]} read, against h5py slices", theirs / ours, goal, GB_s=size / ours)]


_warm = partial(warm, "bench_passes")


def read_all(path: Path) -> int:
    """Every row as checked batches, in a process that is set up as the program's."""
    import nmfstream.run.opening as opening
    from nmfstream.config import Inputs, Resources
    from nmfstream.run.machine import give_back_memory
    from nmfstream.run.pipeline import Reading
    from nmfstream.run.workers import workers

    give_back_memory()
    with opening.open_data(Inputs((str(path),)), Resources()) as data, workers() as (pool, _):
        source, rows = data.source(pool, Reading(32 << 20, 3)), 0
        for batch in source.batches(None, 8192, 0, CHUNK_ROWS):
            rows += batch.n_rows
    return rows


def read_slices(path: Path) -> None:
    """Every row by h5py, into one buffer."""
    import h5py

    with h5py.File(path) as file:
        data = file["X"]
        out = np.empty((CHUNK_ROWS, data.shape[1]), data.dtype)
        for start in range(0, data.shape[0], CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, data.shape[0])
            data.read_direct(out, np.s_[start:stop], np.s_[: stop - start])


def read_h5ad(bench: Bench) -> list[Figure]:
    """Rows of a compressed CSR matrix as (sorted, checked) batches, and as slices of its three arrays."""
    path = bench.stores.path("long-h5ad")
    rows = read_all(path)
    ours, theirs = in_turn(bench.repeats, lambda: _warm("read_all", path), lambda: _warm("read_csr_slices", path))
    name = "CSR from compressed h5ad, rows/s against h5py slices"
    return [at_least(name, theirs / ours, 2.5, rows_s=rows / ours)]


def read_csr_slices(path: Path, step: int = 2048) -> None:
    """Every row as scipy matrices of slices by h5py."""
    import h5py
    import scipy.sparse

    with h5py.File(path) as file:
        X = file["X"]
        n, m = X.attrs["shape"]
        indptr = X["indptr"][:]
        for start in range(0, n, step):
            bounds = indptr[start : min(start + step, n) + 1]
            part = slice(bounds[0], bounds[-1])
            values, columns = X["data"][part].astype(np.float32), X["indices"][part]
            scipy.sparse.csr_matrix((values, columns, bounds - bounds[0]), (len(bounds) - 1, m))


def sample_fit(bench: Bench) -> list[Figure]:
    """What the default sample fit adds to a first pass."""
    path = bench.stores.path("npy")
    without, with_sample = in_turn(
        bench.repeats, lambda: bench.fit(path), lambda: bench.fit(path, "--sample-rows", bench.stores.n_rows // 6)
    )
    seconds = with_sample - without
    return [Figure("sample fit before the first pass (n/6 rows)", f"{seconds:.2f} s", details={"pass_s": without})]


def threads(bench: Bench) -> list[Figure]:
    """Two threads against one: time and bits."""
    path, ten = bench.stores.path("gzip"), bench.stores.some(10)
    one, two, start = in_turn(
        bench.repeats,
        lambda: bench.fit(path, "--sample-rows", 0, "--threads", 1),
        lambda: bench.fit(path, "--sample-rows", 0, "--threads", 2),
        lambda: bench.fit(ten),
    )
    bits = [_bits(bench, path, count) for count in (1, 2)]
    same = bits[0] == bits[1]
    figure = at_least("second thread: one pass of hals, gzip HDF5", (one - start) / (two - start), 1.75, one_s=one)
    return [figure, Figure("same bits with one and two threads", "yes" if same else "no", "yes", same)]


def _bits(bench: Bench, path: Path, count: int) -> bytes:
    import h5py

    bench.fit(path, "--sample-rows", 0, "--threads", count)
    with h5py.File(bench.folder / "out.h5") as file:
        values: bytes = file["components"][:].tobytes()
    return values


def startup(bench: Bench) -> list[Figure]:
    """`--help`, and one row through a pipe."""
    row, model = bench.stores.some(1), bench.model()
    shown, piped = in_turn(
        max(5, bench.repeats),
        lambda: nmfstream("--help").seconds,
        lambda: nmfstream("transform", "-m", model, "-", stdin=row).seconds,
    )
    return [
        at_most("`--help`", shown, 0.15, "s"),
        at_most("one row through `transform -`", piped, 0.9, "s"),
    ]


def environment() -> dict[str, Any]:
    """What the figures hold for."""
    import platform

    return {"cores": CORES, "machine": platform.machine(), "python": platform.python_version(), "time": time.time()}


def pipe(bench: Bench) -> list[Figure]:
    """A million rows of 200 features through a pipe, against the same from a file."""
    data, model = bench.folder / "million.npy", bench.folder / "million-model.h5"
    if not model.exists():
        rng = np.random.default_rng(0)
        W, H = rng.gamma(0.5, 1, (10_000, K)), rng.gamma(0.5, 1, (K, 200))
        np.save(data, np.tile((W @ H).astype(np.float32), (100, 1)))
        nmfstream("fit", data, "-o", model, "-k", K, "--max-iter", 1)
    told = ("-m", model, "-o", bench.folder / "million-W.npy", "--overwrite")
    piped = shlex.join(map(str, [*COMMAND, "transform", "-", *told]))
    file, stream = in_turn(
        bench.repeats,
        lambda: nmfstream("transform", data, *told).seconds,
        lambda: measured(["/bin/sh", "-c", f"cat {shlex.quote(str(data))} | {piped}"]).seconds,
    )
    return [at_least("1 million rows × 200 through a pipe, speed against a file", file / stream, 0.7, pipe_s=stream)]
