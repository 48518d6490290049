"""``transform --rows``: what a job of an array says at its end."""

from __future__ import annotations

import json

import pytest

from tests.cli.helpers import run


@pytest.fixture(params=["W.npy", "W.zarr/codes"])
def shard(request, tmp_path, model, x_npy):
    def write(rows, *options):
        return run("transform", x_npy, "-m", model, "-o", request.param, "--rows", rows, *options, cwd=tmp_path)

    write.output = request.param
    return write


def last_line(done):
    assert done.returncode == 0, done.stderr
    return done.stderr.decode().splitlines()[-1]


def test_the_last_line_says_which_rows_are_there_and_which_are_not(shard):
    assert last_line(shard("5:20")).endswith(f"; wrote rows 5:20 of {shard.output}; still missing: 0:5, 20:60")
    again = f"nothing to do: rows 7:12 of {shard.output} had been written before; still missing: 0:5, 20:60"
    assert last_line(shard("7:12")).endswith(again)
    for start in (30, 40, 50):
        said = last_line(shard(f"{start}:{start + 5}"))
    assert said.endswith("still missing: 0:5, 20:30, 35:40 and 2 more")
    assert last_line(shard("0:60")).endswith(f"; wrote rows 0:60 of {shard.output}; all its rows are there")


def test_json_lists_what_is_missing(shard, tmp_path):
    assert json.loads(shard("5:20", "--json", "-q").stdout)["missing_rows"] == [[0, 5], [20, 60]]
    about = json.loads(run("info", shard.output.split("/")[0], "--json", cwd=tmp_path).stdout)["paths"][0]
    assert about["missing_rows"] == [[0, 5], [20, 60]]


def test_rows_beyond_the_data_are_shown_as_they_were_given(shard):
    done = shard("70:80")
    assert done.returncode == 2
    assert b"--rows 70:80 lies outside the data; rows go from 0 to 60" in done.stderr
