"""What a new user sees who writes it wrong: one line that says what, where and what to do; and the exit code."""

from __future__ import annotations

import shlex

import click
import numpy as np
import pytest

from nmfstream.cli.main import COMMANDS, nmfstream
from tests.cli.helpers import complaint, run


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "a command is missing: one of fit, transform"),
        (("transfrom", "x"), "no command is called 'transfrom'; did you mean 'transform'"),
        (("frobnicate",), "commands are fit, transform"),
        (("fit",), "DATA... is missing"),
        (("fit", "x.npy", "-k", "3"), "-o MODEL.h5 is missing"),
        (("fit", "x.npy", "-o", "m.h5"), "-k: the number of components is missing; give it, as in -k 20"),
        (("fit", "x.npy", "-o", "m.npy", "-k", "3"), "a model is an HDF5 file: name it 'm.h5'"),
        (("fit", "x.npy", "-o", "m.h5", "-k", "0"), "-k / --n-components: '0' is not a whole number of 1 or more"),
        (("fit", "x.npy", "-o", "m.h5", "-k", "two"), "'two' is not a whole number of 1 or more"),
        (("fit", "x.npy", "-o", "m.h5", "-k", "3", "--l1-ratio", "2"), "'2' is not a number from 0 to 1"),
        (("fit", "x.npy", "-o", "m.h5", "-k", "3", "--tol", "-1"), "'-1' is not a number of 0 or more"),
        (("fit", "x.npy", "-o", "m.h5", "-k", "3", "--beta-los", "2"), "no such option --beta-los; did you mean"),
        (("fit", "x.npy", "-o", "m.h5", "-k", "3", "--beta-loss", "kulback"), "'kulback' is no loss; did you mean"),
        (("fit", "x.npy", "-o", "m.h5", "-k", "3", "--memory", "3Q"), "'3Q' is not a size; write for example 300MiB"),
        (("fit", "x.npy", "-o", "m.h5", "-k", "3", "--max-time", "soon"), "'soon' is not a time"),
        (("fit", "x.npy", "-o", "m.h5", "-k", "3", "--checkpoint-every", "0"), "'0' is not an interval"),
        (("fit", "x.npy", "-o", "m.h5", "-k", "3", "--solver", "hals", "--beta-loss", "1"), "Frobenius loss alone"),
        (("fit", "-", "-o", "m.h5", "-k", "3", "--max-iter", "2"), "--max-iter: a stream is read once"),
        (("transform", "x.npy"), "-m MODEL.h5 is missing"),
        (("transform", "x.npy", "-m", "m.h5"), "-o: the output is missing"),
        (("transform", "x.npy", "-m", "m.h5", "-o", "-", "--json"), "standard output is taken by the data"),
        (("transform", "x.npy", "-m", "m.h5", "-o", "W.npy", "--rows", "9:3"), "'9:3' is no run of rows"),
        (("transform", "x.npy", "-m", "m.h5", "-o", "x.npy"), "x.npy: the output is also an input"),
        (("inverse-transform", "W.npy", "-m", "m.h5", "-o", "W.npy"), "W.npy: the output is also an input"),
        (("completion", "tcsh"), "tcsh"),
        (("completion",), "bash|zsh|fish is missing"),
    ],
)
def test_wrong_usage_is_one_line_and_2(args, said):
    done = run(*args)
    assert done.returncode == 2
    assert said in complaint(done)
    assert complaint(done).startswith("nmfstream")
    assert done.stdout == b""


def test_overview_names_every_command():
    text = run("--help").stdout.decode()
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_has_an_example_of_itself(name):
    done = run(name, "--help")
    assert done.returncode == 0
    assert "Example:" in done.stdout.decode()
    assert f"nmfstream {name}" in done.stdout.decode().split("Example:")[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_is_explained(name):
    command = nmfstream.get_command(click.Context(nmfstream), name)
    silent = [p.opts for p in command.params if isinstance(p, click.Option) and not p.help]
    assert not silent


def test_help_is_a_word_too():
    assert run("help", "fit").stdout == run("fit", "--help").stdout


def test_version():
    from nmfstream import __version__

    assert run("--version").stdout.decode().split() == ["nmfstream", __version__]


def test_absent_model_names_the_path(tmp_path, x_npy):
    done = run("transform", x_npy, "-m", tmp_path / "none.h5", "-o", tmp_path / "W.npy")
    assert done.returncode == 66
    assert "none.h5: no such model; learn one with" in complaint(done)


def test_debug_adds_the_traceback(tmp_path, x_npy):
    done = run("transform", x_npy, "-m", tmp_path / "none.h5", "-o", tmp_path / "W.npy", "--debug")
    assert done.returncode == 66
    assert b"Traceback" in done.stderr


def test_what_is_no_model_is_told_so(tmp_path, x_npy):
    done = run("transform", x_npy, "-m", x_npy, "-o", tmp_path / "W.npy")
    assert done.returncode == 65
    assert "x.npy: neither a model nor a checkpoint; give a file that" in complaint(done)


@pytest.mark.parametrize("asked", [(), ("--resume",)], ids=["without", "with --resume"])
def test_an_interrupted_run_prints_the_command_that_goes_on(tmp_path, X, asked):
    np.save(tmp_path / "my x.npy", X)
    args = ["fit", "my x.npy", "-o", "m.h5", "-k", "3", "--solver", "mu", "--batch-size", "20", "--tol", "0",
            "--max-no-improvement", "none", "--max-iter", "10000000", "--max-time", "1s", *asked]  # fmt: skip
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 75, done.stderr
    said = complaint(done)
    assert "m.h5.ckpt: interrupted (the time is up), all saved; go on with: nmfstream fit 'my x.npy'" in said
    printed = shlex.split(said.split("go on with: ")[1])
    assert printed == ["nmfstream", *(a for a in args if a != "--resume"), "--resume"]
