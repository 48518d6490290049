"""The solvers by name; a solver's module is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

from nmfstream.core.parameters import Parameters
from nmfstream.core.protocols import Problem, Solver
from nmfstream.errors import UsageError

SOLVERS: dict[str, str] = {
    "mu": "nmfstream.core.multiplicative:MiniBatchMU",
    "hals": "nmfstream.core.hals:Hals",
    "newton": "nmfstream.core.newton:Newton",
    "accumulated": "nmfstream.core.accumulated:Accumulated",
}

AUTO: dict[float, str] = {2.0: "hals", 1.0: "newton"}
"""What ``auto`` means for a β; any other: accumulated."""


def resolve(name: str, beta: float) -> str:
    """The solver that `name` means for this β."""
    return AUTO.get(float(beta), "accumulated") if name == "auto" else name


def make_solver(name: str, problem: Problem, parameters: Parameters) -> Solver:
    """The solver called `name`.

    Raises
    ------
    UsageError
        For a name that nobody has, or parameters that the solver cannot serve.
    """
    if name not in SOLVERS:
        raise UsageError(f"unknown solver {name!r}", hint=f"one of {', '.join(SOLVERS)}")
    module, attribute = SOLVERS[name].split(":")
    solver: Solver = getattr(import_module(module), attribute)(problem, parameters)
    return solver


def bring_state(kind: str) -> None:
    """Import the solver whose state goes by `kind` (all of them where none has that name), for `core.state.unpack`."""
    targets = [SOLVERS[kind]] if kind in SOLVERS else list(SOLVERS.values())
    for target in targets:
        import_module(target.split(":")[0])
