"""The memory plan: what fits is as large as the budget allows, what does not is refused with what would."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nmfstream.errors import UsageError
from nmfstream.plan import JITTER, PORTION_BYTES, Demand, Layout, MemoryPlan, MiB, Pass, buffers_bytes, plan_memory

layouts = st.builds(
    Layout,
    n_rows=st.integers(1, 10**7),
    row_bytes=st.floats(1, 1e6),
    stripe_rows=st.integers(1, 10**4),
    task_bytes=st.integers(0, 64 * MiB),
)
parts = st.dictionaries(st.sampled_from(["libraries", "W", "tiles"]), st.integers(0, 256 * MiB), max_size=2)
units, blocks = st.integers(1, 10**5), st.none() | st.integers(1, 10**4)
passes = st.lists(st.builds(Pass, units, parts, blocks), min_size=1, max_size=3)
demands = st.builds(Demand, parts, passes, st.just({}) | st.integers(1, 512 * MiB).map(lambda size: {"sample": size}))


def smallest(layout: Layout, demand: Demand, threads: int) -> int:
    """The budget that the refusal names, in bytes."""
    with pytest.raises(UsageError) as refused:
        plan_memory(layout, demand, threads, 0)
    named = re.search(r"--memory (\d+)MiB", str(refused.value.hint))
    assert named is not None
    return int(named[1]) * MiB


def plan(layout: Layout, demand: Demand, more: int = 0, threads: int = 2) -> MemoryPlan:
    return plan_memory(layout, demand, threads, smallest(layout, demand, threads) + more)


@given(layouts, demands, st.integers(0, 4096 * MiB))
def test_a_plan_keeps_to_its_budget(layout: Layout, demand: Demand, more: int) -> None:
    budget = smallest(layout, demand, 2) + more
    assert plan_memory(layout, demand, 2, budget).peak <= budget


@example(Layout(5_000_000, 4.0, 1, 0), Demand({}, [Pass(4_000_000)]))  # one buffer for all is less than two
@example(Layout(524289, 4.0, 1, 0), Demand({"libraries": 4194281}, [Pass(3), Pass(1, {"libraries": 0})]))
@given(layouts, demands)
def test_less_than_the_smallest_budget_named_is_refused(layout: Layout, demand: Demand) -> None:
    with pytest.raises(UsageError, match="too small"):
        plan_memory(layout, demand, 2, smallest(layout, demand, 2) - JITTER - MiB)


@given(layouts, demands, st.integers(0, 1024 * MiB), st.integers(0, 1024 * MiB))
def test_a_larger_budget_never_reads_in_smaller_portions(layout: Layout, demand: Demand, a: int, b: int) -> None:
    less, more = sorted((a, b))
    small, large = plan(layout, demand, less), plan(layout, demand, more)
    assert (large.portion_bytes, large.n_buffers) == (small.portion_bytes, small.n_buffers) or large.peak >= small.peak


@given(layouts, demands)
def test_every_buffer_holds_a_whole_batch(layout: Layout, demand: Demand) -> None:
    chosen = plan(layout, demand)
    for unit in (p.unit for p in demand.passes):
        held = buffers_bytes(layout, unit, chosen.portion_bytes, 1)
        assert held >= int(min(unit, layout.n_rows) * layout.row_bytes)


@given(layouts, demands, st.integers(2, 1000))
def test_the_peak_is_flat_in_the_rows_of_a_large_store(layout: Layout, demand: Demand, times: int) -> None:
    unit, block = (max(sizes) for sizes in zip(*((p.unit, p.block or 0) for p in demand.passes), strict=True))
    rows = 3 * (int(PORTION_BYTES / layout.row_bytes) + unit + 3 * (block + layout.stripe_rows))
    peaks = [
        plan_memory(layout._replace(n_rows=n), demand, 2, 1 << 60).peak for n in (rows, times * rows)
    ]  # fmt: skip
    assert peaks[0] == peaks[1]


@given(layouts, demands)
def test_a_sample_and_the_buffers_are_not_there_at_once(layout: Layout, demand: Demand) -> None:
    chosen = plan(layout, demand, 8192 * MiB)
    assert ("sample" in chosen.parts) != ("buffers" in chosen.parts)


def test_a_refusal_for_the_samples_sake_names_the_option() -> None:
    layout = Layout(10**6, 4000.0, 1, 0)
    with pytest.raises(UsageError) as refused:
        plan_memory(layout, Demand({"libraries": 100 * MiB}, [Pass(4096)], {"sample": 500 * MiB}), 2, 300 * MiB)
    assert "--sample-rows" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("n_rows", "buffers"), [(4096, 1), (8192, 1), (8193, 2), (10**6, 3)], ids=["one batch", "full", "two", "many"]
)
def test_no_more_buffers_are_counted_than_there_are_portions(n_rows: int, buffers: int) -> None:
    layout = Layout(n_rows, 4000.0, 1, 0)
    assert buffers_bytes(layout, 4096, 8192 * 4000, 3) == buffers * min(n_rows, 8192) * 4000
