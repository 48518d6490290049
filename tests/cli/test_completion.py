"""Completion: a script for each shell, and answers to what the shell asks."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

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


SOURCED = """
source <(nmfstream completion bash); compopt() {{ files=x.npy; }}
COMP_WORDS=({words}); COMP_CWORD={last}; _nmfstream_completion nmfstream; printf '%s\\n' "${{COMPREPLY[@]}}" $files
"""
AUTOLOADED = """
nmfstream completion zsh > _nmfstream; fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D
_describe() {{ print -rl -- ${{completions_with_descriptions%%:*}} }}
compadd() {{ print -rl -- $completions }}
_path_files() {{ print -rl -- x.npy }}
words=({words}); CURRENT={last}+1; $_comps[nmfstream]
"""
EVALUATED = AUTOLOADED.replace(
    "nmfstream completion zsh > _nmfstream; fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D",
    "autoload -Uz compinit; compinit -u -D; source <(nmfstream completion zsh)",
)
FISH = "nmfstream completion fish | source; complete -C '{line}' | string replace -r '\\t.*' ''"
SHELLS = {"bash": ("bash", SOURCED), "zsh": ("zsh", AUTOLOADED), "zsh-eval": ("zsh", EVALUATED), "fish": ("fish", FISH)}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("nmfstream tra", {"transform"}),
        ("nmfstream fit --beta", {"--beta-loss"}),
        ("nmfstream fit --solver h", {"hals"}),
        ("nmfstream info x", {"x.npy"}),
    ],
)
def test_a_shell_completes(shell, line, answers, tmp_path):
    name, script = SHELLS[shell]
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} here")
    (tmp_path / "x.npy").touch()
    asked = script.format(line=line, words=line, last=len(line.split()) - 1)
    norc = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[name]
    env = {**os.environ, "PATH": f"{Path(PROGRAM[0]).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run([name, *norc, "-c", asked], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.stderr == ""
    assert set(done.stdout.split()) == answers
