"""``--json`` of every command keeps to the schema that ships with it."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import numpy as np
import pytest

from nmfstream.cli.main import COMMANDS
from tests.cli.helpers import run

SCHEMAS = files("nmfstream.cli") / "schemas"
CASES = [
    ("fit", "fit {d}/x.npy -o {d}/n.h5 -k 3 --solver mu --max-iter 3"),
    ("fit", "fit {d}/x.npy -o {d}/n.h5 -k 3 --dry-run"),
    ("fit", "fit {d}/x.npy -o {d}/n.h5 -k 3 --max-iter 2 --w {d}/W2.npy"),
    ("transform", "transform {d}/x.npy -m {d}/m.h5 -o {d}/n.npy"),
    ("transform", "transform - -m {d}/m.h5 -o {d}/n.npy"),
    ("inverse-transform", "inverse-transform {d}/W.npy -m {d}/m.h5 -o {d}/n.npy"),
    ("score", "score {d}/x.npy -m {d}/m.h5"),
    ("top", "top {d}/m.h5"),
    ("info", "info {d}/x.npy {d}/m.h5 {d}/W.npy"),
    ("info", "info {d}/x.npy --shards 3"),
    ("convert", "convert {d}/x.npy -o {d}/n.zarr"),
    ("completion", "completion zsh"),
]


def schema(name):
    return json.loads((SCHEMAS / f"{name}.json").read_text())


@pytest.mark.parametrize(("name", "line"), CASES, ids=[line for _, line in CASES])
def test_keeps_to_its_schema(name, line, tmp_path, model, x_npy, W_npy):
    done = run(*line.format(d=tmp_path).split(), "--json", "-q", stdin=x_npy.read_bytes())
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1
    jsonschema.validate(json.loads(done.stdout), schema(name))


def test_metrics_keep_to_their_schema(tmp_path, x_npy):
    args = ("fit", x_npy, "-o", tmp_path / "n.h5", "-k", 3, "--solver", "mu", "--max-iter", 3)
    assert run(*args, "--metrics", tmp_path / "m.jsonl").returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert len(lines) >= 3
    for line in lines:
        jsonschema.validate(line, schema("metrics"))


def test_every_command_has_a_schema():
    assert {p.name.removesuffix(".json") for p in SCHEMAS.iterdir()} == {*COMMANDS, "metrics"}


@pytest.mark.parametrize("path", sorted(p.name for p in SCHEMAS.iterdir()))
def test_schemas_are_schemas(path):
    jsonschema.Draft202012Validator.check_schema(json.loads((SCHEMAS / path).read_text()))


def test_numbers_without_a_value_are_null(tmp_path, model):
    np.save(tmp_path / "zero.npy", np.zeros((3, 12)))
    done = run("score", tmp_path / "zero.npy", "-m", model, "--json", "-q")
    found = json.loads(done.stdout, parse_constant=pytest.fail)
    assert found["relative_error"] is None
