"""83: whoever reads our output has seen enough: 141, without a word."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from tests.cli.helpers import PROGRAM


@pytest.fixture
def long_npy(tmp_path, X):
    path = tmp_path / "long.npy"
    np.save(path, np.tile(X, (2000, 1)))
    return path


@pytest.mark.parametrize("data", ["-", "file"])
@pytest.mark.parametrize("form", ["npy", "csv", "jsonl"])
def test_83_transform_into_head(data, form, long_npy, model):
    name = {"-": "-", "file": str(long_npy)}[data]
    command = [*PROGRAM, "transform", name, "-m", str(model), "-o", "-", "--output-format", form]
    with open(long_npy, "rb") as source:
        writer = subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert writer.stdout.read(1)
        writer.stdout.close()
        said = writer.stderr.read()
        writer.stderr.close()
    assert writer.wait(60) in (141, -13)
    assert said == b""


def test_83_a_short_answer_into_a_closed_pipe(model):
    writer = subprocess.Popen([*PROGRAM, "top", str(model)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    writer.stdout.close()
    said = writer.stderr.read()
    writer.stderr.close()
    assert writer.wait(60) in (141, -13)
    assert said == b""
