"""How values are written."""

from __future__ import annotations

import click
import pytest

from nmfstream.cli.options import Beta, Duration, Interval, Nothing, OrNone, Rows, Size

GIB = 1 << 30


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Size(), "300MiB", 300 << 20),
        (Size(), "4GB", 4 * 10**9),
        (Size(), "2g", 2 * GIB),
        (Size(), "1.5 GiB", 3 * GIB // 2),
        (Size(), "1024", 1024),
        (Size(), 1024, 1024),
        (Duration(), "90s", 90),
        (Duration(), "5m", 300),
        (Duration(), "1h30m", 5400),
        (Duration(), "1-12:00:00", 129600),
        (Duration(), "12:00:00", 43200),
        (Duration(), 10, 10),
        (Interval(), "5m", (300, None)),
        (Interval(), "200steps", (None, 200)),
        (Interval(), "none", (None, None)),
        (Beta(), "kullback-leibler", 1),
        (Beta(), "Frobenius", 2),
        (Beta(), "1.5", 1.5),
        (OrNone(click.INT), "none", Nothing.NONE),
        (OrNone(click.INT), "3", 3),
        (Rows(), "0:50", (0, 50)),
        (Rows(), ":50", (0, 50)),
        (Rows(), "7:7", (7, 7)),
    ],
)
def test_reads(kind, text, value):
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Size(), "big"), (Size(), "-1"), (Size(), "3XB"), (Duration(), "0"), (Duration(), "5x"), (Duration(), ""),
        (Interval(), "0steps"), (Interval(), "steps"), (Beta(), "nan"), (Beta(), "inf"), (Beta(), "euclid"),
        (OrNone(click.INT), "x"), (Rows(), "5"), (Rows(), "5:"), (Rows(), "-1:5"),
    ],
)  # fmt: skip
def test_refuses(kind, text):
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)
