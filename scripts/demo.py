"""Python's standard library as documents and terms: ``build STORE.h5``, and ``show STORE.h5 MODEL.h5 W.npy``.

A document is a module; its terms are the words of its identifiers and docstrings. The counts go into an HDF5 store
as a CSR group, with the terms beside it as the anndata and 10x files have them.
"""

from __future__ import annotations

import ast
import io
import keyword
import re
import sys
import sysconfig
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from nmfstream.model import read_model
from nmfstream.run.top import top

SKIPPED = ("test", "tests", "idle_test", "site-packages", "__pycache__", "lib2to3", "encodings", "pydoc_data")
COMMON = {
    "self", "cls", "args", "kwargs", "name", "value", "values", "return", "none", "true", "false", "import", "def",
    "class", "the", "and", "for", "not", "with", "from", "this", "that", "are", "is", "of", "to", "in", "it", "be",
    "or", "if", "as", "on", "by", "an", "at", "was", "has", "have", "can", "will", "may", "must", "should", "would",
    "other", "than", "then", "but", "all", "any", "one", "two", "type", "str", "int", "object", "default", "given",
    "used", "use", "using", "see", "also", "which", "when", "whose", "into", "its", "only", "same", "new", "get",
    "set",
}  # fmt: skip
FEWEST, SHARE = 5, 0.4


def modules() -> Iterator[tuple[str, str]]:
    """Name and source text of each module."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if not any(part in SKIPPED or part.startswith("test_") for part in parts):
            yield ".".join(parts).removesuffix(".__init__"), path.read_text("utf-8", "replace")


def texts(source: str) -> Iterator[str]:
    """Identifiers and docstrings."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
                yield token.string
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield ast.get_docstring(node) or ""
    except (SyntaxError, tokenize.TokenError, IndentationError):
        return


def words(text: str) -> Iterator[str]:
    """Lower-case words: ``readline_Buffered`` gives readline and buffered."""
    for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", text):
        if len(word) > 2 and word.lower() not in COMMON:
            yield word.lower()


def build(store: Path) -> None:
    """Count, drop what is in too few or too many modules, and write the CSR group."""
    names, counts = [], []
    for name, source in modules():
        names.append(name)
        counts.append(Counter(word for text in texts(source) for word in words(text)))
    documents = Counter(word for count in counts for word in count)
    most = SHARE * len(counts)
    terms = sorted(word for word, n in documents.items() if FEWEST <= n <= most)
    column = {word: j for j, word in enumerate(terms)}
    rows = [sorted((column[word], n) for word, n in count.items() if word in column) for count in counts]
    kept = [i for i, row in enumerate(rows) if row]
    write(store, [names[i] for i in kept], terms, [rows[i] for i in kept])
    nnz = sum(len(rows[i]) for i in kept)
    print(f"{len(kept)} modules x {len(terms)} terms, {nnz} nonzeros ({nnz / len(kept) / len(terms):.1%}) in {store}")


def write(store: Path, names: list[str], terms: list[str], rows: list[list[tuple[int, int]]]) -> None:
    """The store, as anndata writes it."""
    indptr = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    indices = np.array([j for row in rows for j, _ in row], np.int32)
    data = np.array([n for row in rows for _, n in row], np.int32)
    with h5py.File(store, "w") as h5:
        h5.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        group = h5.create_group("X")
        shape = (len(rows), len(terms))
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})
        for name, values in (("indptr", indptr), ("indices", indices), ("data", data)):
            group.create_dataset(name, data=values)
        text = h5py.string_dtype()
        h5.create_dataset("var/_index", data=terms, dtype=text)
        h5.create_dataset("obs/_index", data=names, dtype=text)
        for name in ("var", "obs"):
            h5[name].attrs.update({"_index": "_index", "encoding-type": "dataframe", "encoding-version": "0.2.0"})


def show(store: Path, model: Path, weights: Path) -> None:
    """Each topic's strongest terms and the modules it makes most of."""
    with h5py.File(store) as h5:
        terms = tuple(name.decode() for name in h5["var/_index"][:])
        names = [name.decode() for name in h5["obs/_index"][:]]
    learned, W = read_model(model), np.load(weights)
    share = W * learned.components.sum(axis=1)
    share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-12)
    mass = W * learned.components.sum(axis=1)
    for component in top(learned, 9, learned.feature_names or terms):
        i = component.index
        best = np.argsort(-(share[:, i] * np.sqrt(mass[:, i])), kind="stable")[:5]
        print(f"topic {i + 1:2}  {' '.join(f.name for f in component.features)}")
        print(f"          {', '.join(f'{names[j]} {share[j, i]:.0%}' for j in best)}")


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    {"build": build, "show": show}[command](*map(Path, paths))
