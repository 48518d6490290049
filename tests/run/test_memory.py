"""The peak of whole processes: flat in the rows, as planned, within the budget."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

N, M, K = 20_000, 300, 10
MiB = 1 << 20

CHILD = """
import sys
from nmfstream.cli.main import main
from nmfstream.run.machine import peak
code = main(sys.argv[1:])
print(peak(), file=sys.stderr)
sys.exit(code)
"""


def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def least(*arguments: Any) -> str:
    """The smallest budget, as a refusal names it."""
    refused = run(*arguments, "--quiet", "--memory", "50MiB")
    assert refused.returncode == 2
    return refused.stderr.split("smallest that works is --memory ")[1].split()[0]


def peak(*arguments: Any, memory: str) -> int:
    done = run(*arguments, "--quiet", "--memory", memory)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1])


def planned(*arguments: Any, memory: str) -> int:
    done = run(*arguments, "--memory", memory, "--dry-run", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    return sum(json.loads(done.stdout)["plan"]["memory"]["parts"].values())


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``small`` and eight times as many rows, as NPY and as gzip HDF5; ``middle``: several batches of any command."""
    folder = tmp_path_factory.mktemp("memory")
    rng = np.random.default_rng(0)
    X = rng.poisson(rng.gamma(0.5, 2.0, (N, K)) @ rng.gamma(0.5, 1.0, (K, M))).astype(np.float32)
    for name, times in (("small", 1), ("large", 8)):
        np.save(folder / f"{name}.npy", np.tile(X, (times, 1)))
        with h5py.File(folder / f"{name}.h5", "w") as file:
            data = file.create_dataset("X", (times * N, M), "f4", chunks=(500, M), compression=1)
            for i in range(times):
                data[i * N : (i + 1) * N] = X
    np.save(folder / "middle.npy", np.tile(X, (3, 1)))
    return folder


def csr(path: Path, rows: int, columns: int, a_row: int) -> None:
    """A store of so many rows, a thousand of them different, with `a_row` entries each."""
    rng = np.random.default_rng(0)
    spread = np.stack([np.sort(rng.choice(columns, a_row, replace=False)) for _ in range(1000)])
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["shape"] = rows, columns
        group["indices"] = np.tile(spread.astype(np.int32).ravel(), rows // 1000)
        group["data"] = rng.integers(1, 9, rows * a_row).astype(np.float32)
        group["indptr"] = np.arange(0, rows * a_row + 1, a_row)


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ((100_000, M, 100), ("--sample-rows", "100000", "--n-init", "2", "--max-iter", "1")),
        ((100_000, M, 100), ("--sample-rows", "100000", "--holdout", "0.2", "--max-iter", "1")),
        ((100_000, M, 100), ("--sample-rows", "0", "--holdout", "0.2", "--batch-size", "100000", "--max-iter", "1")),
    ],
    ids=["sample of all rows", "sample and rows held out", "rows held out"],
)
def test_peak_of_a_fit_of_sparse_rows_in_the_least_budget(
    tmp_path: Path, shape: tuple[int, int, int], how: tuple[str, ...]
) -> None:
    csr(tmp_path / "s.h5", *shape)
    arguments = fit(tmp_path, "s.h5", *how)
    memory = least(*arguments)
    assert peak(*arguments, memory=memory) <= int(memory.removesuffix("MiB")) * MiB


def test_rows_held_out_are_counted(stores: Path) -> None:
    arguments = fit(stores, "large.npy", "--solver", "hals", "--sample-rows", "0", "--batch-size", "40000")
    arguments = (*arguments, "--holdout", "0.2", "--max-iter", "1")
    memory = least(*arguments)
    assert peak(*arguments, memory=memory) <= int(memory.removesuffix("MiB")) * MiB


def test_levels_of_a_dense_sample_are_no_copies(stores: Path) -> None:
    one, other = (fit(stores, "large.npy", "--solver", "hals", "--sample-rows", n) for n in ("50000", "100000"))
    memory = least(*other)
    peaks = [peak(*arguments, memory=memory) for arguments in (one, other)]
    assert peaks[1] <= int(memory.removesuffix("MiB")) * MiB
    assert peaks[1] - peaks[0] <= 1.3 * 50_000 * (M + K) * 4


def fit(folder: Path, data: str, *how: str) -> tuple[Any, ...]:
    outputs = ("-o", folder / "m.h5", "--w", folder / "W.npy", "--overwrite")
    return ("fit", folder / data, *outputs, "-k", K, "--max-iter", 2, *how)


