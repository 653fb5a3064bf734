"""Features of the whole market, held against pandas and by their own laws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.features.side_data.market_status import IndexStatus
from qlib_ext.market.store import QlibStore, write_store

CODES = ["SH000300", "SH000905", "SH600000"]
DAYS = 90


def bars() -> dict[str, np.ndarray]:
    """Indices and a stock; the first index is missing on days 30 to 39, the second begins on day 20."""
    draw = np.random.default_rng(5)
    close = 3000 * np.exp(draw.normal(0, 0.02, (DAYS, 3)).cumsum(axis=0))
    volume = np.floor(draw.uniform(1e8, 9e8, close.shape))
    found = {"close": close, "volume": volume, "amount": close * volume * 7}
    for values in found.values():
        values[30:40, 0] = np.nan
        values[:20, 1] = np.nan
    return found


def make_store(root: Path, left_out: Sequence[str] = ()) -> QlibStore:
    fields = {name: values for name, values in bars().items() if name not in left_out}
    return write_store(root, pd.bdate_range("2020-01-01", periods=DAYS), CODES, fields, {})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    return make_store(tmp_path_factory.mktemp("indices") / "store")


def naive(close: np.ndarray, amount: np.ndarray, windows: Sequence[int]) -> np.ndarray:
    """What one index is worth on each day, from the days up to it and no other, `[D, features]`."""
    rows = []
    for day in range(len(close)):
        returns = pd.Series(close[: day + 1]).pct_change(fill_method=None)
        traded = pd.Series(amount[: day + 1])
        today = traded.iloc[-1]
        row = [returns.iloc[-1]]
        for d in windows:
            last = returns.iloc[-d:]
            row += [last.mean(), last.std()]
            row += [traded.iloc[-d:].mean() / today, traded.iloc[-d:].std() / today]
        rows.append(row)
    return np.array(rows)


class TestIndexStatus:
    @pytest.mark.parametrize("left_out", [(), ("amount",)])
    def test_is_returns_and_turnover_of_each_index(self, left_out: Sequence[str], tmp_path: Path) -> None:
        store = make_store(tmp_path / "store", left_out)
        status = IndexStatus(["SH000905", "SH000300"], windows=[5, 20])
        found = status.load(store)
        given = bars()
        traded = given["close"] * given["volume"] if left_out else given["amount"]
        for place, column in enumerate((1, 0)):
            expected = naive(given["close"][:, column], traded[:, column], [5, 20])
            np.testing.assert_allclose(found[:, 9 * place : 9 * place + 9], expected, rtol=2e-4, atol=1e-7)
        assert found.shape == (DAYS, len(status.names)) == (DAYS, 18)
        assert status.names[:5] == tuple(
            f"SH000905_{name}"
            for name in ("RETURN", "RETURN_MEAN5", "RETURN_STD5", "TURNOVER_MEAN5", "TURNOVER_STD5")
        )
        assert np.isnan(found[:20, :9]).all()
        assert found.dtype == np.float32

    def test_the_size_is_the_papers(self) -> None:
        assert len(IndexStatus(["SH000300", "SH000905", "SH000906"]).names) == 63

    def test_without_turnover(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store", ["amount", "volume"])
        assert "has neither amount nor volume" in str(IndexStatus(CODES[:2]).lacks(store))
        status = IndexStatus(CODES[:2], windows=[5], turnover=False)
        assert status.lacks(store) is None
        assert status.load(store).shape == (DAYS, 6)

    def test_a_day_follows_from_the_days_up_to_it(self, store: QlibStore, tmp_path: Path) -> None:
        given = bars()
        for values in given.values():
            values[60:] *= 1.5
        other = write_store(tmp_path / "other", store.calendar, CODES, given, {})
        before, after = (IndexStatus(CODES[:2]).load(each) for each in (store, other))
        np.testing.assert_array_equal(before[:60], after[:60])
        assert (before[60] != after[60]).mean() > 0.9

    def test_says_which_indices_there_are(self, store: QlibStore) -> None:
        said = IndexStatus(["SH000300", "SH000906"]).lacks(store)
        assert said == "it has no bars of SH000906; of indices it has SH000300, SH000905"

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"indices": "SH000300"}, "`indices` must be a list"),
            ({"indices": ["SH000300", "SH000300"]}, "`indices` must name each once"),
            ({"indices": ["SH000300", "sh000300"]}, "`indices` must name each once, found 'SH000300'"),
            ({"indices": []}, "`indices` must name at least one index, found none"),
            ({"windows": [[5]]}, r"`windows\[0\]` must be an integer, found \[5\]"),
            ({"windows": []}, r"`windows` must be a list of different numbers of days, found \[\]"),
            ({"windows": [5, 5]}, r"`windows` must be a list of different numbers of days, found \[5, 5\]"),
            ({"windows": [1]}, r"`windows\[0\]` must be at least 2, found 1"),
            ({"turnover": "yes"}, "`turnover` must be a bool, found str"),
            ({"clip": 0}, "`clip` must be above 0, found 0"),
        ],
    )
    def test_messages(self, kwargs: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            IndexStatus(**kwargs)


class TestNormalising:
    def test_is_robust_and_fitted_on_the_days_given(self, store: QlibStore) -> None:
        status = IndexStatus(CODES[:1], windows=[5])
        values = status.load(store)
        status.fit(values[:50])
        known = values[:50, 0][~np.isnan(values[:50, 0])].astype(float)
        median = np.median(known)
        deviation = 1.4826 * np.median(np.abs(known - median))
        found = status.normalised(values)
        expected = np.clip((values[:, 0] - median) / deviation, -3, 3)
        np.testing.assert_allclose(found[:, 0], np.nan_to_num(expected), rtol=1e-4, atol=1e-5)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        assert (found[30:40, 0] == 0).all()  # the index has no bars

    def test_restored_statistics_count(self, store: QlibStore) -> None:
        status, other = (IndexStatus(CODES[:1], windows=[5]) for _ in range(2))
        values = status.load(store)
        status.fit(values)
        assert status.median is not None
        assert status.scale is not None
        other.restore(status.median, status.scale)
        np.testing.assert_array_equal(other.normalised(values), status.normalised(values))

    def test_what_is_never_known_is_named(self, store: QlibStore) -> None:
        status = IndexStatus(CODES[:2])
        values = status.load(store)
        with pytest.raises(
            UserError, match="`SH000905_RETURN` must be known on some day to fit on, found none"
        ):
            status.fit(values[:15])
        with pytest.raises(RuntimeError, match="not fitted"):
            status.normalised(values)
