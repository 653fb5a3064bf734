from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.data.score_file import on_trading_days, read_scores
from qlib_ext.market.store import QlibStore, write_store

CODES = ["SH600000", "SZ000001", "SH600004"]
DAYS = pd.bdate_range("2020-01-06", periods=5)
TABLE = pd.DataFrame(
    [(day, code, 10.0 * k + j) for k, day in enumerate(DAYS) for j, code in enumerate(CODES)],
    columns=["datetime", "instrument", "score"],
)
EXPECTED = TABLE.set_index(["datetime", "instrument"])["score"].sort_index()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    close = np.full((len(DAYS), len(CODES)), 10.0)
    return write_store(tmp_path_factory.mktemp("market") / "store", DAYS, CODES, {"close": close}, {})


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(table: pd.DataFrame | str, name: str = "scores.csv") -> Path:
        path = tmp_path / name
        if isinstance(table, str):
            path.write_text(table, encoding="utf-8")
        elif name.endswith(".parquet"):
            table.to_parquet(path)
        else:
            table.to_csv(path, index=table.index.names != [None])
        return path

    return written


def renamed(day: str, code: str, score: str) -> pd.DataFrame:
    return TABLE.rename(columns={"datetime": day, "instrument": code, "score": score})


class TestForms:
    @pytest.mark.parametrize(
        ("table", "name"),
        [
            (TABLE, "scores.csv"),
            (TABLE.sample(frac=1, random_state=1), "scores.csv.gz"),
            (renamed("trade_date", "ts_code", "pred"), "scores.csv"),
            (renamed("date", "symbol", "prediction"), "scores.parquet"),
            (renamed("日期", "代码", "因子"), "scores.csv"),
            (renamed("Date", "ticker", "my_own"), "scores.csv"),
            (renamed("date", "code", "score").assign(value=3.0, name="a firm"), "scores.csv"),
            (renamed("date", "code", "value").assign(end="2020-01-01"), "scores.csv"),
            (TABLE.set_index(["datetime", "instrument"]), "scores.parquet"),
            (TABLE.set_index(["datetime", "instrument"]), "scores.csv"),
            (TABLE.pivot(index="datetime", columns="instrument", values="score"), "scores.parquet"),
            (TABLE.pivot(index="datetime", columns="instrument", values="score"), "scores.csv"),
        ],
        ids=lambda each: each if isinstance(each, str) else ",".join(map(str, each.columns))[:40],
    )
    def test_columns_are_known_by_their_names(
        self, table: pd.DataFrame, name: str, store: QlibStore, write: Callable[..., Path]
    ) -> None:
        found = read_scores(write(table, name), store)
        pd.testing.assert_series_equal(found.scores, EXPECTED)
        assert found.notes == ()

    @pytest.mark.parametrize(
        "spelled",
        [
            ["600000.SH", "000001.SZ", "600004.SH"],
            ["sh600000", "sz000001", "sh600004"],
            ["600000", "000001", "600004"],
            [600000, 1, 600004],
            ["600000.XSHG", "000001.XSHE", "600004.XSHG"],
        ],
        ids=lambda codes: str(codes[1]),
    )
    def test_codes_are_written_as_the_store_does(
        self, spelled: list[object], store: QlibStore, write: Callable[..., Path]
    ) -> None:
        table = TABLE.assign(instrument=TABLE["instrument"].map(dict(zip(CODES, spelled, strict=True))))
        found = read_scores(write(table), store)
        pd.testing.assert_series_equal(found.scores, EXPECTED)

    def test_a_column_can_be_named(self, store: QlibStore, write: Callable[..., Path]) -> None:
        table = renamed("when", "who", "first").assign(second=1.0)
        columns = {"datetime": "when", "instrument": "who", "score": "first"}
        pd.testing.assert_series_equal(read_scores(write(table), store, columns=columns).scores, EXPECTED)

    def test_what_is_left_out_is_told(self, store: QlibStore, write: Callable[..., Path]) -> None:
        table = TABLE.astype({"score": object})
        table.loc[[1, 4], "score"] = ""
        other = table[table["instrument"] == CODES[2]].assign(instrument="SH600999")
        found = read_scores(write(pd.concat([table, other])), store)
        pd.testing.assert_series_equal(found.scores, EXPECTED.drop(EXPECTED.index[[2, 5]]), check_dtype=False)
        assert found.notes == (
            "1 code of scores.csv without bars in the store, such as SH600999: left out",
            "2 of 20 rows of scores.csv have no score: left out",
        )


