"""Rows of the table about memory: peaks of whole processes, flat in the rows, as predicted, within the budget."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bench_passes import Bench, K
from bench_run import Figure, nmfstream

BUDGET = "512MiB"
MiB = 1 << 20
SAMPLE = ("--sample-rows", 4096)
MU = ("--solver", "mu", "--max-iter", 1)
FITS: dict[str, tuple[Any, ...]] = {
    **{f"fit, mu, {init}": (*MU, "--init", init) for init in ("random", "nndsvd", "nndsvda", "nndsvdar")},
    "fit, mu, fresh restarts": (*MU, "--fresh-restarts", "--init", "random"),
    **{f"fit, hals, {init}": ("--solver", "hals", "--max-iter", 2, "--init", init, *SAMPLE) for init in
       ("random", "nndsvd", "nndsvda", "nndsvdar")},
    "fit, KL": ("--beta-loss", "kullback-leibler", "--max-iter", 2, *SAMPLE),
    "fit, beta 1.5": ("--beta-loss", 1.5, "--max-iter", 2, *SAMPLE),
}  # fmt: skip


def commands(bench: Bench, data: Path) -> dict[str, tuple[tuple[Any, ...], Path | None]]:
    """Every command on this data: its arguments, and what it gets on standard input."""
    out, W, model = bench.folder / "peak.h5", bench.folder / f"peak-W-{data.stem}.npy", bench.model()
    fits = {
        name: (("fit", data, "-o", out, "-k", K, "--w", bench.folder / "peak-W.npy", *more), None)
        for name, more in FITS.items()
    }
    apply = {
        "transform": (("transform", data, "-m", model, "-o", W), None),
        "inverse-transform": (("inverse-transform", W, "-m", model, "-o", bench.folder / "peak-X.npy"), None),
        "convert to Zarr": (("convert", data, "-o", bench.folder / "peak.zarr"), None),
        "fit -": (("fit", "-", "-o", out, "-k", K), data),
    }
    apply = {name: ((*arguments, "--overwrite"), stdin) for name, (arguments, stdin) in (fits | apply).items()}
    return apply | {
        "score": (("score", data, "-m", model), None),
        "transform -": (("transform", "-", "-m", model), data),
    }


def flat(bench: Bench) -> list[Figure]:
    """Peaks with n and 8 n rows."""
    small = commands(bench, bench.stores.some(max(1000, bench.stores.n_rows // 8)))
    large = commands(bench, bench.stores.path("npy"))
    return [_flat(name, small[name], large[name], bench.repeats) for name in small]


def _flat(name: str, small: tuple[Any, Path | None], large: tuple[Any, Path | None], repeats: int) -> Figure:
    """Medians: a short run may end before every thread has had a buffer of its own in hand."""

    def peak(arguments: tuple[Any, ...], stdin: Path | None) -> int:
        return int(median(nmfstream(*arguments, "--memory", BUDGET, stdin=stdin).peak for _ in range(repeats)))

    try:
        peaks = [peak(*small), peak(*large)]
    except RuntimeError as error:
        return Figure(f"peak memory, n and 8 n rows: {name}", str(error), "flat (± 5 %)", False)
    ratio = peaks[1] / peaks[0]
    measured = f"{peaks[0] // MiB} → {peaks[1] // MiB} MiB ({ratio - 1:+.1%})"
    good = abs(ratio - 1) <= 0.05 and max(peaks) <= 512 * MiB
    return Figure(f"peak memory, n and 8 n rows: {name}", measured, f"flat (± 5 %), ≤ {BUDGET}", good)


def predicted(bench: Bench) -> list[Figure]:
    """The plan's peak against the measured one."""
    figures = []
    for kind in ("npy", "gzip", "zarr", "h5ad"):
        for name in ("fit, mu, random", "fit, hals, random", "fit, KL"):
            arguments, _ = commands(bench, bench.stores.path(kind))[name]
            figures.append(_predicted(f"{name}, {kind}", (*arguments, "--memory", "1GiB")))
    return figures


def _predicted(name: str, arguments: tuple[Any, ...]) -> Figure:
    title = f"predicted against measured peak: {name}"
    try:
        parts = nmfstream(*arguments, "--dry-run", "--json").json["plan"]["memory"]["parts"]
        peak = nmfstream(*arguments).peak
    except RuntimeError as error:
        return Figure(title, str(error), "+0 to +15 %", False)
    planned = sum(parts.values())
    measured = f"{planned // MiB} against {peak // MiB} MiB ({planned / peak - 1:+.1%})"
    return Figure(title, measured, "+0 to +15 %", peak <= planned <= 1.15 * peak, {"parts": parts})


def budget(bench: Bench) -> list[Figure]:
    """60 000 × 784 float32, k = 20, with W, default sample, in 300 MiB."""
    path = bench.folder / "images.npy"
    if not path.exists():
        rng = np.random.default_rng(0)
        W, H = rng.gamma(0.3, 3, (60_000, K)), rng.gamma(0.3, 1, (K, 784))
        np.save(path, rng.poisson(W @ H).astype(np.float32))
    solvers: dict[str, tuple[Any, ...]] = {
        "mu": ("--solver", "mu", "--max-iter", 3),
        "hals": ("--solver", "hals"),
        "auto, KL": ("--beta-loss", "kullback-leibler"),
        "auto, beta 1.5": ("--beta-loss", 1.5),
    }
    return [_budget(bench, path, name, more) for name, more in solvers.items()]


def _budget(bench: Bench, path: Path, name: str, more: tuple[Any, ...]) -> Figure:
    title = f"60 000 × 784 float32, k = 20, `--w`, {name}, in `--memory 300MiB`"
    out = ("-o", bench.folder / "images.h5", "--w", bench.folder / "images-W.npy", "--overwrite")
    try:
        peak = nmfstream("fit", path, *out, "-k", K, "--memory", "300MiB", *more).peak
    except RuntimeError as error:
        return Figure(title, str(error), "runs", False)
    return Figure(title, f"{peak // MiB} MiB", "≤ 300 MiB", peak <= 300 * MiB)
