"""Out-of-core, streaming, resumable non-negative matrix factorization."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "MiniBatchNMF": "nmfstream.estimator",
}
"""Public names and the modules that hold them, imported when they are asked for."""

__all__ = ["MiniBatchNMF", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
