"""``fit -``: learning in one pass from what comes through a pipe."""

from __future__ import annotations

import io
import signal
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

import nmfstream
from tests.cli.helpers import PROGRAM
from tests.faults.signals import wait_for


def data(n: int = 400, m: int = 20) -> np.ndarray:
    rng = np.random.RandomState(0)
    return (rng.gamma(0.5, size=(n, 3)) @ rng.gamma(0.5, size=(3, m)) + 0.01).astype(np.float64)


def pipe(*parts: np.ndarray) -> bytes:
    stream = io.BytesIO()
    for part in parts:
        np.save(stream, part)
    return stream.getvalue()


def fit(folder: Path, fed: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = [*PROGRAM, "fit", "-", "-o", "m.h5", *options]
    return subprocess.run(command, cwd=folder, input=fed, capture_output=True, check=False)


def error_of(H: np.ndarray, X: np.ndarray) -> float:
    W = nmfstream.transform(X, nmfstream.Model(H, {"beta_loss": 2.0}))
    assert W is not None
    return float(np.linalg.norm(X - W @ H) / np.linalg.norm(X))


def components(folder: Path) -> np.ndarray:
    with h5py.File(folder / "m.h5") as h5:
        return np.asarray(h5["components"])


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler", "1.5"])
@pytest.mark.parametrize("solver", ["auto", "mu"])
def test_it_learns(tmp_path: Path, solver: str, loss: str) -> None:
    X = data()
    done = fit(
        tmp_path, pipe(X[:150], X[150:]), "-k", "3", "--solver", solver, "--beta-loss", loss, "--batch-size", "50"
    )
    assert done.returncode == 0, done.stderr
    assert b"from 400 rows in 1 pass" in done.stderr
    assert b"the stream ended" in done.stderr
    assert error_of(components(tmp_path), X) < 0.2


def test_mu_is_partial_fit_of_its_batches(tmp_path: Path) -> None:
    from sklearn.decomposition import MiniBatchNMF

    X = data()
    done = fit(tmp_path, pipe(X), "-k", "3", "--solver", "mu", "--init", "random", "--batch-size", "64")
    assert done.returncode == 0, done.stderr
    theirs = MiniBatchNMF(3, init="random", batch_size=64, random_state=0)
    for start in range(0, len(X), 64):
        theirs.partial_fit(X[start : start + 64])
    np.testing.assert_allclose(components(tmp_path), theirs.components_, rtol=1e-9)


def test_the_arrays_cut_does_not_matter(tmp_path: Path) -> None:
    X, two = data(), tmp_path / "two"
    two.mkdir()
    fit(tmp_path, pipe(X), "-k", "3", "--batch-size", "64")
    fit(two, pipe(X[:7], X[7:301], X[301:]), "-k", "3", "--batch-size", "64")
    assert components(tmp_path).tobytes() == components(two).tobytes()


def test_it_goes_on_from_a_model(tmp_path: Path) -> None:
    X = data()
    np.save(tmp_path / "x.npy", X)
    subprocess.run([*PROGRAM, "fit", "x.npy", "-o", "first.h5", "-k", "3", "-q"], cwd=tmp_path, check=True)
    done = fit(tmp_path, pipe(X), "--from", "first.h5")
    assert done.returncode == 0, done.stderr
    assert error_of(components(tmp_path), X) < 0.05


@pytest.mark.parametrize(
    ("options", "fed", "code", "said"),
    [
        (["-k", "3", "--max-iter", "2"], pipe(data()), 2, b"--max-iter"),
        (["-k", "3", "--w", "W.npy"], pipe(data()), 2, b"--w"),
        (["-k", "3", "--resume"], pipe(data()), 2, b"--resume"),
        (["-k", "3"], b"", 65, b"no array came"),
        (["-k", "3"], pipe(data(0)), 65, b"no row came"),
        (["-k", "3"], pipe(data(), data(5, 7)), 65, b"7 features"),
        (["-k", "3"], pipe(data())[:-100], 65, b"standard input"),
        (["-k", "3"], pipe(-data()), 65, b"negative value"),
    ],
    ids=["passes", "w", "resume", "nothing", "no rows", "features", "cut short", "negative"],
)
def test_what_it_cannot_do_is_one_line(tmp_path: Path, options: list[str], fed: bytes, code: int, said: bytes) -> None:
    done = fit(tmp_path, fed, *options)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "m.h5").exists()


def test_a_signal_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = [
        *PROGRAM,
        "fit",
        "-",
        "-o",
        "m.h5",
        "-k",
        "3",
        "--batch-size",
        "50",
        "--checkpoint-every",
        "1steps",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(pipe(data()))
    process.stdin.flush()
    wait_for(lambda: any((tmp_path / "m.h5.ckpt").glob("*.gen")))
    process.send_signal(signal.SIGTERM)
    process.stdin.write(pipe(data()))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    assert b"--from m.h5.ckpt" in said
    done = fit(tmp_path, pipe(data()), *said.decode().split("nmfstream fit - ")[1].split())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.parametrize("fed", [b"", pipe(data())], ids=["nothing", "a part of a batch"])
def test_a_signal_ends_the_wait_for_rows(tmp_path: Path, fed: bytes, number: int, code: int) -> None:
    command = [*PROGRAM, "fit", "-", "-o", "m.h5", "-k", "3"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(fed)
        process.stdin.flush()
        wait_for(lambda: listens_and_reads(process.pid))
        if fed:
            wait_for(lambda: any(tmp_path.glob("m.h5.ckpt*")))
        process.send_signal(number)
        assert process.wait(20) == code
        said = process.stderr.read()
    assert len(said.splitlines()) == 1
    assert b"saved" not in said
    assert (b"nothing was learnt" if fed else b"no row had come") in said
    assert not list(tmp_path.iterdir())


def listens_and_reads(pid: int) -> bool:
    """Whether the process has threads for signals and for the pipe beside the main one."""
    return len(list(Path(f"/proc/{pid}/task").iterdir())) >= 3


def test_going_on_from_its_own_checkpoint_keeps_it_until_there_is_a_newer_one(tmp_path: Path) -> None:
    assert fit(tmp_path, pipe(data()), "-k", "3").returncode == 0
    (tmp_path / "m.h5").unlink()
    done = fit(tmp_path, pipe(-data()), "--from", "m.h5.ckpt")
    assert done.returncode == 65, done.stderr
    assert list((tmp_path / "m.h5.ckpt").glob("*.gen"))
    assert fit(tmp_path, pipe(data()), "--from", "m.h5.ckpt").returncode == 0
    assert len(list((tmp_path / "m.h5.ckpt").glob("*.gen"))) == 1


def test_a_checkpoint_in_the_way_is_learnt_on_from(tmp_path: Path) -> None:
    fit(tmp_path, pipe(data()), "-k", "3")
    done = fit(tmp_path, pipe(data()), "-k", "3")
    assert done.returncode == 73
    assert b"--from m.h5.ckpt goes on with it, --overwrite discards it" in done.stderr
