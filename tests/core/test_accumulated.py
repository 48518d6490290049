"""The few-pass solver for any β: it never raises the objective, and ends near scikit-learn's NMF."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from nmfstream.core import sample
from nmfstream.core.accumulated import Accumulated
from nmfstream.core.parameters import Objective, Parameters, Schedule, Start
from nmfstream.core.state import RunState
from nmfstream.run.executors import Pool, SerialExecutor, ThreadExecutor
from nmfstream.run.sources import MemorySource, from_scipy
from nmfstream.run.stages import run_stages


@pytest.fixture(autouse=True, params=["streamed", "whole"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The first pass of data that are too large to be kept, and of such as are not."""
    if request.param == "streamed":
        monkeypatch.setattr(sample, "WHOLE_BYTES", 0)
    return str(request.param)


def data(n: int = 150, m: int = 24) -> np.ndarray:
    rng = np.random.RandomState(0)
    return rng.gamma(0.7, size=(n, 3)) @ rng.gamma(0.7, size=(3, m)) * rng.gamma(20, 0.05, size=(n, m)) + 1e-3


def fit(X: Any, executor: Any, beta: float = 1.5, **options: Any) -> RunState:
    source = MemorySource(X)
    objective = Objective(3, beta, *options.pop("penalty", (0.0, 0.0, 0.0)))
    schedule = Schedule(options.pop("batch_size", 100), options.pop("max_iter", 5), 0.0, None, None)
    solver = Accumulated(source.problem, Parameters(objective, schedule, Start(random_state=0, **options)))
    state = solver.start()
    run_stages(solver, state, source, executor, 64)
    return state


@pytest.mark.parametrize("beta", [-0.5, 0.0, 0.5, 1.0, 1.5, 2.5, 3.0])
@pytest.mark.parametrize("penalty", [(0.0, 0.0, 0.0), (1e-3, 1e-3, 0.5)], ids=["plain", "penalties"])
def test_full_passes_do_not_raise_the_objective(beta: float, penalty: tuple[float, float, float]) -> None:
    state = fit(data(), SerialExecutor(), beta, penalty=penalty, n_init=2)
    losses = [record.loss for record in state.history][1:]
    assert np.isfinite(losses).all()
    assert all(after <= before * (1 + 1e-3) for before, after in itertools.pairwise(losses))


@pytest.mark.parametrize("beta", [0.0, 1.0, 1.5, 3.0])
def test_near_scikit_learn_after_many_iterations(beta: float) -> None:
    from sklearn.decomposition import NMF
    from sklearn.decomposition._nmf import _beta_divergence

    X = data()
    theirs = NMF(3, solver="mu", beta_loss=beta, init="nndsvda", max_iter=200, tol=0)
    W = theirs.fit_transform(X)
    state = fit(X, SerialExecutor(), beta, n_init=2)
    assert state.loss <= 1.005 * _beta_divergence(X, W, theirs.components_, beta) / len(X)


def test_the_same_bits_on_threads() -> None:
    X = data().astype(np.float32)
    alone = fit(X, SerialExecutor())
    with Pool(3) as pool:
        together = fit(X, ThreadExecutor(pool))
    assert alone.solver.H is not None and together.solver.H is not None
    assert alone.solver.H.tobytes() == together.solver.H.tobytes()


def test_sparse_is_dense() -> None:
    X = np.where(data() > 0.5, data(), 0)
    dense = fit(X, SerialExecutor(), 1.5, max_iter=2)
    rows = fit(from_scipy(sparse.csr_matrix(X), np.dtype(np.float64)), SerialExecutor(), 1.5, max_iter=2)
    assert rows.loss == pytest.approx(dense.loss, rel=1e-6)


def test_no_sample() -> None:
    state = fit(data(), SerialExecutor(), 0.5, sample_rows=0, max_iter=8)
    assert state.rows_read == 8 * 150
    assert state.history[-1].loss < state.history[0].loss


@pytest.mark.parametrize("beta", [0.0, 1.5])
def test_a_dead_component_is_revived_and_counted(beta: float) -> None:
    X, H = data(), np.random.RandomState(1).gamma(0.7, size=(3, 24))
    H[1] = 0
    state = fit(X, SerialExecutor(), beta, init="custom", H=H, max_iter=8)
    assert state.solver.revived == 1
    assert state.solver.H.any(axis=1).all()
    assert state.loss < 0.9 * state.history[0].loss


def test_rows_with_several_minima_never_leave_the_best_loss_behind() -> None:
    X = np.random.RandomState(0).gamma(0.3, size=(200, 40)) ** 4 + 1e-9
    state = fit(X, SerialExecutor(), 0.0, max_iter=12, n_init=1)
    losses = [record.loss for record in state.history]
    assert np.isfinite(losses).all()
    assert losses[-1] <= min(losses[1:]) * (1 + 1e-2)
