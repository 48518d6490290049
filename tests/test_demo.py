"""The demonstration's matrix is what it says, and its topics are printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.cli.helpers import run

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "scripts" / "demo.py"


def demo(*args):
    return subprocess.run([sys.executable, DEMO, *map(str, args)], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "stdlib.h5"
    demo("build", path)
    return path


def test_modules_are_rows_and_words_are_columns(store):
    with h5py.File(store) as f:
        terms = [term.decode() for term in f["var/_index"][:]]
        names = [name.decode() for name in f["obs/_index"][:]]
        a, b = f["X/indptr"][names.index("json.decoder") :][:2]
        words = {terms[j]: n for j, n in zip(f["X/indices"][a:b], f["X/data"][a:b])}
        assert tuple(f["X"].attrs["shape"]) == (len(names), len(terms))
    assert words["decoder"] > 1
    assert terms == sorted(terms)


def test_topics_are_printed(store):
    folder = store.parent
    model, W = folder / "topics.h5", folder / "W.npy"
    options = ("--beta-loss", "kullback-leibler", "--max-iter", 3)
    assert run("fit", f"{store}/X", "-o", model, "-k", 6, *options).returncode == 0
    assert run("transform", store, "-m", model, "-o", W).returncode == 0
    lines = demo("show", store, model, W).splitlines()
    assert [line.split()[:2] for line in lines[::2]] == [["topic", str(i)] for i in range(1, 7)]
    assert all(line.count("%") == 5 for line in lines[1::2])
    assert np.load(W).shape[1] == 6


@pytest.mark.parametrize("script", ["scripts/demo.sh", "scripts/test.sh", ".ci/run"])
def test_scripts_may_be_run(script):
    assert (ROOT / script).stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", ROOT / script], check=False).returncode == 0
