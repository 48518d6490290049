"""What the benchmark reads, made once in its folder: counts of low rank, dense in four formats and sparse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

N_FEATURES = 1000
CHUNK_ROWS = 1024
RANK = 20
CELLS = (60_000, 20_000, 0.05)
"""Rows, columns and density of the sparse store."""


def blocks(n_rows: int, n_features: int = N_FEATURES, seed: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """Rows of Poisson counts around a product of rank `RANK`, chunk by chunk, the same ones in every store."""
    H = np.random.default_rng(seed).gamma(0.3, 1.0, (RANK, n_features)).astype(np.float32)
    for start in range(0, n_rows, CHUNK_ROWS):
        rng = np.random.default_rng([seed, start])
        W = rng.gamma(0.3, 3.0, (min(CHUNK_ROWS, n_rows - start), RANK)).astype(np.float32)
        yield start, rng.poisson(W @ H).astype(np.float32)


@dataclass(frozen=True)
class Stores:
    """Stores in a folder, made when they are first asked for.

    Parameters
    ----------
    folder : Path
    scale : float
        Of the number of rows: 1 is 0.8 GB.
    """

    folder: Path
    scale: float

    @property
    def n_rows(self) -> int:
        """Rows of the dense stores."""
        return max(CHUNK_ROWS, int(200_000 * self.scale))

    def path(self, kind: str) -> Path:
        """A store in one of `KINDS`."""
        suffix, make = KINDS[kind]
        path = self.folder / f"{kind}-{self.n_rows}{suffix}"
        if not path.exists():
            partial = path.with_name(f"partial-{path.name}")
            make(partial, self)
            partial.rename(path)
        return path

    def spec(self, kind: str) -> str:
        """How the command line names it."""
        return str(self.path(kind))

    def some(self, n_rows: int, source: str = "npy") -> Path:
        """The first rows of the dense data as NPY."""
        path = self.folder / f"first-{n_rows}-of-{self.n_rows}.npy"
        if not path.exists():
            np.save(path, np.load(self.path(source), mmap_mode="r")[:n_rows])
        return path


def _npy(path: Path, stores: Stores) -> None:
    out = np.lib.format.open_memmap(path, "w+", np.float32, (stores.n_rows, N_FEATURES))
    for start, block in blocks(stores.n_rows):
        out[start : start + len(block)] = block
    out.flush()


def _hdf5(path: Path, stores: Stores, shuffle: bool) -> None:
    import h5py

    X = np.load(stores.path("npy"), mmap_mode="r")
    with h5py.File(path, "w") as file:
        chunks = (min(CHUNK_ROWS, len(X)), N_FEATURES)
        file.create_dataset("X", data=X, chunks=chunks, compression="gzip", compression_opts=4, shuffle=shuffle)


def _zarr(path: Path, stores: Stores) -> None:
    import zarr

    X = np.load(stores.path("npy"), mmap_mode="r")
    # zarr's default compressor is zstd.
    array = zarr.create_array(str(path), shape=X.shape, chunks=(CHUNK_ROWS, N_FEATURES), dtype=X.dtype)
    for start in range(0, len(X), CHUNK_ROWS):
        array[start : start + CHUNK_ROWS] = X[start : start + CHUNK_ROWS]


def _h5ad(path: Path, stores: Stores) -> None:
    import anndata

    n, m, density = CELLS
    X = sparse_counts(max(1000, int(n * stores.scale)), m, density)
    anndata.AnnData(X).write_h5ad(path, compression="gzip")


def _long_h5ad(path: Path, stores: Stores) -> None:
    """The same cells three times over."""
    import anndata
    import scipy.sparse

    X = anndata.read_h5ad(stores.path("h5ad")).X
    anndata.AnnData(scipy.sparse.vstack([X, X, X], format="csr")).write_h5ad(path, compression="gzip")


def sparse_counts(n_rows: int, n_features: int, density: float, seed: int = 0) -> object:
    """Counts in random places, a column's chance as uneven as a word's."""
    import scipy.sparse

    rng = np.random.default_rng(seed)
    X = scipy.sparse.random(n_rows, n_features, density, format="csr", dtype=np.float32, random_state=rng)
    X.data = rng.geometric(0.4, X.nnz).astype(np.float32)
    return X


KINDS: dict[str, tuple[str, Callable[[Path, Stores], None]]] = {
    "npy": (".npy", _npy),
    "gzip": (".h5", lambda path, stores: _hdf5(path, stores, False)),
    "shuffle": (".h5", lambda path, stores: _hdf5(path, stores, True)),
    "zarr": (".zarr", _zarr),
    "h5ad": (".h5ad", _h5ad),
    "long-h5ad": (".h5ad", _long_h5ad),
}
