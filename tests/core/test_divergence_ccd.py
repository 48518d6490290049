"""One-variable Newton steps of Kullback-Leibler rows, compiled and in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nmfstream.core.divergence import nonzeros
from nmfstream.core.kernels import divergence_ccd
from nmfstream.core.kernels.divergence_ccd import ccd
from nmfstream.types import Array


@pytest.fixture(params=["compiled", "numpy"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence_ccd, "COMPILED_WORK", {"compiled": 0, "numpy": 1 << 60}[request.param])


def problem(k: int, *, with_prior: bool, m: int = 30, n: int = 41) -> dict[str, Any]:
    """Rows of which every fifth is empty."""
    rng = np.random.default_rng(k)
    F = rng.gamma(0.5, size=(m, k)) + 1e-3
    X = rng.poisson(2 * rng.gamma(0.5, size=(n, k)) @ F.T).astype(float)
    X[::5] = 0
    prior = rng.gamma(1.0, size=(n, k)) if with_prior else None
    return {"X": X, "Ft": F, "s": F.sum(axis=0) + 0.1, "prior": prior}


def gradient(W: Array, X: Array, Ft: Array, s: Array, prior: Array | None, l2: float) -> Array:
    slope: Array = s + l2 * W - (X / np.maximum(W @ Ft.T, 1e-300)) @ Ft
    return slope if prior is None else slope - prior / W


@pytest.mark.parametrize("with_prior", [False, True])
@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("k", [1, 4, 7])
def test_sweeps_end_at_the_optimum(either: None, k: int, l2: float, with_prior: bool) -> None:
    given = problem(k, with_prior=with_prior)
    W = np.ones((len(given["X"]), k))
    V = ccd(nonzeros(given["X"]), given["Ft"], given["s"], W, 400, 0.0, l2=l2, prior=given["prior"])
    assert np.abs(np.minimum(W, gradient(W, **given, l2=l2))).max() < 1e-6
    np.testing.assert_allclose(V, (W @ given["Ft"].T)[given["X"] > 0], rtol=1e-9)


@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_rows_of_a_prior_alone_need_one_sweep(either: None, l2: float) -> None:
    given = problem(4, with_prior=True)
    W = np.ones((len(given["X"]), 4))
    ccd(nonzeros(given["X"]), given["Ft"], given["s"], W, 1, 0.0, l2=l2, prior=given["prior"])
    assert np.abs(gradient(W, **given, l2=l2)[::5]).max() < 1e-10
    assert np.abs(gradient(W, **given, l2=l2)[1::5]).max() > 1e-3


def test_the_twin_takes_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for with_prior in (False, True):
        given, found = problem(5, with_prior=with_prior), []
        for least in (0, 1 << 60):
            monkeypatch.setattr(divergence_ccd, "COMPILED_WORK", least)
            W = np.ones((len(given["X"]), 5))
            V = ccd(nonzeros(given["X"]), given["Ft"], given["s"], W, 3, 0.0, cold=2, prior=given["prior"])
            found.append((W, V))
        np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-9)


def test_a_component_without_weight_stays(either: None) -> None:
    given = problem(3, with_prior=True)
    W, s = np.ones((len(given["X"]), 3)), given["s"] * [1, 0, 1]
    ccd(nonzeros(given["X"]), given["Ft"], s, W, 2, 0.0, prior=given["prior"])
    assert (W[:, 1] == 1).all()
    assert not (W[:, 0] == 1).any()


def test_few_nonzeros_of_many_rows_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches of wide data have thousands of columns, most of them without an entry."""
    monkeypatch.setattr(divergence_ccd, "ccd_numpy", None)
    X = np.zeros((2000, 8), np.float32)
    X[5, 2] = 1
    W = np.ones((2000, 3), np.float32)
    ccd(nonzeros(X), np.ones((8, 3), np.float32), np.ones(3), W, 1, 0.0, prior=np.full(W.shape, 2.0))
    assert (W[6:] == 2).all()