FITS = {
    "mu random": ("--solver", "mu", "--init", "random"),
    "mu nndsvda": ("--solver", "mu", "--batch-size", "4096"),
    "hals": ("--solver", "hals", "--sample-rows", "2000", "--n-init", "2"),
    "kl": ("--beta-loss", "kullback-leibler", "--sample-rows", "500", "--n-init", "1", "--max-iter", "1"),
}


@pytest.mark.parametrize(("how", "suffix"), [("mu random", "h5"), ("hals", "npy")])
def test_peak_of_a_fit_is_flat_as_planned_and_in_the_least_budget(stores: Path, how: str, suffix: str) -> None:
    small, large = (fit(stores, f"{name}.{suffix}", *FITS[how]) for name in ("small", "large"))
    memory = least(*large)
    peaks = [peak(*arguments, memory=memory) for arguments in (small, large)]
    plan = planned(*large, memory=memory)
    assert plan <= int(memory.removesuffix("MiB")) * MiB
    assert plan / 1.15 <= peaks[1] <= plan
    assert peaks[1] <= 1.05 * peaks[0]


@pytest.mark.parametrize("how", ["mu nndsvda", "kl"])
def test_peak_of_other_solvers_and_starts(stores: Path, how: str) -> None:
    arguments = fit(stores, "large.npy", *FITS[how])
    assert peak(*arguments, memory="400MiB") <= planned(*arguments, memory="400MiB")


def test_peak_of_a_transform_is_flat_and_in_the_least_budget(stores: Path) -> None:
    peak(*fit(stores, "small.npy", *FITS["hals"]), memory="1GiB")
    middle, large = (
        ("transform", stores / f"{name}.npy", "-m", stores / "m.h5", "-o", stores / "T.npy", "--overwrite")
        for name in ("middle", "large")
    )
    memory = least(*large)
    peaks = [peak(*arguments, memory=memory) for arguments in (middle, large)]
    assert peaks[1] <= int(memory.removesuffix("MiB")) * MiB
    assert peaks[1] <= 1.05 * peaks[0]


@pytest.mark.parametrize("beta", ["2", "1.5"])
def test_other_losses_and_scores_keep_to_the_least_budget(stores: Path, tmp_path: Path, beta: str) -> None:
    data, model = stores / "middle.npy", tmp_path / "m.h5"
    how = ("--beta-loss", beta, "--sample-rows", "500", "--n-init", "1", "--max-iter", "1")
    for arguments in (
        ("fit", data, "-o", model, "-k", K, *how, "--overwrite"),
        ("transform", data, "-m", model, "-o", tmp_path / "W.npy", "--overwrite"),
        ("score", data, "-m", model),
    ):
        memory = least(*arguments)
        assert peak(*arguments, memory=memory) <= int(memory.removesuffix("MiB")) * MiB, arguments[0]


def test_the_start_of_wide_data_keeps_to_the_least_budget(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.gamma(0.5, 1.0, (600, 10)) @ rng.gamma(0.5, 1.0, (10, 30_000))
    np.save(tmp_path / "wide.npy", X.astype(np.float32))
    how = ("--solver", "mu", "--init", "nndsvda", "--batch-size", "300", "--max-iter", "1", "--overwrite")
    arguments = ("fit", tmp_path / "wide.npy", "-o", tmp_path / "m.h5", "-k", 50, *how)
    memory = least(*arguments)
    assert peak(*arguments, memory=memory) <= int(memory.removesuffix("MiB")) * MiB


def test_a_sample_too_large_is_refused_by_name(stores: Path) -> None:
    refused = run(*fit(stores, "large.npy", "--sample-rows", "90000"), "--memory", "200MiB", "--quiet")
    assert refused.returncode == 2
    assert "the smallest that works" in refused.stderr
    assert "--sample-rows" in refused.stderr


def test_the_budget_never_changes_the_bits(stores: Path) -> None:
    found = []
    for memory in (least(*fit(stores, "small.npy", *FITS["hals"])), "1GiB"):
        done = run(*fit(stores, "small.npy", *FITS["hals"]), "--quiet", "--memory", memory)
        assert done.returncode == 0, done.stderr
        with h5py.File(stores / "m.h5") as file:
            found.append((file["components"][:].tobytes(), (stores / "W.npy").read_bytes()))
    assert found[0] == found[1]
