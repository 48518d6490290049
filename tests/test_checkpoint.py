"""The checkpoint on a real disk: what is found, what is refused, and what is said about it."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmfstream import checkpoint_format as form
from nmfstream.checkpoint import read_components
from nmfstream.checkpoint_reading import generations, load
from nmfstream.core.state import RunState
from nmfstream.errors import CheckpointMismatchError, DataError, OutputExistsError
from nmfstream.run.events import Event, Note
from nmfstream.storage import durable
from tests.storage.runs import DATA, FINGERPRINT, IDENTITY, CounterState, checkpoints, count_of, die, state_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.h5.ckpt"


def save(path: Path, *counts: int, **changed: Any) -> None:
    die()
    with checkpoints(path, **changed) as run:
        run.open(resume=True)
        for count in counts:
            run.save(state_of(count))


def resume(path: Path, **changed: Any) -> tuple[int, list[Note]]:
    die()
    heard: list[Event] = []
    with checkpoints(path, listener=heard.append, **changed) as run:
        count = count_of(run.open(resume=True))
    return count, [event for event in heard if isinstance(event, Note)]


def newest(path: Path) -> Path:
    return max(path.glob("*.gen"))


def test_every_kind_of_value_comes_back(path: Path) -> None:
    arrays = [np.asfortranarray(np.arange(12.0).reshape(3, 4)), np.float32(2.5), np.arange(10)[::2], np.zeros((0, 3))]
    state = RunState(CounterState(None, arrays, ["a", "b"]), loss=0.1 + 0.2, random_state={"key": np.arange(624)})
    with checkpoints(path) as run:
        run.open(resume=False)
        run.save(state, extra={"rows": 7})
    saved = load(newest(path))
    assert saved.extra == {"rows": 7}
    assert saved.state.loss == 0.1 + 0.2
    for before, after in zip(arrays, saved.state.solver.A, strict=True):  # type: ignore[attr-defined]
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(saved.state.random_state["key"], np.arange(624))  # type: ignore[index]


def test_arrays_larger_than_a_piece_are_streamed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form, "PIECE", 1000)
    A = np.random.default_rng(0).random((50, 77))
    with checkpoints(path) as run:
        run.open(resume=False)
        run.save(RunState(CounterState(A.T, [A, A[:, ::3]], [])))
    solver = load(newest(path)).state.solver
    np.testing.assert_array_equal(solver.H, A.T)
    np.testing.assert_array_equal(solver.A[1], A[:, ::3])  # type: ignore[attr-defined]


def test_nothing_is_there_before_the_first_generation_is_durable(path: Path) -> None:
    with checkpoints(path) as run:
        assert run.open(resume=True) is None
        assert not path.exists()
        run.save(state_of(1))
        assert path.is_dir()
    assert sorted(os.listdir(path.parent)) == [path.name]


def test_the_two_newest_stay_and_one_after_the_end(path: Path) -> None:
    save(path, 1, 2, 3, 4)
    assert sorted(generations(path)) == [3, 4]
    with checkpoints(path) as run:
        run.open(resume=True)
        run.save(state_of(5), finished=True)
    assert len(generations(path)) == 1
    assert load(newest(path)).finished


def test_a_finished_run_is_left_as_it_is(path: Path) -> None:
    with checkpoints(path) as run:
        run.open(resume=True)
        run.save(state_of(5), finished=True)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in path.iterdir()}
    assert resume(path) == (5, [])
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in path.iterdir()} == before


def test_fault_23_any_flipped_byte_is_found(path: Path) -> None:
    save(path, 1)
    file = newest(path)
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        with pytest.raises(form.DamagedError), durable.view(file) as damaged:
            form.read_layout(damaged)


def test_fault_23_any_truncation_is_found(path: Path) -> None:
    save(path, 1)
    file = newest(path)
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(form.DamagedError), durable.view(file) as damaged:
            form.read_layout(damaged)


def test_the_bad_newest_is_never_counted_as_one_of_two(path: Path) -> None:
    save(path, 1, 2)
    newest(path).write_bytes(b"rubbish")
    assert resume(path)[0] == 1
    save(path, 2)
    valid = [load(path / f"{n:08d}.gen") for n in generations(path) if n != 2]
    assert len({count_of(saved) for saved in valid}) == 2


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"n_components": 3}, "n_components: 2 then, 3 now"),
        ({"beta_loss": 1.0}, "beta_loss: 2.0 then, 1.0 now"),
        ({"random_state": 1}, "random_state: 0 then, 1 now"),
        ({"solver": "hals"}, "solver: mu then, hals now"),
        ({"batch_size": 7}, "batch_size: None then, 7 now"),
    ],
)
def test_fault_33_other_parameters_are_refused(path: Path, changed: dict[str, Any], shown: str) -> None:
    save(path, 1)
    with pytest.raises(CheckpointMismatchError, match=shown):
        resume(path, identity=IDENTITY | changed)


def test_parameters_that_may_change(path: Path) -> None:
    save(path, 1)
    assert resume(path, identity=IDENTITY | {"max_iter": 9, "tol": 0.0, "max_no_improvement": None}) == (1, [])


def test_fault_34_other_data_are_refused(path: Path) -> None:
    save(path, 1)
    with pytest.raises(CheckpointMismatchError, match=f"data: {DATA} then, 2 x 4 now"):
        resume(path, data="2 x 4")


def test_fault_35_other_software_is_told_once_and_recorded(path: Path) -> None:
    save(path, 1)
    other = FINGERPRINT | {"numpy": "2"}
    count, notes = resume(path, fingerprint=other)
    assert count == 1
    assert [(n.warning, "numpy: 1 then, 2 now" in n.text) for n in notes] == [(True, True)]
    save(path, 2, fingerprint=other)
    assert resume(path, fingerprint=other) == (2, [])
    assert load(newest(path)).header["earlier"] == [FINGERPRINT]


def test_fault_35_strict_refuses(path: Path) -> None:
    save(path, 1)
    with pytest.raises(CheckpointMismatchError, match="numpy"):
        resume(path, fingerprint=FINGERPRINT | {"numpy": "2"}, strict=True)


def test_without_resume_it_is_refused_unless_overwritten(path: Path) -> None:
    save(path, 1)
    with pytest.raises(OutputExistsError, match="--resume"):
        checkpoints(path).open(resume=False)
    with checkpoints(path) as run:
        assert run.open(resume=False, overwrite=True) is None
    assert not path.exists()


def test_with_both_resume_wins_where_it_matches(path: Path) -> None:
    save(path, 1)
    die()
    with checkpoints(path) as run:
        assert count_of(run.open(resume=True, overwrite=True)) == 1
    with checkpoints(path, data="other") as run:
        assert run.open(resume=True, overwrite=True) is None


def test_a_folder_that_is_no_checkpoint_is_not_emptied(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("x")
    with checkpoints(path) as run:
        assert run.open(resume=False, overwrite=True) is None
        run.save(state_of(1))
    assert (path / "thesis.tex").read_text() == "x"
    path.with_name("file").write_text("x")
    with pytest.raises(OutputExistsError, match="is no checkpoint"):
        checkpoints(path.with_name("file")).open(resume=True)


def forged(path: Path, header: Any, payload: bytes = b"", version: int = form.VERSION) -> Path:
    """A file whose checksums fit, whatever it says."""
    import hashlib

    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    prefix = struct.pack("<16sIIQ", form.MAGIC, version, 0, len(text))
    body = prefix + hashlib.blake2b(prefix, digest_size=16).digest() + text + payload
    file = path / "00000009.gen"
    file.write_bytes(body + hashlib.blake2b(body, digest_size=32).digest())
    return file


HOSTILE = {
    "not JSON": b"\x80\x04\x95",
    "a pickle": b"cos\nsystem\n(S'touch /tmp/owned'\ntR.",
    "no header": {},
    "deep": b"[" * 100_000,
    "objects": {"values": {}, "arrays": [["H", "|O", [1], 0]]},
    "32 GiB": {"values": {}, "arrays": [["H", "<f8", [1 << 32], 0]]},
    "overflow": {"values": {}, "arrays": [["H", "<f8", [1 << 40, 1 << 40], 0]]},
    "negative": {"values": {}, "arrays": [["H", "<f8", [-1], 0]]},
    "huge and empty": {"values": {"state": {}}, "arrays": [["H", "<f8", [1 << 61, 0], 0]]},
    "offset": {"values": {}, "arrays": [["H", "<f8", [1], 64]]},
    "shape of texts": {"values": {}, "arrays": [["H", "<f8", ["1"], 0]]},
    "unknown solver": {"values": {"state": {"solver_kind": "os.system", "solver": {}}}, "arrays": []},
    "no state": {"values": {"state": None}, "arrays": []},
    "state of lists": {"values": {"state": {"solver_kind": [], "solver": [], "history": {}}}, "arrays": []},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_fault_37_hostile_files_are_skipped(path: Path, name: str) -> None:
    save(path, 1)
    forged(path, HOSTILE[name])
    count, notes = resume(path)
    assert count == 1
    assert len(notes) == 1
    for other in generations(path):
        if other != 9:
            durable.remove(path / f"{other:08d}.gen")
    with pytest.raises(CheckpointMismatchError):
        resume(path)
    assert not Path("/tmp/owned").exists()


def test_fault_32_a_later_format_is_not_passed_over(path: Path) -> None:
    save(path, 1)
    forged(path, {}, version=form.VERSION + 1)
    with pytest.raises(CheckpointMismatchError, match="format version 2"):
        resume(path)


def test_a_checkpoint_serves_as_a_model(path: Path) -> None:
    save(path, 1, 2)
    H, attributes = read_components(path)
    np.testing.assert_array_equal(H, state_of(2).solver.H)
    assert attributes["parameters"] == IDENTITY
    assert attributes["n_steps"] == 2
    H, _ = read_components(newest(path))
    np.testing.assert_array_equal(H, state_of(2).solver.H)


def test_a_checkpoint_without_components_is_no_model(path: Path) -> None:
    with checkpoints(path) as run:
        run.open(resume=True)
        run.save(RunState(CounterState()))
    with pytest.raises(DataError, match="no components yet"):
        read_components(path)
