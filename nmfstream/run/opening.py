"""The data of a command, opened: stores, or a matrix in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nmfstream.config import Inputs, Resources
from nmfstream.core.protocols import Problem
from nmfstream.errors import UsageError
from nmfstream.run.executors import Pool
from nmfstream.run.machine import default_memory
from nmfstream.run.pipeline import Reading, StoreSource
from nmfstream.run.sources import Source
from nmfstream.stores.protocols import Opening, ReadPolicy, RowReader

DTYPES = {"auto": None, "float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}


@dataclass
class Data:
    """An opened input that can be read as often as is wanted.

    Attributes
    ----------
    reader : RowReader
    problem : Problem
        Shape, the model's dtype, number of nonzeros.
    policy : ReadPolicy
    """

    reader: RowReader
    problem: Problem
    policy: ReadPolicy

    def source(self, pool: Pool, reading: Reading) -> Source:
        """Batches of this data."""
        return StoreSource(self.reader, self.policy, pool, reading)


def model_dtype(asked: str, stored: Any) -> np.dtype[Any]:
    """float64 stays, all else becomes float32, unless a type was asked for.

    Raises
    ------
    UsageError
        For a type that is none of auto, float32, float64.
    """
    if asked not in DTYPES:
        raise UsageError(f"--dtype is one of auto, float32, float64, not {asked!r}")
    chosen = DTYPES[asked]
    return chosen if chosen is not None else np.dtype(np.float64 if np.dtype(stored) == np.float64 else np.float32)


@contextmanager
def open_data(inputs: Inputs, resources: Resources, *, positive: bool = False) -> Iterator[Data]:
    """Open what a command reads; closed at the end.

    Parameters
    ----------
    inputs : Inputs
    resources : Resources
    positive : bool
        Zeros are refused (β ≤ 0).

    Raises
    ------
    DataError, InputAbsentError, UsageError
    """
    if not inputs.data:
        raise UsageError("no input data", hint="give one or more stores, as in 'counts.h5ad' or 'x.zarr/X'")
    with _opened(inputs, resources) as reader:
        dtype = model_dtype(inputs.dtype, reader.dtype)
        policy = ReadPolicy(dtype, inputs.negative, positive)
        yield Data(reader, Problem(*reader.shape, dtype, reader.nnz), policy)


def _opened(inputs: Inputs, resources: Resources) -> AbstractContextManager[RowReader]:
    if all(isinstance(item, str | Path) for item in inputs.data):
        from nmfstream.stores.registry import open_inputs

        memory = resources.memory or default_memory()
        opening = Opening(
            inputs.transpose, inputs.missing_chunks, inputs.allow_external, resources.scratch, memory // 4
        )
        return open_inputs([str(item) for item in inputs.data], opening)
    if len(inputs.data) > 1:
        raise UsageError("one matrix or reader at a time", hint="name several stores by text to join their rows")
    from nmfstream.stores.memory import MemoryReader

    X: Any = inputs.data[0]
    if hasattr(X, "tasks"):
        opened: RowReader = X
        return nullcontext(opened)
    return MemoryReader(X.T if inputs.transpose else X)
