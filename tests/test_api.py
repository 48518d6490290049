"""The commands as Python functions."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from scipy import sparse

import nmfstream
from nmfstream import api
from nmfstream.errors import DataError, InputAbsentError, UsageError
from tests.cli.helpers import data

X = data()


@pytest.fixture(scope="module")
def model():
    return nmfstream.fit(X, 3, solver="mu", max_iter=20, random_state=0)


def test_doctests():
    assert doctest.testmod(api).failed == 0


def test_fit_does_what_the_command_does(tmp_path):
    from tests.cli.helpers import run

    np.save(tmp_path / "x.npy", X)
    args = ("--solver", "mu", "--max-iter", 20, "--seed", 0)
    assert run("fit", tmp_path / "x.npy", "-o", tmp_path / "c.h5", "-k", 3, *args).returncode == 0
    there = nmfstream.fit(tmp_path / "x.npy", 3, solver="mu", max_iter=20, random_state=0)
    np.testing.assert_array_equal(nmfstream.read_model(tmp_path / "c.h5").components, there.components)


def test_output_and_w(tmp_path):
    outputs = {"output": tmp_path / "m.h5", "w": str(tmp_path / "W.npy")}
    there = nmfstream.fit(X, 3, **outputs, solver="mu", max_iter=5, random_state=0)
    np.testing.assert_array_equal(nmfstream.read_model(tmp_path / "m.h5").components, there.components)
    assert np.load(tmp_path / "W.npy").shape == (60, 3)


def loader(kind, X=X):
    return (kind(X[a : a + 7]) for a in range(0, len(X), 7))


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_a_users_own_loader(model, kind):
    W = nmfstream.transform(loader(kind), model)
    np.testing.assert_allclose(W, nmfstream.transform(X, model), atol=1e-4 * W.max())


def test_rows_of_several_stores(tmp_path, model):
    np.save(tmp_path / "a.npy", X[:25])
    np.save(tmp_path / "b.npy", X[25:])
    with nmfstream.open([tmp_path / "a.npy", tmp_path / "b.npy"]) as rows:
        assert (len(rows), rows.shape, rows.dtype) == (60, (60, 12), np.float32)
        np.testing.assert_array_equal(rows[20:30], X[20:30])
        np.testing.assert_array_equal(rows[-1], X[-1:])
        np.testing.assert_array_equal(np.concatenate(list(rows.chunks(11))), X)
        np.testing.assert_array_equal(nmfstream.transform(rows, model), nmfstream.transform(X, model))


def test_sparse_rows_are_scipys(tmp_path):
    sparse.save_npz(tmp_path / "s.npz", sparse.csr_array(np.where(X > 2, X, 0)))
    with nmfstream.open(tmp_path / "s.npz") as rows:
        assert sparse.issparse(rows[3:9])
        np.testing.assert_array_equal(rows[3:9].toarray(), np.where(X > 2, X, 0)[3:9])


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: nmfstream.fit(X), UsageError, "number of components is missing"),
        (lambda: nmfstream.fit(X, 3, betaloss=1), TypeError, "did you mean 'beta_loss'"),
        (lambda: nmfstream.fit(X, 3, solver="cd"), UsageError, "one of auto, mu, hals"),
        (lambda: nmfstream.fit(X, 3, beta_loss="kl"), UsageError, "no loss is called 'kl'"),
        (lambda: nmfstream.fit(-X, 3, solver="mu"), DataError, "negative value"),
        (lambda: nmfstream.open("nowhere.npy"), FileNotFoundError, "no such file"),
        (lambda: nmfstream.read_model("nowhere.h5"), InputAbsentError, "no such model"),
        (lambda: nmfstream.transform(X[:, :5], nmfstream.Model(X[:2], {})), ValueError, "5 features, the model 12"),
    ],
)
def test_errors_say_what_to_do(call, error, said):
    with pytest.raises(error, match=said):
        call()


@pytest.mark.parametrize("chunks", [[], [np.zeros((0, 4))]], ids=["no chunk", "no row"])
def test_an_iterator_that_gives_nothing_is_not_called_standard_input(chunks):
    with pytest.raises(DataError, match=r"^the chunks given: no (chunk|row) came; look at what gives them"):
        nmfstream.fit(iter(chunks), 2)


@pytest.mark.parametrize(
    ("chunks", "options", "said"),
    [
        ([], {}, "the chunks given: no chunk came; look at what gives them"),
        ([X, -X], {}, "the chunks given: row 60, column 0: negative value"),
        ([X[:, :5]], {}, "the chunks given: has 5 features, the model 12"),
        ([X], {"rows": (0, 3)}, "--rows: a stream is read once, from its start; give a matrix or the name of a store"),
    ],
    ids=["nothing", "negative", "features", "rows"],
)
def test_what_is_wrong_with_an_iterator_is_said_of_it(model, chunks, options, said):
    with pytest.raises((DataError, UsageError)) as error:
        nmfstream.transform(iter(chunks), model, **options)
    assert str(error.value).startswith(said)
