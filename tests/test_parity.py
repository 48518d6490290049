"""The numbers of scikit-learn's MiniBatchNMF, case by case."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.decomposition
from sklearn.decomposition._nmf import _beta_divergence

from nmfstream import MiniBatchNMF

from .parity_cases import Case, custom_start, matrix, pairwise

CASES = pairwise(170)
pytestmark = pytest.mark.filterwarnings("ignore")


def distance(ours: Any, theirs: Any) -> float:
    """Relative, of two arrays; 0 for two that are all zero."""
    return float(np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-300))


@pytest.fixture
def real_data(request: pytest.FixtureRequest) -> Callable[[], Path]:
    """The folder of real data, asked for by the cases that need it alone."""
    return lambda: request.getfixturevalue("shared_data")


def for_theirs(case: Case, X: Any) -> Any:
    """X as scikit-learn gives right numbers for it.

    For β other than 2 it pairs the values of a CSC matrix (column by column) with products WH in CSR order
    (row by row): its own results for X and for ``X.tocsr()`` differ. Ours are those of the latter.
    """
    return X.tocsr() if case.layout == "csc" and case.beta_loss != "frobenius" else X


def start(case: Case, X: Any) -> dict[str, np.ndarray]:
    """Keyword arguments for a custom start, new arrays for each model."""
    return custom_start(X) if case.init == "custom" else {}


def test_the_set_is_large() -> None:
    assert len(set(CASES)) >= 150


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fit(case: Case, real_data: Callable[[], Path]) -> None:
    X = matrix(case, real_data)
    theirs = sklearn.decomposition.MiniBatchNMF(**case.parameters)
    their_W = theirs.fit_transform(for_theirs(case, X), **start(case, X))
    ours = MiniBatchNMF(**case.parameters)
    W = ours.fit_transform(X, **start(case, X))
    assert (ours.n_iter_, ours.n_steps_) == (theirs.n_iter_, theirs.n_steps_)
    assert W.dtype == ours.components_.dtype == X.dtype
    assert distance(ours.components_, theirs.components_) <= case.tolerance
    assert distance(W, their_W) <= case.tolerance
    # scikit-learn's own error has the rounding of ‖X‖² where the residual is small.
    square = float(X.multiply(X).sum() if sp.issparse(X) else np.vdot(X, X))
    spread = 1e-14 * square / max(theirs.reconstruction_err_, 1e-300) ** 2
    # Sums of powers in float32 cancel: what its error misses of the same factors' in float64 is not ours to repeat.
    dense, factors = X.toarray() if sp.issparse(X) else X, (their_W, theirs.components_)
    wide = [np.asarray(a, np.float64) for a in (dense, *factors)]
    spread += distance(theirs.reconstruction_err_, _beta_divergence(*wide, theirs._beta_loss, square_root=True))
    assert distance(ours.reconstruction_err_, theirs.reconstruction_err_) <= case.tolerance + spread
    assert distance(ours.transform(X[:20]), theirs.transform(for_theirs(case, X[:20]))) <= case.tolerance


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_partial_fit_in_uneven_chunks(case: Case, real_data: Callable[[], Path]) -> None:
    X = matrix(case, real_data)
    bounds = [0, 11, 12, 20, X.shape[0]]
    theirs, ours = sklearn.decomposition.MiniBatchNMF(**case.parameters), MiniBatchNMF(**case.parameters)
    for model, rows in ((theirs, for_theirs(case, X)), (ours, X)):
        for a, b in itertools.pairwise(bounds):
            model.partial_fit(rows[a:b], **start(case, X[a:b]))
    assert ours.n_steps_ == theirs.n_steps_ == 4
    assert distance(ours.components_, theirs.components_) <= case.tolerance


@pytest.mark.parametrize("beta_loss", [2.0, 1.0, 0.0, 0.5, 3.0])
def test_partial_fit_after_fit(beta_loss: float) -> None:
    X = 0.1 + np.random.RandomState(0).rand(60, 12)
    settings = {"n_components": 3, "init": "random", "random_state": 0, "beta_loss": beta_loss, "batch_size": 16}
    models = [sklearn.decomposition.MiniBatchNMF(**settings), MiniBatchNMF(**settings)]
    for model in models:
        model.fit(X).partial_fit(X[:30]).partial_fit(X[30:])
    assert distance(models[1].components_, models[0].components_) <= 1e-9
    assert models[1].n_steps_ == models[0].n_steps_
