"""Completion: a script for each shell, and answers to what the shell asks."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.cli.helpers import PROGRAM, run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script(shell):
    done = run("completion", shell)
    assert done.returncode == 0
    assert f"_NMFSTREAM_COMPLETE={shell}_complete" in done.stdout.decode()


@pytest.mark.parametrize(
    ("words", "word", "answers"),
    [
        ("nmfstream tra", 1, {"plain,transform"}),
        ("nmfstream fit --beta", 2, {"plain,--beta-loss"}),
        ("nmfstream fit --solver ", 3, {"plain,auto", "plain,mu", "plain,hals"}),
        ("nmfstream fit x", 2, {"file,x"}),
    ],
)
def test_answers(words, word, answers):
    env = {"_NMFSTREAM_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(word)}
    assert set(run(env=env).stdout.decode().split()) == answers


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_takes_it():
    script = (
        'source <("$0" completion bash); COMP_WORDS=("$0" trans); COMP_CWORD=1; '
        '_nmfstream_completion "$0"; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script, PROGRAM[0]], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["transform"]
