"""Starts that compete: who goes on, who is given up, how the sample is cut."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from fewpass_tools import as_csr
from hypothesis import given
from hypothesis import strategies as st

from nmfstream.core import hals_sample, newton_sample, tournament
from nmfstream.core.parameters import Objective
from nmfstream.core.sample import Level
from nmfstream.core.tournament import BLOCK_WORK, LEAST_ROWS, SAME, Heat, ahead, random_H, sample_blocks
from nmfstream.run.executors import SerialExecutor


@dataclass
class Racer:
    best: float
    before: float = math.inf


def test_a_start_is_given_up_once_its_gains_cannot_bring_it_to_those_that_are_kept() -> None:
    runs = [Racer(1.0, 2.0), Racer(2.0, 2.5), Racer(3.0, 3.1), Racer(4.0, 9.0)]
    assert [r.best for r in ahead(runs, runs, math.inf, 5.0)] == [1.0, 2.0, 4.0]
    assert [r.before for r in runs] == [1.0, 2.0, 3.1, 4.0]


def test_a_bar_from_outside_counts_for_one_that_runs_alone() -> None:
    assert ahead([run := Racer(3.0, 3.5)], [run], 2.6, 1.0) == [run]
    assert ahead([run := Racer(3.0, 3.5)], [run], 2.4, 1.0) == []


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=9), st.floats(0, 1e3))
def test_at_the_first_look_nobody_is_given_up_and_the_leader_never_is(losses: list[float], left: float) -> None:
    runs = [Racer(loss) for loss in losses]
    assert ahead(runs, runs, math.inf, left + 1.0) == runs
    assert min(r.best for r in ahead(runs, runs, math.inf, left)) <= min(losses) * (1 + SAME)


def test_of_two_at_the_same_loss_one_goes_on_once_both_rest() -> None:
    far, near, falling = Racer(2.0, 2.1), Racer(1.0, 1.00001), Racer(1.000001, 1.1)
    resting = Racer(1.000002, 1.00003)
    assert ahead([near, falling, resting, far], [near, falling, resting, far], math.inf, 99.0) == [near, falling, far]


@pytest.mark.parametrize("n", [1, 100, 1024, 9000])
@pytest.mark.parametrize("m", [1, 150, 10_000])
@pytest.mark.parametrize("k", [1, 3, 40])
def test_blocks_of_a_sample_are_an_eighth_but_worth_a_call(n: int, m: int, k: int) -> None:
    X = np.zeros((n, m), np.float32)
    blocks = sample_blocks(X, 4096, k)
    rows = blocks[0].shape[0]
    assert sum(b.shape[0] for b in blocks) == n
    assert rows <= 4096 and len(blocks) <= max(8, -(-n // 4096))
    if len(blocks) > 1 and rows < 4096:
        assert rows * m * k >= BLOCK_WORK or rows in (LEAST_ROWS, -(-n // 8))


def test_blocks_of_a_sparse_sample_are_as_large_as_their_nonzeros_ask() -> None:
    X = np.zeros((4000, 100), np.float32)
    X[:, :2] = 1
    assert sample_blocks(as_csr(X), 4096, 32)[0].shape[0] == 4000
    assert sample_blocks(X, 4096, 32)[0].shape[0] == 500


def counts() -> Any:
    rng = np.random.RandomState(0)
    return rng.poisson(3 * rng.gamma(0.5, size=(400, 6)) @ rng.gamma(0.5, size=(6, 30))).astype(np.float32)


@pytest.mark.parametrize("beta", [2.0, 1.0])
def test_of_starts_that_come_to_the_same_one_goes_on(beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    module, fitter = (
        (hals_sample, hals_sample.HalsFitter(Objective(1, 2.0), None, 0.0))
        if beta == 2
        else (newton_sample, newton_sample.NewtonFitter(Objective(1, 1.0)))
    )
    X, found = counts(), []
    starts = random_H(X, 1, 0, 8)
    for look in (ahead, lambda runs, going, bar, left: list(going)):
        monkeypatch.setattr(module, "ahead", look)
        found.append(fitter.fit_rows(X, starts, Heat(30, 256), SerialExecutor()))
    assert [len(candidates) for candidates in found] == [1, 8]
    assert found[0][0].loss == pytest.approx(min(c.loss for c in found[1]), rel=1e-5)


@pytest.mark.parametrize("beta", [2.0, 1.0])
def test_one_that_cannot_come_below_the_bar_is_given_up(beta: float) -> None:
    fitter: Any = (
        hals_sample.HalsFitter(Objective(6, 2.0)) if beta == 2 else newton_sample.NewtonFitter(Objective(6, 1.0))
    )
    X = counts()
    start = random_H(X, 6, 0, 1)
    (alone,) = fitter.fit_rows(X, start, Heat(60, 256), SerialExecutor())
    assert fitter.fit_rows(X, start, Heat(60, 256, 0.5 * alone.loss), SerialExecutor()) == []
    (below,) = fitter.fit_rows(X, start, Heat(60, 256, 1.01 * alone.loss), SerialExecutor())
    assert below.loss == alone.loss and np.array_equal(below.H, alone.H)


def test_a_late_spectral_start_that_cannot_win_leaves_the_winner() -> None:
    X = counts()
    winner = tournament.Candidate(random_H(X, 3, 0, 1)[0], 0.0)  # a loss that nobody comes below
    level, fitter = Level(400, 60, 0, True), hals_sample.HalsFitter(Objective(3, 2.0))
    assert tournament.play(level, X, [winner], fitter, 0, 256, SerialExecutor()) == [winner]


@pytest.mark.parametrize("size", [200, 800])
def test_where_data_are_of_low_rank_one_start_is_enough(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.RandomState(0)
    X = rng.gamma(0.5, size=(200, 2)) @ rng.gamma(0.5, size=(2, 20))
    starts, found = random_H(X, 6, 0, 8), []
    for negligible in (hals_sample.NEGLIGIBLE, {"float64": -1.0}):
        monkeypatch.setattr(hals_sample, "NEGLIGIBLE", negligible)
        fitter = hals_sample.HalsFitter(Objective(6, 2.0), None, 0.0, size)
        found.append(fitter.fit_rows(X, starts, Heat(400, 256), SerialExecutor()))
    ((one,), all_) = found
    assert one.enough is (size == 200) and len(all_) > 1
    assert one.loss <= 1e-12 * 0.5 * (X**2).sum() / len(X)


@pytest.mark.parametrize("k", [8, 11])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("beta", [2.0, 1.0])
def test_rows_that_are_no_more_than_components_are_reproduced(beta: float, sparse: bool, k: int) -> None:
    X = (counts()[:8] + (0 if sparse else 0.1)).astype(np.float64)
    X[3] = 0
    module: Any = hals_sample.HalsFitter if beta == 2 else newton_sample.NewtonFitter
    rows, level = as_csr(X) if sparse else X, Level(8, 20, 8, False)
    drawn = module(Objective(k, beta)).fit_rows(rows, random_H(X, k, 0, 8), Heat(20, 64), SerialExecutor())
    (ours,) = tournament.play(level, rows, [], module(Objective(k, beta)), 0, 64, SerialExecutor())
    assert ours.H.min() >= 0 and ours.H.max(axis=1).min() > 0
    assert ours.loss <= 1e-8 * (X**2 if beta == 2 else X).sum() < 100 * min(c.loss for c in drawn)
    asked = tournament.play(level, rows, [], module(Objective(k, beta), "random"), 0, 64, SerialExecutor())
    assert len(asked) == 4
