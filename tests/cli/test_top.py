"""``top``: the same figures as a table, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from tests.cli.helpers import complaint, run


def best(H, n):
    return [[int(j) for j in np.argsort(-row.astype(float), kind="stable")[:n]] for row in H]


def test_table(model, H):
    lines = run("top", model, "-n", 2).stdout.decode().splitlines()
    assert lines[0].split() == ["component", "feature", "weight", "share"]
    assert len(lines) == 7
    assert lines[1].split()[:2] == ["0", f"gene{best(H, 1)[0][0]}"]
    assert lines[1].endswith("%")


def test_csv(model, H):
    found = list(csv.DictReader(io.StringIO(run("top", model, "-n", 3, "--format", "csv").stdout.decode())))
    assert [int(row["column"]) for row in found] == [j for row in best(H, 3) for j in row]
    assert float(found[0]["weight"]) == H[0].max()
    assert float(found[0]["share"]) == pytest.approx(H[0].max() / H[0].sum(dtype=float))


def test_json(model, H):
    found = json.loads(run("top", model, "-n", 3, "--json").stdout)
    assert [[f["column"] for f in c["features"]] for c in found["components"]] == best(H, 3)


def test_names_from_a_file(model, tmp_path):
    (tmp_path / "names.txt").write_text("".join(f"word{j}\n" for j in range(12)))
    assert b"word" in run("top", model, "--names", tmp_path / "names.txt").stdout
    (tmp_path / "names.txt").write_text("one\n")
    done = run("top", model, "--names", tmp_path / "names.txt")
    assert done.returncode == 65
    assert "1 names for 12 features" in complaint(done)
