"""scikit-learn's estimator protocol by hand: parameters, repr, tags, containers; nothing of it is imported at rest."""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
import warnings
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


LINE = 80
"""Characters to a line of a representation."""

_HOMES = {
    "NotFittedError": ("sklearn.exceptions", NotFittedError),
    "ConvergenceWarning": ("sklearn.exceptions", ConvergenceWarning),
    "InvalidParameterError": ("sklearn.utils._param_validation", InvalidParameterError),
}


def known_as(name: str) -> Any:
    """scikit-learn's class of that name where its module is loaded, else ours: callers catch what they know."""
    module, own = _HOMES[name]
    return getattr(sys.modules.get(module), name, own)


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside this package that called it, however deep in it we are."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("nmfstream."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _setting(name: str, default: Any) -> Any:
    """An option of scikit-learn where that is loaded."""
    config: dict[str, Any] = getattr(sys.modules.get("sklearn"), "get_config", dict)()
    return config.get(name, default)


def _in_lines(name: str, items: list[str]) -> str:
    """A call, filled into lines of `LINE` characters under its bracket as scikit-learn fills them."""
    call = f"{name}({', '.join(items)})"
    if len(call) <= LINE:
        return call
    indent = len(name) + 1
    lines, room = [name + "("], LINE - indent
    for i, item in enumerate(items):
        last = i + 1 == len(items)
        # A comma follows; the bracket after the last counts twice there.
        if len(item) + 1 + last > room and i > 0:
            lines.append(" " * indent)
            room = LINE - indent
        lines[-1] += item + (")" if last else ", ")
        room -= len(item) + 2
    return "\n".join(line.rstrip() for line in lines)


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
                own = name.partition("__")[0]
                shown = name if own in valid else own
                raise ValueError(f"Invalid parameter {shown!r} for estimator {self}. Valid parameters are: {valid!r}.")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        terse = _setting("print_changed_only", True)
        shown = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if not terse or repr(value) != repr(defaults[name].default)
        ]
        return _in_lines(type(self).__name__, shown)

    @property
    def _repr_html_(self) -> Callable[[], str]:
        """scikit-learn's diagram where that is loaded and set to draw; else there is none."""
        if _setting("display", "text") != "diagram":
            raise AttributeError("_repr_html_ is only defined where scikit-learn's 'display' option is 'diagram'")
        from sklearn.utils import estimator_html_repr

        return lambda: str(estimator_html_repr(self))

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle = {"text/plain": repr(self)}
        if hasattr(self, "_repr_html_"):
            bundle["text/html"] = self._repr_html_()
        return bundle

    def get_metadata_routing(self) -> Any:
        """Which metadata the methods ask for: W and H of `partial_fit`; asked for by scikit-learn alone."""
        from sklearn.utils.metadata_routing import MetadataRequest

        known = getattr(self, "_metadata_request", None)
        if known is not None:
            return copy.deepcopy(known)
        request = MetadataRequest(owner=self)
        for name in ("W", "H"):
            request.partial_fit.add_request(param=name, alias=None)
        return request

    def set_partial_fit_request(self, **requests: Any) -> Estimator:
        """Ask scikit-learn's routing for W and H of `partial_fit`.

        Parameters
        ----------
        **requests
            W and H: True, False, None or the name that they go by.

        Raises
        ------
        RuntimeError
            Where scikit-learn's ``enable_metadata_routing`` is off.
        TypeError
            For another name.
        """
        if not _setting("enable_metadata_routing", False):
            raise RuntimeError(
                "This method is only available when metadata routing is enabled. You can enable it using "
                "sklearn.set_config(enable_metadata_routing=True)."
            )
        if unknown := requests.keys() - {"W", "H"}:
            raise TypeError(f"Unexpected args: {unknown} in partial_fit. Accepted arguments are: {{'H', 'W'}}")
        routing = self.get_metadata_routing()
        for name, alias in requests.items():
            routing.partial_fit.add_request(param=name, alias=alias)
        self._metadata_request = routing
        return self

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
        return own["transform"] if "transform" in own else str(_setting("transform_output", "default"))

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


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(f"Setting output container to {name!r} requires {name} to be installed") from None


def _pandas(W: Array, names: Array, X: Any) -> Any:
    pd = _library("pandas")
    return pd.DataFrame(W, index=getattr(X, "index", None), columns=names, copy=False)


def _polars(W: Array, names: Array, X: Any) -> Any:
    return _library("polars").DataFrame(W, schema=list(names), orient="row")


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
