"""Files that other software wrote: each gives the sum that its origin states, or is refused in plain words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nmfstream.errors import DataError, InputAbsentError, NmfstreamError, UsageError
from nmfstream.stores.checks import canonical
from nmfstream.stores.protocols import Opening, ReadPolicy, allocate
from nmfstream.stores.registry import open_reader
from nmfstream.types import CSR


def read(spec: Path, opening: Opening, policy: ReadPolicy) -> tuple[tuple[int, int], int | None, float]:
    total = 0.0
    with open_reader(str(spec), opening) as reader:
        reader.check()
        step = max(1, reader.shape[0] // 3)
        for start in range(0, reader.shape[0], step):
            stop = min(start + step, reader.shape[0])
            out = allocate(reader, start, stop, policy.dtype)
            for task in reader.tasks(start, stop, out, policy):
                task()
            total += float((canonical(out).data if isinstance(out, CSR) else out).sum())
        return reader.shape, reader.nnz, total


SUMS = [
    ("cells/pbmc3k_counts.npz", (2700, 13714), 2282976, 6386518),
    ("cells/kang_pbmc_control.h5ad", (3000, 35635), 1797383, 4899652),
    ("images/mnist_t10k.npz/X", (10000, 784), None, 264923200),
    ("images/orl_faces.npz/X", (400, 10304), None, 464220078),
    ("images/swimmer.npz/X", (256, 1024), None, 355000),
    ("spectra/samson.npz/X", (9025, 156), None, 328915573),
    ("spectra/drum_loop_spectrogram.npz/X", (587, 1025), None, 1637.034644983984),
    ("bio/signatures_sbs.npz/X", (21, 96), None, 183916),
    ("text/bbc_counts.npz", (2225, 9635), 286774, 425832),
    ("text/news20_pcmac.npz", (1943, 3289), 93185, 143917),
    ("bio/golub_all_aml.npz", (5000, 38), None, 65006387),
    ("bio/cosmic_v3.4_sbs_grch37.npz/P", (86, 96), None, 86.00000026064836),
    ("formats/10x_v2_filtered_gene_bc_matrices.h5", (12, 343), 12, 12),
    ("formats/10x_v2_filtered_gene_bc_matrices.h5/hg19_chr21", (12, 343), 12, 12),
    ("formats/10x_v3_filtered_feature_bc_matrix.h5", (1107, 507), 23866, 41549),
    ("formats/anndata_v0.5.0.h5ad/raw/X", (700, 765), 174400, 319044.24),
    ("formats/anndata_v0.5.0.h5ad/raw.X", (700, 765), 174400, 319044.24),
    ("formats/anndata_v0.7.0.h5ad", (30, 20), 228, 285),
    ("formats/anndata_v0.7.0.h5ad/layers/array", (30, 20), None, 302.8304512),
    ("formats/anndata_v0.7.0.h5ad/raw/X", (30, 40), 480, 627),
    ("formats/loom_L1_DRG_20_example.loom", (20, 20), None, 1039),
    ("formats/matlab73_partial.mat/var1", (128, 128), None, 8144.9866),
    ("formats/matlab73_partial.mat/var2", (128, 128), None, 8232.0163),
    ("formats/matlab73_sparse.mat/sparse_eye", (20, 20), 20, 20),
    ("formats/matlab73_sparse.mat/sparse_random", (3, 3), 4, 24),
    ("formats/matlab73_sparse.mat/sparse_logical", (5, 5), 5, 5),
    ("formats/matlab73_array.mat/a2x2", (2, 2), None, 10),
    ("formats/matlab73_simple.mat/double", (1, 1), None, 1),
    ("formats/pytables_b2nd-no-chunkshape.h5", (6, 6), None, 210),
    *(
        (f"formats/hdf5_h5repack_filters.h5/dset_{name}", (40, 20), None, 319600)
        for name in ("deflate", "shuffle", "fletcher32", "nbit", "all")
    ),
    ("formats/hdf5_h5repack_szip.h5", (40, 20), None, 319600),
    *(
        (f"formats/hdf5_h5repack_layout.h5/dset_{name}", (40, 20), None, 319600)
        for name in ("contiguous", "chunk", "compact")
    ),
    *(
        (f"formats/hdf5_tfilters.h5/{name}", (20, 10), None, 19900)
        for name in (
            "all",
            "alloc_time_early",
            "chunked",
            "compact",
            "contiguous",
            "deflate",
            "fletcher32",
            "shuffle",
            "szip",
        )
    ),
    *((f"formats/pyfive_compressed.hdf5/dataset{i}", (21, 16), None, 56280) for i in (1, 2, 3)),
    ("formats/pyfive_chunked.hdf5", (21, 16), None, 56280),
    ("formats/pyfive_resizable.hdf5/dataset1", (4, 6), None, 276),
    ("formats/pyfive_resizable.hdf5/dataset2", (10, 5), None, 1225),
    ("formats/pyfive_resizable.hdf5/dataset3", (8, 4), None, 496),
    ("formats/pytables_smpl_i32be.h5", (6, 5), None, 135),
    ("formats/pytables_smpl_SDSextendible.h5", (10, 5), None, 35),
    *(
        (f"formats/pytables_float.h5/{name}", (5, 6), None, 135)
        for name in ("float16", "float32", "float64", "longdouble")
    ),
    ("formats/rcppplanc_ctrl_dense.h5", (300, 173), None, 24935.72148),
    ("formats/rcppplanc_ctrl_sparse.h5", (300, 173), 25654, 24935.72148),
    ("formats/rcppplanc_ctrl_sparse.h5/scaleDataSparse", (300, 173), 25654, 24935.72148),
    ("formats/scipy_csc_py2.npz", (1, 1), 0, 0),
]


@pytest.mark.parametrize("name, shape, nnz, total", SUMS)
@pytest.mark.parametrize("memory", [256 << 20, 1 << 20])
def test_sum(
    shared_data: Path, tmp_path: Path, memory: int, name: str, shape: tuple[int, int], nnz: int | None, total: float
) -> None:
    opening = Opening(memory=memory, scratch=tmp_path)
    found = read(shared_data / name, opening, ReadPolicy(np.dtype("f8")))
    assert found[:2] == (shape, nnz)
    assert found[2] == pytest.approx(total, rel=1e-7)


CLIPPED = [
    ("formats/anndata_v0.5.0.h5ad", (700, 765)),
    ("formats/hyperspy_EELS_LL_linescan.hspy", (17, 1024)),
]


@pytest.mark.parametrize("name, shape", CLIPPED)
def test_negative_values_only_where_they_are_clipped(shared_data: Path, name: str, shape: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="negative"):
        read(shared_data / name, Opening(), ReadPolicy(np.dtype("f8")))
    policy = ReadPolicy(np.dtype("f8"), negative="clip")
    assert read(shared_data / name, Opening(), policy)[0] == shape
    assert policy.clipped > 0


REFUSED = [
    ("formats/anndata_v0.11.4.h5ad", DataError, "without X"),
    ("formats/anndata_v0.7.0.h5ad/layers/aray", InputAbsentError, "layers/array"),
    ("formats/matlab7_sparse.mat", DataError, "v7.3"),
    ("formats/matlab73_array.mat", UsageError, "a2x2"),
    ("formats/matlab73_simple.mat", UsageError, "uint16"),
    ("formats/matlab73_array.mat/empty", DataError, "empty"),
    ("formats/matlab73_array.mat/string", DataError, "char"),
    ("formats/matlab73_array.mat/a2x2x2", DataError, "3-D"),
    ("formats/matlab73_sparse.mat", UsageError, "sparse_eye"),
    ("formats/matlab73_sparse.mat/sparse_complex", DataError, "records"),
    ("formats/hdf5_h5repack_filters.h5", UsageError, "dset_all"),
    ("formats/hdf5_tfilters.h5/myfilter", DataError, "filter 405"),
    ("formats/hdf5_tfilters.h5/external", DataError, "1-D"),
    ("formats/hdf5_tudfilter_unknown.h5", DataError, "filter 300"),
    ("formats/hdf5_external_missing_h5repack_int32le_2d_ex.h5", DataError, "h5repack_int32le_2d_ex-0.dat"),
    ("formats/vds/1_vds.h5", DataError, "no matrix"),
    ("formats/vds/1_vds.h5/vds_dset", DataError, "3-D"),
    ("formats/pytables_float.h5/quadprecision", DataError, "number type"),
    ("formats/pyfive_compressed.hdf5", UsageError, "dataset3"),
    ("formats/numpy_scanpy_objs-t-test.npz", UsageError, "scores"),
    ("spectra/samson.npz", UsageError, "X (9025 x 156 uint16)"),
]


def test_a_filter_without_its_plugin(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nmfstream.stores.hdf5_nodes.h5py.h5z.filter_avail", lambda number: False)
    with pytest.raises(DataError, match=r"blosc2.*pip install hdf5plugin"):
        read(shared_data / "formats/pytables_b2nd-no-chunkshape.h5", Opening(), ReadPolicy(np.dtype("f8")))


@pytest.mark.parametrize("name, error, text", REFUSED)
def test_refused(shared_data: Path, name: str, error: type[NmfstreamError], text: str) -> None:
    with pytest.raises(error) as caught:
        read(shared_data / name, Opening(), ReadPolicy(np.dtype("f8")))
    assert text in str(caught.value)


NAMED = [
    ("cells/kang_pbmc_control.h5ad", 35635, "MIR1302-10"),
    ("formats/10x_v3_filtered_feature_bc_matrix.h5", 507, "CH507-9B2.2"),
    ("formats/10x_v2_filtered_gene_bc_matrices.h5", 343, "DSCAM"),
    ("formats/anndata_v0.7.0.h5ad", 20, "gene0"),
    ("formats/anndata_v0.7.0.h5ad/raw/X", 40, "gene0"),
    ("formats/loom_L1_DRG_20_example.loom", 20, "Nnat"),
]


@pytest.mark.parametrize("name, count, first", NAMED)
def test_feature_names(shared_data: Path, name: str, count: int, first: str) -> None:
    with open_reader(str(shared_data / name), Opening()) as reader:
        names = reader.feature_names
    assert names is not None
    assert (len(names), names[0]) == (count, first)


@pytest.mark.parametrize("folder", ["cells", "formats"])
def test_every_file_has_a_case(shared_data: Path, folder: str) -> None:
    cases = [case[0] for case in (*SUMS, *CLIPPED, *REFUSED)]
    stores = (p.name for p in (shared_data / folder).iterdir() if p.suffix not in (".txt", ".gz"))
    left = {name for name in stores if not any(case.startswith(f"{folder}/{name}") for case in cases)}
    assert {name for name in left if ".zarr" not in name} == set()  # Zarr stores are in a module of their own
