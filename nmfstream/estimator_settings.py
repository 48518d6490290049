"""The estimator's parameters as the engine takes them."""

from __future__ import annotations

from typing import Any

from nmfstream.core.mu_model import MuModel, forgetting, is_compiled
from nmfstream.core.parameters import BETA_NAMES, Objective, Parameters, Schedule, Start
from nmfstream.errors import UsageError
from nmfstream.estimator_base import Estimator, warn_caller
from nmfstream.estimator_checks import check_custom, least
from nmfstream.estimator_engine import problem_of
from nmfstream.types import Array, Matrix


class Settings(Estimator):
    """Translates between constructor parameters and the engine's values."""

    n_components: Any
    init: str | None
    batch_size: int
    beta_loss: Any
    tol: float
    max_no_improvement: int | None
    max_iter: int
    alpha_W: float
    alpha_H: Any
    l1_ratio: float
    forget_factor: float
    fresh_restarts: bool
    fresh_restarts_max_iter: int
    transform_max_iter: int | None
    random_state: Any
    verbose: int
    solver: str
    _n_components: Any
    _beta_loss: float

    def _check_zeros(self, X: Matrix) -> None:
        if self._beta() <= 0 and least(X) == 0:
            raise ValueError(
                "When beta_loss <= 0 and X contains zeros, the solver may diverge. Please add small values to X, "
                "or use a positive beta_loss."
            )

    def _begin(self, X: Matrix, W: Any, H: Any) -> tuple[Array | None, Array | None]:
        """Settle sizes and rates; check the custom start."""
        n, m = X.shape
        k = self.n_components
        self._n_components = m if k is None else k
        if self.init == "custom":
            H = check_custom(H, (None if k == "auto" else self._n_components, m), "NMF (input H)")
            self._n_components = H.shape[0]
            W = check_custom(W, (n, self._n_components), "NMF (input W)")
            if H.dtype != X.dtype or W.dtype != X.dtype:
                raise TypeError(
                    f"H and W should have the same dtype as X. Got H.dtype = {H.dtype} and W.dtype = {W.dtype}."
                )
        elif W is not None or H is not None:
            warn_caller(
                "When init!='custom', provided W or H are ignored. Set  init='custom' to use them as initialization.",
                RuntimeWarning,
            )
        if self._n_components == "auto":
            self._n_components = m
        self._n_components = int(self._n_components)
        self._batch_size = min(self.batch_size, n)
        self._rho = forgetting(self.forget_factor, self.batch_size, n)
        self._transform_max_iter = self.max_iter if self.transform_max_iter is None else self.transform_max_iter
        self._beta_loss = self._beta()
        self._check_solver(X)
        return (W, H) if self.init == "custom" else (None, None)

    def _check_solver(self, X: Matrix) -> None:
        if self.solver != "hals":
            return
        from nmfstream.estimator_hals import check_range

        if self._beta_loss != 2:
            raise UsageError("solver='hals' needs beta_loss='frobenius'", hint="use solver='mu'")
        check_range(X)

    def _beta(self) -> float:
        return float(BETA_NAMES[self.beta_loss] if isinstance(self.beta_loss, str) else self.beta_loss)

    def _objective(self) -> Objective:
        alpha_H = self.alpha_W if self.alpha_H == "same" else self.alpha_H
        return Objective(self._n_components, self._beta_loss, float(self.alpha_W), float(alpha_H), float(self.l1_ratio))

    def _schedule(self) -> Schedule:
        return Schedule(
            batch_size=int(self.batch_size),
            max_iter=int(self.max_iter),
            tol=float(self.tol),
            max_no_improvement=self.max_no_improvement,
            forget_factor=float(self.forget_factor) if self.solver == "mu" else None,
            fresh_restarts=bool(self.fresh_restarts),
            fresh_restarts_max_iter=int(self.fresh_restarts_max_iter),
            transform_max_iter=self.transform_max_iter,
        )

    def _parameters(self, H: Array | None) -> Parameters:
        return Parameters(self._objective(), self._schedule(), Start(self.init, self.random_state, H))

    def _model(self, X: Matrix) -> MuModel:
        problem = problem_of(X)
        return MuModel(self._objective(), problem.n_features, problem.dtype, is_compiled(problem, self._n_components))
