"""Where ``mu`` begins: random, the NNDSVD family and custom, as streamed stages with scikit-learn's numbers.

The randomized SVD keeps everything tall on the feature side. With Y = XQ for a sketch Q of shape
(n_features, s), a pass gives YᵀY and YᵀX; the next Q is an orthonormal basis of XᵀY. As Q settles, its columns
become the right singular vectors in order, so that YᵀY is nearly diagonal however fast the singular values
fall, and its factor, scaled by the diagonal, is exact where a plain Gram matrix would lose half of the digits.
Rows of the left singular vectors are x·T for a small T, and so are rows of the first W: made on the fly.

References
----------
C. Boutsidis, E. Gallopoulos, "SVD based initialization: a head start for nonnegative matrix factorization",
Pattern Recognition 41(4), 2008; N. Halko, P.-G. Martinsson, J. Tropp, SIAM Review 53(2), 2011.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmfstream.core import nndsvd
from nmfstream.core.blocks import row_bytes
from nmfstream.core.parameters import Start
from nmfstream.core.products import times_Ht, total
from nmfstream.core.protocols import Batch, Executor, Problem, Stage
from nmfstream.core.reduction import add_WtX
from nmfstream.core.state import RunState, SolverState
from nmfstream.errors import UsageError
from nmfstream.types import Array, Matrix, Runs

SVD_INITS = ("nndsvd", "nndsvda", "nndsvdar")
OVERSAMPLING = 10
UNIT_BYTES = 8 << 20
"""Bytes of X a step of the stages, but a whole batch at least."""
Generator = dict[str, Any]


@dataclass
class InitState(SolverState):
    """What initialisation keeps between two steps; emptied of what the passes do not need.

    Attributes
    ----------
    total : float
        Sum of X so far.
    sketch : ndarray of float64, shape (n_features, s), optional
        Q of the randomized SVD.
    image : ndarray of float64, shape (s, n_features), optional
        YᵀX of the pass under way.
    gram : ndarray of float64, shape (s, s), optional
        YᵀY of the pass under way.
    values, right : ndarray, optional
        Singular values and right singular vectors (as rows).
    moments : ndarray of float64, shape (4, n_components), optional
        Of U's columns: Σ u₊², Σ u₋², max u₊, max u₋.
    T : ndarray of float64, shape (n_features, n_components), optional
        Rows of U (then of W) are x·T.
    average : float
        Mean of X.
    fill : dict, optional
        Generator before the fills of W (nndsvdar).
    """

    total: float = 0.0
    sketch: Array | None = None
    image: Array | None = None
    gram: Array | None = None
    values: Array | None = None
    right: Array | None = None
    moments: Array | None = None
    T: Array | None = None
    average: float = 0.0
    fill: Generator | None = None


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
            return [lambda run: MeanOfX(self, run)]
        stages: list[Callable[[RunState], Stage]] = []
        if self.wide:
            stages.append(lambda run: DrawnSketch(self, run))
        power = n_power_iterations(self.problem, self.n_components)
        stages += [lambda run, i=i: PowerIteration(self, run, i + 1) for i in range(power)]  # type: ignore[misc]
        stages += [lambda run: Projection(self, run), lambda run: ColumnNorms(self, run)]
        if self.init == "nndsvdar":
            stages.append(lambda run: CountFills(self, run))
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
            state.H = self._normal(generator, (self.n_components, self.problem.n_features))
        elif not self.wide:
            width = self.n_components + OVERSAMPLING
            state.sketch = self._normal(generator, (self.problem.n_features, width)).astype(np.float64)
        return generator_state(generator)

    def _normal(self, generator: np.random.RandomState, shape: tuple[int, int]) -> Array:
        return generator.normal(size=shape).astype(self.problem.dtype)

    @property
    def unit(self) -> int:
        """Rows a step of the stages: whole batches of the passes, about `UNIT_BYTES` of them."""
        return self.batch_size * max(1, int(UNIT_BYTES / max(1.0, self.batch_size * row_bytes(self.problem))))

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
            drawn = self._normal(generator, (batch.n_rows, self.n_components))
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
        return np.concatenate(executor.map(lambda block: _times(block.X, T), batch.blocks()))

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
        if own.init in ("random", "nndsvdar"):
            sub.random_state = own.rows_of_W(sub, batch, executor)[1]
        run.random_state, run.solver.H = sub.random_state, sub.solver.H


class _Preparing:
    """What the stages share: all rows once, no W, no update of H."""

    rows: Runs | None = None
    resident = carries_W = learns = done = False
    name = ""

    def __init__(self, owner: Initialization, run: RunState) -> None:
        self.owner, self.run = owner, run
        self.unit = owner.unit
        assert isinstance(run.solver, InitState)
        self.state = run.solver

    def total_of(self, batch: Batch, executor: Executor) -> float:
        return float(sum(executor.map(lambda block: total(block.X), batch.blocks())))

    def finish_mean(self) -> None:
        problem = self.owner.problem
        self.state.average = self.state.total / ((problem.n_samples or 1) * problem.n_features)


class MeanOfX(_Preparing):
    """One read for the scale of a random start."""

    name = "mean of X"

    def step(self, batch: Batch, executor: Executor) -> None:
        """See `nmfstream.core.protocols.Stage.step`."""
        self.state.total += self.total_of(batch, executor)

    def finish(self, executor: Executor) -> None:
        """See `nmfstream.core.protocols.Stage.finish`."""
        self.finish_mean()
        self.owner.scale(self.state, self.run.random_state)


class _Sketching(_Preparing):
    """A pass that maps rows to a sketch Y and sums YᵀX (and, where asked, YᵀY)."""

    wants_image = True

    def sketch_rows(self, batch: Batch, executor: Executor) -> tuple[Array, Generator | None]:
        return self.owner.products(batch, self.state.sketch, executor), self.run.random_state

    def step(self, batch: Batch, executor: Executor) -> None:
        """See `nmfstream.core.protocols.Stage.step`."""
        Y, generator = self.sketch_rows(batch, executor)
        blocks, width = batch.blocks(), Y.shape[1]
        grams = executor.map(lambda b: Y[b.start : b.stop].T @ Y[b.start : b.stop], blocks)
        image = np.zeros((width, self.owner.problem.n_features))
        if self.wants_image:
            add_WtX(image, blocks, Y, executor)
        state = self.state
        if self.run.stage == 0:
            state.total += self.total_of(batch, executor)
        state.image = image if state.image is None else state.image + image
        gram = sum(grams, np.zeros((width, width)))
        state.gram = gram if state.gram is None else state.gram + gram
        self.run.random_state = generator

    def close_pass(self) -> tuple[Array, Array]:
        """Image and Gram matrix of the pass, cleared for the next."""
        state = self.state
        assert state.image is not None and state.gram is not None
        image, gram = state.image, state.gram
        state.image = state.gram = None
        if self.run.stage == 0:
            self.finish_mean()
        return image, gram


class DrawnSketch(_Sketching):
    """The first half step for wide X: Y drawn row by row, Q a basis of XᵀY."""

    name = "singular vectors: sketch"

    def sketch_rows(self, batch: Batch, executor: Executor) -> tuple[Array, Generator | None]:
        """Rows of Y from the generator."""
        generator = restored(self.run.random_state)
        width = self.owner.n_components + OVERSAMPLING
        drawn = self.owner._normal(generator, (batch.n_rows, width))
        return drawn.astype(np.float64), generator_state(generator)

    def finish(self, executor: Executor) -> None:
        """See `nmfstream.core.protocols.Stage.finish`."""
        self.state.sketch = nndsvd.basis(self.close_pass()[0])


class PowerIteration(_Sketching):
    """Q ← basis of XᵀXQ."""

    def __init__(self, owner: Initialization, run: RunState, number: int) -> None:
        super().__init__(owner, run)
        self.name = f"singular vectors: iteration {number}"

    def finish(self, executor: Executor) -> None:
        """See `nmfstream.core.protocols.Stage.finish`."""
        self.state.sketch = nndsvd.basis(self.close_pass()[0])


class Projection(_Sketching):
    """Singular values and right vectors, and the T that gives left ones."""

    name = "singular vectors: projection"

    def __init__(self, owner: Initialization, run: RunState) -> None:
        super().__init__(owner, run)
        self.wants_image = not owner.wide

    def finish(self, executor: Executor) -> None:
        """See `nmfstream.core.protocols.Stage.finish`."""
        image, gram = self.close_pass()
        assert self.state.sketch is not None
        solve = nndsvd.from_sketch if self.owner.wide else nndsvd.from_image
        triplets = solve(self.state.sketch, image, gram, self.owner.n_components)
        self.state.T, self.state.values, self.state.right = triplets
        self.state.sketch = None


class ColumnNorms(_Preparing):
    """Norms and largest entries of the positive and negative parts of U's columns."""

    name = "singular vectors: norms"

    def step(self, batch: Batch, executor: Executor) -> None:
        """See `nmfstream.core.protocols.Stage.step`."""
        T = self.state.T
        parts = executor.map(lambda block: nndsvd.moments(_times(block.X, T)), batch.blocks())
        self.state.moments = nndsvd.merged(parts if self.state.moments is None else [self.state.moments, *parts])

    def finish(self, executor: Executor) -> None:
        """See `nmfstream.core.protocols.Stage.finish`."""
        state, owner = self.state, self.owner
        assert state.T is not None and state.values is not None
        assert state.right is not None and state.moments is not None
        T, H = nndsvd.oriented(state.T, state.values, state.right, state.moments)
        H = nndsvd.floored(H.astype(owner.problem.dtype))
        state.values = state.right = state.moments = None
        state.T = T
        if owner.init == "nndsvdar":
            # scikit-learn makes a generator anew from the seed here.
            if not isinstance(owner.start.random_state, np.random.RandomState | None):
                self.run.random_state = generator_state(owner.start.generator())
            state.fill, state.H = self.run.random_state, H
        else:
            state.H = nndsvd.filled(H, state.average if owner.init == "nndsvda" else 0.0)


class CountFills(_Preparing):
    """Draw the fills of W to learn where those of H begin; the first pass draws them again."""

    name = "random fills"

    def step(self, batch: Batch, executor: Executor) -> None:
        """See `nmfstream.core.protocols.Stage.step`."""
        self.run.random_state = self.owner.rows_of_W(self.run, batch, executor)[1]

    def finish(self, executor: Executor) -> None:
        """See `nmfstream.core.protocols.Stage.finish`."""
        assert self.state.H is not None
        generator = restored(self.run.random_state)
        self.state.H = nndsvd.filled(self.state.H, self.state.average, generator)
        self.run.random_state, self.state.fill = self.state.fill, None


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


def generator_state(generator: np.random.RandomState) -> Generator:
    """What `restored` needs."""
    return dict(generator.get_state(legacy=False))


def restored(state: Generator | None) -> np.random.RandomState:
    """A generator in that state."""
    assert state is not None
    generator = np.random.RandomState(0)
    generator.set_state(state)
    return generator


def _times(X: Matrix, T: Array | None) -> Array:
    assert T is not None
    return times_Ht(X, T.T)
