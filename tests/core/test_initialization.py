"""Streamed initialisations against scikit-learn's in-memory ones: W and H before the first step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition._nmf import _initialize_nmf

from nmfstream.core import nndsvd
from nmfstream.core.blocks import block_rows
from nmfstream.core.init_state import InitState
from nmfstream.core.multiplicative import MiniBatchMU
from nmfstream.core.parameters import Objective, Parameters, Schedule, Start
from nmfstream.core.protocols import Batch
from nmfstream.core.state import RunState
from nmfstream.errors import UsageError
from nmfstream.run.executors import SerialExecutor
from nmfstream.run.sources import MemorySource, from_scipy

INITS = ["random", "nndsvd", "nndsvda", "nndsvdar", None]
SERIAL = SerialExecutor()


def gamma(shape: tuple[int, int], rank: int, noise: float) -> np.ndarray:
    rng = np.random.RandomState(1)
    X = rng.gamma(0.3, size=(shape[0], rank)) @ rng.gamma(0.3, size=(rank, shape[1])) + 1e-4
    return X * (1 + noise * rng.randn(*shape).clip(-1, 1))


SETS: dict[str, Any] = {
    "tall": lambda: gamma((300, 30), 6, 0.3),
    "wide": lambda: gamma((30, 300), 6, 0.3),
    "large": lambda: gamma((500, 200), 10, 0.5),
    "near-exact": lambda: gamma((200, 60), 4, 2e-4),
    "steep": lambda: gamma((200, 60), 12, 0.0) * np.geomspace(1, 1e-5, 60),
    "tiny": lambda: gamma((7, 5), 5, 0.3),
    "square": lambda: gamma((12, 12), 12, 0.3),
    "sparse": lambda: sp.random(200, 80, 0.1, format="csr", random_state=0),
    "sparse wide": lambda: sp.random(80, 200, 0.1, format="csr", random_state=0),
}


def initialized(X: Any, k: int, init: str | None, seed: Any = 0, batch: int = 32) -> tuple[np.ndarray, RunState]:
    """W and the state when the first pass begins."""
    source = MemorySource(from_scipy(X, X.dtype) if sp.issparse(X) else X)
    parameters = Parameters(Objective(k), Schedule(batch_size=batch), Start(init, seed))
    solver = MiniBatchMU(source.problem, parameters)
    state, size = solver.start(), block_rows(source.problem, k, batch)
    while state.stage < len(solver.initialization.stages):
        stage = solver.stage(state)
        for rows in source.batches(None, stage.unit, 0, size):
            stage.step(Batch(rows.start, rows.X, size), SERIAL)
        stage.finish(SERIAL)
        state.stage += 1
    parts = []
    for rows in source.batches(None, batch, 0, size):
        W, state.random_state = solver.initialization.rows_of_W(state, rows, SERIAL)
        parts.append(W)
    return np.concatenate(parts), state


def close(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> bool:
    return bool(np.linalg.norm(ours - theirs) <= tolerance * np.linalg.norm(theirs))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_start_is_that_of_sklearn(name, init, dtype) -> None:
    X = SETS[name]().astype(dtype)
    W, H = _initialize_nmf(X, 4, init=init, random_state=0)
    ours, state = initialized(X, 4, init)
    tolerance = 1e-3 if dtype == "float32" else 1e-12 if init == "random" else 1e-4
    assert ours.dtype == state.solver.H.dtype == X.dtype
    assert close(state.solver.H, H, tolerance)
    assert close(ours, W, tolerance)


@pytest.mark.parametrize("n_components", [1, 2, 5])
@pytest.mark.parametrize("init", ["nndsvd", "nndsvdar"])
def test_any_number_of_components(n_components, init) -> None:
    X = SETS["tiny"]()
    W, H = _initialize_nmf(X, n_components, init=init, random_state=3)
    ours, state = initialized(X, n_components, init, seed=3)
    assert close(state.solver.H, H, 1e-9)
    assert close(ours, W, 1e-9)


@pytest.mark.parametrize("init", ["random", "nndsvdar"])
@pytest.mark.parametrize("name", ["tall", "wide"])
def test_a_given_generator_is_drawn_from_in_the_same_order(init, name) -> None:
    X = SETS[name]()
    theirs, ours = np.random.RandomState(8), np.random.RandomState(8)
    W, H = _initialize_nmf(X, 4, init=init, random_state=theirs)
    W_ours, state = initialized(X, 4, init, seed=ours)
    assert close(state.solver.H, H, 1e-4)
    assert close(W_ours, W, 1e-4)


def test_more_components_than_rank_are_filled() -> None:
    X = np.outer(np.arange(1.0, 41), np.arange(1.0, 11))
    W, state = initialized(X, 3, "nndsvda")
    assert np.isfinite(W).all()
    assert np.isfinite(state.solver.H).all()
    np.testing.assert_allclose(W[:, :1] @ state.solver.H[:1], X, rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_rounding_in_the_sketch_of_a_deficient_matrix_is_not_scaled_up(scale) -> None:
    rng = np.random.RandomState(9)
    X = scale * rng.rand(33, 15) * (rng.rand(33, 15) < 0.15)
    X[:, 14] = X[:, 0] + X[:, 1]
    sketch = np.ascontiguousarray(np.linalg.svd(X)[2].T)
    Y = X @ sketch
    T, values, right = nndsvd.from_image(sketch, Y.T @ X, Y.T @ Y, 8)
    np.testing.assert_allclose(np.abs(T), np.abs(right.T / values), rtol=0, atol=1e-10 / values[-1])


def test_zeros_stay_finite() -> None:
    W, state = initialized(np.zeros((20, 6)), 2, "nndsvd")
    assert not W.any()
    assert not state.solver.H.any()


@pytest.mark.parametrize("init", ["nndsvda", "nndsvdar"])
@pytest.mark.parametrize("batch", [7, 300])
def test_the_batch_size_hardly_matters(init, batch) -> None:
    X = SETS["tall"]()
    expected, state = initialized(X, 4, init, batch=32)
    found, other = initialized(X, 4, init, batch=batch)
    assert close(found, expected, 1e-10)
    assert close(other.solver.H, state.solver.H, 1e-10)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("shape", [(4000, 20), (2000, 200)])
def test_nothing_grows_with_the_rows(init, shape) -> None:
    X = np.random.RandomState(0).rand(*shape)
    sizes: list[int] = []
    source = MemorySource(X)
    solver = MiniBatchMU(source.problem, Parameters(Objective(4), Schedule(batch_size=64), Start(init, 0)))
    state = solver.start()
    while state.stage < len(solver.initialization.stages):
        stage = solver.stage(state)
        for rows in source.batches(None, 512, 0, 64):
            stage.step(Batch(rows.start, rows.X, 64), SERIAL)
            kept = vars(state.solver).values()
            sizes.append(sum(value.size for value in kept if isinstance(value, np.ndarray)))
        stage.finish(SERIAL)
        state.stage += 1
    assert isinstance(state.solver, InitState)
    assert max(sizes) <= 5 * (4 + 10) * shape[1] + (4 + 10) ** 2


@pytest.mark.parametrize("init", ["nndsvd", "nndsvda", "nndsvdar"])
def test_too_many_components_are_refused_in_the_words_of_sklearn(init) -> None:
    X = np.ones((3, 2))
    with pytest.raises(ValueError) as theirs:
        _initialize_nmf(X, 3, init=init)
    with pytest.raises(UsageError) as ours:
        initialized(X, 3, init)
    assert str(ours.value) == str(theirs.value)


def test_a_custom_start_needs_its_components() -> None:
    with pytest.raises(UsageError, match="init='custom' needs H"):
        initialized(np.ones((3, 2)), 1, "custom")
