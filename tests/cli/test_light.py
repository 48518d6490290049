"""The program starts at once: help needs neither numpy nor a store's library."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("numpy", "scipy", "h5py", "zarr", "numba", "tqdm")


@pytest.mark.parametrize("args", [["--help"], ["fit", "--help"], ["transform", "--help"], ["fit"], ["nonsense"]])
def test_parsing_imports_nothing_heavy(args):
    code = (
        "import sys; from nmfstream.cli.main import main; main(sys.argv[1:]); "
        f"print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, nmfstream; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "nmfstream", "nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nonsense" in done.stderr
