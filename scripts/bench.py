"""Measure the table of the README on this machine: ``bench.py --folder DIR [--rows NAMES] [--scale 0.1]``.

Each figure is a ratio within one run whose sides take turns (medians). The data are made once in the folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import bench_memory
import bench_passes
import bench_sklearn
from bench_data import Stores
from bench_passes import Bench
from bench_run import Figure, markdown

from nmfstream.run.machine import give_back_memory

ROWS: dict[str, Callable[[Bench], list[Figure]]] = {
    **{f"hals-{kind}": partial(bench_passes.fit_pass, kind) for kind in bench_passes.NAMES},
    **{f"transform-{kind}": partial(bench_passes.transform_pass, kind) for kind in bench_passes.NAMES},
    "sample": bench_passes.sample_fit,
    "read-gzip": partial(bench_passes.read_hdf5, "gzip"),
    "read-shuffle": partial(bench_passes.read_hdf5, "shuffle"),
    "read-h5ad": bench_passes.read_h5ad,
    **{f"sklearn-{case.replace(' ', '-').lower()}": partial(bench_sklearn.compare, case)
       for case in bench_sklearn.CASES},
    "threads": bench_passes.threads,
    "startup": bench_passes.startup,
    "pipe": bench_passes.pipe,
    "memory": bench_memory.flat,
    "predicted": bench_memory.predicted,
    "budget": bench_memory.budget,
}  # fmt: skip

BLAS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Settings of the shell that would measure another library than users have."""


def main() -> None:
    """Measure the chosen rows; write JSON and the table."""
    given = arguments()
    give_back_memory()  # as the program does: the floor is to be no higher for want of it
    given.folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(Stores(given.folder, given.scale), given.repeats)
    figures: list[Figure] = []
    for name in given.rows.split(",") if given.rows else ROWS:
        figures += measured(name, bench)
        write(given.folder / "bench.json", figures, given.scale)
        (given.folder / "bench.md").write_text(markdown(figures))
    print(markdown(figures))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where data and results go")
    parser.add_argument("--rows", help=f"comma-separated: {', '.join(ROWS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="of the data's rows")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def measured(name: str, bench: Bench) -> list[Figure]:
    """A row's figures; a row that fails is a figure that is not reached."""
    try:
        figures = ROWS[name](bench)
    except Exception as error:
        traceback.print_exc()
        figures = [Figure(name, f"failed: {error}".splitlines()[0], "", False)]
    for figure in figures:
        print(f"{figure.name}: {figure.measured} ({figure.goal}) {figure.details}", file=sys.stderr, flush=True)
    return figures


def write(path: Path, figures: list[Figure], scale: float) -> None:
    values = {"scale": scale, **bench_passes.environment(), "figures": [figure.json() for figure in figures]}
    path.write_text(json.dumps(values, indent=1, default=float))


if __name__ == "__main__":
    if any(name in os.environ for name in BLAS):
        rest = {name: value for name, value in os.environ.items() if name not in BLAS}
        os.execve(sys.executable, [sys.executable, *sys.argv], rest)
    main()
