from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.market.rules.exchange_rules import (
    ISSUE_PRICE,
    ExchangeRules,
    Lot,
    PriceLimit,
    read_rules,
    shipped,
)

CN = read_rules("cn")
DAYS = st.dates(pd.Timestamp("2002-05-01").date(), pd.Timestamp("2030-12-31").date()).map(pd.Timestamp)
NONE = PriceLimit(None, None)


def day(text: str) -> pd.Timestamp:
    return pd.Timestamp(text)


def own(tmp_path: Path, **table: Any) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"extends": "cn", **table}), encoding="utf-8")
    return path


class TestChina:
    @pytest.mark.parametrize(
        ("code", "board"),
        [
            ("SH600000", "main"),
            ("SH605499", "main"),
            ("SZ000001", "main"),
            ("sz003816", "main"),
            ("SZ300750", "chinext"),
            ("SZ301029", "chinext"),
            ("SH688981", "star"),
            ("SH689009", "star"),
            ("BJ830799", "beijing"),
        ],
    )
    def test_the_code_tells_the_board(self, code: str, board: str) -> None:
        assert CN.board(code) == board

    @pytest.mark.parametrize("code", ["SH000300", "SH900901", "SZ200002", "SH510300", "AAPL"])
    def test_what_is_no_share_has_no_board(self, code: str) -> None:
        with pytest.raises(UserError, match=f"name no board for {code}"):
            CN.board(code)

    @pytest.mark.parametrize(
        ("board", "date", "status", "limit"),
        [
            ("main", "1996-12-13", None, None),
            ("main", "1996-12-16", None, 0.10),
            ("main", "1998-04-21", "ST", 0.10),
            ("main", "1998-04-22", "ST", 0.05),
            ("main", "2026-07-03", "ST", 0.05),
            ("main", "2026-07-06", "ST", 0.10),
            ("main", "2024-01-02", None, 0.10),
            ("chinext", "2020-08-21", None, 0.10),
            ("chinext", "2020-08-24", None, 0.20),
            ("chinext", "2020-08-21", "ST", 0.05),
            ("chinext", "2020-08-24", "ST", 0.20),
            ("star", "2019-07-22", None, 0.20),
            ("star", "2021-07-22", "ST", 0.20),
            ("beijing", "2021-11-15", None, 0.30),
        ],
    )
    def test_price_limits(self, board: str, date: str, status: str | None, limit: float | None) -> None:
        assert CN.price_limit(board, day(date), status=status) == PriceLimit(limit, limit)

    @pytest.mark.parametrize(
        ("board", "listed", "age", "limit"),
        [
            ("main", "2013-12-31", 0, NONE),
            ("main", "2014-01-02", 0, PriceLimit(0.36, 0.44, ISSUE_PRICE)),
            ("main", "2014-01-02", 1, PriceLimit(0.10, 0.10)),
            ("main", "2023-04-07", 0, PriceLimit(0.36, 0.44, ISSUE_PRICE)),
            ("main", "2023-04-10", 4, NONE),
            ("main", "2023-04-10", 5, PriceLimit(0.10, 0.10)),
            ("chinext", "2020-08-21", 1, PriceLimit(0.20, 0.20)),  # listed before the exemption of five days
            ("chinext", "2020-08-24", 4, NONE),
            ("star", "2019-07-22", 4, NONE),
            ("star", "2019-07-22", 5, PriceLimit(0.20, 0.20)),
        ],
    )
    def test_first_days(self, board: str, listed: str, age: int, limit: PriceLimit) -> None:
        today = day(listed) + pd.offsets.BDay(age)
        assert CN.price_limit(board, today, listed=day(listed), age=age) == limit

    @pytest.mark.parametrize(
        ("date", "buy", "sell"),
        [  # the rates in per mille, from the table of the tax's history
            ("2002-05-08", 2, 2),
            ("2005-01-21", 2, 2),
            ("2005-01-24", 1, 1),
            ("2007-05-29", 1, 1),
            ("2007-05-30", 3, 3),
            ("2008-04-23", 3, 3),
            ("2008-04-24", 1, 1),
            ("2008-09-18", 1, 1),
            ("2008-09-19", 0, 1),
            ("2015-07-31", 0, 1),
            ("2015-08-03", 0.02, 1.02),  # with the transfer fee
            ("2022-04-28", 0.02, 1.02),
            ("2022-04-29", 0.01, 1.01),
            ("2023-08-25", 0.01, 1.01),
            ("2023-08-28", 0.01, 0.51),
        ],
    )
    def test_levies_by_date(self, date: str, buy: float, sell: float) -> None:
        fees = CN.fees("main", day(date))
        assert (1000 * fees.levy("buy"), 1000 * fees.levy("sell")) == pytest.approx((buy, sell))

    def test_the_minimum_is_of_the_commission_alone(self) -> None:
        fees = CN.fees("main", day("2024-01-02"))
        assert fees.cost(1000.0, "sell") == pytest.approx(5 + 0.51)
        assert fees.cost(1e6, "sell") == pytest.approx(500 + 510)
        assert fees.cost(1e6, "buy") == pytest.approx(500 + 10)
        assert fees.cost(0.0, "buy") == 0

    def test_a_purchase_is_sold_on_a_later_day(self) -> None:
        assert CN.resale_days("main", day("2020-01-02")) == 1
        assert read_rules("us").resale_days("all", day("2010-01-04")) == 0

    @pytest.mark.parametrize(
        ("word", "status"), [("ST", "ST"), ("*ST", "ST"), ("s*st ", "ST"), ("PT", None), ("normal", None)]
    )
    def test_status_by_the_word_of_a_store(self, word: str, status: str | None) -> None:
        assert CN.status(word) == status

    @given(st.sampled_from(["main", "chinext", "star"]), DAYS)
    def test_every_day_has_every_rule(self, board: str, date: pd.Timestamp) -> None:
        if date >= day("2019-07-22"):
            assert CN.price_limit(board, date).up in (0.10, 0.20)
            assert CN.lot(board, date).minimum in (100, 200)
        fees = CN.fees("main", date)
        assert 0 <= fees.buy <= fees.sell < 0.01

    def test_what_holds_in_a_period_is_told(self) -> None:
        rows = CN.in_force(day("2020-01-02"), day("2020-12-31"), ["main", "chinext"])
        said = [(row["rule"], row["of"], row["from"], row["says"]) for row in rows]
        assert ("price limit", "chinext", "2020-08-24", "±20%") in said
        assert ("price limit", "chinext", "2009-10-30", "±10%") in said
        assert ("stamp duty", "main, chinext", "2008-09-19", "0% of a purchase, 0.1% of a sale") in said
        assert ("commission", "main, chinext", "2002-05-01", "0.05% of the value, at least 5") in said
        assert not [row for row in rows if "star" in row["of"] or row["from"] in ("2023-08-28", "2007-05-30")]
        assert all(row["source"] for row in rows)

    def test_before_the_table_begins_there_is_no_guess(self) -> None:
        with pytest.raises(UserError, match="no row of `commission` for the board main on 2002-04-30"):
            CN.fees("main", day("2002-04-30"))


