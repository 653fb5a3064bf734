from __future__ import annotations

import numpy as np
import pandas as pd

from qlib_ext.market.fetch.source import held_factor, until_next
from qlib_ext.market.fetch.vendor import status_spells


def days(*texts: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(texts)


def test_spells_end_on_the_day_before_the_next_row_without_them() -> None:
    flags = pd.DataFrame(
        {
            "code": ["A"] * 5 + ["B"] * 2,
            "date": days(
                "2024-01-02",
                "2024-01-03",
                "2024-01-08",
                "2024-01-09",
                "2024-01-10",
                "2024-01-02",
                "2024-01-03",
            ),
            "st": [0, 1, 1, 0, 1, 1, 1.0],
        }
    ).sample(frac=1, random_state=1)
    found = status_spells(flags)
    assert list(found["code"]) == ["A", "A", "B"]
    assert list(found["start"]) == list(days("2024-01-03", "2024-01-10", "2024-01-02"))
    assert found["end"].isna().tolist() == [False, True, True]
    assert found["end"][0] == pd.Timestamp("2024-01-08")


def test_a_history_of_industries_does_not_overlap() -> None:
    rows = pd.DataFrame(
        {
            "code": ["A", "A", "A", "B"],
            "start": days("2020-01-01", "2021-01-01", "2022-01-01", "2020-01-01"),
            "end": pd.to_datetime(["2021-01-01", None, None, "2020-06-30"]),
            "industry": ["x", "y", "z", "x"],
        }
    )
    found = until_next(rows.iloc[::-1])
    assert found["end"].astype(str).tolist() == ["2020-12-31", "2021-12-31", "NaT", "2020-06-30"]
    assert found["industry"].tolist() == ["x", "y", "z", "x"]


def test_a_factor_holds_from_its_day_on() -> None:
    since, factor = pd.Series(days("2024-01-05", "2024-01-03")), pd.Series(["3", "2"])
    found = held_factor(
        pd.Series(days("2024-01-02", "2024-01-03", "2024-01-04", "2024-01-08")), since, factor
    )
    np.testing.assert_array_equal(found, [1, 2, 2, 3])
    np.testing.assert_array_equal(held_factor(pd.Series(days("2024-01-02")), since[:0], factor[:0]), [1])
