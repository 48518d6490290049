"""`fit` from a store: scikit-learn's numbers, the same bits whatever the store, threads and budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from nmfstream.config import FitConfig, Inputs, Resources, Saving
from nmfstream.core import sample
from nmfstream.core.kernels import hals_block
from nmfstream.defaults import make_parameters
from nmfstream.run.fit import fit

UNHURRIED = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def data(n: int = 230, m: int = 37, density: float = 1.0, seed: int = 0) -> np.ndarray:
    rng = np.random.RandomState(seed)
    X = rng.gamma(1.0, size=(n, 4)) @ rng.gamma(1.0, size=(4, m)) + 0.05 * rng.random_sample((n, m))
    return X * (rng.random_sample((n, m)) < density)


def store(path: Path, X: np.ndarray, kind: str, chunk: tuple[int, int] = (50, 11)) -> str:
    """The matrix in a store of this kind; returns its name."""
    if kind == "npy":
        np.save(path / "x.npy", X)
        return str(path / "x.npy")
    if kind == "csr":
        A = sparse.csr_matrix(X)
        with h5py.File(path / "s.h5", "w") as h5:
            group = h5.create_group("X")
            group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": X.shape})
            for name in ("data", "indices", "indptr"):
                values = getattr(A, name)
                group.create_dataset(name, data=values, chunks=(max(1, min(len(values), 97)),), compression="gzip")
        return str(path / "s.h5/X")
    with h5py.File(path / "d.h5", "w") as h5:
        shape = tuple(min(a, b) for a, b in zip(chunk, X.shape, strict=True))
        h5.create_dataset("X", data=X, chunks=shape, compression="gzip", shuffle=True)
    return str(path / "d.h5/X")


def run(spec: str, folder: Path, *, w: bool = True, threads: int = 2, memory: int | None = None, **options: Any) -> Any:
    solver = options.pop("solver", "mu")
    folder.mkdir(exist_ok=True)
    config = FitConfig(
        inputs=Inputs((spec,)),
        parameters=make_parameters({"random_state": 0, **options}, solver=solver),
        solver=solver,
        model=folder / "model.h5",
        w=str(folder / "W.npy") if w else None,
        resources=Resources(threads, memory),
        saving=Saving(overwrite=True),
    )
    report = fit(config)
    return report.model, np.load(folder / "W.npy") if w else None


MU = {"n_components": 4, "batch_size": 64, "max_iter": 6, "tol": 0.0, "max_no_improvement": None}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["npy", "hdf5", "csr"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha_W": 1e-3, "alpha_H": 2e-3, "l1_ratio": 0.4},
        {"forget_factor": 0.3},
        {"fresh_restarts": True, "fresh_restarts_max_iter": 7, "transform_max_iter": 9},
        {"tol": 1e-3, "max_no_improvement": 3, "max_iter": 40},
    ],
    ids=["plain", "penalties", "forgetting", "restarts", "early stop"],
)
@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
def test_numbers_of_scikit_learn(tmp_path: Path, loss: str, options: dict[str, Any], kind: str, dtype: str) -> None:
    from sklearn.decomposition import MiniBatchNMF

    X = data(density=0.6).astype(dtype)
    settings = {**MU, **options, "beta_loss": loss}
    model, W = run(store(tmp_path, X, kind), tmp_path, init="random", **settings)
    theirs = MiniBatchNMF(init="random", random_state=0, **settings)
    X_theirs = sparse.csr_matrix(X) if kind == "csr" else X
    W_theirs = theirs.fit_transform(X_theirs)
    tol = 1e-9 if dtype == "float64" else 1e-3
    assert (model.n_iter, model.n_steps) == (theirs.n_iter_, theirs.n_steps_)
    np.testing.assert_allclose(model.components, theirs.components_, rtol=tol, atol=tol * theirs.components_.max())
    np.testing.assert_allclose(W, W_theirs, rtol=tol, atol=tol * W_theirs.max())


def test_custom_start(tmp_path: Path) -> None:
    from sklearn.decomposition import MiniBatchNMF

    X, rng = data(), np.random.RandomState(3)
    W0, H0 = rng.random_sample((len(X), 4)), rng.random_sample((4, X.shape[1]))
    np.save(tmp_path / "H0.npy", H0)
    np.save(tmp_path / "W0.npy", W0)
    config = FitConfig(
        inputs=Inputs((store(tmp_path, X, "npy"),)),
        parameters=make_parameters({**MU, "init": "custom"}, solver="mu"),
        solver="mu",
        model=tmp_path / "model.h5",
        w=str(tmp_path / "W.npy"),
        h_init=str(tmp_path / "H0.npy"),
        w_init=str(tmp_path / "W0.npy"),
    )
    model = fit(config).model
    assert model is not None
    theirs = MiniBatchNMF(init="custom", **MU)
    W = theirs.fit_transform(X, W=W0.copy(), H=H0.copy())
    np.testing.assert_allclose(model.components, theirs.components_, rtol=1e-9)
    np.testing.assert_allclose(np.load(tmp_path / "W.npy"), W, rtol=1e-9)


@pytest.mark.parametrize("solver", ["mu", "hals", "auto"])
@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
@UNHURRIED
@given(
    chunk=st.tuples(st.integers(1, 300), st.integers(1, 40)),
    threads=st.integers(1, 3),
    batch=st.sampled_from([17, 64, 100, 1000]),
    n=st.sampled_from([1, 40, 230, 701]),
    sample_rows=st.sampled_from([None, 0, 50]),
)
def test_same_bits_whatever_the_store_threads_and_layout(
    tmp_path_factory: pytest.TempPathFactory,
    solver: str,
    loss: str,
    chunk: tuple[int, int],
    threads: int,
    batch: int,
    n: int,
    sample_rows: int | None,
) -> None:
    loss = "frobenius" if solver == "hals" else loss
    X = data(n).astype(np.float32)
    options = {"n_components": 3, "solver": solver, "beta_loss": loss, "batch_size": batch, "max_iter": 2}
    if solver != "mu":
        options["sample_rows"] = sample_rows
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    model, W = run(store(one, X, "npy"), one, threads=1, **options)
    again, W_again = run(store(other, X, "hdf5", chunk), other, threads=threads, **options)
    assert model.components.tobytes() == again.components.tobytes()
    assert W.tobytes() == W_again.tobytes()


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chunk=st.integers(300, 3000),
    threads=st.integers(1, 3),
    batch=st.sampled_from([3000, 5000]),
    sample_rows=st.sampled_from([0, 200]),
    l1=st.sampled_from([0.0, 0.5]),
)
def test_same_bits_where_a_block_is_solved_by_one_call(
    tmp_path_factory: pytest.TempPathFactory, chunk: int, threads: int, batch: int, sample_rows: int, l1: float
) -> None:
    """Blocks lie in one strip, in two, or in many; those too small for the kernel are solved otherwise."""
    X = data(5000, 600, density=0.5).astype(np.float32)
    options = {"n_components": 20, "solver": "hals", "batch_size": batch, "max_iter": 2, "sample_rows": sample_rows}
    options |= {"alpha_W": 1e-4, "l1_ratio": l1}
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    solved: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "WHOLE_BYTES", 0)
        patch.setattr(hals_block.BlockSolver, "solve", counted(hals_block.BlockSolver.solve, solved))
        model, _ = run(store(one, X, "npy"), one, threads=1, w=False, **options)
        again, _ = run(store(other, X, "hdf5", (chunk, 600)), other, threads=threads, w=False, **options)
    assert model.components.tobytes() == again.components.tobytes()
    assert len(solved) >= 4


def counted(solve: Any, parts_of: list[int]) -> Any:
    """The same method, which notes in how many parts each block came."""

    def noting(self: Any, parts: Any) -> Any:
        parts_of.append(len(parts))
        return solve(self, parts)

    return noting


def test_a_model_says_how_it_came_about(tmp_path: Path) -> None:
    X = data()
    model, _ = run(store(tmp_path, X, "hdf5"), tmp_path, **MU)
    with h5py.File(tmp_path / "model.h5") as h5:
        assert h5["components"].shape == (4, X.shape[1])
        assert h5.attrs["batch_size"] == 64
        assert h5.attrs["n_iter"] == 6
        assert len(h5["history"]) == 6
        assert json.loads(h5.attrs["versions"])["nmfstream"]
    assert model.stop_reason


def test_what_stands_is_refused_and_resume_finds_all_done(tmp_path: Path) -> None:
    from nmfstream.errors import OutputExistsError

    spec = store(tmp_path, data(), "npy")
    config = FitConfig(
        Inputs((spec,)), make_parameters(dict(MU), solver="mu"), "mu", tmp_path / "m.h5", w=str(tmp_path / "W.npy")
    )
    fit(config)
    before = (tmp_path / "m.h5").stat().st_mtime_ns, (tmp_path / "W.npy").stat().st_mtime_ns
    with pytest.raises(OutputExistsError):
        fit(config)
    resumed = FitConfig(**{**vars(config), "saving": Saving(resume=True)})
    assert fit(resumed).nothing_to_do
    assert before == ((tmp_path / "m.h5").stat().st_mtime_ns, (tmp_path / "W.npy").stat().st_mtime_ns)


def test_a_larger_max_iter_goes_on(tmp_path: Path) -> None:
    spec = store(tmp_path, data(), "npy")
    straight, W = run(spec, tmp_path / "straight", **{**MU, "max_iter": 9})

    def continued(max_iter: int) -> Any:
        config = FitConfig(
            Inputs((spec,)),
            make_parameters({**MU, "max_iter": max_iter, "random_state": 0}, solver="mu"),
            "mu",
            tmp_path / "m.h5",
            w=str(tmp_path / "W.npy"),
            saving=Saving(resume=True),
        )
        return fit(config).model

    continued(4)
    assert continued(9).components.tobytes() == straight.components.tobytes()
    assert np.load(tmp_path / "W.npy").tobytes() == W.tobytes()
