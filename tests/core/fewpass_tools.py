"""What the tests of the few-pass solvers share: data, a driver in memory, judges of H alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from nmfstream.core.parameters import Objective, Parameters, Schedule
from nmfstream.core.parameters import Start as Init
from nmfstream.core.rowsolve import row_solver
from nmfstream.core.state import RunState, pack, unpack
from nmfstream.errors import StopRequested
from nmfstream.run.executors import Pool, ThreadExecutor
from nmfstream.run.sources import MemorySource
from nmfstream.run.stages import Hooks, run_stages
from nmfstream.types import CSR


def low_rank(n: int, m: int, k: int, *, dtype: Any = np.float32, seed: int = 0) -> np.ndarray[Any, Any]:
    rng = np.random.RandomState(seed)
    return (rng.gamma(0.5, size=(n, k)) @ rng.gamma(0.5, size=(k, m))).astype(dtype)


def as_csr(X: Any) -> CSR:
    from scipy import sparse

    a = sparse.csr_matrix(X)
    return CSR(a.indptr.astype(np.int64), a.indices.astype(np.int32), a.data, a.shape[1])


def parameters(k: int, **options: Any) -> Parameters:
    take = options.pop
    objective = Objective(k, take("beta", 2.0), take("alpha_W", 0.0), take("alpha_H", 0.0), take("l1_ratio", 0.0))
    schedule = Schedule(
        take("batch_size", 1024),
        take("passes", 5),
        take("tol", 0.0),
        2,
        take("forget_factor", None),
        holdout=take("holdout", 0.0),
    )
    return Parameters(objective, schedule, Init(random_state=take("seed", 0), **options))


def fit(
    solver_class: Any, X: Any, k: int, *, threads: int = 2, stop_after_each_step: bool = False, **options: Any
) -> RunState:
    source = MemorySource(X)
    asked = parameters(k, **options)
    state = solver_class(source.problem, asked).start()

    def stop(_: RunState) -> None:
        raise StopRequested

    hooks = Hooks(after_step=stop) if stop_after_each_step else None
    with threadpool_limits(1), Pool(threads) as pool:
        while True:
            try:
                run_stages(solver_class(source.problem, asked), state, source, ThreadExecutor(pool), 256, hooks=hooks)
                return state
            except StopRequested:
                state = unpack(*pack(state))


def relative_error(X: Any, H: Any) -> float:
    """‖X − WH‖/‖X‖ with the best W, in float64."""
    X, H = np.asarray(X, np.float64), np.asarray(H, np.float64)
    W = row_solver(H, Objective(len(H)), np.dtype(np.float64))(X).W
    return float(np.linalg.norm(X - W @ H) / np.linalg.norm(X))


def divergence(X: Any, H: Any) -> float:
    """D(X‖WH)/ΣX with the best W, in float64."""
    X, H = np.asarray(X, np.float64), np.asarray(H, np.float64)
    W = row_solver(H, Objective(len(H), 1.0), np.float64, tol=1e-6)(X).W
    V = W @ H
    filled = X > 0
    return float(((X[filled] * np.log(X[filled] / V[filled])).sum() - X.sum() + V.sum()) / X.sum())
