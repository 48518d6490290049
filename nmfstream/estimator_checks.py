"""What comes into the estimator: parameters, matrices and feature names, refused in scikit-learn's words."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nmfstream.estimator_base import known_as
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
        Rule(lambda v: isinstance(v, numbers.Real), "an instance of 'float'"),
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
    for size, what in zip(matrix.shape, ("sample", "feature"), strict=True):
        if size == 0:
            raise ValueError(
                f"Found array with 0 {what}(s) (shape={matrix.shape}) while a minimum of 1 is required by {name}."
            )
    _check_finite(matrix.values if isinstance(matrix, CSR) else matrix, name)
    if reset:
        estimator.n_features_in_ = matrix.shape[1]
    elif matrix.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {matrix.shape[1]} features, but {name} is expecting {estimator.n_features_in_} features as input."
        )
    return matrix


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
    array = factor if isinstance(factor, np.ndarray) else np.asarray(factor)
    if array.ndim != 2:
        kind = "scalar array" if array.ndim == 0 else f"{array.ndim}D array"
        raise ValueError(f"Expected 2D array, got {kind} instead:\narray={array}.")
    for axis, which in enumerate(("first", "second")):
        if shape[axis] is not None and array.shape[axis] != shape[axis]:
            raise ValueError(
                f"Array with wrong {which} dimension passed to {whom}. "
                f"Expected {shape[axis]}, but got {array.shape[axis]}."
            )
    _check_finite(array, "")
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
    array = np.asarray(X)
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported\n{X}\n")
    if array.ndim != 2:
        raise ValueError(_wrong_dimensions(array, name))
    if array.dtype.kind in "USV":
        array = array.astype(np.float64)
    return np.ascontiguousarray(array, _float_type(array.dtype))


def _wrong_dimensions(array: Array, name: str) -> str:
    if array.ndim > 2:
        return f"Found array with dim {array.ndim}, while dim <= 2 is required by {name}."
    kind = "1D" if array.ndim else "scalar"
    return (
        f"Expected 2D array, got {kind} array instead:\narray={array}.\nReshape your data either using "
        "array.reshape(-1, 1) if your data has a single feature or array.reshape(1, -1) if it contains a single sample."
    )


def _sparse(X: Any, name: str) -> CSR:
    if X.dtype.kind == "c":
        raise ValueError(f"Complex data not supported\n{X}\n")
    if X.ndim != 2:
        raise ValueError(f"Expected 2D input, got input with shape {X.shape}.")
    return from_scipy(X, _float_type(X.dtype))


def _check_finite(values: Array, name: str) -> None:
    # Extremes tell of any NaN or infinity without an array of booleans.
    if values.dtype.kind != "f" or not values.size or np.isfinite([values.min(), values.max()]).all():
        return
    if np.isnan(values).any():
        hint = f"\n{name} does not accept missing values encoded as NaN natively." if name else ""
        raise ValueError(f"Input X contains NaN.{hint}" if name else "Input contains NaN.")
    raise ValueError(f"Input {'X ' if name else ''}contains infinity or a value too large for {values.dtype!r}.")


def feature_names(X: Any) -> Array | None:
    """Column names of a data frame if all are strings.

    Raises
    ------
    TypeError
        If only some are.
    """
    columns = getattr(X, "columns", None)
    if columns is None or not hasattr(X, "shape"):
        return None
    names = np.asarray(columns, dtype=object)
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
        warnings.warn(f"X has feature names, but {who} was fitted without feature names", stacklevel=4)
    elif fitted is not None and names is None:
        warnings.warn(f"X does not have valid feature names, but {who} was fitted with feature names", stacklevel=4)
    elif fitted is not None and names is not None and not np.array_equal(fitted, names):
        raise ValueError(_difference(fitted, names))


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
