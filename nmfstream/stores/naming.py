"""Matrices that a store offers, and the errors that list them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nmfstream.errors import DataError, InputAbsentError, NmfstreamError, UsageError

LISTED = 12
"""Candidates that a message names before it says how many more there are."""


@dataclass(frozen=True)
class Candidate:
    """A matrix in a store.

    Attributes
    ----------
    path : str
        Inside the store; empty where the store is the matrix.
    shape : tuple of int
        As stored.
    dtype : str
    kind : str
        dense, csr or csc.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    kind: str = "dense"

    def __str__(self) -> str:
        text = f"{self.path} ({' x '.join(str(n) for n in self.shape)} {self.dtype}"
        return f"{text})" if self.kind == "dense" else f"{text} {self.kind})"


def choose(found: Sequence[Candidate], store: str, nothing: str = "holds no matrix") -> Candidate:
    """The only candidate.

    Raises
    ------
    UsageError
        There are several: they are listed.
    DataError
        There is none.
    """
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(nothing, where=store, hint="a 2-D array of real numbers or a CSR or CSC group is needed")
    listed = ", ".join(str(one) for one in found[:LISTED])
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    raise UsageError(
        f"holds {len(found)} matrices: {listed}{more}", where=store, hint=f"name one, as in {store}/{found[0].path}"
    )


def absent(inner: str, names: Iterable[str], store: str) -> NmfstreamError:
    """The error for a name that the store does not hold, with the nearest one that it does."""
    known = sorted(names)
    alike = [name for name in known if name.lower() == inner.lower()]
    close = alike or difflib.get_close_matches(inner, known, 1, 0.5)
    listed = ", ".join(known[:LISTED]) or "nothing"
    hint = f"did you mean {store}/{close[0]}?" if close else f"it holds {listed}"
    return InputAbsentError(f"no dataset '{inner}'", where=store, hint=hint)
