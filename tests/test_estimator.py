"""The estimator as scikit-learn's tools and users see it."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
import sklearn.decomposition
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import (
    check_estimator,
    check_set_output_transform,
    check_set_output_transform_pandas,
)

from nmfstream import MiniBatchNMF
from nmfstream.estimator_base import known_as

SMALL = {"batch_size": 10, "max_iter": 20, "fresh_restarts": True}


@pytest.fixture
def X() -> np.ndarray:
    rng = np.random.RandomState(0)
    return rng.rand(60, 4) @ rng.rand(4, 12) + 0.01 * rng.rand(60, 12)


@pytest.mark.filterwarnings("ignore")
def test_every_check_of_sklearn_passes() -> None:
    results = check_estimator(MiniBatchNMF(**SMALL), on_skip=None)
    theirs = check_estimator(sklearn.decomposition.MiniBatchNMF(**SMALL), on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] in ("failed", "xfail")}
    assert failed == {}
    assert {r["check_name"] for r in theirs} <= {r["check_name"] for r in results}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("check", [check_set_output_transform, check_set_output_transform_pandas])
def test_output_checks_of_sklearn_pass(check) -> None:
    check("MiniBatchNMF", MiniBatchNMF(**SMALL))


def test_tags_are_those_of_sklearn() -> None:
    assert MiniBatchNMF().__sklearn_tags__() == sklearn.decomposition.MiniBatchNMF().__sklearn_tags__()


def test_constructor_is_that_of_sklearn_and_a_solver() -> None:
    ours, theirs = MiniBatchNMF().get_params(), sklearn.decomposition.MiniBatchNMF().get_params()
    assert ours.pop("solver") == "mu"
    assert ours == theirs


@pytest.mark.parametrize(
    "wrong",
    [
        {"tol": -1},
        {"tol": np.inf},
        {"n_components": 0},
        {"n_components": "x"},
        {"init": "best"},
        {"beta_loss": "x"},
        {"max_iter": 0},
        {"max_iter": 1.5},
        {"alpha_W": -1},
        {"alpha_H": "x"},
        {"l1_ratio": 2},
        {"verbose": "a"},
        {"max_no_improvement": 0},
        {"batch_size": 0},
        {"forget_factor": 2},
        {"fresh_restarts": 3},
        {"transform_max_iter": 0},
        {"random_state": -1},
    ],
    ids=str,
)
def test_wrong_parameters_are_refused_in_the_same_words(wrong, X) -> None:
    def words(estimator) -> list[str]:
        with pytest.raises((ValueError, TypeError)) as error:
            estimator(**wrong).fit(X)
        before, _, allowed = str(error.value).partition("{")
        return [before, *sorted(allowed.replace("}", ",").split(", "))]

    assert words(MiniBatchNMF)[0] == words(sklearn.decomposition.MiniBatchNMF)[0]


@pytest.mark.parametrize(
    "bad",
    [
        np.ones(3),
        np.ones((0, 3)),
        np.ones((3, 0)),
        -np.ones((3, 2)),
        np.full((3, 2), np.inf),
        np.ones((2, 2, 2)),
        np.ones((2, 2), complex),
        sp.csr_array(-np.ones((3, 2))),
    ],
    ids=["1-D", "no rows", "no columns", "negative", "infinite", "3-D", "complex", "negative sparse"],
)
def test_bad_data_are_refused_in_the_same_words(bad) -> None:
    with pytest.raises(ValueError) as theirs:
        sklearn.decomposition.MiniBatchNMF(1).fit(bad)
    with pytest.raises(ValueError) as ours:
        MiniBatchNMF(1).fit(bad)
    assert " ".join(str(ours.value).split()) == " ".join(str(theirs.value).split())


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Input X contains NaN\.\nMiniBatchNMF does not accept missing values"):
        MiniBatchNMF(1).fit(np.array([[1.0, np.nan], [1, 2]]))


@pytest.mark.parametrize("method", ["transform", "partial_fit"])
def test_negative_values_are_refused_after_fit(method, X) -> None:
    model = MiniBatchNMF(2, init="random", max_iter=2, tol=0).fit(X)
    with pytest.raises(ValueError, match="Negative values in data passed to MiniBatchNMF"):
        getattr(model, method)(-X)


@pytest.mark.parametrize("method", ["transform", "inverse_transform"])
def test_unfitted(method, X) -> None:
    with pytest.raises(NotFittedError, match="This MiniBatchNMF instance is not fitted yet"):
        getattr(MiniBatchNMF(2), method)(X)


def test_own_errors_where_sklearn_is_not_loaded(monkeypatch, X) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    assert known_as("NotFittedError").__module__ == "nmfstream.estimator_base"
    with pytest.raises(known_as("NotFittedError")) as error:
        MiniBatchNMF(2).transform(X)
    assert isinstance(error.value, ValueError)
    assert isinstance(error.value, AttributeError)


def test_convergence_warning_points_at_the_caller(X) -> None:
    with pytest.warns(ConvergenceWarning, match="Maximum number of iterations 1 reached"):
        MiniBatchNMF(2, max_iter=1, init="random").fit(X)


def test_works_in_a_search_over_a_pipeline(X) -> None:
    y = (X[:, 0] > np.median(X[:, 0])).astype(int)
    pipeline = make_pipeline(MiniBatchNMF(init="nndsvda", batch_size=16, tol=0, max_iter=3), LogisticRegression())
    search = GridSearchCV(pipeline, {"minibatchnmf__n_components": [2, 3]}, cv=2).fit(X, y)
    assert search.best_params_["minibatchnmf__n_components"] in (2, 3)
    assert "minibatchnmf0" in search.best_estimator_[:-1].get_feature_names_out()


def test_clone_copies_parameters_and_output() -> None:
    copy = clone(MiniBatchNMF(3, beta_loss=1.5, solver="mu").set_output(transform="pandas"))
    assert copy.get_params() == MiniBatchNMF(3, beta_loss=1.5).get_params()
    assert copy._sklearn_output_config == {"transform": "pandas"}


def test_repr_shows_what_was_changed() -> None:
    assert repr(MiniBatchNMF(3, tol=0.5)) == "MiniBatchNMF(n_components=3, tol=0.5)"


def test_unknown_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match="Invalid parameter 'colour' for estimator MiniBatchNMF"):
        MiniBatchNMF().set_params(colour=1)


def test_pandas_output_keeps_the_index(X) -> None:
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(12)], index=np.arange(60) * 2)
    model = MiniBatchNMF(2, init="random", tol=0, max_iter=2, random_state=0).set_output(transform="pandas")
    W = model.fit_transform(frame)
    assert list(W.columns) == ["minibatchnmf0", "minibatchnmf1"]
    assert (W.index == frame.index).all()
    assert list(model.feature_names_in_) == list(frame.columns)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.transform(X)
    with pytest.raises(ValueError, match="Feature names must be in the same order"):
        model.transform(frame[frame.columns[::-1]])


def test_global_output_of_sklearn_is_followed(X) -> None:
    model = MiniBatchNMF(2, init="random", tol=0, max_iter=2).fit(X)
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(model.transform(X), pd.DataFrame)


def test_pickled_model_goes_on(X) -> None:
    model = MiniBatchNMF(2, init="random", random_state=0, batch_size=20)
    model.partial_fit(X[:20])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(model.partial_fit(X[20:40]).components_, again.partial_fit(X[20:40]).components_)
    assert again.n_steps_ == 2


def test_custom_factors_change_in_place(X) -> None:
    rng = np.random.RandomState(1)
    W, H = rng.rand(60, 3), rng.rand(3, 12)
    model = MiniBatchNMF(3, init="custom", tol=0, max_iter=2, batch_size=16)
    assert model.fit_transform(X, W=W, H=H) is W
    assert model.components_ is H


def test_given_generator_ends_where_that_of_sklearn_does(X) -> None:
    ours, theirs = np.random.RandomState(5), np.random.RandomState(5)
    MiniBatchNMF(3, init="random", random_state=ours, tol=0, max_iter=1).fit(X)
    sklearn.decomposition.MiniBatchNMF(3, init="random", random_state=theirs, tol=0, max_iter=1).fit(X)
    assert ours.rand() == theirs.rand()


def test_verbose_prints_the_lines_of_sklearn(X, capsys) -> None:
    settings = {"n_components": 3, "init": "random", "random_state": 0, "verbose": 1, "batch_size": 20, "tol": 1e-2}
    sklearn.decomposition.MiniBatchNMF(**settings).fit(X)
    theirs = capsys.readouterr().out
    MiniBatchNMF(**settings).fit(X)
    ours = capsys.readouterr().out
    rounded = [re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.8g}", text) for text in (ours, theirs)]
    assert len(rounded[1].splitlines()) > 3
    assert rounded[0] == rounded[1]


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler"])
def test_small_fit_loads_neither_sklearn_nor_numba(sparse, beta_loss) -> None:
    code = f"""
        import sys
        import numpy as np
        import scipy.sparse as sp
        from nmfstream import MiniBatchNMF
        X = np.random.RandomState(0).rand(40, 8)
        X = sp.csr_matrix(X) if {sparse} else X
        model = MiniBatchNMF(3, beta_loss={beta_loss!r}, max_iter=3, tol=0)
        model.fit(X); model.partial_fit(X); model.transform(X)
        loaded = [name for name in ("sklearn", "numba", "h5py", "zarr", "click") if name in sys.modules]
        assert not loaded, loaded
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_import_loads_no_array_library() -> None:
    code = "import sys, nmfstream; assert not {'numpy', 'scipy', 'numba'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
