"""Rows of the table about scikit-learn: the same numbers, by `MiniBatchNMF` of both."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from bench_data import RANK, blocks, sparse_counts
from bench_passes import Bench
from bench_run import Figure, at_least, clock, in_turn

CASES = {
    "dense Frobenius": ("dense", "frobenius", 8.0, 20.0),
    "dense KL": ("dense", "kullback-leibler", 4.0, 4.0),
    "sparse Frobenius": ("sparse", "frobenius", 5.0, 12.0),
    "sparse KL": ("sparse", "kullback-leibler", 30.0, 30.0),
}
"""Kind of data, loss, and what to reach in `partial_fit` and in `transform`."""

SPIN_SECONDS = 0.3
"""BLAS's idle threads spin for a while, on cores that the other side's turn needs."""


def data(kind: str, scale: float) -> Any:
    """8192 × 1000 dense counts, or 12 000 × 8000 with 2 % nonzeros."""
    if kind == "sparse":
        return sparse_counts(max(500, int(12_000 * scale)), 8000, 0.02)
    return np.concatenate([block for _, block in blocks(max(1024, int(8192 * scale)))])


def estimator(cls: Any, loss: str, n_rows: int) -> Any:
    return cls(RANK, init="random", beta_loss=loss, batch_size=n_rows, random_state=0)


def compare(case: str, bench: Bench) -> list[Figure]:
    """Both methods of one case."""
    from sklearn.decomposition import MiniBatchNMF as Theirs

    from nmfstream import MiniBatchNMF as Ours

    kind, loss, fit_goal, transform_goal = CASES[case]
    X = data(kind, bench.stores.scale)
    found: dict[Any, Any] = {}

    def step(cls: Any) -> float:
        model = found[cls] = estimator(cls, loss, X.shape[0]).partial_fit(X)
        time.sleep(SPIN_SECONDS)
        return clock(lambda: model.partial_fit(X))

    def solve(cls: Any) -> float:
        time.sleep(SPIN_SECONDS)
        return clock(lambda: found.__setitem__((cls, "W"), found[cls].transform(X)))

    step(Ours), solve(Ours)
    ours, theirs = in_turn(bench.repeats, lambda: step(Ours), lambda: step(Theirs))
    far = distance(found[Ours].components_, found[Theirs].components_)
    ours_W, theirs_W = in_turn(bench.repeats, lambda: solve(Ours), lambda: solve(Theirs))
    far_W = distance(found[Ours, "W"], found[Theirs, "W"])
    return [
        at_least(f"`partial_fit`, {case}, against scikit-learn", theirs / ours, fit_goal, ours_s=ours, distance=far),
        at_least(f"`transform`, {case}, against scikit-learn", theirs_W / ours_W, transform_goal, ours_s=ours_W,
                 distance=far_W),
    ]  # fmt: skip


def distance(ours: Any, theirs: Any) -> float:
    """Largest difference relative to the largest entry."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
