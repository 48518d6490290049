"""What a run will take, from shapes alone: buffers and memory. Pure functions.

The plan of the arithmetic (blocks, batches, sample) follows from shape and parameters; the budget decides only
how much of the store is read ahead. So every sufficient budget gives the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from nmfstream.errors import UsageError

MiB = 1 << 20
PORTION_BYTES = 32 * MiB
"""Bytes of X that one buffer holds where the budget allows: enough to hide a batch's end behind reading."""
N_BUFFERS = 3


class Layout(NamedTuple):
    """What the plan has to know of a store.

    Attributes
    ----------
    n_rows : int
    row_bytes : float
        Bytes a row in memory, in the model's type (mean of a sparse store).
    stripe_rows : int
        Rows that are decoded together.
    task_bytes : int
        Temporary bytes of one reading task.
    """

    n_rows: int
    row_bytes: float
    stripe_rows: int
    task_bytes: int


@dataclass(frozen=True)
class Pass:
    """One kind of pass over the data.

    Attributes
    ----------
    unit : int
        Rows of a batch.
    parts : mapping of str to int
        Bytes by purpose besides the buffers: W of a batch, what is computed from it.
    block : int or None
        Rows of a block where a batch is known by its blocks (see `Stage.by_block`) and dense.
    """

    unit: int
    parts: Mapping[str, int] = field(default_factory=dict)
    block: int | None = None


@dataclass(frozen=True)
class Demand:
    """What no choice changes.

    Attributes
    ----------
    always : mapping of str to int
        Bytes by purpose: interpreter and libraries, H and statistics.
    passes : sequence of Pass
        One after the other, never two at once.
    sample : mapping of str to int
        While a sample is fitted; it is gone before the first pass.
    before : mapping of str to int
        Before anything else is there, while kernels are compiled: all of it, `always` not included.
    """

    always: Mapping[str, int]
    passes: Sequence[Pass]
    sample: Mapping[str, int] = field(default_factory=dict)
    before: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by purpose, and how the store is read within them.

    Attributes
    ----------
    parts : mapping of str to int
        Bytes by purpose at the peak; their sum is its prediction.
    portion_bytes : int
        Of X, decoded into one buffer.
    n_buffers : int
    """

    parts: Mapping[str, int]
    portion_bytes: int
    n_buffers: int

    @property
    def peak(self) -> int:
        """Predicted peak in bytes: of the process, and of a compiler's beside it."""
        return sum(self.parts.values())


def plan_memory(layout: Layout, demand: Demand, threads: int, memory: int) -> MemoryPlan:
    """Fit the buffers into what the rest leaves of the budget.

    Parameters
    ----------
    layout : Layout
    demand : Demand
    threads : int
    memory : int
        The budget in bytes.

    Raises
    ------
    UsageError
        If the smallest buffers do not fit; names the smallest budget that works.
    """
    always = {**demand.always, "decoding": decoding_bytes(layout, threads)}
    plans = [_plan(layout, always, demand, threads, *choice) for choice in _choices(layout, demand)]
    for plan in plans:
        if plan.peak <= memory:
            return plan
    least = min(plans, key=lambda plan: plan.peak)
    raise _too_small(memory, least, bool(demand.sample) and "sample" in least.parts)


def refuse_beyond(plan: MemoryPlan, memory: int) -> MemoryPlan:
    """A plan that leaves no choice, if it fits into the budget.

    Raises
    ------
    UsageError
        If it does not; names the smallest budget that works.
    """
    if plan.peak > memory:
        raise _too_small(memory, plan, False)
    return plan


def _plan(
    layout: Layout, always: Mapping[str, int], demand: Demand, threads: int, portion: int, buffers: int
) -> MemoryPlan:
    """The largest of what is there at a time: the compiler, a sample, or a pass."""
    passes = [{**p.parts, "buffers": pass_bytes(layout, p, portion, buffers, threads)} for p in demand.passes]
    most = larger(demand.sample, *passes)
    at_once = {name: always.get(name, 0) + most.get(name, 0) for name in {**always, **most}}
    return MemoryPlan(larger(demand.before, at_once), portion, buffers)


