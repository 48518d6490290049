"""What a run's bits depend on besides data and parameters: the CPU's kernels and the libraries' versions."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import metadata
from typing import Any


@cache
def numeric_fingerprint() -> dict[str, str]:
    """Kernel family of the BLAS in use, and versions of numpy, BLAS, numba, nmfstream.

    Two runs with the same values give the same bits. Reads metadata only: numba is not imported.
    """
    import numpy as np
    import threadpoolctl

    np.dot(np.ones((1, 1)), np.ones((1, 1)))  # the library is there to be asked only once it is loaded
    libraries = [x for x in threadpoolctl.threadpool_info() if x.get("user_api") == "blas"]
    blas = [x for x in libraries if "numpy" in x.get("filepath", "")] or libraries  # scipy's may be there or not yet
    found = {
        "cpu": _joined(x.get("architecture") for x in blas) or _cpu(),
        "blas": _joined(f"{x.get('internal_api')} {x.get('version')}" for x in blas),
    }
    return found | {name: _version(name) for name in ("numpy", "scipy", "numba", "nmfstream")}


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """What changed, in words."""
    names = sorted(set(before) | set(now))
    return [f"{n}: {before.get(n, '-')} then, {now.get(n, '-')} now" for n in names if before.get(n) != now.get(n)]


def _joined(values: Iterable[Any]) -> str:
    return ", ".join(sorted({str(v) for v in values if v}))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _cpu() -> str:
    import platform

    return platform.machine()
