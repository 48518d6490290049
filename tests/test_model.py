"""The model file as other software sees it, and every way in which it can be no model."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from nmfstream.core.parameters import Objective, Parameters, Schedule, Start
from nmfstream.core.state import PassRecord
from nmfstream.errors import DataError, InputAbsentError, OutputExistsError
from nmfstream.model import Model, check_feature_names, flat_parameters, read_model, write_model

PARAMETERS = Parameters(Objective(2, 1.0, 0.1, 0.2, 0.5), Schedule(max_no_improvement=None), Start(random_state=3))


def model(**changes):
    H = np.array([[1, 0, 2], [0.5, 3, 0]], np.float32)
    given = {
        "components": H,
        "parameters": flat_parameters(PARAMETERS, "auto"),
        "feature_names": ("a", "ß", "c"),
        "n_iter": 2,
        "n_steps": 7,
        "loss": 1.25,
        "stop_reason": "converged",
        "versions": {"numpy": "2.4"},
        "history": (PassRecord("pass 1", 10, 0.5, 1.5, 0.1), PassRecord("pass 2", 10, 0.5, 1.25, 0.01)),
    }
    return Model(**{**given, **changes})


@pytest.fixture
def path(tmp_path):
    where = tmp_path / "m.h5"
    write_model(where, model())
    return where


def test_comes_back_as_it_was(path):
    back, there = read_model(path), model()
    np.testing.assert_array_equal(back.components, there.components)
    assert back.components.dtype == np.float32
    assert back.parameters == there.parameters
    assert (back.feature_names, back.n_iter, back.n_steps, back.loss) == (there.feature_names, 2, 7, 1.25)
    assert (back.stop_reason, back.versions, back.history) == ("converged", {"numpy": "2.4"}, there.history)
    assert back.objective == Objective(2, 1.0, 0.1, 0.2, 0.5)


def test_opens_in_two_lines_of_h5py(path):
    with h5py.File(path) as f:
        assert f["components"].shape == (2, 3)
        assert [n.decode() for n in f["feature_names"][:]] == ["a", "ß", "c"]
        assert f.attrs["beta_loss"] == 1.0 and f.attrs["max_no_improvement"] == "none" and f.attrs["n_iter"] == 2
        assert list(f["history"]["rows"]) == [10, 10]


def test_leaves_nothing_beside_it(path):
    assert [p.name for p in path.parent.iterdir()] == ["m.h5"]


def test_refuses_a_taken_name_and_keeps_what_is_there(path):
    before = path.read_bytes()
    with pytest.raises(OutputExistsError):
        write_model(path, model(loss=0.0))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["m.h5"]


def test_overwrites_when_told(path):
    write_model(path, model(loss=0.0), overwrite=True)
    assert read_model(path).loss == 0.0


def test_absent_model_suggests_a_neighbour(path):
    with pytest.raises(InputAbsentError, match=r"did you mean.*m\.h5"):
        read_model(path.with_name("n.h5"))


def spoil(change):
    def apply(path):
        with h5py.File(path, "r+") as f:
            change(f)

    return apply


def replace(name, value):
    def change(f):
        del f[name]
        f[name] = value

    return spoil(change)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (spoil(lambda f: f.attrs.update(format="x")), "not an nmfstream model"),
        (spoil(lambda f: f.attrs.update(format_version=99)), "model format 99.*newer nmfstream"),
        (spoil(lambda f: f.pop("components")), "not a matrix of floats"),
        (replace("components", np.zeros((2, 3, 4))), "not a matrix of floats"),
        (replace("components", np.array([[1, np.nan]])), "negative or not finite"),
        (replace("components", np.array([[1.0, -1.0]])), "negative or not finite"),
        (lambda p: p.write_bytes(p.read_bytes()[:900]), "HDF5 cannot read it"),
    ],
)
def test_what_is_no_model_is_told_so(path, damage, message):
    damage(path)
    with pytest.raises(DataError, match=message) as caught:
        read_model(path)
    assert "m.h5" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "n", "message"),
    [
        (None, 4, "has 4 features, the model 3"),
        (("a", "x", "c"), 3, "feature 1 is 'x', in the model 'ß'"),
    ],
)
def test_other_features_are_refused_with_both_shown(names, n, message):
    with pytest.raises(DataError, match=message):
        check_feature_names(model(), names, n, "x.h5/X")


@pytest.mark.parametrize("names", [None, ("a", "ß", "c")])
def test_same_or_unknown_names_pass(names):
    check_feature_names(model(), names, 3, "x.h5/X")