def larger(*times: Mapping[str, int]) -> Mapping[str, int]:
    """Bytes by purpose at the time when they are most."""
    return max(times, key=lambda parts: sum(parts.values()))


def _choices(layout: Layout, demand: Demand) -> list[tuple[int, int]]:
    """(bytes a portion, buffers), best first; the last is one batch (or block) in each of two buffers."""
    least = max(1, int(min(p.block or p.unit for p in demand.passes) * layout.row_bytes))
    sizes = [size for i in range(5) if (size := PORTION_BYTES >> i) > least]
    return [(size, N_BUFFERS) for size in sizes] + [(size, 2) for size in sizes] + [(least, 2)]


def buffers_bytes(layout: Layout, unit: int, portion: int, buffers: int) -> int:
    """Bytes of all buffers, no more of them than there are portions.

    A buffer holds whole batches, and the stripe of chunks that their end cuts.
    """
    n, stripe = layout.n_rows, layout.stripe_rows
    batches = max(int(portion / max(1.0, layout.row_bytes)) // unit, -(-stripe // unit), 1) * unit
    return int(min(buffers, -(-n // batches)) * min(batches + stripe - 1, n) * layout.row_bytes)


def pass_bytes(layout: Layout, wanted: Pass, portion: int, buffers: int, threads: int) -> int:
    """Bytes of a pass's buffers: of whole batches, or of strips and the blocks that several of them make."""
    height = None if wanted.block is None else strip_rows(layout, wanted.block)
    if height is None or wanted.block is None:
        return buffers_bytes(layout, wanted.unit, portion, buffers)
    count, n = strips_at_once(layout, height, portion, buffers, threads), layout.n_rows
    joined = threads * min(wanted.block, n) if layout.stripe_rows > 1 and height < n else 0
    return int((min(count, -(-n // height)) * min(height, n) + joined) * layout.row_bytes)


def strip_rows(layout: Layout, block_rows: int) -> int | None:
    """Rows of a strip: a block, or as many stripes of chunks as hold one; None where that is too much at once."""
    height = -(-block_rows // layout.stripe_rows) * layout.stripe_rows
    return height if min(height, layout.n_rows) * layout.row_bytes <= PORTION_BYTES else None


def strips_at_once(layout: Layout, height: int, portion: int, buffers: int, threads: int) -> int:
    """Strips in memory, if `buffers` portions hold them: what each thread is at, and as many ahead.

    One more where chunks hold several rows, so that a block may lie in two strips.
    """
    held = int(portion * buffers / max(1.0, height * layout.row_bytes))
    return max(2, min(held, 2 * threads + (layout.stripe_rows > 1)))


def decoding_bytes(layout: Layout, threads: int) -> int:
    """What reading tasks hold, and what they leave in the allocator's hands."""
    return int(threads * (RETAINED + DECODING * layout.task_bytes))


DECODING = 1.8
"""A stored and a decoded chunk are in hand, the ones before them not returned yet."""
RETAINED = 2 * MiB


JITTER = 2 * MiB
"""From run to run what the libraries take differs by this much."""


def _too_small(memory: int, smallest: MemoryPlan, sampled: bool) -> UsageError:
    name = max(smallest.parts, key=lambda part: smallest.parts[part])
    share = f"{_mib(smallest.parts[name])} of it for {name}"
    advice = ", a smaller --sample-rows needs less" if sampled else ""
    return UsageError(
        f"--memory {_mib(memory)} is too small for this run",
        hint=f"the smallest that works is --memory {_mib(smallest.peak + JITTER)} ({share}{advice})",
    )


def _mib(size: int) -> str:
    return f"{-(-size // MiB)}MiB"
