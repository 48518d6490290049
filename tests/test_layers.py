"""The layers, as the imports have them: a file imports only from its own layer and those above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nmfstream

ROOT = Path(nmfstream.__file__).parent
LAYERS = (
    ("errors", "types", "units", "machine_code"),
    ("core",),
    ("storage",),
    ("stores",),
    (
        "config", "defaults", "plan", "checkpoint", "checkpoint_format", "checkpoint_reading", "ownership",
        "fingerprint", "model", "run.events",
    ),
    ("run",),
    ("estimator", "api"),
    ("cli", "__main__"),
)  # fmt: skip
"""`run.events` is the vocabulary in which a checkpoint speaks to whoever listens."""

LAYER = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(ROOT.rglob("*.py"))
FORBIDDEN = {
    "core": {"click", "h5py", "zarr", "os", "io", "pathlib", "logging", "threading", "tempfile", "tqdm", "shutil"},
    "storage": {"click", "numpy", "h5py", "zarr", "numba"},
    "stores": {"click", "tqdm"},
    "run": {"click", "tqdm"},
    "estimator": {"click", "tqdm", "h5py"},
    "api": {"click", "tqdm"},
    "cli": {"numpy", "scipy", "numba", "h5py", "zarr"},
}
"""What the files of a layer never import: core knows no files, commands no mathematics."""


def part(path):
    return place(".".join(path.relative_to(ROOT).with_suffix("").parts))


def place(dotted):
    """The name by which the table knows a module."""
    first = "estimator" if dotted.startswith("estimator_") else dotted.split(".")[0]
    return dotted if dotted in LAYER else first


def imported(tree):
    """Every module that a tree imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def only_types(tree):
    """The imports under ``if TYPE_CHECKING``: they bind nothing at run time."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {name for block in blocks for name in imported(block)}


def modules(path):
    tree = ast.parse(path.read_text())
    return set(imported(tree)) - only_types(tree)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_upwards(path):
    mine = LAYER.get(part(path), len(LAYERS))
    names = {place(name.removeprefix("nmfstream.")) for name in modules(path) if name.startswith("nmfstream.")}
    below = {name for name in names if LAYER[name] > mine}
    assert not below


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_relative_and_no_star(path):
    tree = ast.parse(path.read_text())
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [node for node in froms if node.level or any(alias.name == "*" for alias in node.names)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_layer_keeps_to_its_subject(path):
    names = {name.split(".")[0] for name in modules(path)}
    assert not names & FORBIDDEN.get(part(path), set())


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_pickle_is_never_read(path):
    text = path.read_text()
    assert "import pickle" not in text
    assert "allow_pickle=True" not in text


def test_every_module_has_its_layer():
    top_level = {part(path) for path in FILES} - {"__init__"}
    assert top_level <= set(LAYER)
