"""Numbers in words."""

from __future__ import annotations

import pytest

from nmfstream.cli.report import counted, passes


@pytest.mark.parametrize(
    ("n", "expected"), [(1, "1 pass"), (1.004, "1 pass"), (1.25, "1.25 passes"), (5, "5 passes"), (0.5, "0.5 passes")]
)
def test_passes(n: float, expected: str) -> None:
    assert passes(n) == expected


def test_counted() -> None:
    assert (counted(1, "row"), counted(2, "row"), counted(0, "row")) == ("1 row", "2 rows", "0 rows")
