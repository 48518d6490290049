"""The commands as functions: `fit`, `transform`, `open`, `read_model`.

Data are what the command line takes (``"counts.h5/X"``, several of them, ``"-"``), or a matrix in memory (ndarray,
scipy sparse), something that `open` returned, or an iterator of row chunks, which is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from nmfstream.config import FitConfig, Inputs, Resources, Saving, TransformConfig
from nmfstream.defaults import NAMES, inherited_from, make_parameters
from nmfstream.errors import UsageError
from nmfstream.model import Model, read_model
from nmfstream.run.events import silent
from nmfstream.stores.chunks import is_stream
from nmfstream.types import CSR, Array, Matrix

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Unpack

    from nmfstream.run.events import Listener
    from nmfstream.stores.protocols import RowReader

__all__ = ["Model", "Rows", "fit", "open", "read_model", "transform"]


class DataOptions(TypedDict, total=False):
    """How data are opened and read: the command line's options of the same names."""

    transpose: bool
    dtype: str
    missing_chunks: str
    negative: str
    allow_external: bool
    input_format: str


class RunOptions(DataOptions, total=False):
    """What a run may use (`memory` in bytes, `max_time` in seconds) and how it is saved."""

    threads: int
    memory: int
    scratch: Path
    path: Path
    every_seconds: float | None
    every_steps: int | None
    resume: bool
    overwrite: bool
    strict: bool
    max_time: float
    listener: Listener


class FitOptions(RunOptions, total=False):
    """Parameters of `MiniBatchNMF` and of the sample that is fitted first; more outputs."""

    beta_loss: str | float
    init: str
    batch_size: int
    tol: float | None
    max_no_improvement: int | None
    max_iter: int
    alpha_W: float
    alpha_H: float
    l1_ratio: float
    forget_factor: float
    fresh_restarts: bool
    fresh_restarts_max_iter: int
    transform_max_iter: int | None
    holdout: float
    random_state: int | None
    sample_rows: int
    n_init: int
    w: str
    components: str
    h_init: str | Array
    w_init: str | Array


def fit(
    data: Any,
    n_components: int | None = None,
    *,
    output: str | Path | None = None,
    solver: str = "auto",
    continue_from: str | Path | None = None,
    **options: Unpack[FitOptions],
) -> Model:
    """Learn H from data of any size.

    Parameters
    ----------
    data : str, Path, sequence of these, ndarray, scipy sparse, `Rows`, or iterator of row chunks
        Of shape (n_samples, n_features).
    n_components : int, optional
        May be left out with `continue_from`.
    output : str or Path, optional
        MODEL.h5, with its checkpoint beside it. Without it the model is only returned.
    solver : str
        auto, mu or hals.
    continue_from : str or Path, optional
        Model or checkpoint to go on from.
    **options
        See `FitOptions`.

    Returns
    -------
    Model
        ``model.components`` is H, of shape (n_components, n_features).

    Raises
    ------
    NmfstreamError
        Of the kind that fits, also as the built-in error it stands for.

    Examples
    --------
    >>> import numpy as np, nmfstream
    >>> rng = np.random.default_rng(0)
    >>> X = rng.random((200, 3)) @ rng.random((3, 40))
    >>> model = nmfstream.fit(X, 3, random_state=0)
    >>> model.components.shape
    (3, 40)
    >>> W = nmfstream.transform(X, model)
    >>> bool(np.linalg.norm(X - W @ model.components) < 0.02 * np.linalg.norm(X))
    True
    """
    given = _known(options, FitOptions)
    items = _items(data)
    parameters = {name: given[name] for name in NAMES if name in given}
    if n_components is not None:
        parameters["n_components"] = n_components
    if "h_init" in given:
        parameters.setdefault("init", "custom")
    start = None if continue_from is None else str(continue_from)
    with TemporaryDirectory(prefix="nmfstream-") as folder:
        path = Path(output) if output is not None else Path(folder) / "model.h5"
        config = FitConfig(
            inputs=_inputs(items, given),
            parameters=make_parameters(
                parameters, solver=solver, stream=is_stream(items), inherited=inherited_from(start)
            ),
            solver=solver,
            model=path,
            continue_from=start,
            resources=_resources(given),
            saving=_saving(given),
            **{name: given[name] for name in ("w", "components", "h_init", "w_init") if name in given},
        )
        from nmfstream.run.fit import fit as run

        run(config, given.get("listener", silent))
        return read_model(path)


def transform(
    data: Any,
    model: str | Path | Model,
    *,
    output: str | None = None,
    rows: tuple[int, int] | None = None,
    tol: float | None = None,
    max_iter: int | None = None,
    **options: Unpack[RunOptions],
) -> Array | None:
    """Solve for W, each row by itself.

    Parameters
    ----------
    data
        As for `fit`.
    model : str, Path or Model
        Model file, checkpoint, or what `fit` and `read_model` return.
    output : str, optional
        ``STORE[/DATASET]``; without it W is returned.
    rows : tuple of int, optional
        (start, stop) of a shard.
    tol : float, optional
        A row is solved when its relative KKT residual is below this: 1e-5 in float32, 1e-9 in float64.
    max_iter : int, optional
        Most iterations of a row.
    **options
        See `RunOptions`.

    Returns
    -------
    ndarray of shape (n_samples, n_components), or None
        W where no output is named.

    Examples
    --------
    Any loader that gives rows in order will do:

    >>> import numpy as np, nmfstream
    >>> H = np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]])
    >>> model = nmfstream.Model(H, {"beta_loss": 2.0})
    >>> loader = (np.full((4, 2), [i, 1.0]) @ H for i in range(3))
    >>> nmfstream.transform(loader, model).round(6)[::4]
    array([[0., 1.],
           [1., 1.],
           [2., 1.]])
    """
    given = _known(options, RunOptions)
    items = _items(data)
    config = TransformConfig(
        inputs=_inputs(items, given),
        model=model if isinstance(model, Model) else str(model),
        output=output,
        rows=rows,
        tol=tol,
        max_iter=max_iter,
        resources=_resources(given),
        saving=_saving(given),
    )
    W: Array | None = _runner(items)(config, given.get("listener", silent)).W
    return W


