"""Damaged, foreign and contested checkpoints, against the program. (At every call: tests/storage.)"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from nmfstream.checkpoint_reading import generations, load
from nmfstream.errors import OutputExistsError
from nmfstream.storage import durable
from tests.cli.helpers import complaint, run
from tests.faults.signals import FIT, FOREVER, saved, started, under_way, wait_for
from tests.storage.runs import checkpoints, checkpoints_on, count_of, die, state_of

DROP_FROM_BOUNDING_SET, DAC_OVERRIDE = 24, 1
SHORT = [*FIT, "--max-iter", "400", "--checkpoint-every", "50steps"]


@pytest.fixture
def killed(x_npy: Path) -> Path:
    """A folder in which a fit was killed after some saves."""
    folder = x_npy.parent
    with under_way(folder, SHORT) as process:
        wait_for(lambda: len(saved(folder)) == 2 or process.poll() is not None)
        process.kill()
        process.communicate()
    assert len(saved(folder)) == 2
    return folder


@pytest.fixture
def small_device(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def components(path: Path) -> bytes:
    with h5py.File(path) as h5:
        return h5["components"][()].tobytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, X: np.ndarray) -> bytes:
    """Components of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    np.save(folder / "x.npy", X)
    assert run(*SHORT, cwd=folder).returncode == 0
    return components(folder / "m.h5")


def test_18_full_device(small_device: Path, tmp_path: Path) -> None:
    """The first generations fit; then the device fills up: the run goes on, and gives up after three attempts."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((200, 600), dtype=np.float32))
    args = ["fit", "../x.npy", "-o", "m.h5", "-k", "8", "--solver", "mu", "--fresh-restarts", "--batch-size", "50",
            "--tol", "0", "--max-iter", "1000000", "--max-no-improvement", "none", "--seed", "0", "--no-progress",
            "--init", "random", "--fresh-restarts-max-iter", "3", "--checkpoint-every", "0.2s", "--resume"]  # fmt: skip
    with started(args, small_device) as process:
        wait_for(lambda: saved(small_device) or process.poll() is not None)
        with (small_device / "ballast").open("ab", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
            while True:
                ballast.write(bytes(4096))
        _, said = process.communicate(timeout=60)
    assert process.returncode == 74, said
    assert said.count("No space left") == 3
    assert "free some space" in said.splitlines()[-1]
    assert load(saved(small_device)[-1]).state.rows_read > 0
    (small_device / "ballast").unlink()
    with started(args, small_device) as process:
        newest = saved(small_device)[-1].name
        wait_for(lambda: saved(small_device)[-1].name > newest or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 75, said


@pytest.mark.parametrize("damage", ["flipped", "cut", "zeros", "empty"])
def test_22_23_newest_is_damaged(damage: str, killed: Path, undisturbed: bytes) -> None:
    newest = saved(killed)[-1]
    data = newest.read_bytes()
    middle = len(data) // 2
    newest.write_bytes(
        {
            "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "cut": data[:middle],
            "zeros": bytes(len(data)),
            "empty": b"",
        }[damage]
    )
    done = run(*SHORT, "--resume", cwd=killed)
    assert done.returncode == 0, done.stderr
    assert newest.name in done.stderr.decode()
    assert "later work is done again" in done.stderr.decode()
    assert components(killed / "m.h5") == undisturbed


def test_24_every_generation_is_bad(killed: Path) -> None:
    for path in saved(killed):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    before = {p: p.read_bytes() for p in saved(killed)}
    done = run(*SHORT, "--resume", cwd=killed)
    assert done.returncode == 78
    assert "m.h5.ckpt" in complaint(done)
    assert "--overwrite" in complaint(done)
    assert {p: p.read_bytes() for p in saved(killed)} == before
    assert not (killed / "m.h5").exists()


def test_25_a_checkpoint_whose_rows_are_gone(killed: Path) -> None:
    for path in killed.glob("m.h5.ckpt.W.*"):
        path.unlink()
    done = run(*SHORT, "--resume", cwd=killed)
    assert done.returncode == 78
    assert "m.h5.ckpt.W." in complaint(done)
    assert not (killed / "m.h5").exists()


def test_25_rows_without_a_checkpoint(killed: Path, undisturbed: bytes) -> None:
    shutil.rmtree(killed / "m.h5.ckpt")
    done = run(*SHORT, "--resume", cwd=killed)
    assert done.returncode == 0, done.stderr
    assert components(killed / "m.h5") == undisturbed


def test_27_no_name_is_written_twice(tmp_path: Path) -> None:
    path = tmp_path / "m.h5.ckpt"
    seen: dict[str, int] = {}
    for start in range(3):
        die()
        with checkpoints(path) as under_test:
            count = count_of(under_test.open(resume=True))
            for more in range(1, 4):
                number = under_test.save(state_of(count + more))
                assert f"{number}" not in seen, start
                seen[f"{number}"] = count + more


def test_28_the_second_run_is_told_who_is_first(x_npy: Path) -> None:
    folder = x_npy.parent
    with under_way(folder, env={"SLURM_JOB_ID": "4711"}) as process:
        for more in (["--resume"], ["--overwrite"], []):
            done = run(*FOREVER, *more, cwd=folder)
            assert done.returncode == 73
            line = complaint(done)
            assert all(word in line for word in (os.uname().nodename, f"pid {process.pid}", "job 4711", "m.h5.ckpt"))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 75


def test_29_a_sleeper_wakes(x_npy: Path) -> None:
    """It ran elsewhere under the same job id; the job was started again while it was asleep."""
    if subprocess.run(["unshare", "--uts", "hostname", "elsewhere"], capture_output=True, check=False).returncode:
        pytest.skip("only root may have another host name")
    folder = x_npy.parent
    program = f"hostname elsewhere; exec nmfstream {' '.join(FOREVER)} --checkpoint-every 50steps"
    job = {**os.environ, "SLURM_JOB_ID": "4711"}
    sleeper = subprocess.Popen(["unshare", "--uts", "sh", "-c", program], cwd=folder, env=with_program(job),
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        wait_for(lambda: len(saved(folder)) == 2)
        sleeper.send_signal(signal.SIGSTOP)
        with under_way(folder, env=job) as other:
            newest = saved(folder)[-1].name
            wait_for(lambda: saved(folder)[-1].name > newest or other.poll() is not None)
            sleeper.send_signal(signal.SIGCONT)
            _, said = sleeper.communicate(timeout=60)
            assert sleeper.returncode == 73
            assert f"pid {other.pid}" in said
            other.send_signal(signal.SIGTERM)
            other.communicate(timeout=30)
        assert other.returncode == 75
    finally:
        sleeper.kill()


def with_program(env: dict[str, str]) -> dict[str, str]:
    from tests.cli.helpers import PROGRAM

    return {**env, "PATH": f"{Path(PROGRAM[0]).parent}:{env['PATH']}"}


def test_30_the_clock_jumps_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.h5.ckpt"
    with checkpoints(path) as under_test:
        under_test.open(resume=True)
        for count in (1, 2, 3):
            monkeypatch.setattr(time, "time", lambda count=count: 1e9 - 1e6 * count)
            under_test.save(state_of(count))
            os.utime(max(path.glob("*.gen")), (1e9 - 1e6 * count,) * 2)
    with checkpoints(path) as under_test:
        assert count_of(under_test.open(resume=True)) == 3


def test_31_leftovers_of_the_living_stay(tmp_path: Path) -> None:
    path = tmp_path / "m.h5.ckpt"
    die()
    living = checkpoints(path)
    living.open(resume=True)
    living.save(state_of(1))
    leftover = path / ".00000002.gen.abc-1-2.tmp"
    leftover.write_bytes(b"half")
    with pytest.raises(OutputExistsError):
        checkpoints(path).open(resume=True)
    assert leftover.exists()
    die()
    with checkpoints(path) as next_one:
        next_one.open(resume=True)
        assert not leftover.exists()


def test_31_a_silent_owner_elsewhere_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two minutes by one's own clock without a heartbeat; a beat meanwhile means that it lives."""
    path = tmp_path / "m.h5.ckpt"
    elsewhere = checkpoints_on("elsewhere", path)
    elsewhere.open(resume=True)
    elsewhere.save(state_of(1))
    waited: list[float] = []

    class Clock:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def now(self) -> float:
            return sum(waited)

        def pause(self, seconds: float) -> None:
            waited.append(seconds)
            beats.get(len(waited), lambda: None)()

    real = durable.disk.current()
    beats = {3: elsewhere.lease.beat}
    with durable.use(Clock()):  # type: ignore[arg-type]
        with pytest.raises(OutputExistsError, match="host elsewhere, pid 1"):
            checkpoints_on("here", path).open(resume=True)
        assert len(waited) == 3
        waited.clear()
        beats.clear()
        with checkpoints_on("here", path) as here:
            assert count_of(here.open(resume=True)) == 1
        assert 120 <= sum(waited) < 130


