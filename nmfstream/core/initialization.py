"""Where ``mu`` begins: random, the NNDSVD family and custom, with scikit-learn's numbers, in streamed stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nmfstream.core import init_stages, nndsvd
from nmfstream.core.blocks import row_bytes, step_rows
from nmfstream.core.init_stages import OVERSAMPLING, times
from nmfstream.core.init_state import Generator, InitState, generator_state, restored
from nmfstream.core.parameters import Start
from nmfstream.core.protocols import Batch, Executor, Problem, Stage
from nmfstream.core.state import RunState
from nmfstream.errors import UsageError
from nmfstream.types import Array

SVD_INITS = ("nndsvd", "nndsvda", "nndsvdar")


class Initialization:
    """Chooses the stages and makes rows of the first W.

    Parameters
    ----------
    problem : Problem
    n_components : int
    start : Start
    batch_size : int
        Rows a step of the passes that follow.

    Raises
    ------
    UsageError
        For an SVD of more components than the shape has, or a custom start without H.
    """

    def __init__(self, problem: Problem, n_components: int, start: Start, batch_size: int) -> None:
        self.problem, self.n_components, self.start = problem, n_components, start
        self.batch_size = batch_size
        self.init = resolve(start.init, problem, n_components)
        if self.init == "custom" and start.H is None:
            raise UsageError("init='custom' needs H", hint="give the components to begin with")
        self.wide = (problem.n_samples or 0) < problem.n_features
        self.stages = [] if problem.n_samples is None else self._stages()

    def _stages(self) -> list[Callable[[RunState], Stage]]:
        if self.init == "custom":
            return []
        if self.init == "random":
            return [lambda run: init_stages.MeanOfX(self, run)]
        stages: list[Callable[[RunState], Stage]] = []
        if self.wide:
            stages.append(lambda run: init_stages.DrawnSketch(self, run))
        power = n_power_iterations(self.problem, self.n_components)
        stages += [lambda run, i=i: init_stages.PowerIteration(self, run, i + 1) for i in range(power)]  # type: ignore[misc]
        stages += [lambda run: init_stages.Projection(self, run), lambda run: init_stages.ColumnNorms(self, run)]
        if self.init == "nndsvdar":
            stages.append(lambda run: init_stages.CountFills(self, run))
        return stages

    def stage(self, run: RunState) -> Stage:
        """The stage of the initialisation that the run stands in."""
        return self.stages[run.stage](run)

    def begin(self, state: InitState) -> Generator | None:
        """Draw what is drawn before X is read; returns the generator after it."""
        if self.init == "custom":
            assert self.start.H is not None
            state.H = np.array(self.start.H, self.problem.dtype, order="C")
            return None
        if self.problem.n_samples is None:
            return generator_state(self.start.generator())
        generator = self.start.generator()
        if self.init == "random":
            # As it was drawn; the mean of X scales it once that is known.
            state.H = self.normal(generator, (self.n_components, self.problem.n_features))
        elif not self.wide:
            width = self.n_components + OVERSAMPLING
            state.sketch = self.normal(generator, (self.problem.n_features, width)).astype(np.float64)
        return generator_state(generator)

    def normal(self, generator: np.random.RandomState, shape: tuple[int, int]) -> Array:
        """Standard normal draws in the model's type."""
        return generator.normal(size=shape).astype(self.problem.dtype)

    @property
    def unit(self) -> int:
        """Rows a step of the stages: whole batches of the passes, some megabytes of them."""
        return step_rows(self.batch_size, row_bytes(self.problem))

    def scale(self, state: InitState, generator: Generator | None) -> None:
        """Give the drawn H its scale sqrt(mean(X) / k)."""
        assert state.H is not None
        state.H = np.abs(self._scale(state) * state.H)

    def _scale(self, state: InitState) -> Any:
        return self.problem.dtype.type(np.sqrt(state.average / self.n_components))

    def rows_of_W(self, run: RunState, batch: Batch, executor: Executor) -> tuple[Array, Generator | None]:
        """The batch's rows of the first W, and the generator after what was drawn for them."""
        state = run.solver
        assert isinstance(state, InitState)
        if self.init == "custom":
            raise UsageError("init='custom' needs W", hint="give the rows of W to begin with")
        if self.init == "random":
            generator = restored(run.random_state)
            drawn = self.normal(generator, (batch.n_rows, self.n_components))
            return np.abs(self._scale(state) * drawn), generator_state(generator)
        W = nndsvd.rows(self.products(batch, state.T, executor), self.problem.dtype)
        if self.init != "nndsvdar":
            return nndsvd.filled(W, state.average if self.init == "nndsvda" else 0.0), run.random_state
        generator = restored(run.random_state)
        return nndsvd.filled(W, state.average, generator), generator_state(generator)

    @staticmethod
    def products(batch: Batch, T: Array | None, executor: Executor) -> Array:
        """X·T in float64."""
        assert T is not None
        return np.concatenate(executor.map(lambda block: times(block.X, T), batch.blocks()))

    def from_rows(self, run: RunState, batch: Batch, executor: Executor) -> None:
        """Initialise from these rows alone, as if they were all (streams and ``partial_fit``)."""
        problem = Problem(batch.n_rows, *self.problem[1:3], batch.X.nnz if self.problem.sparse else None)  # type: ignore[union-attr]
        own = Initialization(problem, self.n_components, self.start, batch.n_rows)
        sub = RunState(type(run.solver)())
        assert isinstance(sub.solver, InitState)
        sub.random_state = own.begin(sub.solver)
        for make in own.stages:
            stage = make(sub)
            stage.step(batch, executor)
            stage.finish(executor)
            sub.stage += 1
        run.random_state, run.solver.H = own.end_of_draws(sub), sub.solver.H

    def end_of_draws(self, run: RunState, *, drew_W: bool = False) -> Generator | None:
        """The generator as scikit-learn leaves it, which draws all of W whether it is used or not.

        Parameters
        ----------
        run : RunState
            Past the stages of the initialisation.
        drew_W : bool
            A pass has drawn the rows of W.
        """
        assert isinstance(run.solver, InitState)
        if self.init == "nndsvdar":
            return run.solver.fill
        if self.init != "random" or drew_W:
            return run.random_state
        generator = restored(run.random_state)
        n_samples = self.problem.n_samples or 0
        for start in range(0, n_samples, self.batch_size):
            generator.normal(size=(min(self.batch_size, n_samples - start), self.n_components))
        return generator_state(generator)


def resolve(init: str | None, problem: Problem, n_components: int) -> str:
    """The initialisation that is meant, as scikit-learn chooses for None."""
    shape = (problem.n_features,) if problem.n_samples is None else (problem.n_samples, problem.n_features)
    fits = n_components <= min(shape)
    if init is None:
        return "nndsvda" if fits and problem.n_samples is not None else "random"
    if init in SVD_INITS and not fits:
        raise UsageError(f"init = '{init}' can only be used when n_components <= min(n_samples, n_features)")
    if init not in ("random", "custom", *SVD_INITS):
        raise UsageError(f"unknown init {init!r}", hint="random, nndsvd, nndsvda, nndsvdar or custom")
    return init


def n_power_iterations(problem: Problem, n_components: int) -> int:
    """scikit-learn's count: 7 where few components are asked of a large matrix, else 4."""
    assert problem.n_samples is not None
    return 7 if n_components < 0.1 * min(problem.n_samples, problem.n_features) else 4
