"""What a command says at its end: one JSON object on standard output, or a line in words on standard error."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nmfstream.errors import StorageError


def finish(given: Mapping[str, Any], command: str, values: Mapping[str, Any], words: str) -> None:
    """Print the end of a command: its JSON object with ``--json``, and the last line unless ``--quiet``.

    Parameters
    ----------
    given : mapping
        The command's options.
    command : str
    values : mapping
        What ``--json`` prints.
    words : str
        The last line.
    """
    if given["as_json"]:
        out(to_json({"command": command, **values}) + "\n")
    if not given["quiet"] and words:
        print(f"nmfstream {command}: {words}", file=sys.stderr, flush=True)


def out(text: str) -> None:
    """Write text to standard output."""
    if sys.stdout is None:
        raise StorageError("standard output is closed", hint="leave it open, or use -o FILE")
    sys.stdout.write(text)
    sys.stdout.flush()


def to_json(value: Any) -> str:
    """JSON text; not-a-number and infinities become null."""
    return json.dumps(plain(value), allow_nan=False, ensure_ascii=False)


def plain(value: Any) -> Any:
    """Values that JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def passes(n: float) -> str:
    """``1 pass``, ``5 passes``, ``5.25 passes``."""
    shown = f"{n:.3g}"
    return f"{shown} pass{'' if shown == '1' else 'es'}"


def counted(n: int, what: str) -> str:
    """``1 row``, ``2 rows``."""
    return f"{n} {what}{'' if n == 1 else 's'}"
