"""Frozen configuration of each command: what was asked for, checked in form, with nothing opened yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmfstream.core.parameters import Parameters
from nmfstream.types import Array

if TYPE_CHECKING:
    from nmfstream.model import Model


@dataclass(frozen=True)
class Resources:
    """What the machine gives.

    Attributes
    ----------
    threads : int or None
        None: all cores that the process may use.
    memory : int or None
        Bytes; None: a quarter of the machine's or the cgroup's, 4 GiB at most.
    scratch : Path or None
    """

    threads: int | None = None
    memory: int | None = None
    scratch: Path | None = None


@dataclass(frozen=True)
class Inputs:
    """The data of a command.

    Attributes
    ----------
    data : tuple
        ``STORE[/DATASET]`` texts (or ``"-"``), rows one after the other; from Python also in-memory matrices,
        readers, or one iterator of row chunks.
    transpose, missing_chunks, negative, allow_external
        As the options of the same names.
    dtype : str
        auto, float32 or float64.
    """

    data: tuple[Any, ...]
    transpose: bool = False
    missing_chunks: str = "error"
    negative: str = "error"
    allow_external: bool = False
    dtype: str = "auto"
    input_format: str = "npy"


@dataclass(frozen=True)
class Saving:
    """Checkpoints and time.

    Attributes
    ----------
    path : Path or None
        None: the output's name with ``.ckpt``.
    every_seconds, every_steps : float or None, int or None
    resume, overwrite, strict : bool
    max_time : float or None
        Seconds.
    """

    path: Path | None = None
    every_seconds: float | None = 300.0
    every_steps: int | None = None
    resume: bool = False
    overwrite: bool = False
    strict: bool = False
    max_time: float | None = None


@dataclass(frozen=True)
class FitConfig:
    """`nmfstream fit`.

    Attributes
    ----------
    solver : str
        auto, mu or hals.
    model : Path or None
        MODEL.h5; None (from Python) keeps the model in memory only.
    w, components : str or None
        Outputs of W and of H alone, as ``STORE[/DATASET]``.
    h_init, w_init : str, ndarray or None
        For ``init="custom"``.
    continue_from : str or None
        ``--from``: model or checkpoint whose H (and statistics) the run begins with.
    metrics : Path or None
    dry_run : bool
    """

    inputs: Inputs
    parameters: Parameters
    solver: str = "auto"
    model: Path | None = None
    w: str | None = None
    components: str | None = None
    h_init: str | Array | None = None
    w_init: str | Array | None = None
    continue_from: str | None = None
    resources: Resources = field(default_factory=Resources)
    saving: Saving = field(default_factory=Saving)
    metrics: Path | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class TransformConfig:
    """`nmfstream transform`.

    Attributes
    ----------
    output : str or None
        ``STORE[/DATASET]``, ``"-"``, or None (from Python: return W).
    rows : tuple of int or None
        (START, STOP) of one shard.
    tol, max_iter : float or None, int or None
        Stop of a row's solve (None: by dtype, see the contract).
    """

    inputs: Inputs
    model: str | Model
    output: str | None = None
    output_format: str = "npy"
    rows: tuple[int, int] | None = None
    tol: float | None = None
    max_iter: int | None = None
    resources: Resources = field(default_factory=Resources)
    saving: Saving = field(default_factory=Saving)
    metrics: Path | None = None
