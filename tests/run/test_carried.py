"""Generations of W on disk: what a checkpoint needs stays, and a run never takes what another may need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nmfstream.errors import CheckpointMismatchError
from nmfstream.run.carried import DiskW


def kept(folder: Path) -> list[int]:
    return sorted(int(path.suffix[1:]) for path in folder.glob("run.W.*"))


def passes(W: DiskW, first: int, last: int) -> None:
    for generation in range(first, last + 1):
        W.begin(generation, 0)
        W.write(0, np.full((5, 2), generation, np.float64))


def test_without_a_checkpoint_two_generations_stay(tmp_path: Path) -> None:
    W = DiskW(tmp_path / "run", 5, 2, np.float64)
    passes(W, 1, 30)
    assert kept(tmp_path) == [29, 30]
    before = W.read(0, 5)
    assert before is not None and (before == 29).all()


def test_what_the_two_newest_checkpoints_need_stays(tmp_path: Path) -> None:
    W = DiskW(tmp_path / "run", 5, 2, np.float64)
    for generation in (4, 9):
        passes(W, 1 if generation == 4 else 5, generation)
        W.claim()
    passes(W, 10, 20)
    assert kept(tmp_path) == list(range(3, 21))
    W.claim()
    passes(W, 21, 22)
    assert kept(tmp_path) == list(range(8, 23))


def test_a_resumed_run_keeps_all_until_it_has_saved_twice(tmp_path: Path) -> None:
    first = DiskW(tmp_path / "run", 5, 2, np.float64)
    passes(first, 1, 6)
    again = DiskW(tmp_path / "run", 5, 2, np.float64)
    again.begin(6, 3)
    passes(again, 7, 8)
    assert kept(tmp_path) == [5, 6, 7, 8]
    again.claim()
    again.claim()
    passes(again, 9, 9)
    assert kept(tmp_path) == [7, 8, 9]


def test_a_run_that_lost_its_output_takes_nothing_newer(tmp_path: Path) -> None:
    sleeper = DiskW(tmp_path / "run", 5, 2, np.float64)
    passes(sleeper, 1, 4)
    owner = DiskW(tmp_path / "run", 5, 2, np.float64)
    owner.begin(4, 2)
    passes(owner, 5, 9)
    passes(sleeper, 5, 6)
    assert kept(tmp_path)[-5:] == [5, 6, 7, 8, 9]
    assert (owner.read(0, 5) == 8).all()  # type: ignore[union-attr]


def test_rows_that_are_gone_are_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatchError, match="gone"):
        DiskW(tmp_path / "run", 5, 2, np.float64).begin(3, 2)
