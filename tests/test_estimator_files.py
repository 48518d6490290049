"""Models of the command line in the estimator, and the estimator's as model files."""

from __future__ import annotations

import numpy as np
import pytest

from nmfstream import MiniBatchNMF, read_model
from nmfstream.errors import OutputExistsError
from tests.cli.helpers import data, run

X = data(dtype=np.float64)


@pytest.fixture(scope="module")
def fitted():
    return MiniBatchNMF(3, beta_loss="kullback-leibler", alpha_W=0.01, max_iter=20, random_state=0).fit(X)


def test_comes_back_as_it_was(fitted, tmp_path):
    fitted.save(tmp_path / "m.h5")
    back = MiniBatchNMF.from_file(tmp_path / "m.h5")
    np.testing.assert_array_equal(back.components_, fitted.components_)
    np.testing.assert_array_equal(back.transform(X), fitted.transform(X))
    assert (back.beta_loss, back.alpha_W, back.n_iter_, back.n_steps_) == (1.0, 0.01, fitted.n_iter_, fitted.n_steps_)


def test_the_command_line_takes_it(fitted, tmp_path):
    fitted.save(tmp_path / "m.h5")
    np.save(tmp_path / "x.npy", X)
    done = run("transform", tmp_path / "x.npy", "-m", tmp_path / "m.h5", "-o", tmp_path / "W.npy")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "W.npy").shape == (60, 3)


def test_it_takes_the_command_lines(tmp_path):
    np.save(tmp_path / "x.npy", X)
    args = ("fit", tmp_path / "x.npy", "-o", tmp_path / "m.h5", "-k", 3, "--solver", "mu", "--max-iter", 5)
    assert run(*args).returncode == 0
    back = MiniBatchNMF.from_file(tmp_path / "m.h5")
    np.testing.assert_array_equal(back.components_, read_model(tmp_path / "m.h5").components)
    assert back.transform(X).shape == (60, 3)


def test_it_goes_on_learning(fitted, tmp_path):
    fitted.save(tmp_path / "m.h5")
    back = MiniBatchNMF.from_file(tmp_path / "m.h5").partial_fit(X)
    assert back.n_steps_ == fitted.n_steps_ + 1
    assert not np.array_equal(back.components_, fitted.components_)


def test_a_taken_name(fitted, tmp_path):
    fitted.save(tmp_path / "m.h5")
    with pytest.raises(OutputExistsError):
        fitted.save(tmp_path / "m.h5")
    fitted.save(tmp_path / "m.h5", overwrite=True)


def test_names_of_features(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"g{j}" for j in range(12)])
    MiniBatchNMF(3, max_iter=2, random_state=0).fit(frame).save(tmp_path / "m.h5")
    assert read_model(tmp_path / "m.h5").feature_names[:2] == ("g0", "g1")
    assert list(MiniBatchNMF.from_file(tmp_path / "m.h5").feature_names_in_[:2]) == ["g0", "g1"]


def test_not_before_it_is_fitted(tmp_path):
    with pytest.raises(ValueError, match="not fitted"):
        MiniBatchNMF(3).save(tmp_path / "m.h5")
