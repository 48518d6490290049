"""``MiniBatchNMF(solver="hals")``: rows of W at their optimum, few passes, and chunks one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.decomposition
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import estimator_checks_generator

from nmfstream import MiniBatchNMF

pytestmark = pytest.mark.filterwarnings("ignore:Maximum number")
CHECKS = [
    "check_transformer_general",
    "check_methods_subset_invariance",
    "check_methods_sample_order_invariance",
    "check_fit2d_1sample",
    "check_fit2d_1feature",
    "check_estimators_pickle",
]
RNG = np.random.RandomState(0)
X = RNG.gamma(0.5, size=(200, 4)) @ RNG.gamma(0.5, size=(4, 25)) + 0.05 * RNG.rand(200, 25)


def hals(**changed: Any) -> MiniBatchNMF:
    return MiniBatchNMF(**{"n_components": 4, "solver": "hals", "random_state": 0, "max_iter": 12, **changed})


def residual(data: Any, W: np.ndarray, model: MiniBatchNMF) -> float:
    """The largest KKT residual of a row, relative to the gradient at zero."""
    data, W, H = (np.asarray(a, np.float64) for a in (data, W, model.components_))
    alpha = H.shape[1] * model.alpha_W
    at_zero = alpha * model.l1_ratio - data @ H.T
    gradient = at_zero + W @ (H @ H.T) + alpha * (1 - model.l1_ratio) * W
    worst = np.abs(np.minimum(W, gradient)).max(axis=1)
    return float((worst / np.maximum(np.abs(at_zero).max(axis=1), 1e-300)).max())


def relative(data: Any, model: MiniBatchNMF) -> float:
    data = np.asarray(data, np.float64)
    W = model.transform(data.astype(model.components_.dtype)).astype(np.float64)
    return float(np.linalg.norm(data - W @ model.components_) / np.linalg.norm(data))


@pytest.mark.parametrize("penalty", [{}, {"alpha_W": 1e-3, "l1_ratio": 0.5}], ids=["free", "penalized"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("f8", 1e-9), ("f4", 1e-5)])
def test_rows_of_W_are_at_their_optimum(penalty: dict[str, float], dtype: str, tolerance: float) -> None:
    data = X.astype(dtype)
    model = hals(**penalty)
    W = model.fit_transform(data)
    assert W.dtype == data.dtype
    assert residual(data, W, model) <= tolerance
    new = (X[::-1] * 3 + 0.1).astype(dtype)
    assert residual(new, model.transform(new), model) <= tolerance


def test_a_row_depends_on_itself_alone() -> None:
    model = hals().fit(X)
    np.testing.assert_allclose(model.transform(X)[50:53], model.transform(X[50:53]), rtol=1e-9, atol=1e-12)


def test_it_ends_no_worse_than_sklearns_full_batch() -> None:
    full = sklearn.decomposition.NMF(4, init="nndsvda", max_iter=100, tol=0).fit(X)
    assert hals().fit(X).reconstruction_err_ <= 1.01 * full.reconstruction_err_


@pytest.mark.filterwarnings("ignore")
def test_the_checks_of_sklearn_that_depend_on_the_numbers_pass() -> None:
    model = MiniBatchNMF(2, batch_size=10, max_iter=2, solver="hals")
    checks = {check.func.__name__: (copy, check) for copy, check in estimator_checks_generator(model)}
    for name in CHECKS:
        copy, check = checks[name]
        check(copy)


def test_a_search_over_solvers() -> None:
    model = MiniBatchNMF(4, init="nndsvda", max_iter=5, tol=0)
    search = GridSearchCV(model, {"solver": ["mu", "hals"]}, cv=2, scoring=lambda e, data, y=None: -relative(data, e))
    assert search.fit(X).best_params_ == {"solver": "hals"}


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_bits_do_not_depend_on_threads(sparse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from nmfstream import estimator_engine
    from nmfstream.run.executors import Pool, SerialExecutor

    data = np.tile(X, (20, 1)) * (1 + 0.1 * RNG.rand(4000, 25))
    data = sp.csr_array(data * (data > 0.5)) if sparse else data
    monkeypatch.setattr(estimator_engine, "SERIAL_WORK", 0)
    found = []
    with Pool(1) as helper:
        for executor in (SerialExecutor(), estimator_engine.SharingExecutor(helper)):
            monkeypatch.setattr(estimator_engine, "n_threads", lambda asked: 2)
            monkeypatch.setattr(estimator_engine, "SharingExecutor", lambda helpers, chosen=executor: chosen)
            model = hals(max_iter=3, batch_size=1000)
            found.append((model.fit_transform(data), model.components_, model.partial_fit(data).components_))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_dense_is_sparse() -> None:
    data = X * (np.random.RandomState(1).rand(*X.shape) < 0.5)
    dense, row_wise, column_wise = (form(data) for form in (np.asarray, sp.csr_array, sp.csc_array))
    models = [hals().fit(form) for form in (dense, row_wise, column_wise)]
    # Their samples differ, and so may the optima that they end in.
    assert models[1].reconstruction_err_ == pytest.approx(models[0].reconstruction_err_, rel=0.05)
    np.testing.assert_array_equal(models[2].components_, models[1].components_)
    chunks = [hals(init="random").partial_fit(form).partial_fit(form) for form in (dense, row_wise)]
    np.testing.assert_allclose(chunks[1].components_, chunks[0].components_, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(models[0].transform(row_wise), models[0].transform(dense), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scale_does_not_matter(scale: float, dtype: str) -> None:
    plain, scaled = hals().fit(X.astype(dtype)), hals().fit((scale * X).astype(dtype))
    assert relative(scale * X, scaled) == pytest.approx(relative(X, plain), rel=1e-2)
    plain, scaled = (hals(init="random").partial_fit(data.astype(dtype)) for data in (X, scale * X))
    assert relative(scale * X, scaled) == pytest.approx(relative(X, plain), rel=1e-2)


@pytest.mark.parametrize(("scale", "dtype"), [(1e200, "f8"), (1e-200, "f8"), (1e25, "f4"), (1e-30, "f4")])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("make", [np.asarray, sp.csr_array], ids=["dense", "sparse"])
def test_values_whose_squares_are_out_of_range_are_refused(scale: float, dtype: str, method: str, make: Any) -> None:
    with pytest.raises(ValueError, match=r"have squares that float\d\d cannot sum"):
        getattr(hals(), method)(make((X * scale).astype(dtype)))


def test_zero_rows_and_columns() -> None:
    data = X.copy()
    data[::3], data[:, 4] = 0, 0
    model = hals()
    W = model.fit_transform(data)
    assert not W[::3].any()
    assert not model.components_[:, 4].any()
    assert relative(data, model) < 0.02


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_data_that_are_all_zero(method: str) -> None:
    model = getattr(hals(max_iter=100), method)(np.zeros((20, 5)))
    assert np.isfinite(model.components_).all()
    assert not model.transform(np.zeros((3, 5))).any()
    assert getattr(model, "n_iter_", 0) < 30


@pytest.mark.parametrize("shape", [(3, 25), (1, 25), (200, 1)])
def test_more_components_than_the_rank(shape: tuple[int, int]) -> None:
    data = X[: shape[0], : shape[1]]
    model = hals(n_components=6, batch_size=1024).fit(data)
    assert relative(data, model) < 1e-9
    assert np.isfinite(model.components_).all()


def test_chunks_come_near_the_whole() -> None:
    model = hals(batch_size=40)
    errors = []
    for _ in range(8):
        for start in range(0, 200, 40):
            model.partial_fit(X[start : start + 40])
        errors.append(relative(X, model))
    assert errors[-1] < 1.5 * relative(X, hals().fit(X))
    assert errors[-1] < errors[0]
    assert model.n_steps_ == 40


@pytest.mark.parametrize("make", [np.asarray, sp.csr_array], ids=["dense", "sparse"])
def test_chunks_of_zeros_first_do_not_leave_zeros(make: Any) -> None:
    model = hals(init="random").partial_fit(make(np.zeros((10, 25))))
    for _ in range(12):
        model.partial_fit(make(X))
    assert (model.components_.max(axis=1) > 0).all()
    assert relative(X, model) < 0.1


def test_an_l1_penalty_may_kill_components() -> None:
    model = hals(init="random", alpha_W=0.0, alpha_H=1e6, l1_ratio=1.0).partial_fit(X).partial_fit(X)
    assert not model.components_.any()


@pytest.mark.parametrize("first", ["mu", "hals"])
def test_chunks_of_one_solver_after_a_fit_of_the_other(first: str) -> None:
    second = {"mu": "hals", "hals": "mu"}[first]
    model = hals(solver=first, init="nndsvda", max_iter=30).fit(X)
    before, steps = relative(X, model), model.n_steps_
    model.set_params(solver=second).partial_fit(X)
    assert model.n_steps_ == steps + 1
    assert relative(X, model) < before + 0.05
