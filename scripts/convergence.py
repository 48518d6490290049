"""Loss against passes and seconds, ours and scikit-learn's: ``convergence.py --data DIR --out DIR [--sets NAMES]``.

Every method's H is judged alone, with the best W (`convergence_data.judge`). Writes ``convergence.json`` (finished
references are taken from there when it exists), prints a table, and draws ``convergence.png`` where matplotlib is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from convergence_data import SETS, Set, as_matrix, judge
from convergence_report import draw, table

from nmfstream.core.blocks import block_rows
from nmfstream.core.parameters import Objective, Parameters, Schedule, Start
from nmfstream.core.solvers import make_solver, resolve
from nmfstream.core.state import RunState
from nmfstream.run.sources import MemorySource
from nmfstream.run.stages import Hooks, run_stages
from nmfstream.run.workers import workers

MARKS = (1, 2, 5, 10, 20, 50, 100, 200)
"""Passes after which H is judged."""


class Watch:
    """Seconds that do not count while it is stopped, and the H that were seen."""

    def __init__(self) -> None:
        self.passes: list[int] = []
        self.seconds: list[float] = []
        self.H: list[Any] = []
        self._start = time.perf_counter()

    def note(self, n_passes: int, H: Any) -> None:
        """Keep a copy of H after so many passes."""
        now = time.perf_counter()
        self.passes.append(n_passes)
        self.seconds.append(now - self._start)
        self.H.append(np.array(H))
        self._start += time.perf_counter() - now

    def curve(self, X: Any, beta: float, **more: Any) -> dict[str, Any]:
        """Judged."""
        losses = [judge(X, H, beta) for H in self.H]
        return {"passes": self.passes, "seconds": self.seconds, "loss": losses, **more}


def ours(X: Any, data: Set, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """One fit by solver auto; passes count from the first that learns, the sample's reading and fit in ``sample``."""
    source = MemorySource(as_matrix(X))
    schedule = Schedule(given.batch_size or data.batch, given.passes, 0.0, None, None)
    asked = Parameters(
        Objective(data.k, float(data.beta)), schedule, Start(random_state=seed, sample_rows=given.sample_rows)
    )
    solver = make_solver(resolve("auto", float(data.beta)), source.problem, asked)
    state, sampled = solver.start(), [0.0]
    rows = block_rows(source.problem, data.k, schedule.batch_size)
    with workers(given.threads) as (_, executor):
        watch, began = Watch(), time.perf_counter()

        def after(state: RunState) -> None:
            if state.n_iter == 0 and state.row == 0:
                sampled[0] = time.perf_counter() - began
            if state.row == 0 and state.n_iter in MARKS and state.n_iter not in watch.passes:
                watch.note(state.n_iter, state.solver.H)

        run_stages(solver, state, source, executor, rows, hooks=Hooks(after_step=after))
        if state.n_iter not in watch.passes:
            watch.note(state.n_iter, state.solver.H)
    watch.H[-1] = np.array(state.solver.H)
    read = state.rows_read / source.problem.n_samples
    return watch.curve(X, data.beta, seed=seed, sample_seconds=sampled[0], passes_read=read, reason=state.stop_reason)


def minibatch(X: Any, data: Set, init: str, passes: int) -> dict[str, Any]:
    """scikit-learn's ``MiniBatchNMF`` with its stopping rules off."""
    from sklearn.decomposition import MiniBatchNMF

    watch = Watch()
    per_pass = -(-X.shape[0] // data.batch)

    class Watched(MiniBatchNMF):  # type: ignore[misc]
        def _minibatch_convergence(
            self, X: Any, cost: Any, H: Any, H_buffer: Any, n: int, step: int, steps: int
        ) -> bool:
            done, rest = divmod(step + 1, per_pass)
            if rest == 0 and done in MARKS:
                watch.note(done, H)
            return False

    options = {"batch_size": data.batch, "beta_loss": data.loss, "max_iter": passes, "random_state": 0}
    watch._start = time.perf_counter()
    Watched(data.k, init=init, **options).fit(X)
    return watch.curve(X, data.beta)


def full_batch(X: Any, data: Set, init: str, iterations: int) -> dict[str, Any]:
    """scikit-learn's ``NMF``, going on from mark to mark."""
    from sklearn.decomposition import NMF

    kind = {"solver": "cd" if data.beta == 2 else "mu", "beta_loss": data.loss, "tol": 0, "random_state": 0}
    watch, W, H = Watch(), None, None
    marks = [mark for mark in MARKS if mark < iterations] + [iterations]
    for before, done in zip([0, *marks], marks, strict=False):
        model = NMF(data.k, init=init if H is None else "custom", max_iter=done - before, **kind)
        W = model.fit_transform(X, W=W, H=H)
        H = model.components_
        watch.note(done, H)
    return watch.curve(X, data.beta)


@contextmanager
def quiet() -> Iterator[None]:
    """scikit-learn warns of every run that ends by its number of iterations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def references(name: str, X: Any, data: Set, known: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """Curves of scikit-learn, those that are known already left as they are."""
    wanted = {
        f"MiniBatchNMF {init}": lambda init=init: minibatch(X, data, init, given.minibatch_passes)
        for init in ("nndsvda", "random")
    } | {"NMF nndsvda": lambda: full_batch(X, data, "nndsvda", given.nmf_iterations)}
    out = dict(known)
    with quiet():
        for label, run in wanted.items():
            if label not in out:
                out[label] = run()
                _say(name, label, out[label])
    return out


def _say(name: str, label: str, curve: dict[str, Any]) -> None:
    losses = " ".join(f"{p}:{e:.5f}" for p, e in zip(curve["passes"], curve["loss"], strict=True))
    print(f"{name}, {label} ({curve['seconds'][-1]:.1f} s): {losses}", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=here.parent.parent / "shared/data", help="folder of the real data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--sets", default=",".join(SETS), help=f"comma-separated: {', '.join(SETS)}")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--batch-size", type=int, help="ours; default: as scikit-learn's")
    parser.add_argument("--sample-rows", type=int, help="default: the program's rule")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--minibatch-passes", type=int, default=100)
    parser.add_argument("--nmf-iterations", type=int, default=200)
    parser.add_argument("--no-references", action="store_true", help="ours alone")
    parser.add_argument("--draw", action="store_true", help="fit nothing: table and figure of what was found before")
    return parser.parse_args()


def main() -> None:
    """Fit, judge, write and draw."""
    given = arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "convergence.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in () if given.draw else given.sets.split(","):
        data = SETS[name]
        X = data.load(given.data)
        entry = found.setdefault(name, {"references": {}})
        entry |= {"shape": list(X.shape), "k": data.k, "beta": data.beta, "batch": given.batch_size or data.batch}
        entry["ours"] = []
        for seed in range(given.seeds):
            entry["ours"].append(ours(X, data, seed, given))
            _say(name, f"ours, seed {seed}", entry["ours"][-1])
        if not given.no_references:
            entry["references"] = references(name, X, data, entry["references"], given)
        path.write_text(json.dumps(found, indent=1))
    shown = {name: found[name] for name in given.sets.split(",")}
    print(table(shown))
    draw(shown, given.out / "convergence.png")


if __name__ == "__main__":
    main()
