"""The estimator and model files: what the command line learned transforms in Python, and the reverse."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Self

import numpy as np

from nmfstream.core.mu_model import MuState, forgetting
from nmfstream.core.state import RunState
from nmfstream.estimator_settings import Settings
from nmfstream.model import Model, read_model, write_model

SOLVERS = ("mu", "hals")


class Files(Settings):
    """`save` and `from_file`."""

    components_: Any
    n_components_: int
    n_features_in_: int
    n_iter_: int
    n_steps_: int
    reconstruction_err_: float
    _run: RunState
    _rho: float
    _batch_size: int
    _transform_max_iter: int

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a model file, for ``nmfstream transform -m`` and `from_file`.

        Parameters
        ----------
        path : str or Path
            MODEL.h5; it appears whole or not at all.
        overwrite : bool
            Replace a file that exists.

        Raises
        ------
        OutputExistsError, AccessDeniedError, StorageError
        """
        self._check_fitted()
        names = getattr(self, "feature_names_in_", None)
        model = Model(
            components=np.ascontiguousarray(self.components_),
            parameters={**self.get_params(), **self._plain(), "n_components": len(self.components_)},
            feature_names=None if names is None else tuple(map(str, names)),
            n_iter=int(getattr(self, "n_iter_", 0)),
            n_steps=int(getattr(self, "n_steps_", 0)),
            loss=float(getattr(self, "reconstruction_err_", math.nan)),
            stop_reason="learned by MiniBatchNMF",
        )
        write_model(Path(path), model, overwrite=overwrite)

    def _plain(self) -> dict[str, Any]:
        objective = self._objective()
        seed = self.random_state if isinstance(self.random_state, int | np.integer | None) else "generator"
        return {"beta_loss": objective.beta, "alpha_H": objective.alpha_H, "random_state": seed}

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """A fitted estimator from a model file or a checkpoint.

        Parameters
        ----------
        path : str or Path

        Returns
        -------
        MiniBatchNMF
            Ready for `transform`, and for `partial_fit` to go on from.

        Raises
        ------
        InputAbsentError, DataError
        """
        model = read_model(path)
        names = cls._parameter_names()
        given = {name: value for name, value in model.parameters.items() if name in names}
        given["solver"] = given["solver"] if given.get("solver") in SOLVERS else "mu"
        if given.get("random_state") == "generator":
            del given["random_state"]
        if given.get("forget_factor", 0.0) is None:
            del given["forget_factor"]
        own = cls(**{**given, "n_components": model.n_components})
        own._take(model)
        return own

    def _take(self, model: Model) -> None:
        self.components_ = model.components
        self.n_components_ = self._n_components = model.n_components
        self.n_features_in_ = model.n_features
        self.n_iter_, self.n_steps_ = model.n_iter, model.n_steps
        if model.feature_names is not None:
            self.feature_names_in_ = np.asarray(model.feature_names, dtype=object)
        self._batch_size, self._beta_loss = self.batch_size, self._beta()
        self._rho = forgetting(self.forget_factor, self.batch_size, self.batch_size)
        self._transform_max_iter = self.max_iter if self.transform_max_iter is None else self.transform_max_iter
        self._run = RunState(MuState(H=model.components.copy()), n_iter=model.n_iter, n_steps=model.n_steps)

    def _check_fitted(self) -> None:
        raise NotImplementedError
