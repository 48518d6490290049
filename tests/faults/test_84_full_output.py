"""84: standard output is a full device: 74 and one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.helpers import complaint, run

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(
    "args",
    [
        ("transform", "{x}", "-m", "{model}", "-o", "-"),
        ("transform", "-", "-m", "{model}"),
        ("transform", "{x}", "-m", "{model}", "-o", "-", "--output-format", "csv"),
        ("inverse-transform", "{W}", "-m", "{model}", "-o", "-"),
        ("convert", "{x}", "-o", "-"),
        ("convert", "-", "-o", "-"),
        ("score", "{x}", "-m", "{model}"),
        ("top", "{model}"),
        ("top", "{model}", "--json"),
        ("info", "{x}"),
        ("completion", "bash"),
        ("--help",),
    ],
    ids=lambda args: " ".join(args[:3]),
)
def test_84_full_device(args, model, x_npy, W_npy):
    names = {"x": x_npy, "model": model, "W": W_npy}
    with FULL.open("wb") as full:
        done = run(*(a.format(**names) for a in args), stdin=x_npy.read_bytes(), stdout=full)
    assert done.returncode == 74
    assert "standard output: No space left on device; free some space" in complaint(done)
