"""Reads a store as a command would, and looks at the error."""

from __future__ import annotations

from typing import Any

import numpy as np

from nmfstream.errors import DataError, NmfstreamError
from nmfstream.stores.checks import canonical
from nmfstream.stores.protocols import Opening, ReadPolicy, allocate
from nmfstream.stores.registry import open_reader
from nmfstream.types import CSR


def read(spec: Any, opening: Opening | None = None, policy: ReadPolicy | None = None) -> np.ndarray:
    """All of a store, dense."""
    policy = policy or ReadPolicy(np.dtype("f4"))
    with open_reader(str(spec), opening or Opening()) as reader:
        reader.check()
        out = allocate(reader, 0, reader.shape[0], policy.dtype)
        for task in reader.tasks(0, reader.shape[0], out, policy):
            task()
        is_sparse = isinstance(out, CSR)
        return canonical(out, name=reader.name, policy=policy).toarray() if is_sparse else out


def failure(
    spec: Any,
    opening: Opening | None = None,
    policy: ReadPolicy | None = None,
    error: type[NmfstreamError] = DataError,
) -> NmfstreamError:
    """The error of reading a store: of this class, with its three parts."""
    try:
        read(spec, opening, policy)
    except error as found:
        assert found.what
        assert found.where
        assert found.hint or "scikit" in found.what or "solver may diverge" in found.what
        assert "\n" not in str(found)
        return found
    raise AssertionError(f"{spec} was read")