class TestRequires:
    def test_a_board_may_open_in_between(self) -> None:
        CN.require(["SH600000", "SH688001", "SZ300001"], day("2017-01-03"), day("2020-12-31"))

    @pytest.mark.parametrize(
        ("codes", "first", "message"),
        [
            (["SH600000", "SH510300"], "2017-01-03", "name no board for SH510300"),
            (["SH600000"], "2001-01-02", "no row of `commission` for the board main on 2001-01-02"),
        ],
    )
    def test_what_is_missing_is_told(self, codes: list[str], first: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            CN.require(codes, day(first), day("2020-12-31"))


class TestUs:
    def test_no_limits_and_single_shares(self) -> None:
        rules = read_rules("us")
        assert rules.board("AAPL") == "all"
        assert rules.price_limit("all", day("1987-10-19")) == NONE
        assert rules.lot("all", day("2010-01-04")) == Lot(1, 1)
        fees = rules.fees("all", day("2010-01-04"))
        assert (fees.cost(1e5, "buy"), fees.cost(1e5, "sell"), fees.cost(100, "buy")) == (50, 50, 1)


class TestLot:
    @pytest.mark.parametrize(
        ("lot", "shares", "whole"),
        [
            (Lot(100, 100), 99.9, 0),
            (Lot(100, 100), 100 - 1e-9, 100),
            (Lot(100, 100), 299, 200),
            (Lot(200, 1), 199.5, 0),
            (Lot(200, 1), 200, 200),
            (Lot(200, 1), 251.7, 251),
            (Lot(1, 1), 0.7, 0),
        ],
    )
    def test_examples(self, lot: Lot, shares: float, whole: int) -> None:
        assert lot.whole(shares) == whole

    @given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 1e7))
    def test_laws(self, minimum: int, step: int, shares: float) -> None:
        lot = Lot(minimum, step)
        whole = lot.whole(shares)
        assert whole <= shares + 1e-6
        assert whole == 0 or (whole >= minimum and (whole - minimum) % step == 0)
        assert lot.whole(whole) == whole
        assert shares - whole < (step if whole else minimum)