class TestRefused:
    @pytest.mark.parametrize(
        ("table", "said"),
        [
            (
                renamed("when", "code", "score"),
                "no column is known to be the day: name it with `--column date",
            ),
            (renamed("date", "who", "score"), "no column is known to be the stock's code"),
            (renamed("date", "code", "a").assign(b=1.0), "no column is known to be the score"),
            (renamed("date", "code", "alpha").assign(signal=1.0), "more than one column could be `score`"),
            (
                renamed("date", "symbol", "score").assign(code="x"),
                "more than one column could be `instrument`",
            ),
            (pd.concat([TABLE, TABLE.tail(1)]), "row 16 (SH600004, 2020-01-10) repeats a stock and day"),
            (TABLE.assign(score="much"), "must have a finite number as `score`, found much"),
            (TABLE.assign(score=np.inf), "must have a finite number as `score`, found inf"),
            (TABLE.assign(datetime="soon"), "must have a day such as 2010-01-04 as `datetime`, found soon"),
            (TABLE.assign(instrument=""), "has no `instrument`"),
            (TABLE.assign(instrument=TABLE["instrument"].str.replace("0", "9")), "none of the 3 codes of"),
            (TABLE.assign(score=np.nan), "must have scores, found none in its 15 rows"),
            (TABLE.head(0), "must have scores, found none in its 0 rows"),
        ],
        ids=lambda each: each[:40] if isinstance(each, str) else "",
    )
    def test_a_table_that_is_wrong(
        self, table: pd.DataFrame, said: str, store: QlibStore, write: Callable[..., Path]
    ) -> None:
        with pytest.raises(UserError) as caught:
            read_scores(write(table), store)
        assert said in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("pred.pkl", "a pickle runs what it holds when it is opened"),
            ("scores.xlsx", "scores must be one of .parquet, .csv"),
            ("nothing.csv", "expected a file of scores, found none"),
        ],
    )
    def test_a_file_that_is_none(self, name: str, said: str, store: QlibStore, tmp_path: Path) -> None:
        if name != "nothing.csv":
            (tmp_path / name).write_bytes(b"x")
        with pytest.raises(UserError) as caught:
            read_scores(tmp_path / name, store)
        assert said in str(caught.value)

    def test_a_column_that_is_no_field(self, store: QlibStore, write: Callable[..., Path]) -> None:
        with pytest.raises(UserError, match="`column` must be one of datetime, instrument, score"):
            read_scores(write(TABLE), store, columns={"volume": "v"})


class TestTradingDays:
    def test_others_are_left_out_and_told(self) -> None:
        days = pd.to_datetime(["2020-01-03", "2020-01-06", "2020-01-11", "2020-01-13"])
        calendar = pd.DatetimeIndex(["2020-01-06", "2020-01-07", "2020-01-10", "2020-01-12"])
        index = pd.MultiIndex.from_product([days, CODES], names=["datetime", "instrument"])
        kept, notes = on_trading_days(pd.Series(1.0, index=index), calendar, "it")
        assert [*kept.index.get_level_values("datetime").unique()] == [pd.Timestamp("2020-01-06")]
        assert notes == (
            "1 day of it before the store begins, 2020-01-06, such as 2020-01-03: left out",
            "1 day of it after the store ends, 2020-01-12, such as 2020-01-13: left out",
            "1 day of it on which the store has no trading, such as 2020-01-11: left out",
        )

    def test_nothing_is_said_where_all_are(self) -> None:
        kept, notes = on_trading_days(EXPECTED, DAYS, "it")
        pd.testing.assert_series_equal(kept, EXPECTED)
        assert notes == ()
