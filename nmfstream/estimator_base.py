"""scikit-learn's estimator protocol by hand: parameters, repr, tags, containers; nothing of it is imported at rest."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from nmfstream.types import Array


class NotFittedError(ValueError, AttributeError):
    """An estimator was used before it was fitted (scikit-learn's own class where that is loaded)."""


class ConvergenceWarning(UserWarning):
    """The iteration limit ended a fit (scikit-learn's own class where that is loaded)."""


class InvalidParameterError(ValueError, TypeError):
    """A constructor parameter has a wrong type or value (scikit-learn's own class where that is loaded)."""


_HOMES = {
    "NotFittedError": ("sklearn.exceptions", NotFittedError),
    "ConvergenceWarning": ("sklearn.exceptions", ConvergenceWarning),
    "InvalidParameterError": ("sklearn.utils._param_validation", InvalidParameterError),
}


def known_as(name: str) -> Any:
    """scikit-learn's class of that name where its module is loaded, else ours: callers catch what they know."""
    module, own = _HOMES[name]
    return getattr(sys.modules.get(module), name, own)


class Estimator:
    """Parameters are the constructor's arguments, kept as given."""

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return sorted(name for name in inspect.signature(cls.__init__).parameters if name != "self")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name.

        Parameters
        ----------
        deep : bool
            Without effect: no parameter is an estimator.
        """
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Estimator:
        """Set parameters; returns self.

        Raises
        ------
        ValueError
            For a name that is none.
        """
        valid = self._parameter_names()
        for name, value in params.items():
            if name not in valid:
                raise ValueError(f"Invalid parameter {name!r} for estimator {self}. Valid parameters are: {valid!r}.")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if repr(value) != repr(defaults[name].default)
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        """Tags of a transformer of non-negative dense or sparse data; asked for by scikit-learn alone."""
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(preserves_dtype=["float64", "float32"]),
            input_tags=InputTags(sparse=True, positive_only=True),
        )

    def set_output(self, *, transform: str | None = None) -> Estimator:
        """Choose the container of what `transform` and `fit_transform` return.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, optional
            None: leave as it is.
        """
        if transform is not None:
            if transform not in _CONTAINERS:
                raise ValueError(f"output config must be in {sorted(_CONTAINERS)}, got {transform}")
            self._sklearn_output_config = {"transform": transform}
        return self

    def _container(self) -> str:
        own: dict[str, str] = getattr(self, "_sklearn_output_config", {})
        if "transform" in own:
            return own["transform"]
        config: dict[str, Any] = getattr(sys.modules.get("sklearn"), "get_config", dict)()
        return str(config.get("transform_output", "default"))

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Names of the components: the class in lower case and a number.

        Parameters
        ----------
        input_features : array-like of str, optional
            Checked against the names that were seen in fit.

        Raises
        ------
        ValueError
            If they differ.
        """
        raise NotImplementedError


def _pandas(W: Array, names: Array, X: Any) -> Any:
    import pandas as pd

    return pd.DataFrame(W, index=getattr(X, "index", None), columns=names, copy=False)


def _polars(W: Array, names: Array, X: Any) -> Any:
    import polars as pl  # type: ignore[import-not-found,unused-ignore]

    return pl.DataFrame(W, schema=list(names), orient="row")


_CONTAINERS: dict[str, Callable[[Array, Array, Any], Any]] = {
    "default": lambda W, names, X: W,
    "pandas": _pandas,
    "polars": _polars,
}


def in_container(method: Callable[..., Array]) -> Callable[..., Any]:
    """Give a method's array the container that `set_output` chose."""

    @wraps(method)
    def wrapped(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        W = method(self, X, *args, **kwargs)
        container = self._container()
        if container == "default":
            return W
        return _CONTAINERS[container](W, np.asarray(self.get_feature_names_out(), object), X)

    return wrapped
