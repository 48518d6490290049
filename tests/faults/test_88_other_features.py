"""88: other features than the model's: 65, both shown; nothing is written."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from tests.cli.helpers import complaint, npy, run

NARROW = np.ones((4, 11), np.float32)


@pytest.fixture
def folder(tmp_path, model):
    np.save(tmp_path / "narrow.npy", NARROW)
    np.save(tmp_path / "W5.npy", np.ones((4, 5)))
    with h5py.File(tmp_path / "named.h5", "w") as f:
        f.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        f["X"] = np.ones((4, 12), np.float32)
        f["X"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        f.create_dataset("var/_index", data=[f"gene{(j + 1) % 12}" for j in range(12)], dtype=h5py.string_dtype())
        f["var"].attrs.update({"_index": "_index", "encoding-type": "dataframe", "encoding-version": "0.2.0"})
    return tmp_path


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("transform", "{d}/narrow.npy", "-m", "{d}/m.h5", "-o", "{d}/W.npy"), "has 11 features, the model 12"),
        (("transform", "-", "-m", "{d}/m.h5", "-o", "{d}/W.npy"), "array 0: has 11 features, the model 12"),
        (("score", "{d}/narrow.npy", "-m", "{d}/m.h5"), "has 11 features, the model 12"),
        (("score", "-", "-m", "{d}/m.h5"), "has 11 features, the model 12"),
        (("transform", "{d}/named.h5", "-m", "{d}/m.h5", "-o", "{d}/W.npy"), "'gene1', in the model 'gene0'"),
        (("score", "{d}/named.h5", "-m", "{d}/m.h5"), "feature 0 is 'gene1', in the model 'gene0'"),
        (("inverse-transform", "{d}/W5.npy", "-m", "{d}/m.h5", "-o", "{d}/X.npy"), "W has 5 columns, the model 3"),
    ],
)
def test_88_refused(args, said, folder):
    before = {p.name for p in folder.iterdir()}
    done = run(*(a.format(d=folder) for a in args), stdin=npy(NARROW))
    assert done.returncode == 65
    assert said in complaint(done)
    assert {p.name for p in folder.iterdir()} == before
