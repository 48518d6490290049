"""Sizes in words."""

from __future__ import annotations

_UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def size_text(size: float) -> str:
    """Bytes in a handy unit: ``84 B``, ``1.5 kB``, ``60.0 MB``."""
    for unit, of in _UNITS:
        if size >= of:
            return f"{size / of:.1f} {unit}"
    return f"{size:.0f} B"
