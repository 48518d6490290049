"""Bits do not depend on where arrays lie in memory."""

from __future__ import annotations

import numpy as np
import pytest

from nmfstream import machine_code
from nmfstream.core.divergence import block_sums
from nmfstream.core.needed import TYPES
from nmfstream.core.parameters import Penalties
from nmfstream.run.executors import Pool, ThreadExecutor


@pytest.mark.parametrize("kernel", sorted(TYPES))
def test_no_loop_is_chosen_by_addresses(kernel: str) -> None:
    module, name = kernel.split(".")
    kinds = machine_code.argument_kinds(TYPES[kernel], T=np.dtype(np.float32), U=np.dtype(np.float32))
    library, _ = machine_code.compiled_library(f"nmfstream.core.kernels.{module}", name, kinds)
    assert "memcheck" not in library.get_llvm_str()


def test_rows_are_solved_alike_wherever_they_lie() -> None:
    """Threads that take memory and give it back leave it in pieces: arrays come to lie side by side."""
    rng = np.random.RandomState(0)
    X = (rng.gamma(1.0, size=(701, 4)) @ rng.gamma(1.0, size=(4, 37))).astype(np.float32)
    Ht = rng.random_sample((37, 3)).astype(np.float32)
    s = Ht.sum(axis=0, dtype=np.float64)

    def sums(block: int) -> bytes:
        return b"".join(part.tobytes() for part in block_sums(X[128 * block :][:128], Ht, s, Penalties(0, 0, 0, 0))[:3])

    with Pool(3) as pool:
        found = ThreadExecutor(pool).map(sums, [0, 1, 2, 3, 4, 5] * 500)
    assert len(set(found)) == 6
