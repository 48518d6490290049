"""What comes into the estimator: parameters, matrices and feature names, refused in scikit-learn's words."""

from __future__ import annotations

import numbers
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nmfstream.estimator_base import known_as, warn_caller
from nmfstream.run.sources import from_scipy
from nmfstream.types import CSR, Array, Matrix


class Rule(NamedTuple):
    """What a parameter may be: a test and the words for it."""

    holds: Callable[[Any], bool]
    words: str


def _is_int(value: Any) -> bool:
    return isinstance(value, numbers.Integral)


def _int_from(low: int) -> Rule:
    return Rule(lambda v: _is_int(v) and v >= low, f"an int in the range [{low}, inf)")


def _real(low: float, high: float = np.inf) -> Rule:
    words = f"[{low}, {high}]" if np.isfinite(high) else f"[{low}, inf)"
    return Rule(
        lambda v: isinstance(v, numbers.Real) and low <= float(v) <= high and float(v) < np.inf,
        f"a float in the range {words}",
    )


def _one_of(*names: str) -> Rule:
    listed = ", ".join(repr(name) for name in names)
    return Rule(lambda v: isinstance(v, str) and v in names, f"a str among {{{listed}}}")


_NONE = Rule(lambda v: v is None, "None")
_BOOL = [
    Rule(lambda v: isinstance(v, bool), "an instance of 'bool'"),
    Rule(lambda v: isinstance(v, np.bool_), "an instance of 'numpy.bool'"),
]
_COUNT = [_int_from(1)]
_SEED = Rule(lambda v: _is_int(v) and 0 <= v < 2**32, "an int in the range [0, 4294967295]")
_STATE = Rule(lambda v: isinstance(v, np.random.RandomState), "an instance of 'numpy.random.mtrand.RandomState'")

RULES: dict[str, list[Rule]] = {
    "n_components": [_int_from(1), _NONE, _one_of("auto")],
    "init": [_one_of("nndsvd", "nndsvda", "random", "nndsvdar", "custom"), _NONE],
    "batch_size": _COUNT,
    "beta_loss": [
        _one_of("frobenius", "kullback-leibler", "itakura-saito"),
        Rule(lambda v: isinstance(v, numbers.Real) and bool(np.isfinite(float(v))), "an instance of 'float'"),
    ],
    "tol": [_real(0.0)],
    "max_no_improvement": [*_COUNT, _NONE],
    "max_iter": _COUNT,
    "alpha_W": [_real(0.0)],
    "alpha_H": [_real(0.0), _one_of("same")],
    "l1_ratio": [_real(0.0, 1.0)],
    "forget_factor": [_real(0.0, 1.0)],
    "fresh_restarts": _BOOL,
    "fresh_restarts_max_iter": _COUNT,
    "transform_max_iter": [*_COUNT, _NONE],
    "random_state": [_SEED, _STATE, _NONE],
    "verbose": [_int_from(0), *_BOOL],
    "solver": [_one_of("mu", "hals")],
}


def check_parameters(estimator: Any) -> None:
    """Refuse a parameter that its rules do not allow.

    Raises
    ------
    InvalidParameterError
        A ValueError and TypeError.
    """
    for name, rules in RULES.items():
        value = getattr(estimator, name)
        if not any(rule.holds(value) for rule in rules):
            words = [rule.words for rule in rules]
            allowed = " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
            raise known_as("InvalidParameterError")(
                f"The {name!r} parameter of {type(estimator).__name__} must be {allowed}. Got {value!r} instead."
            )


def check_matrix(estimator: Any, X: Any, *, reset: bool) -> Matrix:
    """X as the engine takes it, its feature names and number recorded or compared.

    Parameters
    ----------
    estimator : MiniBatchNMF
    X : array-like or sparse matrix of shape (n_samples, n_features)
    reset : bool
        Record (True) or compare (False).

    Returns
    -------
    ndarray (C-contiguous) or CSR, float32 where X is, else float64

    Raises
    ------
    ValueError, TypeError
    """
    name = type(estimator).__name__
    check_feature_names(estimator, X, reset=reset)
    matrix = _sparse(X, name) if _is_scipy(X) else _dense(X, name)
    _check_size(matrix.shape, f" by {name}")
    _check_finite(matrix.values if isinstance(matrix, CSR) else matrix, name)
    if reset:
        estimator.n_features_in_ = matrix.shape[1]
    elif matrix.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {matrix.shape[1]} features, but {name} is expecting {estimator.n_features_in_} features as input."
        )
    return matrix


