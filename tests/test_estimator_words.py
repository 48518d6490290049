"""What the estimator says and keeps, compared with the installed scikit-learn: refusals, names, settings, repr."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
import sklearn.decomposition
from sklearn.base import BaseEstimator, clone

from nmfstream import MiniBatchNMF

THEIRS = sklearn.decomposition.MiniBatchNMF
SETTINGS = {"n_components": 2, "init": "random", "random_state": 0, "max_iter": 2, "tol": 0}
RNG = np.random.RandomState(0)
X, W, H = RNG.rand(20, 4), RNG.rand(20, 2), RNG.rand(2, 4)
FRAME = pd.DataFrame(X, columns=list("abcd"))


def outcome(call: Callable[[Any], Any], cls: Any) -> Any:
    """What a call returns, or the words of its refusal."""
    try:
        return call(cls)
    except (ValueError, TypeError) as error:
        return str(error)


def same(call: Callable[[Any], Any]) -> Any:
    """The outcome for both classes, which is one."""
    ours, theirs = outcome(call, MiniBatchNMF), outcome(call, THEIRS)
    np.testing.assert_equal(ours, theirs)
    return ours


def fitted(cls: Any, data: Any = X, **changed: Any) -> Any:
    return cls(**{**SETTINGS, **changed}).fit(data)


def with_missing(dtype: str) -> pd.DataFrame:
    frame = FRAME.round().astype(dtype)
    frame.iloc[0, 0] = pd.NA
    return frame


BAD = {
    "missing Float64": with_missing("Float64"),
    "missing Int64": with_missing("Int64"),
    "missing boolean": with_missing("boolean"),
    "missing object": with_missing("object"),
    "NaN": np.array([[1, np.nan]]),
    "sparse NaN": sp.csr_array(np.array([[1, np.nan]])),
    "Series": pd.Series([1.0, 2]),
    "Series of words": pd.Series(["a"]),
    "sparse 1-D": sp.coo_array(np.ones(3)),
    "1-D": np.ones(3),
    "scalar": np.float64(3),
    "words": [["a", "b"]],
    "one word": "abc",
    "ragged": [[1, 2], [3]],
    "complex list": [[1j, 2]],
    "none": None,
    "repeated columns": FRAME[["a", "a", "b", "b", "c"]],
    "repeated numbers": pd.DataFrame(X, columns=[0, 0, 1, 2]),
    "names of several types": pd.DataFrame(X, columns=["a", 1, "b", 2]),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_refusals_of_X(name: str, method: str) -> None:
    assert isinstance(same(lambda cls: getattr(cls(**SETTINGS), method)(BAD[name])), str)


@pytest.mark.parametrize(
    "data",
    [
        pd.DataFrame({"a": [True, False], "b": np.array([1, 2], np.float32)}),
        FRAME.astype("Float32"),
        FRAME.astype("float32"),
        [np.ones(3, np.float32), np.ones(3, np.float32)],
        X > 0.5,
        pd.DataFrame.sparse.from_spmatrix(sp.csr_matrix(X)),
    ],
    ids=["boolean and float32", "Float32", "float32", "list of float32", "boolean", "sparse frame"],
)
def test_types_of_X(data: Any) -> None:
    assert same(lambda cls: str(fitted(cls, data).components_.dtype)).startswith("float")


FACTORS = {
    "1-D W": (W[0], H),
    "1-D H": (W, H[0]),
    "3-D W": (W[np.newaxis], H),
    "3-D H": (W, H[np.newaxis]),
    "sparse W": (sp.csr_array(W), H),
    "sparse H": (W, sp.csr_array(H)),
    "negative W": (-W, H),
    "zero H": (W, H * 0),
    "empty H": (W, H[:0]),
    "short W": (W[:3], H),
    "narrow H": (W, H[:, :2]),
    "float32 W": (W.astype("f4"), H),
    "no W": (None, H),
}


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize("n_components", [2, "auto"])
@pytest.mark.parametrize("method", ["fit_transform", "partial_fit"])
def test_refusals_of_custom_factors(name: str, n_components: Any, method: str) -> None:
    def call(cls: Any) -> Any:
        given_W, given_H = (factor if factor is None else factor.copy() for factor in FACTORS[name])
        model = cls(**{**SETTINGS, "init": "custom", "n_components": n_components})
        return getattr(model, method)(X, W=given_W, H=given_H)

    assert isinstance(same(call), str)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=rf"The 'beta_loss' parameter of MiniBatchNMF must .* Got {value} instead"):
        fitted(MiniBatchNMF, beta_loss=value)


def test_an_unknown_argument_of_fit() -> None:
    with pytest.raises(TypeError, match=re.escape("MiniBatchNMF.fit() got an unexpected keyword argument 'foo'")):
        MiniBatchNMF(**SETTINGS).fit(X, foo=1)


@pytest.mark.parametrize(
    "given", [None, ["x"], list("abcd"), list("abce"), list("ab"), np.array(list("abcd"))], ids=str
)
@pytest.mark.parametrize("data", [X, FRAME], ids=["array", "frame"])
def test_names_out(given: Any, data: Any) -> None:
    same(lambda cls: fitted(cls, data).get_feature_names_out(given))


def test_names_out_know_the_length_of_the_input() -> None:
    with pytest.raises(ValueError, match=r"should have length equal to number of features \(4\), got 1"):
        fitted(MiniBatchNMF).get_feature_names_out(["x"])


@pytest.mark.parametrize(
    "other",
    [
        FRAME[list("dcba")],
        FRAME[list("abc")],
        FRAME.assign(e=1, f=2),
        FRAME.rename(columns=str.upper),
        FRAME[["a", "a", "b", "c"]],
        pd.DataFrame(X),
        pd.DataFrame(X, columns=["a", 1, "b", 2]),
        X,
    ],
    ids=["order", "fewer", "more", "renamed", "repeated", "numbers", "mixed", "array"],
)
@pytest.mark.parametrize("method", ["transform", "partial_fit"])
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_columns_after_fit(other: Any, method: str) -> None:
    result = same(lambda cls: str(np.shape(getattr(fitted(cls, FRAME), method)(other))))
    assert (result != str(np.shape(None))) or method == "partial_fit"


FORMS = {
    "array": W,
    "float32": W.astype("f4"),
    "list": W.tolist(),
    "frame": pd.DataFrame(W),
    "csr": sp.csr_matrix(W),
    "csr array": sp.csr_array(W),
    "csc array": sp.csc_array(W),
    "integers": (W * 5).astype(int),
    "wrong width": W[:, :1],
    "sparse of wrong width": sp.csr_array(W[:, :1]),
    "one row": W[0],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_kinds_of_the_inverse(form: str, dtype: str) -> None:
    def call(cls: Any) -> Any:
        given = FORMS[form]
        result = fitted(cls, X.astype(dtype)).inverse_transform(given)
        return type(result), result.shape, str(getattr(result, "dtype", None))

    same(call)


AFTER = [
    {"beta_loss": 1},
    {"beta_loss": "itakura-saito"},
    {"n_components": 3},
    {"tol": 0.1, "max_iter": 3},
    {"transform_max_iter": 2},
    {"alpha_W": 0.1, "l1_ratio": 1.0},
    {"alpha_H": 0.3},
    {"batch_size": 1},
    {"init": "nndsvd", "random_state": 4},
]
USES: dict[str, Callable[..., Any]] = {
    "transform": lambda cls, new: fitted(cls).set_params(**new).transform(X),
    "transform after a chunk": lambda cls, new: cls(**SETTINGS).partial_fit(X[:9]).set_params(**new).transform(X),
    "another chunk": lambda cls, new: (
        cls(**SETTINGS).partial_fit(X[:9]).set_params(**new).partial_fit(X[9:]).components_
    ),
    "a chunk after fit": lambda cls, new: fitted(cls).set_params(**new).partial_fit(X).components_,
    "another fit": lambda cls, new: fitted(cls).set_params(**new).fit(X).components_,
    "transform after another fit": lambda cls, new: fitted(cls).set_params(**new).fit(X[:10]).transform(X),
}


@pytest.mark.parametrize("new", AFTER, ids=str)
@pytest.mark.parametrize("use", USES)
@pytest.mark.filterwarnings("ignore:Maximum number")
def test_parameters_that_change_on_the_way(new: dict[str, Any], use: str) -> None:
    ours, theirs = (USES[use](cls, new) for cls in (MiniBatchNMF, THEIRS))
    np.testing.assert_allclose(ours, theirs, rtol=1e-7)


def test_a_solver_that_does_not_serve_the_loss_is_refused_on_the_way() -> None:
    model = fitted(MiniBatchNMF, beta_loss=1).set_params(solver="hals")
    with pytest.raises(ValueError, match="solver='hals' needs beta_loss='frobenius'"):
        model.partial_fit(X)


REPRS = [
    {},
    {"n_components": 3},
    {"tol": np.float32(1e-4)},
    {"verbose": False},
    {"n_components": None, "init": "nndsvdar", "transform_max_iter": 1, "fresh_restarts_max_iter": 2},
    {"beta_loss": "kullback-leibler", "init": "nndsvda", "batch_size": 512, "tol": 1e-6, "max_iter": 500},
    {"beta_loss": "kullback-leibler", "init": "nndsvda", "batch_size": 512, "tol": 1e-6, "max_iter": 5},
    {"n_components": "a" * 90, "alpha_W": 0.5},
    {"random_state": np.random.RandomState, "alpha_H": (1, 2)},
    {"init": "x\ny", "solver": "hals"},
    {"max_iter": 1000, "alpha_W": 0.5, "alpha_H": 0.25, "l1_ratio": 0.5, "forget_factor": 0.9, "fresh_restarts": True},
    {"fresh_restarts_max_iter": 50, "transform_max_iter": 100, "random_state": 42, "verbose": 12},
    *({"fresh_restarts_max_iter": 10**i, "max_no_improvement": None, "solver": "hals"} for i in range(4, 10)),
    *({"batch_size": 10**i, "max_no_improvement": None, "alpha_W": 0.25, "n_components": 64} for i in range(4, 15)),
]


@pytest.mark.parametrize("parameters", REPRS, ids=range(len(REPRS)))
@pytest.mark.parametrize("terse", [True, False])
def test_repr_is_that_of_sklearn(parameters: dict[str, Any], terse: bool) -> None:
    twin = type("MiniBatchNMF", (BaseEstimator,), {"__init__": MiniBatchNMF.__init__})
    with sklearn.config_context(print_changed_only=terse):
        assert repr(MiniBatchNMF(**parameters)) == repr(twin(**parameters))


def test_diagrams_follow_the_display_option() -> None:
    model = MiniBatchNMF(3)
    assert "MiniBatchNMF" in model._repr_html_()
    assert set(model._repr_mimebundle_()) == {"text/plain", "text/html"}
    with sklearn.config_context(display="text"):
        assert not hasattr(model, "_repr_html_")
        assert model._repr_mimebundle_() == {"text/plain": "MiniBatchNMF(n_components=3)"}


def test_no_diagram_where_sklearn_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sklearn")
    assert MiniBatchNMF(3)._repr_mimebundle_() == {"text/plain": "MiniBatchNMF(n_components=3)"}


def test_metadata_routing_is_that_of_sklearn() -> None:
    same(lambda cls: str(cls().get_metadata_routing()))
    with sklearn.config_context(enable_metadata_routing=True):
        asked = same(lambda cls: str(clone(cls().set_partial_fit_request(W=True, H="h")).get_metadata_routing()))
        assert asked == "{'partial_fit': {'W': True, 'H': 'h'}}"
        with pytest.raises(TypeError, match=r"Unexpected args: \{'Z'\} in partial_fit"):
            MiniBatchNMF().set_partial_fit_request(Z=True)
    with pytest.raises(RuntimeError, match="only available when metadata routing is enabled"):
        MiniBatchNMF().set_partial_fit_request(W=True)


WARNINGS: dict[str, Callable[[Any], Any]] = {
    "factors ignored": lambda cls: cls(**SETTINGS).fit_transform(X, W=W, H=H),
    "factors ignored in a chunk": lambda cls: cls(**SETTINGS).partial_fit(X, W=W, H=H),
    "names after none": lambda cls: fitted(cls).transform(FRAME),
    "no names after some": lambda cls: fitted(cls, FRAME).partial_fit(X),
    "not converged": lambda cls: fitted(cls, tol=1e-9),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_warnings_have_the_same_words_and_point_at_the_caller(name: str) -> None:
    heard = []
    for cls in (MiniBatchNMF, THEIRS):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            WARNINGS[name](cls)
        heard.append([(warning.category, str(warning.message)) for warning in caught])
        files = {warning.filename for warning in caught}
        assert cls is THEIRS or files == {__file__}
    assert heard[0] == heard[1] != []


def test_a_container_whose_library_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match="Setting output container to 'polars' requires polars to be installed"):
        MiniBatchNMF(**SETTINGS).set_output(transform="polars").fit_transform(X)


def test_a_nested_name_that_is_no_parameter() -> None:
    with pytest.raises(ValueError, match="Invalid parameter 'a' for estimator"):
        MiniBatchNMF().set_params(a__b=1)


GENERATORS = [
    {"init": "random"},
    {"init": "random", "fresh_restarts": True},
    {"init": "random", "batch_size": 7, "tol": 1.0},
    {"init": "nndsvda"},
    {"init": "nndsvdar"},
    {"init": "nndsvdar", "fresh_restarts": True, "batch_size": 7},
    {"init": None},
]


@pytest.mark.parametrize("parameters", GENERATORS, ids=str)
@pytest.mark.parametrize("given", ["instance", "numpy's own"])
@pytest.mark.parametrize(
    "steps", [("fit",), ("fit", "fit", "transform"), ("partial_fit", "partial_fit", "fit")], ids=str
)
@pytest.mark.parametrize("data", [X, X.T @ X[:, :4] @ RNG.rand(4, 30)], ids=["tall", "wide"])
@pytest.mark.filterwarnings("ignore:Maximum number")
def test_generators_end_where_those_of_sklearn_do(parameters: dict, given: str, steps: tuple, data: np.ndarray) -> None:
    own, ends = np.random.mtrand._rand, []
    kept = own.get_state()
    try:
        for cls in (MiniBatchNMF, THEIRS):
            own.seed(3)
            generator = np.random.RandomState(3) if given == "instance" else own
            seed = generator if given == "instance" else None
            model = cls(**{**SETTINGS, **parameters, "random_state": seed})
            for step in steps:
                getattr(model, step)(data)
            ends.append((generator.get_state(legacy=False), model.components_))
    finally:
        own.set_state(kept)
    np.testing.assert_equal(ends[0][0], ends[1][0])
    np.testing.assert_allclose(ends[0][1], ends[1][1], rtol=1e-6, atol=1e-9)
