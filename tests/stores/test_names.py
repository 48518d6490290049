"""Feature names of AnnData, however its index is stored and wherever the table lies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import hdf5plugin
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from nmfstream.stores.protocols import Opening
from nmfstream.stores.registry import open_reader

pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = [f"gene{i}" for i in range(7)]


def table(index: Any, make: Callable[..., Any] = sp.csr_matrix) -> anndata.AnnData:
    X = make(np.arange(35, dtype="f4").reshape(5, 7))
    found = anndata.AnnData(X, var=pd.DataFrame(index=index))
    found.layers["counts"] = X
    return found


INDICES = {
    "texts": pd.Index(NAMES),
    "named": pd.Index(NAMES, name="symbol"),
    "categories": pd.CategoricalIndex(NAMES, categories=NAMES[::-1]),
    "nullable": pd.Index(NAMES, dtype="string"),
}


def save(path: Path, made: anndata.AnnData) -> None:
    with anndata.settings.override(allow_write_nullable_strings=True, zarr_write_format=3):
        (made.write_zarr if path.suffix == ".zarr" else made.write_h5ad)(path)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.parametrize("index", INDICES)
def test_every_kind_of_index(tmp_path: Path, suffix: str, index: str) -> None:
    save(tmp_path / f"c.{suffix}", table(INDICES[index]))
    with open_reader(str(tmp_path / f"c.{suffix}"), Opening(missing_chunks="fill")) as reader:
        assert list(reader.feature_names or ()) == NAMES


def test_names_behind_a_plugin_filter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(NAMES).write_h5ad(tmp_path / "c.h5ad", compression=hdf5plugin.FILTERS["zstd"])
    loaded: list[Any] = []
    monkeypatch.setattr(
        "nmfstream.stores.hdf5_nodes._require_filter", lambda f, name: loaded.append((f.number, name.split("/")[-1]))
    )
    with open_reader(str(tmp_path / "c.h5ad"), Opening()) as reader:
        assert list(reader.feature_names or ()) == NAMES
    assert (hdf5plugin.FILTERS["zstd"], "_index") in loaded


def collection(path: Path) -> None:
    """Two tables in one store, as MuData and SpatialData lay them."""
    one = path.with_name("one.zarr" if path.suffix == ".zarr" else "one.h5ad")
    save(one, table(NAMES))
    if path.suffix == ".zarr":
        zarr.open_group(path, mode="w", zarr_format=3).create_group("mod")
        for name in ("rna", "atac"):
            shutil.copytree(one, path / "mod" / name)
        return
    with h5py.File(path, "w") as f, h5py.File(one) as source:
        f.attrs["encoding-type"] = "MuData"
        for name in ("rna", "atac"):
            source.copy("/", f, name=f"mod/{name}")


@pytest.mark.parametrize("suffix", ["h5mu", "h5", "zarr"])
@pytest.mark.parametrize("part", ["mod/rna", "mod/rna/X", "mod/atac/layers/counts"])
def test_tables_inside_a_store(tmp_path: Path, suffix: str, part: str) -> None:
    collection(tmp_path / f"m.{suffix}")
    with open_reader(str(tmp_path / f"m.{suffix}" / part), Opening(missing_chunks="fill")) as reader:
        assert reader.shape == (5, 7)
        assert list(reader.feature_names or ()) == NAMES
