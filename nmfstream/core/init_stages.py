"""The streamed stages that prepare a start: mean of X, randomized SVD, column norms, random fills.

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

from typing import TYPE_CHECKING

import numpy as np

from nmfstream.core import nndsvd
from nmfstream.core.init_state import Generator, InitState, generator_state, restored
from nmfstream.core.products import times_Ht, total
from nmfstream.core.protocols import Batch, Executor
from nmfstream.core.reduction import add_WtX
from nmfstream.core.state import RunState
from nmfstream.types import Array, Matrix, Runs

if TYPE_CHECKING:
    from nmfstream.core.initialization import Initialization

OVERSAMPLING = 10


def times(X: Matrix, T: Array | None) -> Array:
    """X·T, in float64 where T is."""
    assert T is not None
    return times_Ht(X, T.T)


class _Preparing:
    """What the stages share: all rows once, no W, no update of H."""

    rows: Runs | None = None
    resident = carries_W = learns = done = by_block = False
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
        drawn = self.owner.normal(generator, (batch.n_rows, width))
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
        parts = executor.map(lambda block: nndsvd.moments(times(block.X, T)), batch.blocks())
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
        self.run.random_state, self.state.fill = self.state.fill, generator_state(generator)