def _check_size(shape: tuple[int, ...], by: str = "") -> None:
    for size, what in zip(shape, ("sample", "feature"), strict=True):
        if size == 0:
            raise ValueError(f"Found array with 0 {what}(s) (shape={shape}) while a minimum of 1 is required{by}.")


def check_non_negative(X: Matrix, whom: str) -> None:
    """Refuse negative values.

    Raises
    ------
    ValueError
    """
    if least(X) < 0:
        raise ValueError(f"Negative values in data passed to {whom}.")


def least(X: Matrix) -> float:
    """Smallest value of X, implicit zeros included."""
    if not isinstance(X, CSR):
        return float(X.min())
    stored = float(X.values.min()) if X.nnz else 0.0
    return stored if X.nnz == X.shape[0] * X.shape[1] else min(stored, 0.0)


def check_custom(factor: Any, shape: tuple[int | None, int | None], whom: str) -> Array:
    """A factor given by the user; ``None`` in `shape` leaves that size free.

    Raises
    ------
    ValueError
    """
    if _is_scipy(factor):
        raise TypeError(
            "Sparse data was passed, but dense data is required. Use '.toarray()' to convert to a dense numpy array."
        )
    array = factor if isinstance(factor, np.ndarray) else np.asarray(factor)
    if array.ndim != 2:
        raise ValueError(_wrong_dimensions(array))
    _check_size(array.shape)
    _check_finite(array, "")
    for axis, which in enumerate(("first", "second")):
        if shape[axis] is not None and array.shape[axis] != shape[axis]:
            raise ValueError(
                f"Array with wrong {which} dimension passed to {whom}. "
                f"Expected {shape[axis]}, but got {array.shape[axis]}."
            )
    if array.min() < 0:
        raise ValueError(f"Negative values in data passed to {whom}.")
    if array.max() == 0:
        raise ValueError(f"Array passed to {whom} is full of zeros.")
    return array


def _is_scipy(X: Any) -> bool:
    return hasattr(X, "tocsr") and hasattr(X, "nnz")


def _float_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float32 if dtype == np.float32 else np.float64)


def _dense(X: Any, name: str) -> Array:
    if isinstance(X, np.matrix):
        raise TypeError(
            "np.matrix is not supported. Please convert to a numpy array with np.asarray. For more information see: "
            "https://numpy.org/doc/stable/reference/generated/numpy.matrix.html"
        )
    array = np.asarray(_without_missing(X), None if hasattr(X, "__array__") else np.float64)
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported\n{X}\n")
    # As scikit-learn does, what is no number is told before what has the wrong dimensions.
    array = array.astype(_float_type(array.dtype), order="K", copy=False)
    if array.ndim == 1 and hasattr(X, "iloc"):
        raise ValueError(
            f"Expected a 2-dimensional container but got {type(X)} instead. Pass a DataFrame containing a single row "
            "(i.e. single sample) or a single column (i.e. single feature) instead."
        )
    if array.ndim != 2:
        raise ValueError(_wrong_dimensions(array, f" by {name}"))
    return np.ascontiguousarray(array)


def _without_missing(X: Any) -> Any:
    """A pandas object whose booleans and nullable numbers are floats, NaN where missing; anything else as it is."""
    if not hasattr(X, "iloc"):
        return X
    kinds = list(X.dtypes) if hasattr(X.dtypes, "__iter__") else [X.dtype]
    if not any(map(_needs_conversion, kinds)):
        return X
    plain = all(isinstance(kind, np.dtype) for kind in kinds)
    return X.astype(_float_type(np.result_type(*kinds)) if plain else np.float64)


def _needs_conversion(kind: Any) -> bool:
    nullable = getattr(kind, "kind", "O") in "biuf" and not hasattr(kind, "subtype")
    return bool(kind == np.bool_) if isinstance(kind, np.dtype) else nullable


def _wrong_dimensions(array: Array, by: str = "") -> str:
    if array.ndim > 2:
        return f"Found array with dim {array.ndim}, while dim <= 2 is required{by}."
    kind = "1D" if array.ndim else "scalar"
    return f"Expected 2D array, got {kind} array instead:\narray={array}.\n{_RESHAPE}"


def _sparse(X: Any, name: str) -> CSR:
    if X.dtype.kind == "c":
        raise ValueError(f"Complex data not supported\n{X}\n")
    if X.ndim != 2:
        raise ValueError(f"Expected 2D input, got input with shape {X.shape}.\n{_RESHAPE}")
    return from_scipy(X, _float_type(X.dtype))


