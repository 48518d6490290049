"""An output that is also an input is refused, before anything is opened for writing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nmfstream.errors import UsageError
from nmfstream.stores.files import LOCAL
from nmfstream.stores.outputs import parse_output


def refuse_own_inputs(outputs: Iterable[str | Path | None], inputs: Iterable[Any]) -> None:
    """Compare the files behind outputs with those behind inputs, whatever names lead to them.

    Parameters
    ----------
    outputs : iterable of str (``STORE[/DATASET]``), Path (a file), or None
    inputs : iterable
        ``STORE[/DATASET]`` texts and paths; anything else is not on disk.

    Raises
    ------
    UsageError
        If a store would be read and written.
    """
    read = [
        (str(item), _real(_store(Path(str(item).removeprefix(LOCAL)))))
        for item in inputs
        if isinstance(item, str | Path) and item != "-"
    ]
    for spec in outputs:
        if spec is None or spec == "-":
            continue
        written = _real(spec if isinstance(spec, Path) else parse_output(spec).path)
        for name, path in read:
            if path == written or os.path.commonpath([path, written]) == written:
                hint = f"{name} is read: write elsewhere"
                raise UsageError("the output is also an input", where=str(spec), hint=hint)


def _store(path: Path) -> Path:
    """The file on the way to a dataset inside it, or the path itself."""
    return next((p for p in (*reversed(path.parents), path) if p.is_file() or p.suffix.lower() == ".zarr"), path)


def _real(path: Path) -> str:
    return os.path.realpath(path)