class TestOwnTable:
    def test_rows_are_added_and_the_newest_holds(self, tmp_path: Path) -> None:
        path = own(
            tmp_path,
            price_limit=[{"board": "main", "status": "ST", "from": "2026-01-05", "limit": 0.10}],
            commission=[{"from": "2020-01-01", "rate": 0.0002, "minimum": 1}],
        )
        rules = read_rules(path)
        assert rules.price_limit("main", day("2026-01-02"), status="ST").up == 0.05
        assert rules.price_limit("main", day("2026-01-05"), status="ST").up == 0.10
        assert rules.price_limit("main", day("2026-01-05"), listed=day("2026-01-05"), age=0) == NONE
        assert rules.fees("star", day("2020-01-02")).commission == 0.0002
        assert rules.digest != CN.digest

    def test_a_row_of_the_same_day_takes_the_place_of_the_older(self, tmp_path: Path) -> None:
        path = own(tmp_path, resale=[{"from": "1995-01-01", "after_days": 0}])
        assert read_rules(path).resale_days("main", day("2020-01-02")) == 0

    def test_boards_of_its_own(self, tmp_path: Path) -> None:
        path = own(
            tmp_path,
            boards={"fund": ["SH51"], "main": ["SH9"]},
            price_limit=[{"board": "fund", "from": "2000-01-01", "limit": 0.1}],
            levies={"stamp duty": [{"board": "fund", "from": "2000-01-01", "buy": 0, "sell": 0}]},
        )
        rules = read_rules(path)
        assert rules.board("SH510300") == "fund"
        assert (rules.board("SH900901"), rules.board("SH600000")) == ("main", "main")
        assert rules.fees("fund", day("2024-01-02")).sell == 0.00001  # the transfer fee stays
        assert rules.fees("main", day("2024-01-02")).sell == pytest.approx(0.00051)

    def test_a_rule_may_end(self, tmp_path: Path) -> None:
        row = {"board": "main", "from": "2030-01-02", "until": "2030-02-01", "limit": None}
        rules = read_rules(own(tmp_path, price_limit=[row]))
        limits = [
            rules.price_limit("main", day(date)).up for date in ("2030-01-01", "2030-02-01", "2030-02-02")
        ]
        assert limits == [0.1, None, 0.1]

    def test_a_table_from_nothing(self, tmp_path: Path) -> None:
        text = Path(str(next(Path(__file__).parents[3].glob("qlib_ext/market/rules/us.yaml")))).read_text()
        path = tmp_path / "mine.yaml"
        path.write_text(text.replace("minimum: 1, source", "minimum: 0, source"), encoding="utf-8")
        assert read_rules(path).fees("all", day("2020-01-02")).minimum == 0

    def test_extends_a_file_beside_it(self, tmp_path: Path) -> None:
        own(tmp_path, tick=0.05)
        (tmp_path / "top.yaml").write_text("extends: own.yaml\nmarket: mine\n", encoding="utf-8")
        rules = read_rules(tmp_path / "top.yaml")
        assert (rules.tick, rules.market) == (0.05, "mine")


