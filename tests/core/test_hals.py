"""The few-pass Frobenius solver: quality after few passes, same bits, penalties, odd data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fewpass_tools import as_csr, fit, low_rank, relative_error

from nmfstream.core import hals_sample, sample
from nmfstream.core.hals import Hals
from nmfstream.core.parameters import Objective, Parameters, Schedule
from nmfstream.core.parameters import Start as Init
from nmfstream.core.protocols import Problem
from nmfstream.errors import UsageError


@pytest.fixture(autouse=True, params=["streamed", "whole"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The first pass of data that are too large to be kept, and of such as are not."""
    if request.param == "streamed":
        monkeypatch.setattr(sample, "WHOLE_BYTES", 0)
    return str(request.param)


def noisy(n: int = 3000, m: int = 60, k: int = 5, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    X = low_rank(n, m, k, dtype=np.float64)
    return np.maximum(X + 0.3 * X.mean() * np.random.RandomState(1).standard_normal(X.shape), 0).astype(dtype)


@pytest.fixture(scope="module")
def reference() -> float:
    from sklearn.decomposition import NMF

    X = noisy()
    return relative_error(X, NMF(5, init="nndsvda", max_iter=200, tol=0).fit(X).components_)


@pytest.mark.parametrize("convert", [np.asarray, as_csr], ids=["dense", "sparse"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_pass_comes_near_the_full_batch(convert: Callable[..., Any], dtype: Any, reference: float) -> None:
    X = noisy(dtype=dtype)
    state = fit(Hals, convert(X), 5, passes=1, batch_size=512)
    assert relative_error(X, state.solver.H) <= 1.003 * reference


def test_five_passes_reach_the_full_batch(reference: float) -> None:
    X = noisy()
    assert relative_error(X, fit(Hals, X, 5, passes=5).solver.H) <= 1.0005 * reference


@pytest.mark.parametrize("batch_size", [256, 8192])
def test_the_batch_size_hardly_matters(batch_size: int) -> None:
    X = noisy()
    errors = [relative_error(X, fit(Hals, X, 5, passes=2, batch_size=b).solver.H) for b in (batch_size, 1024)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)


@pytest.mark.parametrize("sample_rows", [200, None, 0])
def test_the_reported_loss_never_rises_after_the_first_pass(sample_rows: int | None) -> None:
    X = noisy()
    losses = [r.loss for r in fit(Hals, X, 8, passes=6, sample_rows=sample_rows).history]
    assert np.all(np.diff(losses) <= 1e-6 * losses[0])


def test_the_reported_loss_bounds_the_true_one() -> None:
    X = noisy(dtype=np.float64)
    state = fit(Hals, X, 5, passes=3)
    true = 0.5 * relative_error(X, state.solver.H) ** 2 * (X**2).sum() / len(X)
    assert true <= state.loss * (1 + 1e-9)
    assert state.loss == pytest.approx(true, rel=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("k", "bound"), [(5, 3e-5), (20, 2e-4)])
def test_exact_low_rank_goes_far_below_what_the_expanded_loss_can_tell(k: int, bound: float, dtype: Any) -> None:
    X = low_rank(2000, 40, 5, dtype=dtype)
    state = fit(Hals, X, k, passes=8)
    error = relative_error(X, state.solver.H)
    assert error < bound
    reported = (2 * state.loss * len(X)) ** 0.5 / np.linalg.norm(X)
    told = {np.float32: 1.2e-7, np.float64: 4e-12}[dtype]  # by the data's rounding, and by the judge's W
    assert reported == pytest.approx(error, rel=0.2, abs=told)


def test_large_exact_data_are_driven_on_for_as_long_as_that_is_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    X, calls = low_rank(2000, 40, 5), []
    alternate, finish = hals_sample.alternate, hals_sample.HalsFitter.finish

    def counted(self: Any, *arguments: Any) -> Any:
        calls.append(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hals_sample, "alternate", lambda *rest: (alternate(*rest), calls.append(calls.pop() + 1))[0])
            return finish(self, *arguments)

    monkeypatch.setattr(hals_sample.HalsFitter, "finish", counted)
    monkeypatch.setattr(hals_sample, "MORE_WORK", 1.0)
    state = fit(Hals, X, 20, passes=1)
    assert calls == [hals_sample.ROUND]
    assert relative_error(X, state.solver.H) < 2e-3


def test_threads_and_a_stop_between_any_two_steps_leave_the_bits_alone() -> None:
    X = noisy()
    whole = fit(Hals, X, 5, passes=3, threads=1)
    pieces = fit(Hals, X, 5, passes=3, threads=2, stop_after_each_step=True)
    assert np.array_equal(whole.solver.H, pieces.solver.H)
    assert [r.loss for r in whole.history] == [r.loss for r in pieces.history]


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scale_does_not_matter(scale: float) -> None:
    X = noisy()
    scaled = (X * np.float32(scale)).astype(np.float32)
    plain, other = (relative_error(A, fit(Hals, A, 5, passes=2).solver.H) for A in (X, scaled))
    assert other == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("shape", [(3, 4), (70, 3), (1, 5)])
def test_more_components_than_rows_or_columns(shape: tuple[int, int]) -> None:
    X = np.random.RandomState(0).random_sample(shape)
    state = fit(Hals, X, 8, passes=5)
    assert relative_error(X, state.solver.H) < 1e-3


def test_zero_rows_and_columns_stay_out_of_the_way() -> None:
    X = noisy()
    X[::3] = 0
    X[:, ::4] = 0
    state = fit(Hals, X, 5, passes=3)
    assert np.isfinite(state.solver.H).all()
    assert not state.solver.H[:, ::4].any()


def test_data_that_are_all_zero_end_well() -> None:
    state = fit(Hals, np.zeros((50, 6)), 3, passes=3)
    assert np.isfinite(state.solver.H).all()
    assert state.loss == 0


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
def test_penalties_reach_the_full_batch_objective(l1_ratio: float) -> None:
    from sklearn.decomposition import NMF

    X = noisy(1200)
    options = {"alpha_W": 0.01, "alpha_H": 0.02, "l1_ratio": l1_ratio}
    model = NMF(5, init="nndsvda", max_iter=400, tol=1e-8, **options)
    W = model.fit_transform(X)
    k, n, m = 5, *X.shape
    p = Objective(k, 2.0, 0.01, 0.02, l1_ratio).penalties(m, n)
    H = model.components_
    theirs = 0.5 * ((X - W @ H) ** 2).sum() + p.l1_W * W.sum() + p.l1_H * H.sum()
    theirs += 0.5 * (p.l2_W * (W**2).sum() + p.l2_H * (H**2).sum())
    state = fit(Hals, X, 5, passes=8, **options)
    assert state.loss * n <= 1.005 * theirs


def test_a_dead_component_is_revived_and_counted() -> None:
    X = low_rank(2000, 30, 4, dtype=np.float64)
    H = low_rank(4, 30, 4, dtype=np.float64)
    H[2] = 0
    state = fit(Hals, X, 4, passes=6, init="custom", H=H)
    assert state.solver.revived >= 1
    assert state.solver.H.any(axis=1).all()


def test_rows_set_aside_are_scored_and_never_learnt_from() -> None:
    from nmfstream.core.holdout import held_out

    X = noisy()
    other = X.copy()
    held = held_out(np.arange(len(X)), 0.1)
    other[held] = 1.0
    first, second = (fit(Hals, A, 5, passes=2, holdout=0.1) for A in (X, other))
    assert 0.05 < held.mean() < 0.15
    assert np.array_equal(first.solver.H, second.solver.H)
    assert len(first.solver.held_losses) == 2
    assert first.solver.held_losses[-1] == pytest.approx(first.loss, rel=0.1)
    assert second.solver.held_losses[-1] != first.solver.held_losses[-1]


def test_it_stops_when_two_passes_bring_nothing_and_says_so() -> None:
    X = noisy()
    state = fit(Hals, X, 5, passes=50, tol=1e-3)
    assert 3 <= state.n_iter < 50
    assert "converged" in (state.stop_reason or "")


def test_sorted_rows_end_where_shuffled_ones_do() -> None:
    X = noisy()
    rows = np.argsort(X[:, 0], kind="stable")
    errors = [relative_error(X, fit(Hals, A, 5, passes=2).solver.H) for A in (X, X[rows])]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)


def test_other_losses_are_refused() -> None:
    with pytest.raises(UsageError):
        Hals(Problem(10, 5, np.dtype("f4")), Parameters(Objective(2, 1.0), Schedule(), Init()))
