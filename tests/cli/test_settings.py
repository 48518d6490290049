"""Where values come from: command line, then environment, then file, then default."""

from __future__ import annotations

import pytest

from tests.cli.helpers import complaint, run

TOML = '[top]\nfeatures = 2\nformat = "csv"\n'


def rows(done):
    assert done.returncode == 0, done.stderr
    return len(done.stdout.decode().splitlines()) - 1


def write(tmp_path, text):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("args", "env", "n"),
    [
        ((), {}, 6),
        ((), {"NMFSTREAM_N": "3"}, 9),
        ((), {"NMFSTREAM_N": "3", "NMFSTREAM_TOP_N": "4"}, 12),
        (("-n", "1"), {"NMFSTREAM_N": "3"}, 3),
    ],
)
def test_precedence(tmp_path, model, args, env, n):
    assert rows(run("top", model, "--config", write(tmp_path, TOML), *args, env=env)) == n


def test_the_file_may_be_named_by_the_environment(tmp_path, model):
    assert rows(run("top", model, env={"NMFSTREAM_CONFIG": str(write(tmp_path, TOML))})) == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[top]\nfeaturs = 2\n", "[top]: no setting is called 'featurs'; did you mean 'features'"),
        ("[tpo]\n", "no command is called 'tpo'; did you mean 'top'"),
        ("[fit]\nbatchsize = 2\n", "[fit]: no setting is called 'batchsize'; did you mean 'batch-size'"),
        ("n = 2\n", "'n' stands outside a table; put it under the command's, as in [top]"),
        ("[top\n", "not TOML"),
        ('[top]\nn = "many"\n', "settings.toml"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, model, text, said):
    done = run("top", model, "--config", write(tmp_path, text))
    assert done.returncode == 2
    assert said in complaint(done)


def test_an_absent_file(tmp_path, model):
    done = run("top", model, "--config", tmp_path / "no.toml")
    assert done.returncode == 66
    assert "no.toml: no such file" in complaint(done)


def test_a_wrong_value_in_the_environment_is_said_to_be_there(model):
    done = run("top", model, env={"NMFSTREAM_N": "x"})
    assert done.returncode == 2
    assert "from the environment" in complaint(done)


@pytest.mark.parametrize("name", ["NMFSTREAM_SEED", "NMFSTREAM_RANDOM_STATE", "NMFSTREAM_FIT_SEED"])
def test_every_name_of_an_option_is_a_variable(tmp_path, x_npy, name):
    done = run("fit", x_npy, "-o", tmp_path / "q.h5", "-k", "2", env={name: "x"})
    assert done.returncode == 2
    assert "--random-state / --seed from the environment" in complaint(done)


def test_the_variable_is_called_as_the_option_is(model):
    assert run("top", model, env={"NMFSTREAM_JSON": "1"}).stdout.startswith(b"{")