class TestRefuses:
    def test_an_unknown_name(self) -> None:
        with pytest.raises(UserError, match=r"`rules` must be one of cn, us, or a YAML file; found 'cnn'"):
            read_rules("cnn")

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ({"price_limits": []}, r"no place for `price_limits` \(did you mean price_limit"),
            ({"price_limit": {}}, "`price_limit` must be a list of rows"),
            ({"price_limit": ["x"]}, "must be a mapping with a key `from`"),
            ({"price_limit": [{"limit": 0.1}]}, "must have a key `from`"),
            ({"price_limit": [{"from": "2020-01-01"}]}, "must have a key `limit`"),
            ({"price_limit": [{"from": "20200101x", "limit": 0.1}]}, "must be a date such as 2023-08-28"),
            ({"price_limit": [{"from": "2020-01-01", "limit": 10}]}, "write 10 % as 0.10"),
            ({"price_limit": [{"from": "2020-01-01", "limit": 0}]}, "must be above 0, found 0"),
            ({"price_limit": [{"from": "2020-01-01", "limit": [0.1]}]}, "one limit or two"),
            ({"price_limit": [{"from": "2020-01-01", "limit": 0.1, "board": "mian"}]}, "did you mean main"),
            ({"price_limit": [{"from": "2020-01-01", "limit": 0.1, "status": "PT"}]}, "must be one of ST"),
            ({"price_limit": [{"from": "2020-01-01", "limit": 0.1, "first_days": 0}]}, "at least 1, found 0"),
            (
                {"price_limit": [{"from": "2020-01-01", "limit": 0.1, "of": "open"}]},
                "must be one of issue price",
            ),
            ({"price_limit": [{"from": "2020-01-01", "limit": 0.1, "til": 1}]}, "no place for `til`"),
            (
                {"resale": [{"from": "2020-01-02", "until": "2020-01-01", "after_days": 1}]},
                "must not come before `from`",
            ),
            ({"resale": [{"from": "2020-01-02", "after_days": 2}]}, "must be one of 0, 1, found 2"),
            ({"lots": [{"from": "2020-01-02", "minimum": 0, "step": 1}]}, "at least 1, found 0"),
            ({"commission": [{"from": "2020-01-02", "rate": -0.1, "minimum": 5}]}, "at least 0, found -0.1"),
            ({"levies": {"stamp duty": [{"from": "2020-01-02", "buy": 0, "sell": 5}]}}, "fraction below 1"),
            ({"levies": []}, "`levies` must be a mapping"),
            ({"boards": {"main": "SH60"}}, "`boards.main` must be a list of text"),
            ({"tick": 0}, "`tick` must be above 0"),
            ({"extends": "missing.yaml"}, "or a YAML file; found 'missing.yaml'"),
            ({"extends": "own.yaml"}, "extend themselves"),
        ],
    )
    def test_a_table_that_does_not_fit(self, tmp_path: Path, table: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            read_rules(own(tmp_path, **copy.deepcopy(table)))

    def test_a_table_that_lacks_something(self) -> None:
        with pytest.raises(UserError, match="must have a key `tick`"):
            ExchangeRules({"market": "mine"}, "mine")

    def test_text_that_is_no_yaml(self, tmp_path: Path) -> None:
        (tmp_path / "bad.yaml").write_text("a: [", encoding="utf-8")
        with pytest.raises(UserError, match="are no YAML"):
            read_rules(tmp_path / "bad.yaml")


def test_the_shipped_tables() -> None:
    assert shipped() == ["cn", "us"]
