"""One tree of errors: each carries the exit code of the command line and is also the stdlib type it stands for."""

from __future__ import annotations

RESUME = "run the same command again with --resume"
"""What to do about an interrupted run that has saved; the command line puts the command itself in its place."""


class NmfstreamError(Exception):
    """What went wrong, where, and what to do about it, in one line.

    Parameters
    ----------
    what : str
        The fault itself.
    where : str, optional
        File, dataset, row or option that it concerns.
    hint : str, optional
        What the user can do next.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(what)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        text = f"{text}; {self.hint}" if self.hint else text
        return " ".join(text.split())


class UsageError(NmfstreamError, ValueError):
    """The request makes no sense: wrong option, impossible budget, ambiguous dataset."""

    exit_code = 2


class DataError(NmfstreamError, ValueError):
    """The data cannot be factorized as they are: NaN, negative, missing chunk, broken structure."""

    exit_code = 65


class InputAbsentError(NmfstreamError, FileNotFoundError):
    """An input or a dataset inside it does not exist."""

    exit_code = 66


class RemoteError(NmfstreamError, ConnectionError):
    """A remote store or a cluster is gone."""

    exit_code = 69


class NumericError(NmfstreamError, ArithmeticError):
    """A numeric invariant broke."""

    exit_code = 70


class OutputExistsError(NmfstreamError, FileExistsError):
    """An output exists, cannot be created, or is held by another run."""

    exit_code = 73


class StorageError(NmfstreamError, OSError):
    """Reading or writing failed."""

    exit_code = 74


class InterruptedRunError(NmfstreamError, InterruptedError):
    """A signal or the time limit ended the run; all is saved."""

    exit_code = 75


class AccessDeniedError(NmfstreamError, PermissionError):
    """The system denies access."""

    exit_code = 77


class CheckpointMismatchError(NmfstreamError, ValueError):
    """A checkpoint and the request that wants to continue it differ, or no generation can be used."""

    exit_code = 78


class StopRequested(BaseException):
    """Raised between two blocks when a stop was asked for: the step in hand is dropped.

    Not an `Exception`: nothing but the driver may catch it.
    """
