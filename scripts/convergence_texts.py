"""Short real texts: the functions and classes in the source of every package that is installed here."""

from __future__ import annotations

import ast
import re
import sys
import warnings
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "texts.npz"
FEWEST, SHARE = 30, 0.2
WORD = re.compile(r"[A-Z]?[a-z]{2,}|[A-Z]{3,}")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def texts() -> sp.csr_matrix:
    """Counts of words, a row for each function or class, kept in a file: some minutes the first time."""
    if not CACHE.exists():
        CACHE.parent.mkdir(exist_ok=True)
        sp.save_npz(CACHE, counts(definitions()))
    return sp.load_npz(CACHE).astype(np.float32)


def definitions() -> Iterator[ast.AST]:
    """Every function and class that can be parsed, files in the order of their names."""
    files = {path for root in sys.path if Path(root).is_dir() for path in Path(root).rglob("*.py")}
    for path in sorted(files):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError, RecursionError):
            continue
        yield from (node for node in ast.walk(tree) if isinstance(node, Definition))


def words(node: ast.AST) -> Iterator[str]:
    """Of its identifiers and its docstring, in lower case."""
    for part in ast.walk(node):
        for text in (getattr(part, name, None) for name in ("name", "id", "attr", "arg")):
            if isinstance(text, str):
                yield from (word.lower() for word in WORD.findall(text))
    if isinstance(node, Definition):
        yield from (word.lower() for word in WORD.findall(ast.get_docstring(node) or ""))


def counts(nodes: Iterator[ast.AST]) -> sp.csr_matrix:
    """Rows without three words left out, and words that are rare or nearly everywhere."""
    known: dict[str, int] = {}
    indices, indptr = array("i"), array("q", [0])
    for node in nodes:
        indices.extend(known.setdefault(word, len(known)) for word in words(node))
        indptr.append(len(indices))
    X = sp.csr_matrix((np.ones(len(indices)), np.array(indices), np.array(indptr)), shape=(len(indptr) - 1, len(known)))
    X.sum_duplicates()
    rows = np.bincount(X.indices, minlength=X.shape[1])
    X = X[:, (rows >= FEWEST) & (rows <= SHARE * X.shape[0])]
    return X[np.diff(X.indptr) >= 3]
