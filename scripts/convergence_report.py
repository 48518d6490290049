"""Curves of `convergence.py` as a table and a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

PASSES = (1, 2, 5)


def table(found: dict[str, Any]) -> str:
    """Markdown: our median (worst) after one, two and five passes beside the references' last losses.

    ``sooner``: seconds of the better MiniBatchNMF over ours (median) to its last loss.
    """
    head = ["set", *(f"after {p}" for p in PASSES), "MiniBatchNMF", "NMF", "5 passes / NMF", "above", "sooner"]
    rows = [head, ["-"] * len(head), *(_row(name, entry) for name, entry in found.items())]
    return "\n".join("|" + "|".join(row) + "|" for row in rows)


def _row(name: str, entry: dict[str, Any]) -> list[str]:
    cells = [f"{name}, k = {entry['k']}"]
    for p in PASSES:
        losses = [loss for c in entry["ours"] if (loss := after(c, p)) is not None]
        cells.append(f"{np.median(losses):.5f} ({max(losses):.5f})" if losses else "")
    minibatch, nmf = best(entry, "MiniBatchNMF"), best(entry, "NMF ")
    last = np.median([c["loss"][-1] for c in entry["ours"]])
    above = "" if minibatch is None else str(sum(c["loss"][-1] > minibatch for c in entry["ours"]))
    return [*cells, _number(minibatch), _number(nmf), _number(last / nmf if nmf else None), above, _sooner(entry)]


def _sooner(entry: dict[str, Any]) -> str:
    theirs = [c for label, c in entry["references"].items() if label.startswith("MiniBatchNMF")]
    if not theirs:
        return ""
    best = min(theirs, key=lambda c: c["loss"][-1])
    ours = [
        next((t for t, e in zip(c["seconds"], c["loss"], strict=True) if e <= best["loss"][-1]), np.inf)
        for c in entry["ours"]
    ]
    return f"{best['seconds'][-1] / np.median(ours):.1f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}"


def after(curve: dict[str, Any], passes: int) -> float | None:
    """Loss after so many passes; the last one where the run had stopped by then."""
    losses = [e for p, e in zip(curve["passes"], curve["loss"], strict=True) if p <= passes]
    return losses[-1] if losses else None


def best(entry: dict[str, Any], kind: str) -> float | None:
    """Least last loss of a reference's starts."""
    last = [c["loss"][-1] for label, c in entry["references"].items() if label.startswith(kind)]
    return min(last) if last else None


def draw(found: dict[str, Any], path: Path) -> None:
    """Two panels a set: loss against passes, and against seconds. Nothing where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(10, 3 * len(found)), layout="constrained")
    panels = figure.subplots(len(found), 2, squeeze=False)
    for (name, entry), (left, right) in zip(found.items(), panels, strict=True):
        for axes, key in ((left, "passes"), (right, "seconds")):
            for i, curve in enumerate(entry["ours"]):
                axes.plot(curve[key], curve["loss"], "o-", color="C0", alpha=0.5, label=None if i else "nmfstream")
            for i, (label, curve) in enumerate(entry["references"].items()):
                axes.plot(curve[key], curve["loss"], ".--", color=f"C{i + 1}", label=label)
            axes.set(xscale="log", xlabel=key)
        left.set(ylabel="‖X − WH‖/‖X‖" if entry["beta"] == 2 else "D(X‖WH)/ΣX", title=f"{name}, k = {entry['k']}")
        left.legend(fontsize="small")
    figure.savefig(path, dpi=80)
