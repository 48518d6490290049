"""Sizes in words."""

from __future__ import annotations

import pytest

from nmfstream.units import size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (49_000, "49.0 kB"), (60e6, "60.0 MB"), (2e9, "2.0 GB"),
     (3.5e12, "3.5 TB")],
)  # fmt: skip
def test_sizes(size, text):
    assert size_text(size) == text
