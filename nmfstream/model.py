"""The model file: HDF5 with ``/components``, ``/feature_names``, ``/history`` and attributes that say it all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nmfstream.core.parameters import Objective, Parameters
from nmfstream.core.state import PassRecord
from nmfstream.errors import DataError, InputAbsentError, NmfstreamError, StorageError
from nmfstream.storage import durable
from nmfstream.types import Array, Float

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = "nmfstream model"
FORMAT_VERSION = 1
SUFFIXES = (".h5", ".hdf5")
_MAPPINGS = ("versions", "numeric_fingerprint")
_NOT_A_MODEL = "give a file that 'nmfstream fit -o MODEL.h5' wrote, or a checkpoint"


@dataclass(frozen=True)
class Model:
    """What was learned, and how.

    Attributes
    ----------
    components : ndarray of float32 or float64, shape (n_components, n_features)
        H.
    parameters : dict
        Every parameter of the run under its own name (``beta_loss`` as a number).
    feature_names : tuple of str or None
        Where the data had them.
    n_iter, n_steps : int
        Passes and updates of H from a batch.
    loss : float
        Last known objective, mean a row.
    stop_reason : str
        Why the run ended, in words.
    data_fingerprint : str
        Evidence of the data it was learned from.
    numeric_fingerprint, versions : dict of str
        CPU kernel family and libraries that decide on the bits; versions of the software.
    history : tuple of PassRecord
        One record a pass.
    """

    components: Float
    parameters: dict[str, Any]
    feature_names: tuple[str, ...] | None = None
    n_iter: int = 0
    n_steps: int = 0
    loss: float = float("nan")
    stop_reason: str = ""
    data_fingerprint: str = ""
    numeric_fingerprint: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    history: tuple[PassRecord, ...] = ()

    @property
    def n_components(self) -> int:
        """Rows of H."""
        return int(self.components.shape[0])

    @property
    def n_features(self) -> int:
        """Columns of H."""
        return int(self.components.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of H, and of every W solved with it."""
        return self.components.dtype

    @property
    def objective(self) -> Objective:
        """What a row of W minimises under this model."""
        given = self.parameters
        return Objective(
            self.n_components,
            float(given.get("beta_loss", 2.0)),
            float(given.get("alpha_W", 0.0)),
            float(given.get("alpha_H", 0.0)),
            float(given.get("l1_ratio", 0.0)),
        )


def flat_parameters(parameters: Parameters, solver: str) -> dict[str, Any]:
    """Every parameter under the name that `MiniBatchNMF` gives it, in plain values."""
    objective, schedule, start = parameters.objective, parameters.schedule, parameters.start
    return {
        "solver": solver,
        "n_components": objective.n_components,
        "beta_loss": float(objective.beta),
        "alpha_W": float(objective.alpha_W),
        "alpha_H": float(objective.alpha_H),
        "l1_ratio": float(objective.l1_ratio),
        **{name: getattr(schedule, name) for name in type(schedule).__dataclass_fields__},
        "init": start.init,
        "random_state": start.random_state if isinstance(start.random_state, int | np.integer | None) else "generator",
        "sample_rows": start.sample_rows,
        "n_init": start.n_init,
    }


def check_feature_names(model: Model, names: Sequence[str] | None, n_features: int, where: str) -> None:
    """Refuse data whose features are not the model's.

    Raises
    ------
    DataError
        For another number of features, or other names in the same places; both are shown.
    """
    if n_features != model.n_features:
        raise DataError(
            f"has {n_features} features, the model {model.n_features}",
            where=where,
            hint="give the data the features the model was learned from, in the same order (--transpose if samples "
            "are columns)",
        )
    if names is None or model.feature_names is None or tuple(names) == model.feature_names:
        return
    column = next(i for i, (a, b) in enumerate(zip(names, model.feature_names)) if a != b)
    raise DataError(
        f"feature {column} is {names[column]!r}, in the model {model.feature_names[column]!r}",
        where=where,
        hint="put the columns in the model's order ('/feature_names' in the model file)",
    )


def write_model(path: Path, model: Model, *, overwrite: bool = False) -> None:
    """Write a model; it appears whole under its name or not at all.

    Raises
    ------
    OutputExistsError, AccessDeniedError, StorageError
    """
    durable.sweep(path)
    file = durable.temporary(path)
    try:
        _fill(file, model)
        file.sync()
        file.close()
        durable.publish(file.path, path, overwrite=overwrite)
    except BaseException:
        durable.discard(file)
        raise


def _fill(file: durable.DurableFile, model: Model) -> None:
    import h5py

    try:
        with h5py.File(file, "w") as h5:
            h5["components"] = np.ascontiguousarray(model.components)
            if model.feature_names is not None:
                h5.create_dataset("feature_names", data=list(model.feature_names), dtype=h5py.string_dtype())
            h5["history"] = _table(model.history)
            h5.attrs.update(_attributes(model))
    except Exception as error:
        file.sync()  # tells the fault of the disk where that is what the library stumbled over
        raise StorageError(str(error), where=str(file.path), hint="run the same command again") from error


def _attributes(model: Model) -> dict[str, Any]:
    parameters = {name: "none" if value is None else value for name, value in model.parameters.items()}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **parameters,
        "n_iter": model.n_iter,
        "n_steps": model.n_steps,
        "loss": float(model.loss),
        "stop_reason": model.stop_reason,
        "data_fingerprint": model.data_fingerprint,
        **{name: json.dumps(getattr(model, name), sort_keys=True) for name in _MAPPINGS},
    }