_RESHAPE = (
    "Reshape your data either using array.reshape(-1, 1) if your data has a single feature or array.reshape(1, -1) "
    "if it contains a single sample."
)
_MISSING = (
    "For supervised learning, you might want to consider sklearn.ensemble.HistGradientBoostingClassifier and Regressor "
    "which accept missing values encoded as NaNs natively. Alternatively, it is possible to preprocess the data, for "
    "instance by using an imputer transformer in a pipeline or drop samples with missing values. See "
    "https://scikit-learn.org/stable/modules/impute.html You can find a list of all estimators that handle NaN values "
    "at the following page: https://scikit-learn.org/stable/modules/impute.html"
    "#estimators-that-handle-nan-values"
)


def _check_finite(values: Array, name: str) -> None:
    # Extremes tell of any NaN or infinity without an array of booleans.
    if values.dtype.kind != "f" or not values.size or np.isfinite([values.min(), values.max()]).all():
        return
    if np.isnan(values).any():
        hint = f"\n{name} does not accept missing values encoded as NaN natively. {_MISSING}"
        raise ValueError(f"Input X contains NaN.{hint}" if name else "Input contains NaN.")
    raise ValueError(f"Input {'X ' if name else ''}contains infinity or a value too large for {values.dtype!r}.")


def feature_names(X: Any) -> Array | None:
    """Column names of a data frame if all are strings.

    Raises
    ------
    TypeError
        If only some are.
    ValueError
        If one comes twice.
    """
    columns = getattr(X, "columns", None)
    if columns is None or not hasattr(X, "shape"):
        return None
    names = np.asarray(columns, dtype=object)
    repeated = {name: count for name, count in Counter(names).items() if count > 1}
    if repeated:
        listed = "".join(f"\n- '{name}' {count} times" for name, count in repeated.items())
        raise ValueError(f"Expected unique column names, got:{listed}")
    types = sorted({type(name).__qualname__ for name in names})
    if len(types) > 1 and "str" in types:
        raise TypeError(
            "Feature names are only supported if all input features have string names, but your input has "
            f"{types} as feature name / column name types. If you want feature names to be stored and validated, "
            "you must convert them all to strings, by using X.columns = X.columns.astype(str) for example. Otherwise "
            "you can remove feature / column names from your input data, or convert them all to a non-string data type."
        )
    return names if types == ["str"] else None


def check_feature_names(estimator: Any, X: Any, *, reset: bool) -> None:
    """Record the names of X's columns, or compare them with those seen in fit.

    Raises
    ------
    ValueError
        If they differ.
    """
    names = feature_names(X)
    if reset:
        if names is not None:
            estimator.feature_names_in_ = names
        elif hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
        return
    fitted, who = getattr(estimator, "feature_names_in_", None), type(estimator).__name__
    if fitted is None and names is not None:
        warn_caller(f"X has feature names, but {who} was fitted without feature names")
    elif fitted is not None and names is None:
        warn_caller(f"X does not have valid feature names, but {who} was fitted with feature names")
    elif fitted is not None and names is not None and not np.array_equal(fitted, names):
        raise ValueError(_difference(fitted, names))


def check_input_features(estimator: Any, input_features: Any) -> None:
    """Compare names given for the input with what was seen in fit.

    Raises
    ------
    ValueError
        If they differ, or are not as many.
    """
    if input_features is None:
        return
    given, known = np.asarray(input_features, object), getattr(estimator, "feature_names_in_", None)
    if known is not None and not np.array_equal(known, given):
        raise ValueError("input_features is not equal to feature_names_in_")
    if given.size != estimator.n_features_in_:
        raise ValueError(
            f"input_features should have length equal to number of features ({estimator.n_features_in_}), "
            f"got {given.size}"
        )


def _difference(fitted: Array, names: Array) -> str:
    def listed(some: list[str]) -> str:
        return "".join(f"- {name}\n" for name in some[:5]) + ("- ...\n" if len(some) > 5 else "")

    unexpected, missing = sorted(set(names) - set(fitted)), sorted(set(fitted) - set(names))
    message = "The feature names should match those that were passed during fit.\n"
    if unexpected:
        message += "Feature names unseen at fit time:\n" + listed(unexpected)
    if missing:
        message += "Feature names seen at fit time, yet now missing:\n" + listed(missing)
    if not unexpected and not missing:
        message += "Feature names must be in the same order as they were in fit.\n"
    return message
