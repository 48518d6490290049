"""Running the program as a shell does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

PROGRAM = [str(Path(sys.executable).with_name("nmfstream"))]


def run(*args, stdin=b"", env=None, cwd=None, timeout=120, **kwargs):
    """The finished process of ``nmfstream ARGS``, outputs as bytes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NMFSTREAM_")}
    return subprocess.run(
        [*PROGRAM, *map(str, args)],
        input=stdin,
        stdout=kwargs.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        env={**environment, **(env or {})},
        cwd=cwd,
        timeout=timeout,
        check=False,
        **kwargs,
    )


def complaint(done):
    """The one line on standard error."""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, done.stderr.decode()
    return lines[0]


def data(n=60, m=12, k=3, seed=0, dtype=np.float32):
    """A matrix of rank k with a little noise."""
    g = np.random.default_rng(seed)
    X = g.gamma(1.0, 1.0, (n, k)) @ g.gamma(1.0, 1.0, (k, m)) + 0.05 * g.random((n, m))
    return X.astype(dtype)


def npy(*arrays):
    """Arrays back to back, as `cat *.npy` gives them."""
    import io

    out = io.BytesIO()
    for array in arrays:
        np.save(out, array)
    return out.getvalue()
