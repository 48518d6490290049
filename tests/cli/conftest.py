"""A model and its data, made once."""

from __future__ import annotations

import numpy as np
import pytest

from nmfstream.core.parameters import Objective, Parameters, Schedule, Start
from nmfstream.model import Model, flat_parameters, write_model
from tests.cli.helpers import data


@pytest.fixture(scope="session")
def X():
    return data()


@pytest.fixture(scope="session")
def H():
    g = np.random.default_rng(0)
    g.gamma(1.0, 1.0, (60, 3))
    return g.gamma(1.0, 1.0, (3, 12)).astype(np.float32)


@pytest.fixture
def model(tmp_path, H):
    """A model file of three components and twelve named features."""
    path = tmp_path / "m.h5"
    names = tuple(f"gene{j}" for j in range(12))
    parameters = flat_parameters(Parameters(Objective(3), Schedule(), Start(random_state=0)), "hals")
    write_model(path, Model(H, parameters, names, stop_reason="converged"))
    return path


@pytest.fixture
def x_npy(tmp_path, X):
    path = tmp_path / "x.npy"
    np.save(path, X)
    return path


@pytest.fixture
def W_npy(tmp_path):
    path = tmp_path / "W.npy"
    np.save(path, np.random.default_rng(1).random((7, 3)).astype(np.float32))
    return path
