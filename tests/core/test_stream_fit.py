"""Few-pass solvers on a stream: one pass, unknown length, bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fewpass_tools import as_csr, divergence, low_rank, parameters, relative_error
from threadpoolctl import threadpool_limits

from nmfstream.core.hals import Hals
from nmfstream.core.newton import Newton
from nmfstream.core.protocols import Problem
from nmfstream.core.state import RunState
from nmfstream.core.stream import capacity, reservoir
from nmfstream.run.executors import SerialExecutor
from nmfstream.run.sources import MemorySource
from nmfstream.run.stages import run_stages
from nmfstream.types import CSR


class OnceSource(MemorySource):
    """A matrix whose length nobody is told."""

    def __init__(self, X: Any) -> None:
        super().__init__(X)
        self.problem = Problem(None, X.shape[1], X.dtype, 0 if isinstance(X, CSR) else None)


def stream(solver_class: Any, X: Any, k: int, **options: Any) -> RunState:
    source = OnceSource(X)
    solver = solver_class(source.problem, parameters(k, passes=1, **options))
    state = solver.start()
    with threadpool_limits(1):
        run_stages(solver, state, source, SerialExecutor(), 256)
    return state


def noisy(n: int = 4000, m: int = 30) -> np.ndarray[Any, Any]:
    X = low_rank(n, m, 4, dtype=np.float64)
    return np.maximum(X + 0.3 * X.mean() * np.random.RandomState(1).standard_normal(X.shape), 0).astype(np.float32)


@pytest.mark.parametrize("convert", [np.asarray, as_csr], ids=["dense", "sparse"])
def test_frobenius_comes_near_the_full_batch(convert: Callable[..., Any]) -> None:
    from sklearn.decomposition import NMF

    X = noisy()
    reference = relative_error(X, NMF(4, init="nndsvda", max_iter=200, tol=0).fit(X).components_)
    state = stream(Hals, convert(X), 4, batch_size=512)
    assert relative_error(X, state.solver.H) <= 1.01 * reference
    assert state.n_iter == 1
    assert state.stop_reason


def test_a_stream_that_changes_is_not_learnt_from_its_first_rows_alone() -> None:
    X = noisy()
    X = X[np.argsort(X[:, 0], kind="stable")]
    shuffled = X[np.random.RandomState(0).permutation(len(X))]
    errors = [relative_error(X, stream(Hals, A, 4, batch_size=512).solver.H) for A in (X, shuffled)]
    assert errors[0] <= 1.02 * errors[1]


def test_kullback_leibler_comes_near_the_full_batch() -> None:
    from sklearn.decomposition import NMF

    X = np.random.RandomState(0).poisson(low_rank(3000, 30, 3, dtype=np.float64) * 4).astype(np.float32)
    model = NMF(3, init="nndsvda", solver="mu", beta_loss="kullback-leibler", max_iter=200, tol=0).fit(X)
    state = stream(Newton, X, 3, beta=1.0, batch_size=512, n_init=2)
    assert divergence(X, state.solver.H) <= 1.01 * divergence(X, model.components_)


@pytest.mark.parametrize("n", [3, 200])
def test_a_short_stream_is_fitted_whole(n: int) -> None:
    X = noisy(n)
    assert np.isfinite(stream(Hals, X, 4, batch_size=64).solver.H).all()


@pytest.mark.parametrize("convert", [np.asarray, as_csr], ids=["dense", "sparse"])
def test_the_reservoir_is_a_fair_sample(convert: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from nmfstream.core import stream as module

    kept = []
    monkeypatch.setattr(module.StreamStage, "_looked_back", lambda self, X, H, executor: kept.append(X) or H)
    n = 12800
    X = np.ones((n, 2), np.float32)
    X[:, 0] = np.arange(1, n + 1)
    state = stream(Hals, convert(X), 1, batch_size=640, n_init=1)
    rows = kept[0] if isinstance(kept[0], np.ndarray) else kept[0].toarray()
    size = capacity(Problem(None, 2, np.dtype("f4")), 1)
    assert len(rows) == size
    assert len(np.unique(rows[:, 0])) == size
    assert abs(rows[:, 0].mean() / n - 0.5) < 0.05
    assert reservoir(state.solver) is None
