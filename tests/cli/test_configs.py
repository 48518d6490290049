"""The settings of real uses, each on data of its kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from nmfstream.model import read_model
from tests.cli.helpers import run

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted(CONFIGS.glob("*.toml"))


@pytest.fixture
def folder(tmp_path):
    g = np.random.default_rng(0)
    dense = g.gamma(1.0, 1.0, (120, 4)) @ g.gamma(1.0, 1.0, (4, 60))
    sparse.save_npz(tmp_path / "counts.npz", sparse.csr_array(g.poisson(0.05 * dense)))
    np.save(tmp_path / "dense.npy", dense.astype(np.float32))
    noisy = dense / dense.max()
    noisy[3, 5] = -1e-9
    np.save(tmp_path / "noisy.npy", noisy)
    return tmp_path


DATA = {
    "topics": "counts.npz",
    "cells": "counts.npz",
    "images": "dense.npy",
    "spectra": "noisy.npy",
    "cluster": "dense.npy",
}
MORE = {"images": ("-k", "4"), "cluster": ("-k", "3")}


def test_each_has_a_case():
    assert {path.stem for path in FILES} == set(DATA)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_fit_and_transform(path, folder):
    data, more = folder / DATA[path.stem], MORE.get(path.stem, ())
    done = run("fit", data, "-o", folder / "m.h5", "--config", path, *more, "--max-iter", 2, cwd=folder)
    assert done.returncode == 0, done.stderr
    done = run("transform", data, "-m", folder / "m.h5", "-o", folder / "W.npy", "--config", path, cwd=folder)
    assert done.returncode == 0, done.stderr
    model = read_model(folder / "m.h5")
    assert np.load(folder / "W.npy").shape == (120, model.n_components)


def test_the_job_of_the_cluster_may_be_started_again(folder):
    args = ("fit", folder / "dense.npy", "-o", folder / "m.h5", "-k", 3, "--config", CONFIGS / "cluster.toml")
    assert [run(*args, cwd=folder).returncode for _ in range(2)] == [0, 0]
