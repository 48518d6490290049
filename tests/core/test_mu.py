"""The mini-batch solver: same bits everywhere, steps that are whole or have not been, objectives that fall."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from nmfstream.core import mu_model, mu_sums
from nmfstream.core.blocks import block_rows
from nmfstream.core.losses import make_loss
from nmfstream.core.mu_iterate import step
from nmfstream.core.mu_model import MuModel, MuState, begin_updates
from nmfstream.core.mu_rows import RowUpdate, solve_rows
from nmfstream.core.mu_sums import batch_sums, split_columns
from nmfstream.core.multiplicative import MiniBatchMU
from nmfstream.core.parameters import Objective, Parameters, Penalties, Schedule, Start
from nmfstream.core.protocols import Batch, Problem
from nmfstream.core.reduction import AT_ONCE, add_WtX, stripes
from nmfstream.core.state import RunState, pack, unpack
from nmfstream.errors import StopRequested
from nmfstream.run.carried import DiskW
from nmfstream.run.executors import Pool, SerialExecutor, ThreadExecutor
from nmfstream.run.sources import MemorySource, from_scipy
from nmfstream.run.stages import Hooks, MemoryW, run_stages
from nmfstream.types import CSR

SERIAL = SerialExecutor()
BETAS = [2.0, 1.0, 0.0, 0.5, 1.5, 3.0]


def data(sparse: bool, dtype: str = "float64", shape: tuple[int, int] = (300, 40)) -> Any:
    rng = np.random.RandomState(0)
    X = ((rng.rand(shape[0], 4) @ rng.rand(4, shape[1])) * (0.5 + rng.rand(*shape))).astype(dtype)
    return from_scipy(sp.csr_matrix(X * (rng.rand(*shape) < 0.4)), X.dtype) if sparse else X


def solver_for(X: Any, beta: float = 2.0, init: str = "random", alpha: float = 0.0, **schedule: Any) -> MiniBatchMU:
    objective = Objective(4, beta, alpha, alpha, 0.5)
    given = {"batch_size": 128, "max_iter": 3, "tol": 0.0, "max_no_improvement": None, **schedule}
    return MiniBatchMU(MemorySource(X).problem, Parameters(objective, Schedule(**given), Start(init, 0)))


def run(X: Any, solver: MiniBatchMU, executor: Any = SERIAL, hooks: Hooks | None = None) -> tuple[RunState, Any]:
    state, W = solver.start(), MemoryW(X.shape[0], 4, X.dtype)
    run_stages(solver, state, MemorySource(X), executor, block_rows(solver.problem, 4, solver.batch_size), W, hooks)
    return state, W.W


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("beta", [2.0, 1.0, 0.5])
@pytest.mark.parametrize("compiled", [False, True], ids=["numpy", "compiled"])
@pytest.mark.parametrize("fresh_restarts", [False, True], ids=["carried", "fresh"])
def test_bits_do_not_depend_on_threads(sparse, beta, compiled, fresh_restarts, monkeypatch) -> None:
    work = dict.fromkeys((True, False), 0 if compiled else 10**12)
    monkeypatch.setattr(mu_model, "COMPILED_WORK", work)
    X = data(sparse, "float32")
    expected, W = run(X, solver_for(X, beta, "nndsvda", fresh_restarts=fresh_restarts, tol=1e-3))
    with Pool(3) as pool:
        found, W3 = run(
            X, solver_for(X, beta, "nndsvda", fresh_restarts=fresh_restarts, tol=1e-3), ThreadExecutor(pool)
        )
    np.testing.assert_array_equal(found.solver.H, expected.solver.H)
    assert found.n_steps == expected.n_steps
    assert fresh_restarts or W.tobytes() == W3.tobytes()


@pytest.mark.parametrize("init", ["random", "nndsvda", "nndsvdar"])
@pytest.mark.parametrize("shape", [(300, 40), (40, 90)], ids=["tall", "wide"])
def test_a_saved_state_goes_on_with_the_same_bits(init, shape) -> None:
    X = data(False, shape=shape)
    expected, _ = run(X, solver_for(X, 2.0, init, batch_size=32))
    saved: list[Any] = []

    def keep(state: RunState) -> None:
        values, arrays = pack(state)
        saved.append((values, {name: array.copy() for name, array in arrays.items()}, W.W.copy()))

    solver, W = solver_for(X, 2.0, init, batch_size=32), MemoryW(shape[0], 4, X.dtype)
    size = block_rows(solver.problem, 4, 32)
    run_stages(solver, solver.start(), MemorySource(X), SERIAL, size, W, Hooks(keep))
    assert len(saved) > 8
    for values, arrays, before in saved[:-1:3]:
        state, again = unpack(values, arrays), MemoryW(shape[0], 4, X.dtype)
        again.W[...] = before
        run_stages(solver_for(X, 2.0, init, batch_size=32), state, MemorySource(X), SERIAL, size, again)
        np.testing.assert_array_equal(state.solver.H, expected.solver.H)
        np.testing.assert_array_equal(again.W, W.W)


class Interrupted:
    """An executor that stops at its n-th task."""

    n_workers = 1

    def __init__(self, after: int) -> None:
        self.left = after

    def map(self, task: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return [self._run(task, item) for item in items]

    def _run(self, task: Callable[[Any], Any], item: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise StopRequested
        return task(item)


@pytest.mark.parametrize("fresh_restarts", [False, True], ids=["carried", "fresh"])
@pytest.mark.parametrize("init", ["random", "nndsvdar"])
@pytest.mark.parametrize("after", [1, 3, 5, 8, 13, 21, 30])
def test_an_interrupted_step_has_not_happened(after, init, fresh_restarts) -> None:
    X = data(False)
    settings_ = {"fresh_restarts": fresh_restarts, "batch_size": 100}
    expected, _ = run(X, solver_for(X, 1.0, init, **settings_))
    solver, W = solver_for(X, 1.0, init, **settings_), MemoryW(300, 4, X.dtype)
    state, size = solver.start(), block_rows(solver.problem, 4, 100)
    with pytest.raises(StopRequested):
        run_stages(solver, state, MemorySource(X), Interrupted(after), size, W)
    run_stages(solver, state, MemorySource(X), SERIAL, size, W)
    np.testing.assert_array_equal(state.solver.H, expected.solver.H)


def test_W_on_disk_is_that_in_memory_where_a_pass_stops_early(tmp_path) -> None:
    X = data(False)
    given = {"batch_size": 30, "tol": 5e-3, "max_iter": 50}
    expected, W = run(X, solver_for(X, **given))
    assert expected.n_steps > 12
    assert expected.n_steps % 10 != 0
    saved: list[Any] = []
    solver, disk = solver_for(X, **given), DiskW(tmp_path / "c", 300, 4, X.dtype)
    size, state = block_rows(solver.problem, 4, 30), solver.start()
    hooks = Hooks(lambda state: saved.append(pack(state)))
    run_stages(solver, state, MemorySource(X), SERIAL, size, disk, hooks)
    np.testing.assert_array_equal(disk.last(state.n_iter)(0, 300), W)
    # Killed after the last step and before the pass was finished.
    again = unpack(*saved[-2])
    assert again.stop_reason is not None
    run_stages(solver_for(X, **given), again, MemorySource(X), SERIAL, size, disk)
    assert (again.n_iter, again.n_steps) == (expected.n_iter, expected.n_steps)
    np.testing.assert_array_equal(disk.last(again.n_iter)(0, 300), W)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("alpha", [0.0, 1e-3])
def test_full_batches_without_memory_never_raise_the_objective(beta, alpha) -> None:
    X = data(False) + 0.05
    costs: list[float] = []
    hooks = Hooks(lambda state: costs.append(state.solver.batch_cost))
    run(X, solver_for(X, beta, alpha=alpha, batch_size=300, forget_factor=0.0, max_iter=25), hooks=hooks)
    seen = np.array([cost for cost in costs if np.isfinite(cost)])
    assert len(seen) > 20
    assert (np.diff(seen) <= 1e-12 * np.abs(seen[:-1])).all()
    assert seen[-1] < seen[0]


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_stripes_give_what_blocks_give(beta, sparse, monkeypatch) -> None:
    X = data(sparse, shape=(200, 150)) if beta > 0 else data(False, shape=(200, 150)) + 0.1
    rng = np.random.RandomState(1)
    W, H, loss = rng.rand(200, 4), rng.rand(4, 150), make_loss(beta, np.dtype(float))
    blocks = Batch(0, X, 64).blocks()
    expected = batch_sums(loss, blocks, W, H, SERIAL)
    monkeypatch.setattr(mu_sums, "by_stripes", lambda k, m: True)
    monkeypatch.setattr(mu_sums, "stripes", lambda k, m: [(0, 64), (64, 128), (128, 150)])
    found = batch_sums(loss, blocks, W, H, SERIAL)
    np.testing.assert_allclose(found.terms, expected.terms, rtol=1e-12)
    np.testing.assert_allclose(found.summary, expected.summary, rtol=1e-12)
    assert found.cost == pytest.approx(expected.cost, rel=1e-11)


def test_columns_of_a_view_are_split() -> None:
    X = data(True, shape=(90, 200))
    assert isinstance(X, CSR)
    part = X.rows(20, 70)
    bounds = stripes(4000, 200)
    pieces = split_columns(part, bounds)
    assert len(pieces) > 2
    np.testing.assert_array_equal(np.hstack([piece.toarray() for piece in pieces]), part.toarray())


@pytest.mark.parametrize("beta", [2.0, 1.0, 1.5])
@pytest.mark.parametrize("tol", [3e-1, 1e-2, 1e-3, 1e-5])
def test_looking_seldom_stops_where_looking_always_does(beta, tol) -> None:
    X = data(False)
    H = np.random.RandomState(2).rand(4, 40)
    loss = make_loss(beta, X.dtype)
    update = RowUpdate(loss, loss.fix(H), Penalties(0.0, 0.0, 0.0, 0.0))
    blocks = Batch(0, X, 64).blocks()
    found = solve_rows(update, blocks, 4, tol, 60, SERIAL)
    loss.steps_at_once = 1
    np.testing.assert_array_equal(found, solve_rows(update, blocks, 4, tol, 60, SERIAL))


def test_a_stop_in_the_first_pass_leaves_the_other_rows_at_their_start() -> None:
    X = data(False)
    state, W = run(X, solver_for(X, batch_size=30, max_no_improvement=1, max_iter=5))
    assert state.n_steps < 10
    start = np.random.RandomState(0)
    start.normal(size=(4, 40))
    drawn = np.abs(np.sqrt(X.mean() / 4) * start.normal(size=(300, 4)))
    np.testing.assert_allclose(W[30 * state.n_steps :], drawn[30 * state.n_steps :], rtol=1e-12)
    assert not np.allclose(W[: 30 * state.n_steps], drawn[: 30 * state.n_steps])


def test_a_stream_of_unknown_length_starts_from_its_first_batch() -> None:
    X = data(False)
    problem = Problem(None, 40, X.dtype)
    parameters = Parameters(Objective(4), Schedule(batch_size=100, max_iter=1, forget_factor=0.7), Start(None, 0))
    solver = MiniBatchMU(problem, parameters)
    state = solver.start()
    stage = solver.stage(state)
    for a in range(0, 300, 100):
        stage.step(Batch(a, X[a : a + 100], 64), SERIAL)
    stage.finish(SERIAL)
    assert solver.rho == 0.7
    assert state.n_steps == 3
    assert np.isfinite(state.solver.H).all()


@given(
    scale=st.floats(1e-3, 1e3),
    alpha=st.floats(0, 1),
    l1_ratio=st.floats(0, 1),
    beta=st.sampled_from(BETAS),
)
@settings(max_examples=60, deadline=None)
def test_penalties_shrink_the_step(scale, alpha, l1_ratio, beta) -> None:
    rng = np.random.RandomState(3)
    X, W, H = scale * (0.1 + rng.rand(20, 9)), 0.1 + rng.rand(20, 3), 0.1 + rng.rand(3, 9)
    loss = make_loss(beta, X.dtype)
    fixed = loss.fix(H)
    shared = loss.share(X, fixed)
    free = step(loss, X, W, fixed, shared, Penalties(0.0, 0.0, 0.0, 0.0))
    penalized = step(loss, X, W, fixed, shared, Objective(3, beta, alpha, 0.0, l1_ratio).penalties(9, 20))
    assert (penalized <= free * (1 + 1e-12)).all()
    assert (penalized >= 0).all()


@given(scale=st.floats(1e-2, 1e2), beta=st.sampled_from([2.0, 1.0, 0.5, 1.5, 3.0]))
@settings(max_examples=40, deadline=None)
def test_scaled_data_scale_the_factors(scale, beta) -> None:
    """D(cX | cWH) = cᵝ D(X | WH), so that a step from √c W and √c H is √c times the step from W and H."""
    rng = np.random.RandomState(4)
    X, H = 0.5 + rng.rand(30, 9), 0.5 + rng.rand(3, 9)
    found = []
    for c in (1.0, scale):
        model = MuModel(Objective(3, beta), 9, np.float64)
        state = MuState(np.sqrt(c) * H)
        begin_updates(state, model)
        blocks = Batch(0, c * X, 64).blocks()
        W = model.solve(blocks, model.loss.fix(state.H), 0.0, 5, SERIAL)
        model.update(state, model.sums(blocks, W, state.H, SERIAL), 30, 0.0)
        found.append((W / np.sqrt(c), state.H / np.sqrt(c)))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-9)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-9)


@given(
    n=st.integers(1, 10**7),
    m=st.integers(1, 10**6),
    k=st.integers(1, 500),
    batch=st.integers(1, 10**5),
    density=st.one_of(st.none(), st.floats(1e-6, 1)),
)
def test_blocks_are_multiples_of_32_and_hold_about_4_MB(n, m, k, batch, density) -> None:
    problem = Problem(n, m, np.dtype("float32"), None if density is None else int(n * m * density))
    rows = block_rows(problem, k, batch)
    assert rows % 32 == 0
    assert 64 <= rows <= 4096
    assert rows == 64 or (m * 4 * rows <= (4 << 20) + 32 * m * 4) or density is not None


def test_sums_of_few_blocks_wait_however_large_the_batch() -> None:
    X = np.random.RandomState(0).poisson(1.0, (90, 8)).astype(np.float32)
    W, H = np.ones((90, 3), np.float32), np.full((3, 8), 0.3, np.float32)
    blocks, at_once = Batch(0, X, 4).blocks(), []

    class Counting(SerialExecutor):
        def map(self, task: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
            at_once.append(len(list(items)))
            return super().map(task, items)

    sums, B = batch_sums(make_loss(2.0, np.dtype("f4"), False), blocks, W, H, Counting()), np.zeros(H.shape)
    add_WtX(B, blocks, W, Counting())
    np.testing.assert_allclose(sums.terms[0], W.T @ X, rtol=1e-6)
    np.testing.assert_array_equal(B, sums.terms[0])
    assert len(blocks) == 23 and max(at_once) <= AT_ONCE