def _table(history: Sequence[PassRecord]) -> Array:
    kind = np.dtype(
        [("name", "S64"), ("rows", "i8"), ("seconds", "f8"), ("loss", "f8"), ("H_change", "f8"), ("learns", "?")]
    )
    rows = [(r.name.encode()[:64], r.rows, r.seconds, r.loss, r.H_change, r.learns) for r in history]
    return np.array(rows, kind)


def read_model(path: str | Path | Model) -> Model:
    """Read a model file, or the newest generation of a checkpoint.

    Parameters
    ----------
    path : str or Path
        A `Model` is returned as it is.

    Raises
    ------
    InputAbsentError
        If there is no such file.
    DataError
        If it is neither, is damaged, is of a newer format, or holds no components yet.
    """
    if isinstance(path, Model):
        return path
    import h5py

    where = Path(path)
    if not where.exists():
        raise InputAbsentError("no such model", where=str(path), hint=_absent_hint(where))
    if where.is_dir() or not h5py.is_hdf5(where):
        return _from_checkpoint(where)
    with _opened(where) as h5:
        return _read(h5, str(path))


def _absent_hint(path: Path) -> str:
    from difflib import get_close_matches

    names = [p.name for p in path.parent.glob("*") if p.suffix in (*SUFFIXES, ".ckpt")] if path.parent.is_dir() else []
    close = get_close_matches(path.name, names, 1)
    return f"did you mean {str(path.parent / close[0])!r}?" if close else "learn one with 'nmfstream fit -o MODEL.h5'"


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as h5:
            yield h5
    except NmfstreamError:
        raise
    except PermissionError as error:
        raise durable.translate(error, path) from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"HDF5 cannot read it ({error})", where=str(path), hint=_NOT_A_MODEL) from error


def _read(h5: Any, where: str) -> Model:
    attributes = {name: _plain(value) for name, value in h5.attrs.items()}
    _check_format(attributes, where)
    own = {"format", "format_version", "n_iter", "n_steps", "loss", "stop_reason", "data_fingerprint", *_MAPPINGS}
    return Model(
        components=_components(h5, where),
        parameters={n: None if v == "none" else v for n, v in attributes.items() if n not in own},
        feature_names=tuple(h5["feature_names"].asstr()[:]) if "feature_names" in h5 else None,
        n_iter=int(attributes.get("n_iter", 0)),
        n_steps=int(attributes.get("n_steps", 0)),
        loss=float(attributes.get("loss", np.nan)),
        stop_reason=str(attributes.get("stop_reason", "")),
        data_fingerprint=str(attributes.get("data_fingerprint", "")),
        numeric_fingerprint=json.loads(attributes.get("numeric_fingerprint", "{}")),
        versions=json.loads(attributes.get("versions", "{}")),
        history=_history(h5),
    )


def is_model(path: Path) -> bool:
    """Whether a file is HDF5 and says that it is a model; nothing else of it is read."""
    import h5py

    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with _opened(path) as h5:
        return bool(h5.attrs.get("format") == FORMAT)


def describe_model(path: Path) -> dict[str, Any]:
    """What a model file says of itself: shape, parameters, history; H is not read.

    Raises
    ------
    DataError
    """
    with _opened(path) as h5:
        attributes = {name: _plain(value) for name, value in h5.attrs.items()}
        _check_format(attributes, str(path))
        H = h5["components"]
        about = {name: json.loads(attributes.pop(name, "{}")) for name in _MAPPINGS}
        return {
            "n_components": H.shape[0],
            "n_features": H.shape[1],
            "dtype": str(H.dtype),
            "feature_names": "feature_names" in h5,
            **{n: v for n, v in attributes.items() if n not in ("format", "n_components")},
            **about,
            "history": [vars(record) for record in _history(h5)],
        }


def _check_format(attributes: Mapping[str, Any], where: str) -> None:
    if attributes.get("format") != FORMAT:
        raise DataError("not an nmfstream model", where=where, hint=_NOT_A_MODEL)
    version = attributes.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise DataError(
            f"model format {version}, this nmfstream reads up to {FORMAT_VERSION}",
            where=where,
            hint="install a newer nmfstream",
        )


def _components(h5: Any, where: str) -> Float:
    import h5py

    H = h5.get("components")
    if not isinstance(H, h5py.Dataset) or H.ndim != 2 or H.dtype not in (np.float32, np.float64) or not H.size:
        raise DataError("'/components' is not a matrix of floats", where=where, hint=_NOT_A_MODEL)
    if H.external or H.is_virtual or not H.id.get_storage_size():
        raise DataError("'/components' holds no values of its own", where=where, hint="learn the model anew")
    values = np.ascontiguousarray(H[:], H.dtype.newbyteorder("="))
    if not np.isfinite(values).all() or values.min() < 0:
        raise DataError("'/components' has values that are negative or not finite", where=where, hint="learn it anew")
    return values


def _history(h5: Any) -> tuple[PassRecord, ...]:
    if "history" not in h5:
        return ()
    return tuple(
        PassRecord(r["name"].decode(), int(r["rows"]), float(r["seconds"]), float(r["loss"]), float(r["H_change"]),
                   bool(r["learns"]))
        for r in h5["history"][:]
    )  # fmt: skip


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _from_checkpoint(path: Path) -> Model:
    from nmfstream.checkpoint_reading import is_checkpoint, read_components

    if not is_checkpoint(path):
        raise DataError("neither a model nor a checkpoint", where=str(path), hint=_NOT_A_MODEL)
    H, attributes = read_components(path)
    known = {n: attributes[n] for n in Model.__dataclass_fields__ if n in attributes and n != "components"}
    parameters = known.pop("parameters", None) or {n: v for n, v in attributes.items() if n not in known}
    names = known.pop("feature_names", None)
    return Model(components=H, parameters=parameters, feature_names=None if names is None else tuple(names), **known)