def open(data: str | Path | Sequence[str | Path], **options: Unpack[DataOptions]) -> Rows:
    """Open a store (or several, rows one after the other) to read rows from; only metadata are read.

    Parameters
    ----------
    data : str, Path, or sequence of these
        ``STORE[/DATASET]``.
    **options
        See `DataOptions`.

    Returns
    -------
    Rows

    Examples
    --------
    >>> import numpy as np, nmfstream, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "x.npy")
    >>> np.save(path, np.arange(12.0).reshape(4, 3))
    >>> with nmfstream.open(path) as rows:
    ...     rows.shape, rows[1:3]
    ((4, 3), array([[3., 4., 5.],
           [6., 7., 8.]]))
    """
    from nmfstream.stores.protocols import Opening
    from nmfstream.stores.registry import open_inputs

    given = _known(options, DataOptions)
    names = [str(item) for item in _items(data)]
    opening = Opening(**{n: given[n] for n in ("transpose", "missing_chunks", "allow_external") if n in given})
    return Rows(open_inputs(names, opening), given.get("dtype", "auto"), given.get("negative", "error"))


class Rows:
    """Rows of a store; context manager. `fit` and `transform` take it as data.

    Attributes
    ----------
    reader : RowReader
    name : str
    shape : tuple of int
    dtype : dtype
        float32 or float64: what the rows are given in.
    feature_names : tuple of str or None
    """

    def __init__(self, reader: RowReader, dtype: str = "auto", negative: str = "error") -> None:
        from nmfstream.run.opening import model_dtype
        from nmfstream.stores.protocols import ReadPolicy

        self.reader, self.name, self.shape = reader, reader.name, reader.shape
        self.dtype = model_dtype(dtype, reader.dtype)
        self.feature_names = None if reader.feature_names is None else tuple(reader.feature_names)
        self._policy = ReadPolicy(self.dtype, negative)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | int) -> Any:
        """Rows as an ndarray, or as a scipy CSR array where the store is sparse; checked as every read is."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                raise UsageError("rows are read one after the other", where="slice", hint="leave the step out")
            return _public(self._read(start, max(start, stop)))
        row = range(len(self))[rows]
        return _public(self._read(row, row + 1))

    def chunks(self, n_rows: int | None = None) -> Iterator[Any]:
        """All rows in order, `n_rows` at a time (default: about 16 MiB, whole chunks of the store)."""
        chunk = self.reader.chunk_rows
        row_bytes = max(1, self.shape[1] * self.dtype.itemsize)
        step = n_rows or max(1, (16 << 20) // row_bytes // chunk) * chunk
        for start in range(0, len(self), step):
            yield self[start : start + step]

    def _read(self, start: int, stop: int) -> Matrix:
        from nmfstream.stores.checks import canonical
        from nmfstream.stores.protocols import allocate

        out = allocate(self.reader, start, stop, self.dtype)
        for task in self.reader.tasks(start, stop, out, self._policy):
            task()
        return canonical(out, name=self.name, first_row=start) if isinstance(out, CSR) else out

    def close(self) -> None:
        """Release the store."""
        self.reader.close()

    def __enter__(self) -> Rows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _public(rows: Matrix) -> Any:
    if not isinstance(rows, CSR):
        return rows
    from scipy import sparse

    own = rows.rebased()
    return sparse.csr_array((own.data, own.indices, own.indptr), shape=own.shape)


def _runner(items: Sequence[Any]) -> Callable[..., Any]:
    if is_stream(items):
        from nmfstream.run.stream_transform import stream_transform

        return stream_transform
    from nmfstream.run.transform import transform as run

    return run


def _items(data: Any) -> tuple[Any, ...]:
    if isinstance(data, Rows):
        return (data.reader,)
    if isinstance(data, Path):
        return (str(data),)
    if isinstance(data, list | tuple) and data and all(isinstance(item, str | Path) for item in data):
        return tuple(str(item) for item in data)
    return (np.asarray(data),) if isinstance(data, list | tuple) else (data,)


def _known(options: Any, kind: Any) -> dict[str, Any]:
    """The options, if every one is known.

    Raises
    ------
    TypeError
    """
    names = set(kind.__required_keys__ | kind.__optional_keys__)
    for name in options:
        if name not in names:
            from difflib import get_close_matches

            close = get_close_matches(name, names, 1)
            raise TypeError(f"unknown option {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    return dict(options)


def _inputs(items: tuple[Any, ...], given: dict[str, Any]) -> Inputs:
    return Inputs(items, **{name: given[name] for name in DataOptions.__optional_keys__ if name in given})


def _resources(given: dict[str, Any]) -> Resources:
    return Resources(given.get("threads"), given.get("memory"), given.get("scratch"))


def _saving(given: dict[str, Any]) -> Saving:
    return Saving(**{name: given[name] for name in Saving.__dataclass_fields__ if name in given})
