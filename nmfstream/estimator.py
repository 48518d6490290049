"""`MiniBatchNMF`: scikit-learn's estimator over this package's engine, without scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nmfstream.core.blocks import block_rows
from nmfstream.core.init_state import Generator
from nmfstream.core.initialization import Initialization
from nmfstream.core.mu_model import MuState
from nmfstream.core.multiplicative import MiniBatchMU, partial_step
from nmfstream.core.parameters import Start
from nmfstream.core.protocols import Executor
from nmfstream.core.solvers import make_solver
from nmfstream.core.state import RunState
from nmfstream.estimator_base import in_container, known_as, warn_caller
from nmfstream.estimator_checks import check_input_features, check_matrix, check_non_negative, check_parameters
from nmfstream.estimator_engine import executor_for, one_batch, problem_of
from nmfstream.estimator_files import Files
from nmfstream.estimator_verbose import narrator
from nmfstream.run.sources import MemorySource
from nmfstream.run.stages import Hooks, MemoryW, run_stages
from nmfstream.types import Array, Matrix


class MiniBatchNMF(Files):
    """Mini-batch non-negative matrix factorization X ≈ WH.

    Parameters, attributes and results are those of ``sklearn.decomposition.MiniBatchNMF``, and `solver` besides.

    Parameters
    ----------
    n_components : int, "auto" or None, default="auto"
        None: n_features; "auto": that of a custom H, else n_features.
    init : {"random", "nndsvd", "nndsvda", "nndsvdar", "custom"} or None
        None: "nndsvda" where n_components <= min(n_samples, n_features), else "random".
    batch_size : int
        Rows between two updates of H.
    beta_loss : float or {"frobenius", "kullback-leibler", "itakura-saito"}
    tol : float
        Relative change of H (and of W in solves for W) that ends a run; 0: never.
    max_no_improvement : int or None
        Batches without improvement of the smoothed cost that end a run.
    max_iter : int
        Most passes over the data.
    alpha_W, alpha_H : float
        Strength of the penalties, which n_features and n_samples scale; alpha_H may be "same".
    l1_ratio : float
        Share of the L1 norm in them.
    forget_factor : float
        Weight of the past after one pass (``partial_fit``: after one batch of `batch_size` rows).
    fresh_restarts : bool
        Solve W of each batch from scratch.
    fresh_restarts_max_iter, transform_max_iter : int
        Most multiplicative steps of such solves in fit and in transform (None: `max_iter`).
    random_state : int, RandomState or None
    verbose : int
    solver : {"mu", "hals"}
        "hals" (Frobenius only) needs few passes; `batch_size` then counts for the first of them.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
    n_components_, n_features_in_, n_iter_, n_steps_ : int
    reconstruction_err_ : float
        Square root of twice the divergence of X and WH.
    feature_names_in_ : ndarray of str
        Where X was a data frame.

    Examples
    --------
    >>> import numpy as np
    >>> from nmfstream import MiniBatchNMF
    >>> X = np.array([[1.0, 1], [2, 1], [3, 1.2], [4, 1], [5, 0.8], [6, 1]])
    >>> model = MiniBatchNMF(n_components=2, init="random", random_state=0)
    >>> model.fit_transform(X).shape
    (6, 2)
    """

    def __init__(
        self,
        n_components: Any = "auto",
        *,
        init: str | None = None,
        batch_size: int = 1024,
        beta_loss: Any = "frobenius",
        tol: float = 1e-4,
        max_no_improvement: int | None = 10,
        max_iter: int = 200,
        alpha_W: float = 0.0,
        alpha_H: Any = "same",
        l1_ratio: float = 0.0,
        forget_factor: float = 0.7,
        fresh_restarts: bool = False,
        fresh_restarts_max_iter: int = 30,
        transform_max_iter: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
        solver: str = "mu",
    ) -> None:
        self.n_components = n_components
        self.init = init
        self.batch_size = batch_size
        self.beta_loss = beta_loss
        self.tol = tol
        self.max_no_improvement = max_no_improvement
        self.max_iter = max_iter
        self.alpha_W = alpha_W
        self.alpha_H = alpha_H
        self.l1_ratio = l1_ratio
        self.forget_factor = forget_factor
        self.fresh_restarts = fresh_restarts
        self.fresh_restarts_max_iter = fresh_restarts_max_iter
        self.transform_max_iter = transform_max_iter
        self.random_state = random_state
        self.verbose = verbose
        self.solver = solver

    def fit(self, X: Any, y: Any = None, **params: Any) -> MiniBatchNMF:
        """Learn the components.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : ignored
        **params
            W and H, as `fit_transform` takes them.
        """
        for name in params.keys() - {"W", "H"}:
            raise TypeError(f"{type(self).__name__}.fit() got an unexpected keyword argument {name!r}")
        self._fit(X, **params)
        return self

    @in_container
    def fit_transform(self, X: Any, y: Any = None, W: Any = None, H: Any = None) -> Array:
        """Learn the components and return W.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : ignored
        W, H : ndarray, optional
            Where to begin, with ``init="custom"``; they are changed in place.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
        """
        learned: Array = self._fit(X, W, H)
        return learned

    def _fit(self, X: Any, W: Any = None, H: Any = None) -> Array:
        check_parameters(self)
        X = check_matrix(self, X, reset=True)
        check_non_negative(X, "MiniBatchNMF (input X)")
        self._check_zeros(X)
        W, H = self._begin(X, W, H)
        problem = problem_of(X)
        solver = make_solver(self.solver, problem, self._parameters(H))
        with executor_for(X, self._n_components) as executor:
            state = solver.start()
            carried = MemoryW(problem.n_samples or 0, self._n_components, problem.dtype, W)
            size = block_rows(problem, self._n_components, self._batch_size)
            hooks = Hooks(narrator(self, problem)) if self.verbose else None
            run_stages(solver, state, MemorySource(X), executor, size, carried, hooks)
            self._keep(state, H)
            if isinstance(solver, MiniBatchMU) and isinstance(self.random_state, np.random.RandomState | None):
                self._give_back(solver.initialization.end_of_draws(state, drew_W=not self.fresh_restarts))
            learned: Array = self._final_W(X, carried.W, executor)
            self.reconstruction_err_ = self._error(X, learned, executor)
        self._warn()
        return learned

    def _keep(self, state: RunState, H: Array | None) -> None:
        """Take over what a run learned; a custom H is the one that changes, as in scikit-learn."""
        assert state.solver.H is not None
        learned = state.solver.H
        if H is not None:
            H[...] = learned
        self.components_ = learned if H is None else H
        self.n_components_ = len(learned)
        self.n_iter_, self.n_steps_ = state.n_iter, state.n_steps
        self._run = state

    def _give_back(self, end: Generator | None) -> None:
        """Leave a generator that is not ours (given, or numpy's global one) where the draws ended."""
        if end is not None and isinstance(self.random_state, np.random.RandomState | None):
            Start(random_state=self.random_state).generator().set_state(end)

    def _final_W(self, X: Matrix, W: Array, executor: Executor) -> Array:
        if self.solver == "hals":
            return self._solve_each_row(X, executor)
        return self._solve_W(X, executor) if self.fresh_restarts else W

    def _solve_W(self, X: Matrix, executor: Executor) -> Array:
        model, batch = self._model(X), one_batch(X, self._n_components)
        fixed = model.loss.fix(np.ascontiguousarray(self.components_, X.dtype))
        return model.solve(batch.blocks(), fixed, self.tol, self._transform_max_iter, executor)

    def _solve_each_row(self, X: Matrix, executor: Executor) -> Array:
        from nmfstream.estimator_hals import solve_each_row

        return solve_each_row(X, self.components_, self._objective(), executor)

    def _error(self, X: Matrix, W: Array, executor: Executor) -> float:
        model, batch = self._model(X), one_batch(X, self._n_components)
        fixed = model.loss.fix(np.ascontiguousarray(self.components_))
        return math.sqrt(2.0 * max(0.0, model.divergence(batch.blocks(), W, fixed, executor)))

    def _warn(self) -> None:
        if self.n_iter_ == self.max_iter and self.tol > 0 and self.solver == "mu":
            warn_caller(
                f"Maximum number of iterations {self.max_iter} reached. Increase it to improve convergence.",
                known_as("ConvergenceWarning"),
            )

    def partial_fit(self, X: Any, y: Any = None, W: Any = None, H: Any = None) -> MiniBatchNMF:
        """Learn from one chunk of rows: W solved for it, then one update of the components.

        The first chunk fixes the number of rows that `forget_factor` relates to.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : ignored
        W, H : ndarray, optional
            Where to begin, with ``init="custom"``, at the first call.
        """
        check_parameters(self)
        fitted = hasattr(self, "components_")
        X = check_matrix(self, X, reset=not fitted)
        check_non_negative(X, "MiniBatchNMF (input X)" if fitted else "NMF initialization")
        with executor_for(X, self._guess_components(X, H)) as executor:
            if not fitted:
                self._first_chunk(X, W, H, executor)
            self._check_solver(X)
            self._run.solver.H = np.ascontiguousarray(self.components_)
            if self.solver == "hals":
                from nmfstream.estimator_hals import partial_fit_hals

                partial_fit_hals(self._run, X, self._objective(), self._rho, executor)
            else:
                batch = one_batch(X, self._n_components)
                if not isinstance(self._run.solver, MuState):
                    self._run.solver = MuState(self._run.solver.H)
                partial_step(self._model(X), self._run, batch, self._schedule(), self._rho, executor)
        self.components_[...] = self._run.solver.H
        self.n_components_, self.n_steps_ = len(self.components_), self._run.n_steps
        return self

    def _guess_components(self, X: Matrix, H: Any) -> int:
        known = getattr(self, "_n_components", self.n_components)
        return known if isinstance(known, int) else int(getattr(H, "shape", X.shape[1:])[0])

    def _first_chunk(self, X: Matrix, W: Any, H: Any, executor: Executor) -> None:
        W, H = self._begin(X, W, H)
        run = RunState(MuState())
        if H is not None:
            self.components_ = H
        else:
            start = self._parameters(None).start
            owner = Initialization(problem_of(X), self._n_components, start, X.shape[0])
            owner.from_rows(run, one_batch(X, self._n_components), executor)
            assert run.solver.H is not None
            self.components_ = run.solver.H
            self._give_back(run.random_state)
        self._run = run

    @in_container
    def transform(self, X: Any) -> Array:
        """W for these rows and the learned components.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_components)
        """
        self._check_fitted()
        X = check_matrix(self, X, reset=False)
        check_non_negative(X, "MiniBatchNMF.transform (input X)")
        with executor_for(X, self._n_components) as executor:
            if self.solver == "hals":
                return self._solve_each_row(X, executor)
            return self._solve_W(X, executor)

    def inverse_transform(self, X: Any) -> Array:
        """Data of the original shape: W times the components.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_components)
            W.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        self._check_fitted()
        product: Array = X @ self.components_
        return product

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """See `Estimator.get_feature_names_out`."""
        self._check_fitted()
        check_input_features(self, input_features)
        prefix = type(self).__name__.lower()
        return np.asarray([f"{prefix}{i}" for i in range(len(self.components_))], dtype=object)

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def _check_fitted(self) -> None:
        if not hasattr(self, "components_"):
            name = type(self).__name__
            raise known_as("NotFittedError")(
                f"This {name} instance is not fitted yet. Call 'fit' with appropriate arguments before using "
                "this estimator."
            )
