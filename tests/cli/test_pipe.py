"""Streams through ``transform``, ``inverse-transform`` and ``score``, as a shell wires them."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from tests.cli.helpers import PROGRAM, complaint, npy, run
from tests.faults.signals import wait_for


def arrays(data):
    """The NPY arrays of a stream."""
    stream, found = io.BytesIO(data), []
    while stream.tell() < len(data):
        found.append(np.load(stream))
    return found


@pytest.fixture
def W(tmp_path, model, x_npy):
    assert run("transform", x_npy, "-m", model, "-o", tmp_path / "direct.npy", "-q").returncode == 0
    return np.load(tmp_path / "direct.npy")


def test_one_array_out_for_each_array_in(model, X, W):
    out = arrays(run("transform", "-m", model, "-", "-q", stdin=npy(X, X[:7], X[:0], X[7:])).stdout)
    assert [w.shape for w in out] == [(60, 3), (7, 3), (0, 3), (53, 3)]
    np.testing.assert_allclose(out[0], W, atol=1e-4 * W.max())
    np.testing.assert_allclose(np.vstack([out[1], out[3]]), out[0], atol=1e-4 * W.max())


def test_the_same_input_gives_the_same_bits(model, X):
    data = npy(X, X[:7])
    assert len({run("transform", "-m", model, "-", "-q", stdin=data).stdout for _ in range(3)}) == 1


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, b"nmfstream transform: stopped by Ctrl-C\n"), (signal.SIGTERM, -signal.SIGTERM, b"")],
)
def test_a_signal_while_it_waits(model, tmp_path, number, code, said):
    process = subprocess.Popen(
        [*PROGRAM, "transform", "-m", str(model), "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdin.write(npy(np.ones((2, 12)))[:-8])
    process.stdin.flush()
    assert process.stdout.read(128)
    process.send_signal(number)
    assert process.wait(20) == code
    assert process.stderr.read() == said
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()


def test_a_row_is_answered_before_the_next_is_sent(model, X):
    process = subprocess.Popen(
        [*PROGRAM, "transform", "-m", str(model), "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    process.stdin.write(npy(X[:2])[:-48])
    head = process.stdout.read(128)
    first = np.frombuffer(process.stdout.read(12), np.float32)
    process.stdin.write(npy(X[:2])[-48:])
    second = np.frombuffer(process.stdout.read(12), np.float32)
    process.stdin.close()
    assert process.wait(60) == 0
    process.stdout.close()
    assert b"'shape': (2, 3)" in head
    assert first.shape == second.shape == (3,)


@pytest.mark.parametrize("delimiter", ["csv", "tsv"])
def test_text_in_text_out(model, X, W, delimiter):
    text = io.StringIO()
    np.savetxt(text, X, fmt="%.9g", delimiter={"csv": ",", "tsv": "\t"}[delimiter])
    done = run("transform", "-m", model, "-", "--input-format", delimiter, "-q", stdin=text.getvalue().encode())
    back = np.loadtxt(io.StringIO(done.stdout.decode()), delimiter={"csv": ",", "tsv": "\t"}[delimiter])
    np.testing.assert_allclose(back, W, atol=1e-4 * W.max())


def test_json_lines_number_the_rows_of_all_arrays(model, X, W):
    done = run("transform", "-m", model, "-", "--output-format", "jsonl", "-q", stdin=npy(X[:40], X[40:]))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["row"] for line in lines] == list(range(60))
    np.testing.assert_allclose([line["w"] for line in lines], W, atol=1e-4 * W.max())


def test_a_store_to_standard_output(model, x_npy, W):
    out = run("transform", x_npy, "-m", model, "-o", "-", "-q").stdout
    np.testing.assert_array_equal(arrays(out)[0], W)


def test_a_shard_to_standard_output(model, x_npy, W):
    out = run("transform", x_npy, "-m", model, "-o", "-", "--rows", "5:9", "-q").stdout
    np.testing.assert_allclose(arrays(out)[0], W[5:9], atol=1e-4 * W.max())
    lines = run("transform", x_npy, "-m", model, "-o", "-", "--rows", "5:9", "--output-format", "jsonl", "-q").stdout
    assert [json.loads(line)["row"] for line in lines.splitlines()] == [5, 6, 7, 8]


@pytest.mark.parametrize("name", ["W.npy", "W.npz", "W.h5/group/W", "W.zarr/W"])
def test_a_stream_into_a_store(model, X, W, name, tmp_path):
    from nmfstream import api

    assert run("transform", "-", "-m", model, "-o", tmp_path / name, stdin=npy(X[:20], X[20:])).returncode == 0
    with api.open(tmp_path / name) as rows:
        np.testing.assert_allclose(rows[:], W, atol=1e-4 * W.max())


@pytest.mark.parametrize("data", ["-", "file"])
def test_inverse_transform_is_the_product(model, H, W, tmp_path, data):
    name = {"-": "-", "file": tmp_path / "direct.npy"}[data]
    done = run("inverse-transform", name, "-m", model, "-o", "-", "-q", stdin=npy(W))
    np.testing.assert_allclose(arrays(done.stdout)[0], W @ H, rtol=1e-5, atol=1e-6)


def test_score_of_a_stream_is_that_of_the_file(model, X, x_npy):
    one, other = (
        json.loads(run("score", name, "-m", model, "--json", "-q", stdin=npy(X[:10], X[10:])).stdout)
        for name in (x_npy, "-")
    )
    assert one["relative_error"] == pytest.approx(other["relative_error"], rel=1e-6)
    assert one["rows"] == other["rows"] == 60


def test_score_is_what_the_formulas_say(model, X, x_npy, W, H):
    found = json.loads(run("score", x_npy, "-m", model, "--json", "-q").stdout)
    R = X.astype(float) - W.astype(float) @ H
    assert found["divergence"] == pytest.approx((R**2).sum() / 2, rel=1e-3)
    assert found["loss"] == pytest.approx((R**2).sum() / 2 / 60, rel=1e-3)
    assert found["relative_error"] == pytest.approx(np.linalg.norm(R) / np.linalg.norm(X), rel=1e-3)
    spread = ((X - X.mean(0, dtype=float)) ** 2).sum()
    assert found["explained_deviance"] == pytest.approx(1 - (R**2).sum() / spread, rel=1e-4)


BAD = np.ones((3, 12), np.float32)
BAD[1, 4] = np.nan


@pytest.mark.parametrize(
    ("stdin", "args", "code", "said"),
    [
        (b"", (), 65, "standard input: no array came; look at the command that writes into the pipe"),
        (npy(BAD), (), 65, "standard input: row 1, column 4: NaN"),
        (npy(-np.ones((1, 12))), (), 65, "--negative clip"),
        (npy(np.ones((2, 12)))[:-5], (), 65, "truncated"),
        (b"gene0,gene1\n", ("--input-format", "csv"), 65, "drop a header line, as with 'tail -n +2'"),
        (npy(np.ones((2, 12))), ("--rows", "0:1"), 2, "--rows: a stream is read once"),
        (npy(np.ones((2, 12))), ("--resume",), 2, "--resume: a stream is read once"),
        (npy(np.ones((12, 12))), ("--transpose",), 2, "--transpose: a stream is read once"),
    ],
)
def test_what_goes_wrong_in_a_pipe(model, stdin, args, code, said):
    done = run("transform", "-m", model, "-", *args, stdin=stdin)
    assert done.returncode == code
    assert said in complaint(done)


@pytest.mark.parametrize("command", ["score", "inverse-transform"])
def test_a_stream_is_not_turned(model, command):
    output = {"score": (), "inverse-transform": ("-o", "-")}[command]
    done = run(command, "-", "-m", model, "--transpose", *output, stdin=npy(np.ones((12, 12))))
    assert done.returncode == 2
    assert "--transpose: a stream is read once" in complaint(done)


def test_no_lines_are_no_rows(model):
    done = run("transform", "-m", model, "-", "--input-format", "csv", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_broken_stream_leaves_no_file(model, tmp_path):
    done = run("transform", "-m", model, "-", "-o", tmp_path / "W.npy", stdin=npy(np.ones((2, 12)), BAD))
    assert done.returncode == 65
    assert not [p for p in tmp_path.iterdir() if "W.npy" in p.name]


@pytest.mark.parametrize("command", ["transform", "score", "convert"])
@pytest.mark.parametrize("piped", [True, False])
def test_negative_values_are_clipped_and_counted(command, piped, model, X, tmp_path):
    data = X.copy()
    data[0, 0] = -1
    np.save(tmp_path / "n.npy", data)
    source = "-" if piped else tmp_path / "n.npy"
    rest = () if command == "convert" else ("-m", model)
    rest += () if command == "score" else ("-o", tmp_path / "out.npy")
    done = run(command, source, *rest, "--negative", "clip", stdin=npy(data))
    assert done.returncode == 0, done.stderr
    assert b"1 negative value clipped" in done.stderr


def peak_of_a_long_array(model, X, times):
    """Most resident bytes when all rows of an array have come back."""
    n = len(X) * times
    process = subprocess.Popen(
        [*PROGRAM, "transform", "-m", str(model), "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    feeder = threading.Thread(target=feed, args=(process.stdin, X, times))
    feeder.start()
    left = 128 + n * 3 * 4
    while left:
        left -= len(process.stdout.read(min(left, 1 << 20)))
    feeder.join()
    with open(f"/proc/{process.pid}/status") as status:
        most = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
    process.stdin.close()
    assert process.wait(120) == 0
    process.stdout.close()
    return most


def feed(pipe, X, times):
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(X) * times, X.shape[1])}
    np.lib.format.write_array_header_1_0(pipe, header)
    for _ in range(times // 100):
        pipe.write(X.tobytes() * 100)
    pipe.flush()


MEASURED = """
import os, sys
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss, file=sys.stderr)
"""
"""A child counts its parent's size as its own until it becomes another program: so a small parent starts it."""


