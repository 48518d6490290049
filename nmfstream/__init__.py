"""Out-of-core, streaming, resumable non-negative matrix factorization."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nmfstream.api import Rows, fit, open, transform
    from nmfstream.estimator import MiniBatchNMF
    from nmfstream.model import Model, read_model

__version__ = "0.1.0"

_EXPORTS = {
    "MiniBatchNMF": "nmfstream.estimator",
    "Model": "nmfstream.model",
    "Rows": "nmfstream.api",
    "fit": "nmfstream.api",
    "open": "nmfstream.api",
    "read_model": "nmfstream.model",
    "transform": "nmfstream.api",
}
"""Public names and the modules that hold them, imported when they are asked for."""

__all__ = ["MiniBatchNMF", "Model", "Rows", "__version__", "fit", "open", "read_model", "transform"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
