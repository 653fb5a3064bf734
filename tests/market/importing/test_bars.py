from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.importing.bars import Bars

DAYS = pd.DatetimeIndex(["2020-01-02", "2020-01-03", "2020-01-06"])
NAN = np.nan


class TestBars:
    def test_first_and_last_day_of_each_instrument(self) -> None:
        close = np.array([[NAN, 1.0, NAN], [2.0, 1.0, NAN], [NAN, NAN, NAN]])
        volume = np.array([[NAN, NAN, NAN], [NAN, NAN, NAN], [3.0, NAN, NAN]])
        spells = Bars(DAYS, ("A", "B", "C"), {"close": close, "volume": volume}).first_and_last()
        expected = pd.DataFrame(
            {"instrument": ["A", "B"], "start": [DAYS[1], DAYS[0]], "end": [DAYS[2], DAYS[1]]}
        )
        pd.testing.assert_frame_equal(spells, expected)

    @pytest.mark.parametrize(
        ("calendar", "codes", "values", "message"),
        [
            (DAYS[::-1], ("A",), np.ones((3, 1)), "`calendar` must hold ascending days"),
            (DAYS[:0], ("A",), np.ones((0, 1)), "`calendar` must hold ascending days"),
            (DAYS.tz_localize("UTC"), ("A",), np.ones((3, 1)), "without a time zone"),
            (DAYS, ("A", "A"), np.ones((3, 2)), "different upper-case codes, found A"),
            (DAYS, ("a",), np.ones((3, 1)), "different upper-case codes, found a"),
            (DAYS, ("A",), np.ones((1, 3)), r"floats of shape \(3, 1\), found float64 of \(1, 3\)"),
            (DAYS, ("A",), np.ones((3, 1), dtype=int), "found int64"),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, calendar: pd.DatetimeIndex, codes: tuple[str, ...], values: np.ndarray, message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            Bars(calendar, codes, {"close": values})
