"""The few-pass Kullback-Leibler solver: quality after few passes, guards, penalties, odd data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fewpass_tools import as_csr, divergence, fit, low_rank

from nmfstream.core import newton, newton_sample, sample, tournament
from nmfstream.core.holdout import held_out
from nmfstream.core.newton import Newton
from nmfstream.core.newton_sample import judge
from nmfstream.core.parameters import Objective, Parameters, Schedule, Start
from nmfstream.core.protocols import Problem
from nmfstream.errors import UsageError
from nmfstream.run.executors import SerialExecutor


@pytest.fixture(autouse=True, params=["streamed", "whole"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The first pass of data that are too large to be kept, and of such as are not."""
    if request.param == "streamed":
        monkeypatch.setattr(sample, "WHOLE_BYTES", 0)
    return str(request.param)


def counts(n: int = 1500, m: int = 50, k: int = 4, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    X = low_rank(n, m, k, dtype=np.float64)
    return np.random.RandomState(1).poisson(X * (2.0 / X.mean())).astype(dtype)


@pytest.fixture(scope="module")
def reference() -> float:
    from sklearn.decomposition import NMF

    X = counts()
    options: dict[str, Any] = {"solver": "mu", "beta_loss": "kullback-leibler", "max_iter": 200, "tol": 0}
    return divergence(X, NMF(4, init="nndsvda", **options).fit(X).components_)


def test_rows_without_any_entry_are_no_fault() -> None:
    state = fit(Newton, as_csr(np.zeros((50, 6), np.float32)), 3, beta=1.0, passes=2)
    assert np.isfinite(state.solver.H).all()


@pytest.mark.parametrize("convert", [np.asarray, as_csr], ids=["dense", "sparse"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_pass_comes_near_the_full_batch(convert: Callable[..., Any], dtype: Any, reference: float) -> None:
    X = counts(dtype=dtype)
    state = fit(Newton, convert(X), 4, beta=1.0, passes=1, batch_size=512, n_init=2)
    assert divergence(X, state.solver.H) <= 1.005 * reference


def test_five_passes_reach_the_full_batch(reference: float) -> None:
    X = counts()
    assert divergence(X, fit(Newton, X, 4, beta=1.0, passes=5, n_init=2).solver.H) <= reference


def test_a_fit_of_many_rows_ends_once_it_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    X, found, judged = counts(), [], []
    monkeypatch.setattr(newton_sample, "judge", lambda run, loss: (judged.append(loss), judge(run, loss))[1])
    for settled in (0.0, newton_sample.SETTLED):
        judged.clear()
        fitter = newton_sample.NewtonFitter(Objective(4, 1.0), None, settled)
        best = fitter.fit_rows(X, tournament.random_H(X, 4, 0, 1), tournament.Heat(60, 256), SerialExecutor())[0]
        found.append((len(judged), best.loss))
    assert found[0][0] == 61
    assert found[1][0] < 45
    assert found[1][1] < 1.002 * found[0][1]


@pytest.mark.parametrize(("enough", "fitted"), [(200.0, False), (0.0, True)])
def test_no_more_rows_are_fitted_than_change_something(
    monkeypatch: pytest.MonkeyPatch, enough: float, fitted: bool, reference: float
) -> None:
    monkeypatch.setattr(newton_sample, "ENOUGH", enough)
    monkeypatch.setattr(newton, "MANY_ROWS", 1000)
    monkeypatch.setattr(sample, "MANY_ROWS", 1000)
    monkeypatch.setattr(sample, "WHOLE_BYTES", 0)
    monkeypatch.setattr(sample, "first_level", lambda k: 60)
    played, play = [], tournament.play
    monkeypatch.setattr(tournament, "play", lambda level, *rest: (played.append(level.rows), play(level, *rest))[1])
    X = np.concatenate([counts()] * 4)
    found = [fit(Newton, X, 4, beta=1.0, passes=2, threads=t, stop_after_each_step=t == 2).solver.H for t in (1, 2)]
    assert np.array_equal(*found)
    assert (max(played) == len(X) // 4) is fitted
    assert divergence(counts(), found[0]) < 1.01 * reference


@pytest.mark.parametrize("options", [{"sample_rows": 200}, {"sample_rows": 0}, {"n_init": 1}], ids=str)
def test_the_reported_loss_never_rises_after_the_first_pass(options: dict[str, Any]) -> None:
    X = counts()
    losses = [r.loss for r in fit(Newton, X, 6, beta=1.0, passes=6, **options).history]
    assert np.all(np.diff(losses) <= 1e-6 * losses[0])


def test_the_reported_loss_bounds_the_true_one() -> None:
    X = counts(dtype=np.float64)
    state = fit(Newton, X, 4, beta=1.0, passes=3, n_init=1)
    true = divergence(X, state.solver.H) * X.sum() / len(X)
    assert true <= state.loss * (1 + 1e-6)
    assert state.loss == pytest.approx(true, rel=1e-2)


def test_threads_and_a_stop_between_any_two_steps_leave_the_bits_alone() -> None:
    X = counts()
    whole = fit(Newton, X, 4, beta=1.0, passes=3, threads=1, n_init=2)
    pieces = fit(Newton, X, 4, beta=1.0, passes=3, threads=2, n_init=2, stop_after_each_step=True)
    assert np.array_equal(whole.solver.H, pieces.solver.H)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scale_does_not_matter(scale: float) -> None:
    X = counts()
    scaled = (X * np.float32(scale)).astype(np.float32)
    plain, other = (divergence(A, fit(Newton, A, 4, beta=1.0, passes=2, n_init=1).solver.H) for A in (X, scaled))
    assert other == pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("shape", [(3, 4), (70, 3), (1, 5)])
def test_more_components_than_rows_or_columns(shape: tuple[int, int]) -> None:
    X = np.random.RandomState(0).random_sample(shape)
    state = fit(Newton, X, 8, beta=1.0, passes=5, n_init=1)
    assert divergence(X, state.solver.H) < 1e-3


def test_zero_rows_and_columns_stay_out_of_the_way() -> None:
    X = counts()
    X[::3] = 0
    X[:, ::4] = 0
    state = fit(Newton, X, 4, beta=1.0, passes=3, n_init=1)
    assert np.isfinite(state.solver.H).all()
    assert state.solver.H[:, ::4].max() < 1e-3 * state.solver.H.max()


def test_data_that_are_all_zero_end_well() -> None:
    state = fit(Newton, np.zeros((50, 6)), 3, beta=1.0, passes=3)
    assert np.isfinite(state.solver.H).all()
    assert state.loss == 0


@pytest.mark.parametrize("l1_ratio", [0.0, 1.0])
def test_penalties_reach_the_full_batch_objective(l1_ratio: float) -> None:
    from sklearn.decomposition import NMF

    X = counts(800, dtype=np.float64)
    options = {"alpha_W": 0.002, "alpha_H": 0.002, "l1_ratio": l1_ratio}
    model = NMF(4, init="nndsvda", solver="mu", beta_loss="kullback-leibler", max_iter=400, tol=1e-8, **options)
    W = model.fit_transform(X)
    H, n = model.components_, len(X)
    p = Objective(4, 1.0, 0.002, 0.002, l1_ratio).penalties(X.shape[1], n)
    V = W @ H
    theirs = np.where(X > 0, X * np.log(np.where(X > 0, X, 1) / V), 0).sum() - X.sum() + V.sum()
    theirs += p.l1_W * W.sum() + p.l1_H * H.sum() + 0.5 * (p.l2_W * (W**2).sum() + p.l2_H * (H**2).sum())
    state = fit(Newton, X, 4, beta=1.0, passes=8, n_init=2, **options)
    assert state.loss * n <= 1.01 * theirs


@pytest.mark.parametrize("convert", [np.asarray, as_csr], ids=["dense", "sparse"])
def test_a_dead_component_is_revived_and_counted(convert: Callable[..., Any]) -> None:
    X, H = counts(), low_rank(4, 50, 4)
    H[2] = 0
    alive, dead = (fit(Newton, convert(X), 4, beta=1.0, passes=p, init="custom", H=H) for p in (8, 1))
    assert alive.solver.revived == 1
    assert alive.solver.H.any(axis=1).all()
    assert divergence(X, alive.solver.H) < 0.9 * divergence(X, dead.solver.H)


def test_rows_set_aside_are_scored_and_never_learnt_from() -> None:
    X = counts()
    other = X.copy()
    other[held_out(np.arange(len(X)), 0.1)] = 1
    first, second = (fit(Newton, A, 4, beta=1.0, passes=2, holdout=0.1, n_init=1) for A in (X, other))
    assert np.array_equal(first.solver.H, second.solver.H)
    assert first.solver.held_losses[-1] == pytest.approx(first.loss, rel=0.1)
    assert second.solver.held_losses[-1] != first.solver.held_losses[-1]


def test_other_losses_are_refused() -> None:
    with pytest.raises(UsageError):
        Newton(Problem(10, 5, np.dtype("f4")), Parameters(Objective(2, 2.0), Schedule(), Start()))
