"""The compiled kernels that a run is going to call, from shapes: they are compiled before it takes memory for itself.

For each, the types of its arguments (see `nmfstream.machine_code.expect`; T is the data's type, U a factor's) and the
work from which it is called. What is not foreseen here is compiled when it is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from nmfstream.core import sweeps as descents
from nmfstream.core.blocks import block_rows
from nmfstream.core.init_stages import OVERSAMPLING
from nmfstream.core.kernels import (
    divergence_ccd,
    hals_block,
    kl_newton,
    newton_least_squares,
    sparse_products,
    sweeps,
    thin_products,
)
from nmfstream.core.mu_iterate import HALVES
from nmfstream.core.products import COMPILED_SIZE
from nmfstream.core.protocols import Problem
from nmfstream.core.reduction import by_stripes
from nmfstream.machine_code import expect

TYPES: dict[str, str] = {
    "sweeps_compiled.sweeps": "U2 U2 U1 U2 int64 U i1",
    "hals_block_compiled.solve_block": "T2 T2 T2 T1 T2 T int64 T int64 int64 T2 T2 d1",
    "squares_compiled.squares": "T1",
    "thin_products_compiled.rows_times": "T2 U2 U2",
    "thin_products_compiled.add_outer": "T2 T2 int64 T2",
    "least_squares_compiled.begin": "d2 d1 d2 d2 d1 d1",
    "least_squares_compiled.judge": "d2 d2 d2 d1 d1 float64 d1 b1",
    "least_squares_compiled.rounded": "d2 d2 d2 d1 d1 d1 T2 d1",
    "newton_compiled.newton_rows": "d2 d2 d2 int64 float64 float64 i1",
    "kl_newton_compiled.gradients": "l1 i1 d1 d2 d2 d1 d2 d1 d2",
    "kl_newton_compiled.newton": "l1 i1 d1 d2 d2 d1 d2 d1 d2 int64 int64",
    "sparse_products_compiled.times": "l1 i1 T1 U2 U2",
    "sparse_products_compiled.transposed_times": "l1 i1 T1 U2 U2",
    "sparse_products_compiled.find_ranges": "l1 i1 int64 int64 l1 l1",
    "sparse_products_compiled.copy_ranges": "i1 T1 int64 l1 l1 i1 T1",
    "sparse_products_compiled.transpose": "l1 i1 T1 l1 i1 T1",
    "sparse_products_compiled.count_positive": "T2 l1",
    "sparse_products_compiled.copy_positive": "T2 i1 T1",
    "divergence_ccd_compiled.ccd_rows": "l1 i1 T1 T2 T1 T T2 T2 T1 int64 int64 T",
    "mu_steps.frobenius_steps": "T2 T2 T2 T T int64 int64 T2 d1 d1",
    "mu_steps.sparse_kl_steps": "l1 i1 T1 T2 T2 T1 T int64 T2 d1 d1",
    "mu_steps.sparse_kl_sums": "l1 i1 T1 T2 T2 T1 T2",
    "mu_steps.sparse_times": "l1 i1 T1 T2 T2",
    "mu_steps.sparse_sums": "l1 i1 T1 T2 T2",
    "mu_dense.dense_kl_steps": "T2 T2 T2 T1 T int64 int64 T2 d1 d1",
    "mu_dense.dense_kl_sums": "T2 T2 T2 int64 T2 T2",
    "mu_dense_beta.dense_beta_steps": "T2 T2 T2 T T int64 T int64 int64 T2 d1 d1",
}
POSITIVE = ("sparse_products_compiled.count_positive", "sparse_products_compiled.copy_positive")
PRODUCTS = ("sparse_products_compiled.times", "sparse_products_compiled.transposed_times")
MU: dict[tuple[bool, float], tuple[str, ...]] = {
    (False, 2.0): ("mu_steps.frobenius_steps",),
    (True, 2.0): ("mu_steps.sparse_times", "mu_steps.frobenius_steps", "mu_steps.sparse_sums"),
    (False, 1.0): ("mu_dense.dense_kl_steps", "mu_dense.dense_kl_sums"),
    (True, 1.0): ("mu_steps.sparse_kl_steps", "mu_steps.sparse_kl_sums"),
}
"""Multiplicative steps that are compiled, by whether X is sparse and β."""


class Work(NamedTuple):
    """All that there is to do, in the units of the thresholds."""

    rows: int
    cells: int
    k: int

    @classmethod
    def of(cls, problem: Problem, n_components: int) -> Work:
        """That of one pass; cells of a sparse matrix are its nonzeros."""
        rows = problem.n_samples or 0
        return cls(rows, rows * problem.n_features if problem.nnz is None else problem.nnz, n_components)


def expect_solver(name: str, problem: Problem, n_components: int, beta: float) -> None:
    """What a solver is going to call in its passes and its sample."""
    work = Work.of(problem, n_components)
    names = set(SOLVERS[name](problem, work, beta))
    if name in ("hals", "newton") and by_stripes(n_components, problem.n_features):
        names |= _columns(problem, work)
    for kernel in sorted(names):
        _expect(kernel, problem.dtype, problem.dtype)
    if name == "hals":
        _expect("sweeps_compiled.sweeps", problem.dtype, np.dtype(np.float64))


def expect_stream(name: str, problem: Problem, n_components: int, beta: float) -> None:
    """What learning from a stream is going to call: from the shape of as many rows as it works on at a time.

    A stream's length is unknown, so that multiplicative updates never call kernels that pay for long data alone.
    """
    if name in ("hals", "newton"):
        expect_solver(name, problem, n_components, beta)
    else:
        work = Work.of(problem, n_components)
        names = PRODUCTS if problem.sparse and _products(problem, work) else _thin(problem, work) if beta == 2 else ()
        for kernel in names:
            _expect(kernel, problem.dtype, problem.dtype)
    if name != "mu":
        expect_rows(problem, n_components, beta)


def expect_initialization(problem: Problem, n_components: int) -> None:
    """What the stages of NNDSVD are going to call."""
    if problem.sparse and _products(problem, Work.of(problem, n_components + OVERSAMPLING)):
        for kernel in PRODUCTS:
            _expect(kernel, problem.dtype, np.dtype(np.float64))


def expect_rows(problem: Problem, n_components: int, beta: float) -> None:
    """What solving rows for a fixed H is going to call."""
    work, wide = Work.of(problem, n_components), np.dtype(np.float64)
    if beta == 1 and work.cells * work.k >= kl_newton.COMPILED_WORK:
        for kernel in ("kl_newton_compiled.gradients", "kl_newton_compiled.newton"):
            _expect(kernel, wide, wide)
        for kernel in () if problem.sparse else POSITIVE:
            _expect(kernel, problem.dtype, problem.dtype)
    if beta == 2 and work.rows * work.k**2 >= sweeps.COMPILED_WORK:
        _expect("sweeps_compiled.sweeps", wide, wide)
        for name in ("begin", "judge", "rounded")[: 3 if problem.dtype == np.float32 else 2]:
            _expect(f"least_squares_compiled.{name}", problem.dtype, wide)
    if beta == 2 and work.rows * work.k**3 >= newton_least_squares.COMPILED_WORK:
        _expect("newton_compiled.newton_rows", wide, wide)
    if beta == 2 and not problem.sparse and thin_products.pays("rows_times", (work.rows, problem.n_features), work.k):
        for dtype in sorted({problem.dtype, wide}, key=str):
            _expect("thin_products_compiled.rows_times", problem.dtype, dtype)
    if beta == 2 and problem.sparse and _products(problem, work):
        for dtype in {problem.dtype, wide}:
            _expect(PRODUCTS[0], dtype, dtype)


def _expect(kernel: str, T: np.dtype[Any], U: np.dtype[Any]) -> None:
    module, name = kernel.split(".")
    expect(f"nmfstream.core.kernels.{module}", name, TYPES[kernel], T=T, U=U)


def _products(problem: Problem, work: Work) -> bool:
    return work.cells * work.k >= sparse_products.COMPILED_WORK


def _columns(problem: Problem, work: Work) -> set[str]:
    many = problem.sparse and work.cells >= sparse_products.COMPILED_NONZEROS
    return {"sparse_products_compiled.find_ranges", "sparse_products_compiled.copy_ranges"} if many else set()


def _thin(problem: Problem, work: Work) -> Iterator[str]:
    for kernel in thin_products.FEATURES:
        if not problem.sparse and thin_products.pays(kernel, (work.rows, problem.n_features), work.k):
            yield f"thin_products_compiled.{kernel}"


def _multiplicative(problem: Problem, work: Work, beta: float) -> Iterator[str]:
    if beta == 2:
        yield from _thin(problem, work)
    if (problem.sparse, beta) in MU:
        yield from MU[problem.sparse, beta]
    elif problem.sparse:
        yield from PRODUCTS
    elif 2 * (beta - 2) in HALVES:
        yield "mu_dense_beta.dense_beta_steps"


def _hals(problem: Problem, work: Work, beta: float) -> Iterator[str]:
    if work.rows * work.k**2 >= descents.COMPILED_WORK:
        yield "sweeps_compiled.sweeps"
    if work.cells >= COMPILED_SIZE:
        yield "squares_compiled.squares"
    yield from _thin(problem, work)
    rows = min(work.rows, block_rows(problem, work.k))
    if not problem.sparse and hals_block.pays((rows, problem.n_features), work.k):
        yield "hals_block_compiled.solve_block"
    if problem.sparse and _products(problem, work):
        yield from PRODUCTS


def _newton(problem: Problem, work: Work, beta: float) -> Iterator[str]:
    if (work.cells + max(work.rows, problem.n_features)) * work.k >= divergence_ccd.COMPILED_WORK:
        yield "divergence_ccd_compiled.ccd_rows"
    if work.cells >= sparse_products.COMPILED_NONZEROS:
        yield "sparse_products_compiled.transpose"
        yield from () if problem.sparse else POSITIVE
    if _products(problem, work):
        yield from PRODUCTS


SOLVERS = {"mu": _multiplicative, "accumulated": _multiplicative, "hals": _hals, "newton": _newton}