def peak_within(args, X, times, *, by_columns=False):
    """Whether a command says how much it needs, and most resident bytes when it gets just that."""
    poor = run(*args, "--memory", "20MiB", stdin=npy(X))
    assert poor.returncode == 2
    least = re.search(r"the smallest that works is --memory (\d+)MiB", complaint(poor))
    assert least is not None
    process = subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", MEASURED, *PROGRAM, *map(str, args), "--memory", f"{least[1]}MiB", "-q"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    if by_columns:
        process.stdin.write(npy(np.asfortranarray(np.tile(X, (times, 1)))))
    else:
        feed(process.stdin, X, times)
    code, used = map(int, process.communicate()[1].split()[-2:])
    assert code == 0
    return used << 10, int(least[1]) << 20


@pytest.mark.parametrize("command", ["transform", "score"])
def test_a_stream_needs_what_it_says(tmp_path, command):
    from nmfstream.core.parameters import Objective, Parameters, Schedule, Start
    from nmfstream.model import Model, flat_parameters, write_model

    H = np.random.default_rng(0).random((8, 250), np.float32)
    parameters = flat_parameters(Parameters(Objective(8), Schedule(), Start(random_state=0)), "hals")
    write_model(tmp_path / "wide.h5", Model(H, parameters))
    X = np.random.default_rng(1).random((60, 8), np.float32) @ H
    used, allowed = peak_within((command, "-", "-m", tmp_path / "wide.h5"), X, 4000)
    assert used <= allowed


