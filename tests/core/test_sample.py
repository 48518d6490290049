"""Sizes of nested samples, their rows, the tournament's plan; rows set aside."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from fewpass_tools import as_csr
from hypothesis import example, given
from hypothesis import strategies as st

from nmfstream.core.accumulated import Accumulated
from nmfstream.core.blocks import block_rows
from nmfstream.core.hals import Hals
from nmfstream.core.holdout import held_out, row_numbers, split
from nmfstream.core.newton import Newton
from nmfstream.core.parameters import Objective, Parameters, Schedule, Start
from nmfstream.core.protocols import Batch, Problem
from nmfstream.core.sample import first_level, fits, levels, sample_size, spread_runs, stack, take
from nmfstream.run.executors import SerialExecutor
from nmfstream.types import CSR

F4 = np.dtype("f4")


@given(st.integers(1, 10**7), st.integers(1, 10**6), st.integers(0, 2**31 - 1))
@example(259, 258, 0)
def test_runs_are_disjoint_ascending_and_as_many_rows_as_asked(n: int, size: int, seed: int) -> None:
    size = min(n, size)
    runs = spread_runs(n, size, seed)
    bounds = [b for run in runs for b in run]
    assert bounds == sorted(bounds)
    assert len(set(bounds)) == len(bounds)
    assert sum(b - a for a, b in runs) == size
    assert bounds[0] >= 0 and bounds[-1] <= n


def test_runs_are_spread_over_all_rows() -> None:
    runs = spread_runs(64_000, 6400, 3)
    rows = np.concatenate([np.arange(a, b) for a, b in runs])
    assert np.bincount(rows // 160).tolist() == [16] * 400


@pytest.mark.parametrize(
    ("n", "m", "k", "expected"),
    [
        (400, 10, 5, 400),  # all rows
        (3000, 10, 5, 1024),  # the least
        (10_000, 784, 40, 2500),  # a quarter
        (10**8, 1000, 10, (128 << 20) // 4000),  # 128 MiB
        (10**6, 10**6, 100, 134),  # the least under 512 MiB
    ],
)
def test_default_size(n: int, m: int, k: int, expected: int) -> None:
    assert sample_size(Problem(n, m, F4), k) == expected


def test_size_of_a_sparse_store_follows_from_its_nonzeros() -> None:
    assert sample_size(Problem(10**8, 10**5, F4, nnz=10**9), 10) == (128 << 20) // 80


@pytest.mark.parametrize(
    ("problem", "k", "expected"),
    [
        (Problem(10_000, 784, F4), 40, True),
        (Problem(20_000, 784, F4), 40, False),
        (Problem(10_000, 784, np.dtype("f8")), 40, False),
        (Problem(2_000_000, 4, F4), 20, False),  # W would be larger
        (Problem(2700, 13_714, F4, nnz=2_282_976), 10, True),
        (Problem(None, 10, F4), 10, False),
    ],
)
def test_rows_are_kept_where_they_and_their_W_are_small(problem: Problem, k: int, expected: bool) -> None:
    assert fits(problem, k) is expected


@pytest.mark.parametrize(("asked", "expected"), [(0, 0), (500, 500), (10**6, 3000)])
def test_what_was_asked_for_is_taken(asked: int, expected: int) -> None:
    assert sample_size(Problem(3000, 10, F4), 5, asked) == expected


@pytest.mark.parametrize("n", [100_000, 310_000, 600_000, 10**6, 10**8])
@pytest.mark.parametrize("k", [1, 20, 100])
@pytest.mark.parametrize(("raced", "iterations_a_pass"), [(True, 2), (False, 1)])
def test_many_rows_cost_three_passes_of_products_at_most(n: int, k: int, raced: bool, iterations_a_pass: int) -> None:
    plan = levels(n, n // 4, k, None, init=None, raced=raced)
    visits, starts = 0, plan[0].starts + plan[0].spectral
    for level in plan:
        visits += starts * level.rows * level.iterations
        starts = max(1, starts // 2)
    assert plan[-1].rows == n // 4
    assert visits <= 3.0 * n * iterations_a_pass


def test_iterations_are_more_where_rows_and_work_are_few() -> None:
    def iterations(n: int, work: float) -> int:
        return sum(level.iterations for level in levels(n, n // 4, 10, 1, init="random", raced=False, work=work))

    cheap, dear, many = iterations(4096, 1e6), iterations(4096, 1e9), iterations(80_000, 1e6)
    assert cheap > 2 * dear > many
    assert iterations(4096, 1e12) == iterations(4096, 2e9)


def test_a_race_ends_with_one_start_on_the_whole_sample() -> None:
    for size in (1, 900, 4096, 5000, 147_000):
        plan = levels(600_000, size, 20, None, init=None, raced=True)
        assert plan[0].spectral and plan[0].starts == 7
        assert (plan[-1].rows, plan[-1].starts) == (size, 1)
        assert all(a.rows <= b.rows <= size for a, b in pairwise(plan))


@pytest.mark.parametrize("n_init", [1, 2, 8])
def test_levels_double_up_to_the_sample(n_init: int) -> None:
    plan = levels(50_000, 12_500, 20, n_init, init="random", raced=False)
    assert [level.rows for level in plan] == [1024, 2048, 4096, 8192, 12_500]
    assert plan[0].starts == n_init
    assert not any(level.spectral for level in plan)
    assert first_level(20) == 1024


def test_starts_compete_on_all_of_a_sample_that_is_hardly_larger_than_the_first_level() -> None:
    plan = levels(587_370, 5874, 30, None, init=None, raced=False, work=4e8)
    assert {level.rows for level in plan} == {5874}
    assert plan[0].starts == 8 and plan[0].iterations >= 10


@pytest.mark.parametrize("solver", [Hals, Newton, Accumulated])
def test_the_fit_of_the_sample_does_not_depend_on_the_batch_size(solver: Any) -> None:
    X = np.random.RandomState(0).gamma(0.5, size=(600, 30)).astype(np.float32)
    found = []
    for batch_size in (64, 2048):
        beta = {Hals: 2.0, Newton: 1.0, Accumulated: 1.5}[solver]
        schedule = Schedule(batch_size, 1, 0.0, None, None)
        asked = Parameters(Objective(3, beta), schedule, Start(random_state=0, sample_rows=600))
        fitting = solver(Problem(600, 30, X.dtype), asked)
        state = fitting.start()
        fitting.stage(state).step(Batch(0, X, block_rows(fitting.problem, 3, batch_size)), SerialExecutor())
        found.append(state.solver.H)
    assert np.array_equal(*found)


def test_steps_at_fixed_H_are_whole_batches_of_some_megabytes() -> None:
    def step_rows(batch_size: int, n_features: int) -> int:
        asked = Parameters(Objective(3, 2.0), Schedule(batch_size, 1, 0.0, None, None), Start())
        return Hals(Problem(10**6, n_features, np.dtype(np.float32)), asked).step_rows

    assert step_rows(4096, 10**5) == 4096
    assert step_rows(256, 1000) % 256 == 0
    assert 4 << 20 < step_rows(256, 1000) * 4000 < 8 << 20


@pytest.mark.parametrize("convert", [np.asarray, as_csr], ids=["dense", "sparse"])
def test_rows_taken_and_stacked_are_the_rows(convert: Any) -> None:
    X = np.random.RandomState(0).poisson(0.5, (30, 7)).astype(np.float32)
    whole = convert(X)
    rows = np.array([4, 4, 0, 29, 13])
    part = stack([take(whole, rows), take(whole, X[:, 0] > 0)])
    dense = part.toarray() if isinstance(part, CSR) else part
    assert np.array_equal(dense, np.concatenate([X[rows], X[X[:, 0] > 0]]))


def test_rows_set_aside_follow_from_their_number_alone() -> None:
    rows = np.arange(100_000)
    held = held_out(rows, 0.01)
    assert 0.008 < held.mean() < 0.012
    assert np.array_equal(held[777:888], held_out(rows[777:888], 0.01))
    assert not held_out(rows, 0.0).any()


def test_a_batch_is_split_into_rows_to_learn_and_rows_to_score() -> None:
    X = np.arange(40.0).reshape(20, 2)
    blocks, held = split(Batch(100, X, 8), 0.5)
    mask = held_out(row_numbers(((100, 120),)), 0.5)
    assert held is not None
    assert np.array_equal(held, X[mask])
    assert np.array_equal(np.concatenate([b.X for b in blocks]), X[~mask])


def test_sparse_blocks_of_a_batch_are_no_smaller_than_their_sums_deserve() -> None:
    sparse = Problem(587_370, 13_739, np.dtype(np.float32), nnz=13_000_000)
    assert block_rows(sparse, 30, 256) == 256
    assert block_rows(sparse, 30, 4096) == 1024
    assert block_rows(sparse._replace(nnz=None), 30, 256) == 64


@pytest.mark.parametrize(("n", "rounds"), [(99_999, 5), (100_000, 2), (None, 5)])
def test_batches_get_fewer_rounds_where_they_are_many(n: int | None, rounds: int) -> None:
    asked = Parameters(Objective(3, 1.0), Schedule(4096, 1, 0.0, None, None), Start())
    assert Newton(Problem(n, 30, np.dtype(np.float32)), asked).rounds == rounds


@pytest.mark.parametrize(("kind", "beta", "share"), [(Hals, 2.0, 0.3), (Newton, 1.0, 0.4)])
@pytest.mark.parametrize("seen", [0, 6000, 50_000])
def test_sums_remember_eight_batches_and_later_a_share_of_what_was_seen(
    kind: Any, beta: float, share: float, seen: int
) -> None:
    asked = Parameters(Objective(3, beta), Schedule(1000, 1, 0.0, None, None), Start(sample_rows=100))
    solver = kind(Problem(10**6, 30, np.dtype(np.float32)), asked)
    expected = {0: 1100, 6000: 7100, 50_000: share * 51_100}[seen]
    state = solver.start().solver
    state.rows = seen
    assert solver.horizon(state, 1000) == pytest.approx(expected)
