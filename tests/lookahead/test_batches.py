"""Which days are looked at, and together."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qlib_ext.lookahead.batches import BLOCK_DAYS, blocks, choose, plan

DAYS = st.lists(st.integers(0, 600), min_size=1, max_size=80, unique=True)


class TestChoose:
    @given(
        sizes=st.lists(st.integers(1, 120), min_size=1, max_size=3),
        gaps=st.integers(0, 5),
        number=st.integers(1, 200),
    )
    def test_as_many_as_asked_and_the_last_of_each_segment(
        self, sizes: list[int], gaps: int, number: int
    ) -> None:
        starts = np.cumsum([0, *(size + gaps for size in sizes[:-1])])
        parts = [np.arange(start, start + size) for start, size in zip(starts, sizes, strict=True)]
        days = int(parts[-1][-1]) + 1
        pool = {int(day) for part in parts for day in part if day < days - 1}
        chosen = choose(parts, days, number)
        assert chosen == sorted({*chosen})
        assert {*chosen} <= pool
        last = {max(day for day in part.tolist() if day < days - 1) for part in parts if part[0] < days - 1}
        assert last <= {*chosen}
        assert len(chosen) == max(min(number, len(pool)), len(last))

    def test_spread_evenly(self) -> None:
        assert choose([np.arange(1001)], 1001, 6) == [0, 250, 499, 748, 998, 999]


class TestPlan:
    @given(days=DAYS, spacing=st.integers(1, 200))
    def test_each_day_once_and_never_too_close(self, days: list[int], spacing: int) -> None:
        batches = plan(days, spacing)
        assert sorted(day for batch in batches for day in batch) == sorted(days)
        assert all(np.diff(batch).min(initial=spacing) >= spacing for batch in batches)

    @given(days=DAYS, spacing=st.integers(1, 200))
    def test_no_more_waves_than_days_that_lie_together(self, days: list[int], spacing: int) -> None:
        together = max(sum(day <= other < day + spacing for other in days) for day in days)
        assert len(plan(days, spacing)) == together


class TestBlocks:
    def test_a_wave_of_one_day_changes_all_after_it(self) -> None:
        assert blocks([7], 100) == [(8, 100)]

    def test_a_wave_of_more_changes_some(self) -> None:
        assert blocks([7, 95], 100) == [(8, 8 + BLOCK_DAYS), (96, 100)]
