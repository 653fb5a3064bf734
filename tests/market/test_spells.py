from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from qlib_ext.market.spells import (
    daily_size,
    locate_spells,
    overlap,
    spell_labels,
    spell_mask,
    spells_of,
)

CALENDAR = pd.bdate_range("2020-01-01", periods=20)
CODES = ["SH600000", "SH600004", "SZ000001"]
SPELLS = st.lists(
    st.tuples(st.sampled_from(CODES), st.integers(0, 19), st.integers(0, 19)).map(
        lambda row: (row[0], min(row[1:]), max(row[1:]))
    ),
    min_size=1,
    max_size=8,
)


def spells(*rows: tuple[str, int, int]) -> pd.DataFrame:
    """Rows (code, first day, last day), days as indices of the calendar."""
    return pd.DataFrame(
        [(code, CALENDAR[first], CALENDAR[last]) for code, first, last in rows],
        columns=["instrument", "start", "end"],
    )


class TestPlanes:
    @given(rows=SPELLS)
    def test_mask_and_labels_against_a_walk_through_the_rows(self, rows: list[tuple[str, int, int]]) -> None:
        instruments = ["sz000001", "SH600000"]  # in another order and case, and one is not asked for
        mask = np.zeros((len(CALENDAR), 2), dtype=bool)
        labels = np.full(mask.shape, -1)
        for number, (code, first, last) in enumerate(rows):
            if code in ("SZ000001", "SH600000"):
                column = int(code == "SH600000")
                mask[first : last + 1, column] = True
                labels[first : last + 1, column] = number
        table = spells(*rows)
        np.testing.assert_array_equal(spell_mask(table, CALENDAR, instruments), mask)
        located = locate_spells(table, CALENDAR, instruments)
        np.testing.assert_array_equal(spell_labels(*located, np.arange(len(rows)), mask.shape), labels)

    def test_ends_that_are_open_reversed_or_off_the_calendar(self) -> None:
        table = pd.DataFrame(
            [
                ("SH600000", "2020-01-06", pd.NaT),  # still in force
                ("SH600004", "1999-01-01", "2020-01-02"),
                ("SZ000001", "2020-01-04", "2020-01-05"),  # a weekend
                ("SZ000001", "2020-01-10", "2020-01-08"),
                ("SZ000001", "2030-01-01", "2031-01-01"),
            ],
            columns=["instrument", "start", "end"],
        ).astype({"start": "M8[ns]", "end": "M8[ns]"})
        mask = spell_mask(table, CALENDAR, CODES)
        assert [np.flatnonzero(column).tolist() for column in mask.T] == [list(range(3, 20)), [0, 1], []]


class TestSizes:
    @given(rows=SPELLS)
    def test_sizes_against_sets(self, rows: list[tuple[str, int, int]]) -> None:
        table = spells(*rows)
        expected = [
            len({code for code, first, last in rows if first <= day <= last}) for day in range(len(CALENDAR))
        ]
        assert daily_size(CALENDAR, table).tolist() == expected

    @given(rows=SPELLS, others=SPELLS)
    def test_overlap_against_sets(
        self, rows: list[tuple[str, int, int]], others: list[tuple[str, int, int]]
    ) -> None:
        found = overlap(CALENDAR, spells(*rows), spells(*others))
        for day in range(len(CALENDAR)):
            mine, theirs = (
                {code for code, first, last in side if first <= day <= last} for side in (rows, others)
            )
            assert found.iloc[day].tolist() == [len(mine), len(theirs), len(mine & theirs)]

    @given(rows=SPELLS)
    def test_spells_of_a_mask_have_that_mask(self, rows: list[tuple[str, int, int]]) -> None:
        mask = np.zeros((len(CALENDAR), len(CODES)), dtype=bool)
        for code, first, last in rows:
            mask[first : last + 1, CODES.index(code)] = True
        table = spells_of(CALENDAR, CODES, mask)
        again = np.zeros_like(mask)
        for code, start, end in table.itertuples(index=False):
            inside = slice(CALENDAR.get_loc(start), CALENDAR.get_loc(end) + 1)
            assert not again[inside, CODES.index(code)].any()
            again[inside, CODES.index(code)] = True
        np.testing.assert_array_equal(again, mask)
        assert table.equals(table.sort_values(["instrument", "start"], ignore_index=True))

    def test_days_outside_the_calendar_do_not_count(self) -> None:
        table = pd.DataFrame(
            {
                "instrument": ["SH600000", "SH600004"],
                "start": pd.to_datetime(["1999-01-01", "2030-01-01"]),
                "end": pd.to_datetime(["2030-01-01", "2031-01-01"]),
            }
        )
        assert set(daily_size(CALENDAR, table)) == {1}