@pytest.mark.parametrize(
    ("option", "shown"),
    [(("-k", "4"), "n_components: 3 then, 4 now"), (("--seed", "1"), "random_state: 0 then, 1 now"),
     (("--beta-loss", "1"), "beta_loss: 2.0 then, 1.0 now"), (("--solver", "hals"), "solver: mu then, hals now")],
)  # fmt: skip
def test_33_other_parameters(option: tuple[str, str], shown: str, killed: Path) -> None:
    done = run(*SHORT, *option, "--resume", cwd=killed)
    assert done.returncode == 78
    assert shown in complaint(done)


def test_34_other_data(killed: Path) -> None:
    X = np.load(killed / "x.npy")
    np.save(killed / "x.npy", X[::-1])
    done = run(*SHORT, "--resume", cwd=killed)
    assert done.returncode == 78
    assert "data: " in complaint(done)


def without_override() -> None:
    """Let permissions bind root as well."""
    ctypes.CDLL(None).prctl(DROP_FROM_BOUNDING_SET, DAC_OVERRIDE, 0, 0, 0)


def test_36_folder_without_permission(x_npy: Path) -> None:
    folder = x_npy.parent / "closed"
    folder.mkdir(mode=0o555)
    args = [*SHORT]
    args[args.index("m.h5")] = "closed/m.h5"
    done = run(*args, cwd=x_npy.parent, preexec_fn=without_override)
    assert done.returncode == 77
    assert "closed" in complaint(done)
    assert not os.listdir(folder)


def test_36_read_only_file_system(small_device: Path, x_npy: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_device], check=True)
    args = [*SHORT]
    args[args.index("m.h5")] = str(small_device / "m.h5")
    done = run(*args, cwd=x_npy.parent)
    assert done.returncode == 73
    assert str(small_device) in complaint(done)


def test_36_symlinked_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    trap = tmp_path / ".a.tmp"
    trap.symlink_to(victim)
    monkeypatch.setattr(durable, "temporary_name", lambda final: trap)
    with pytest.raises(OutputExistsError):
        durable.write_whole(tmp_path / "a", b"x")
    assert victim.read_text() == "precious"


def test_the_numbers_follow_each_other(killed: Path) -> None:
    numbers = sorted(generations(killed / "m.h5.ckpt"))
    assert numbers[1] == numbers[0] + 1