@pytest.mark.parametrize("command", ["transform", "convert", "fit"])
def test_an_array_that_comes_by_its_columns_needs_what_is_said(tmp_path, wide, command):
    """It is whole in memory, once, before its first row is."""
    model = tmp_path / "m.h5"
    fit = ("fit", "-", "-k", 8, "-o", model, "--overwrite", "--solver", "hals")
    assert run(*fit, stdin=npy(wide)).returncode == 0
    how = {
        "transform": ("transform", "-", "-m", model),
        "convert": ("convert", "-", "-o", tmp_path / "X.npy"),
        "fit": fit,
    }
    used, allowed = peak_within(how[command], wide, 550, by_columns=True)
    assert used <= allowed


@pytest.mark.parametrize("command", ["convert", "inverse-transform"])
@pytest.mark.parametrize("name", ["-", "out.npy", "out.zarr"])
def test_rows_that_are_made_need_what_is_said(tmp_path, command, name):
    from nmfstream.core.parameters import Objective, Parameters, Schedule, Start
    from nmfstream.model import Model, flat_parameters, write_model

    H = np.random.default_rng(0).random((8, 250), np.float32)
    parameters = flat_parameters(Parameters(Objective(8), Schedule(), Start(random_state=0)), "hals")
    write_model(tmp_path / "wide.h5", Model(H, parameters))
    W = np.random.default_rng(1).random((60, 8), np.float32)
    model, X = (("-m", tmp_path / "wide.h5"), W) if command == "inverse-transform" else ((), W @ H)
    output = name if name == "-" else tmp_path / name
    used, allowed = peak_within((command, "-", *model, "-o", output), X, 2000)
    assert used <= allowed


