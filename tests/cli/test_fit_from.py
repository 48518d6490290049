"""``fit --from``: learning on from a model or a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nmfstream
from tests.cli.helpers import data, run

SOLVERS = {"auto": (), "mu": ("--solver", "mu")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", data(n=400))
    return tmp_path


def fit(folder: Path, *args: object) -> tuple[int, str]:
    done = run("fit", "x.npy", "-o", "m.h5", *args, cwd=folder)
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_goes_on_from_a_model(folder: Path, solver: str) -> None:
    assert fit(folder, "-k", 3, "--max-iter", 3)[0] == 0
    before = nmfstream.read_model(folder / "m.h5")
    done = run("fit", "x.npy", "-o", "n.h5", "--from", "m.h5", "--max-iter", 20, *SOLVERS[solver], cwd=folder)
    assert done.returncode == 0, done.stderr
    H = nmfstream.read_model(folder / "n.h5").components
    X = np.load(folder / "x.npy")
    for components in (before.components, H):
        W = nmfstream.transform(X, nmfstream.Model(components, {"beta_loss": 2.0}))
        assert W is not None and np.linalg.norm(X - W @ components) < 0.05 * np.linalg.norm(X)


def test_mu_goes_on_from_a_model_and_its_W(folder: Path) -> None:
    assert fit(folder, "-k", 3, "--w", "W.npy")[0] == 0
    done = run("fit", "x.npy", "-o", "n.h5", "--from", "m.h5", "--w-init", "W.npy", *SOLVERS["mu"], cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--h-init", "H.npy", *SOLVERS["mu"]), "--w-init: --solver mu begins from W too"),
        (("--w-init", "W.npy", *SOLVERS["mu"]), "--init: --h-init and --w-init go with --init custom"),
    ],
)
def test_half_a_start_is_refused_before_anything_is_lost(folder: Path, args: tuple[str, ...], said: str) -> None:
    assert fit(folder, "-k", 3, "--w", "W.npy", "--components", "H.npy")[0] == 0
    code, text = fit(folder, "-k", 3, "--overwrite", *args)
    assert code == 2
    assert said in text
    assert (folder / "m.h5.ckpt").exists()


@pytest.mark.parametrize("solver", SOLVERS)
def test_its_own_checkpoint_stays_until_there_is_something_newer(folder: Path, solver: str) -> None:
    assert fit(folder, "-k", 3)[0] == 0
    H = nmfstream.read_model(folder / "m.h5.ckpt").components
    command = ("--from", "m.h5.ckpt", "--overwrite", *SOLVERS[solver])
    code, text = fit(folder, *command, "--max-time", "0.001s")
    assert code == 75, text
    np.testing.assert_array_equal(nmfstream.read_model(folder / "m.h5.ckpt").components, H)
    assert fit(folder, *command, "--resume")[0] == 0
    generations = [p.name for p in (folder / "m.h5.ckpt").iterdir() if p.suffix == ".gen"]
    assert len(generations) == 1 and generations != ["00000001.gen"]
