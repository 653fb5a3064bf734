from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.data.market_panel import MarketPanel


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