LEARNERS = {
    "mu": ("--solver", "mu"),
    "hals": (),
    "newton": ("--beta-loss", "1"),
    "accumulated": ("--beta-loss", "1.5"),
}


@pytest.fixture
def wide():
    g = np.random.default_rng(1)
    return g.random((60, 8), np.float32) @ g.random((8, 250), np.float32) + np.float32(0.01)


@pytest.mark.parametrize("solver", LEARNERS)
def test_learning_from_a_stream_needs_what_it_says(tmp_path, wide, solver):
    command = ("fit", "-", "-k", 8, "-o", tmp_path / "m.h5", "--overwrite", *LEARNERS[solver])
    used, allowed = peak_within(command, wide, 200)
    assert used <= allowed
    assert (tmp_path / "m.h5").exists()


@pytest.mark.parametrize("solver", LEARNERS)
def test_a_stream_too_large_to_learn_from_is_refused_at_its_first_rows(tmp_path, wide, solver):
    command = ("fit", "-", "-k", "8", "-o", "m.h5", *LEARNERS[solver], "--memory")
    said = complaint(run(*command, "20MiB", stdin=npy(wide), cwd=tmp_path))
    least = re.search(r"the smallest that works is --memory (\d+)MiB", said)
    assert least is not None
    process = subprocess.Popen(
        [*PROGRAM, *command, f"{int(least[1]) - 20}MiB"], cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    np.lib.format.write_array_header_1_0(
        process.stdin, {"descr": "<f4", "fortran_order": False, "shape": (1 << 30, 250)}
    )
    process.stdin.write(wide.tobytes())
    process.stdin.flush()  # the pipe stays open: nobody waits for more of it
    assert process.wait(60) == 2
    assert len(process.stderr.read().splitlines()) == 1
    assert not list(tmp_path.iterdir())
    process.stdin.close()
    process.stderr.close()


def test_memory_is_flat_however_long_an_array_is(model, X):
    short, long = (peak_of_a_long_array(model, X, times) for times in (12000, 36000))
    assert long < short + (16 << 20)


def test_time_that_is_up_says_where_the_rows_on_a_pipe_end(model, tmp_path, X):
    np.save(tmp_path / "long.npy", np.tile(X, (2000, 1)))
    command = ("transform", "long.npy", "-m", model, "-o", "-", "--output-format", "csv", "-q")
    first = run(*command, "--max-time", "0.001s", cwd=tmp_path)
    assert first.returncode == 75
    said = complaint(first)
    assert "saved" not in said and "--resume" not in said
    rows = re.search(r"rows before (\d+) are done; --rows (\d+:120000) gives the rest", said)
    assert rows is not None, said
    assert first.stdout.count(b"\n") == int(rows[1])
    rest = run(*command, "--rows", rows[2], cwd=tmp_path)
    assert first.stdout + rest.stdout == run(*command, cwd=tmp_path).stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize(("command", "columns"), [("transform", 12), ("inverse-transform", 3)])
def test_a_signal_leaves_nothing_of_a_file_in_the_making(model, tmp_path, command, columns, number):
    folder = tmp_path / "out"
    folder.mkdir()
    with subprocess.Popen(
        [*PROGRAM, command, "-", "-m", str(model), "-o", "Y.npy"], cwd=folder, stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        process.stdin.write(npy(np.ones((2, columns), np.float32)))
        process.stdin.flush()
        wait_for(lambda: any(folder.iterdir()))
        process.send_signal(number)
        code, said = process.wait(20), process.stderr.read()
    ctrl_c = (130, b"nmfstream " + command.encode() + b": stopped by Ctrl-C\n")
    assert (code, said) == (ctrl_c if number == signal.SIGINT else (-number, b""))
    assert not list(folder.iterdir())
