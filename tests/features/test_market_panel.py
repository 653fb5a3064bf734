from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from qlib_ext.features.alpha360 import Alpha360
from qlib_ext.features.market_panel import MarketPanel, day_blocks
from qlib_ext.market.store import QlibStore


class TestLoad:
    def test_bars_are_those_that_were_written(self, panel: MarketPanel, tiny: Any) -> None:
        assert panel.fields == ("close", "open", "high", "low", "vwap", "volume")
        assert panel.values.dtype == np.float32
        assert panel.missing_fields == ()
        columns = [tiny.codes.index(code) for code in panel.instruments]
        for field in panel.fields:
            expected = tiny.bars[field][:, columns].astype(np.float32)
            np.testing.assert_array_equal(panel.field(field), expected, field)

    def test_stocks_are_all_that_were_ever_members_and_have_bars(self, panel: MarketPanel, tiny: Any) -> None:
        assert panel.instruments == tiny.codes[:10]

    def test_rows_are_the_members_of_the_day_that_have_a_close(self, panel: MarketPanel, tiny: Any) -> None:
        for day, codes in tiny.members().items():
            row = panel.present[panel.calendar.get_loc(day)]
            assert [panel.instruments[i] for i in np.flatnonzero(row)] == codes, day

    def test_a_field_that_the_store_lacks_is_missing_everywhere(self, tiny: Any, tmp_path: Path) -> None:
        panel = MarketPanel.load(tiny.without("vwap").write(tmp_path / "s"), "few", ["close", "vwap"])
        assert panel.missing_fields == ("vwap",)
        assert np.isnan(panel.field("vwap")).all()


class TestLayout:
    def test_values_are_a_view_of_what_windows_are_gathered_from(self, store: QlibStore) -> None:
        panel = MarketPanel.load(store, "few", ["close", "volume"], empty_days=7)
        assert panel.padded is not None
        assert panel.padded.shape == (7 + len(panel.calendar), len(panel.instruments), 2)
        assert np.shares_memory(panel.padded, panel.values)
        assert np.isnan(panel.padded[:7]).all()
        features = Alpha360(panel.fields, 8)
        assert features.pad(panel) is panel.padded
        apart = dataclasses.replace(panel, values=panel.values.copy())
        np.testing.assert_array_equal(features.pad(apart), panel.padded)
        assert Alpha360(panel.fields, 9).pad(panel).shape[0] == 8 + len(panel.calendar)

    def test_a_panel_of_other_values_is_gathered_from_them(self, panel: MarketPanel) -> None:
        assert panel.padded is not None
        assert dataclasses.replace(panel, values=panel.values * 2).padded is None
        assert dataclasses.replace(panel, missing_fields=("vwap",)).padded is panel.padded

    def test_rows_that_are_known_are_not_worked_out(self, panel: MarketPanel) -> None:
        known = np.zeros(panel.members.shape, dtype=bool)
        other = dataclasses.replace(panel, known_present=known)
        assert other.present is known

    @given(
        days=st.integers(0, 50),
        stocks=st.integers(0, 50),
        cells=st.integers(1, 3000),
    )
    def test_blocks_are_all_days_once_and_in_order(self, days: int, stocks: int, cells: int) -> None:
        blocks = list(day_blocks((days, stocks), cells))
        assert [day for block in blocks for day in range(block.start, block.stop)] == list(range(days))
        for block in blocks:
            length = block.stop - block.start
            assert length == 1 or length * stocks <= cells


class TestListed:
    def test_from_the_first_to_the_last_bar_of_any_field(self, panel: MarketPanel) -> None:
        for column in range(len(panel.instruments)):
            days = [
                day for day in range(len(panel.calendar)) if not np.isnan(panel.values[:, day, column]).all()
            ]
            expected = [days[0] <= day <= days[-1] for day in range(len(panel.calendar))]
            assert panel.listed[:, column].tolist() == expected

    def test_a_stock_without_any_bar_is_never_listed(self) -> None:
        panel = MarketPanel(
            ("close",),
            pd.bdate_range("2020-01-01", periods=3),
            ("SH600000",),
            np.full((1, 3, 1), np.nan, np.float32),
            np.ones((3, 1), dtype=bool),
            ("close",),
        )
        assert not panel.listed.any()
