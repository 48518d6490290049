"""What a parameter is where nobody said: by solver, by kind of input, or by the model that a run goes on from."""

from __future__ import annotations

from typing import Any

from nmfstream.core.parameters import BETA_NAMES, Objective, Parameters, Schedule, Start
from nmfstream.errors import UsageError

SOLVERS = ("auto", "mu", "hals")
_FEW_PASSES: dict[str, Any] = {
    "batch_size": 4096, "max_iter": 5, "tol": 1e-4, "max_no_improvement": 2, "forget_factor": None
}  # fmt: skip
_MU: dict[str, Any] = {
    "batch_size": 1024, "max_iter": 200, "tol": 1e-4, "max_no_improvement": 10, "forget_factor": 0.7
}  # fmt: skip
_SCHEDULES = {"auto": _FEW_PASSES, "hals": _FEW_PASSES, "mu": _MU}
_INHERITED = ("n_components", "beta_loss", "alpha_W", "alpha_H", "l1_ratio")
NAMES = (
    *_INHERITED, *_MU, "fresh_restarts", "fresh_restarts_max_iter", "transform_max_iter", "holdout",
    "init", "random_state", "sample_rows", "n_init",
)  # fmt: skip


def make_parameters(
    given: dict[str, Any], *, solver: str = "auto", stream: bool = False, inherited: dict[str, Any] | None = None
) -> Parameters:
    """All that a solver is told, from what was given and the defaults for the rest.

    Parameters
    ----------
    given : dict
        Values by the names of `MiniBatchNMF` (and ``sample_rows``, ``n_init``, ``holdout``); what is not in it was
        not given.
    solver : str
        auto, mu or hals.
    stream : bool
        The input can be read once: one pass, and no more.
    inherited : dict, optional
        Parameters of the model that the run goes on from.

    Raises
    ------
    UsageError
        For values that make no sense, alone or together.
    """
    base = {name: value for name, value in (inherited or {}).items() if name in _INHERITED}
    values = {**_SCHEDULES[_known(solver)], **({"max_iter": 1} if stream else {}), **base, **given}
    if values.get("n_components") is None:
        raise UsageError("the number of components is missing", where="-k", hint="give it, as in -k 20")
    _check(values, solver, stream)
    return Parameters(_objective(values), _schedule(values), _start(values))


def _known(solver: str) -> str:
    if solver not in SOLVERS:
        raise UsageError(f"no solver is called {solver!r}", where="--solver", hint=f"one of {', '.join(SOLVERS)}")
    return solver


def _objective(values: dict[str, Any]) -> Objective:
    alpha_W = float(values.get("alpha_W", 0.0))
    alpha_H = values.get("alpha_H", "same")
    return Objective(
        int(values["n_components"]),
        _beta(values),
        alpha_W,
        alpha_W if alpha_H in ("same", None) else float(alpha_H),
        float(values.get("l1_ratio", 0.0)),
    )


def _beta(values: dict[str, Any]) -> float:
    beta = values.get("beta_loss", "frobenius")
    if isinstance(beta, str) and beta not in BETA_NAMES:
        raise UsageError(f"no loss is called {beta!r}", where="--beta-loss", hint=f"one of {', '.join(BETA_NAMES)}")
    return float(BETA_NAMES[beta] if isinstance(beta, str) else beta)


def _schedule(values: dict[str, Any]) -> Schedule:
    fields = {name: values[name] for name in Schedule.__dataclass_fields__ if name in values}
    tol = fields.get("tol")
    return Schedule(**{**fields, "tol": 0.0 if tol is None else float(tol)})


def _start(values: dict[str, Any]) -> Start:
    return Start(**{name: values[name] for name in ("init", "random_state", "sample_rows", "n_init") if name in values})


def _check(values: dict[str, Any], solver: str, stream: bool) -> None:
    for wrong, where, what, hint in (
        (
            solver == "hals" and _beta(values) != 2.0,
            "--solver hals", "serves the Frobenius loss alone", "use --solver auto, or --beta-loss frobenius",
        ),
        (
            stream and values["max_iter"] > 1,
            "--max-iter", "a stream is read once", "leave --max-iter out, or put the data into a file first",
        ),
        (values["n_components"] < 1, "-k", "at least one component is needed", "give it, as in -k 20"),
        (values["batch_size"] < 1, "--batch-size", "at least one row is needed", "leave it out for the default"),
        (values["max_iter"] < 1, "--max-iter", "at least one pass is needed", "leave it out for the default"),
        (not 0 <= values.get("l1_ratio", 0.0) <= 1, "--l1-ratio", "no share", "give a number from 0 to 1"),
        (not 0 <= values.get("holdout", 0.0) < 1, "--holdout", "no share", "give a number from 0 to below 1"),
        (
            not 0 <= (1.0 if values["forget_factor"] is None else values["forget_factor"]) <= 1,
            "--forget-factor", "no share", "give a number from 0 to 1",
        ),
        ((values["tol"] or 0.0) < 0, "--tol", "below zero", "give 0 or none to switch the rule off"),
    ):  # fmt: skip
        if wrong:
            raise UsageError(what, where=where, hint=hint)


def inherited_from(model: str | None) -> dict[str, Any] | None:
    """The parameters of the model or checkpoint that a run goes on from.

    Raises
    ------
    InputAbsentError, DataError
    """
    if model is None:
        return None
    from nmfstream.model import read_model

    return read_model(model).parameters
