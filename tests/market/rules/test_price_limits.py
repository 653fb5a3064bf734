from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qlib_ext.market.rules.exchange_rules import ExchangeRules, read_rules
from qlib_ext.market.rules.price_limits import AtLimit, at_limit
from qlib_ext.market.store import QlibStore, write_store

CALENDAR = pd.bdate_range("2020-08-17", periods=14)  # ChiNext's limit is 20 % from day 5
PLANTED = 6
CN = read_rules("cn")
REAL = Path(__file__).parents[4] / "shared" / "market" / "cn"

# What a stock closed at the day before `PLANTED`, at what it is traded on it, and whether it stands at a limit.
AT = {
    "SH600001": (10.25, 11.28, "up"),  # 11.275, rounded half up
    "SH600002": (10.25, 11.27, None),  # +9.95 %, and a fen below the limit
    "SH600003": (10.25, 9.23, "down"),  # 9.225
    "SH600004": (10.25, 9.24, None),
    "SH600005": (0.04, 0.05, "up"),  # a tenth of it is less than a fen
    "SH600006": (0.04, 0.03, "down"),
    "SH600007": (2.51, 2.77, "up"),  # beyond the limit of 2.76
    "SH600008": (0.01, 0.01, "down"),  # no price is lower
    "SH600009": (0.01, 0.02, "up"),
    "SH600010": (0.02, 0.02, None),
    "SZ300001": (10.00, 11.00, None),
    "SZ300002": (10.00, 12.00, "up"),
    "SZ300003": (10.00, 8.00, "down"),
    "SH688001": (10.00, 11.99, None),
    "SH688002": (10.00, 12.00, "up"),
}


class Store:
    """Stocks whose closes stand still until something is planted."""

    def __init__(self, codes: list[str], price: float = 10.0):
        self.codes = codes
        shape = len(CALENDAR), len(codes)
        self.close, self.factor = np.full(shape, price), np.ones(shape)

    def plant(self, code: str, day: int, *prices: float) -> None:
        column = self.codes.index(code)
        self.close[day : day + len(prices), column] = prices
        self.close[day + len(prices) :, column] = prices[-1]

    def look(self, root: Path, rules: ExchangeRules = CN, **given: object) -> tuple[AtLimit, pd.DataFrame]:
        bars = {"close": self.close * self.factor, "factor": self.factor}
        spells = pd.DataFrame({"instrument": self.codes, "start": CALENDAR[0], "end": CALENDAR[-1]})
        if not (root / "features").exists():
            write_store(root, CALENDAR, self.codes, bars, {"csi300": spells})
        store = QlibStore(root)
        close, factor = store.read(["close", "factor"], self.codes)
        index = pd.MultiIndex.from_product([self.codes, CALENDAR[1:]], names=["instrument", "datetime"])
        quotes = pd.DataFrame(
            {"$close": close[1:].T.ravel(), "$factor": factor[1:].T.ravel()}, index=index, dtype="float64"
        )
        arguments = {"buy": "$close", "sell": "$close", "factors": True} | given
        with np.errstate(divide="ignore", invalid="ignore"):
            found = at_limit(quotes, rules, store, **arguments)  # type: ignore[arg-type]
        assert found.up.dtype == found.down.dtype == bool
        return found, pd.DataFrame({"up": found.up, "down": found.down}, index=index)


def day_of(table: pd.DataFrame, code: str, day: int) -> str | None:
    row = table.loc[(code, CALENDAR[day])]
    assert not (row["up"] and row["down"])
    return "up" if row["up"] else "down" if row["down"] else None


class TestByFen:
    @pytest.mark.parametrize("factor", [1.0, 3.7, 0.0213])
    def test_the_limit_price_is_rounded_half_up(self, tmp_path: Path, factor: float) -> None:
        made = Store([*AT])
        made.factor *= factor
        for code, (before, price, _) in AT.items():
            made.plant(code, PLANTED - 1, before, price)
        found, table = made.look(tmp_path)
        assert {code: day_of(table, code, PLANTED) for code in AT} == {
            code: limit for code, (_, _, limit) in AT.items()
        }
        assert [note for note in found.notes if "multiple" in note] == []

    def test_by_board_and_date(self, tmp_path: Path) -> None:
        made = Store(["SH600000", "SH688001", "SZ300001"])
        for code in made.codes:
            made.plant(code, 3, 11.0, 11.0, 12.1, 12.1)
        _, table = made.look(tmp_path)
        assert [day_of(table, "SH600000", day) for day in (3, 4, 5)] == ["up", None, "up"]
        assert [day_of(table, "SZ300001", day) for day in (3, 4, 5)] == ["up", None, None]
        assert [day_of(table, "SH688001", day) for day in (3, 4, 5)] == [None, None, None]

    def test_a_dividend_lowers_the_reference(self, tmp_path: Path) -> None:
        made = Store(["SH600000", "SH600001"])
        for code, price in (("SH600000", 5.50), ("SH600001", 5.49)):
            column = made.codes.index(code)
            made.close[PLANTED:, column] = price  # after one new share for each
            made.factor[PLANTED:, column] = 2.0
        _, table = made.look(tmp_path)
        assert (day_of(table, "SH600000", PLANTED), day_of(table, "SH600001", PLANTED)) == ("up", None)

    def test_after_a_suspension_the_last_close_counts(self, tmp_path: Path) -> None:
        made = Store(["SH600000"])
        made.close[4:8] = np.nan
        made.factor[4:8] = np.nan
        made.close[8:] = 11.0
        _, table = made.look(tmp_path)
        assert day_of(table, "SH600000", 8) == "up"
        assert [day_of(table, "SH600000", day) for day in (4, 7, 9)] == [None] * 3

    def test_the_price_of_the_trade_counts(self, tmp_path: Path) -> None:
        made = Store(["SH600000"])
        made.plant("SH600000", PLANTED, 11.0)
        _, table = made.look(tmp_path)
        assert day_of(table, "SH600000", PLANTED) == "up"
        store = QlibStore(tmp_path)
        index = pd.MultiIndex.from_product(
            [["SH600000"], CALENDAR[PLANTED:]], names=["instrument", "datetime"]
        )
        quotes = pd.DataFrame({"$close": 11.0, "$factor": 1.0, "$open": 10.5, "$vwap": 0.0}, index=index)
        at_open = at_limit(quotes, CN, store, buy="$open", sell="$open", factors=True)
        assert not at_open.up.any()  # the stock was bought before it rose
        without = at_limit(quotes, CN, store, buy="$vwap", sell="$vwap", factors=True)
        assert [*np.flatnonzero(without.up)] == [0]  # no price of its own: Qlib trades at the close

    def test_a_mean_price_less_than_half_a_tick_away_is_at_the_limit(self, tmp_path: Path) -> None:
        made = Store(["SH600000"])
        made.plant("SH600000", PLANTED, 11.0, 9.9)
        made.look(tmp_path)
        index = pd.MultiIndex.from_product(
            [["SH600000"], CALENDAR[PLANTED : PLANTED + 2]], names=["instrument", "datetime"]
        )
        for off, limited in ((0.004, True), (0.006, False)):
            mean = [11.0 - off, 9.9 + off]
            quotes = pd.DataFrame({"$close": [11.0, 9.9], "$factor": 1.0, "$vwap": mean}, index=index)
            found = at_limit(quotes, CN, QlibStore(tmp_path), buy="$vwap", sell="$vwap", factors=True)
            assert (found.up.tolist(), found.down.tolist()) == ([limited, False], [False, limited])

    def test_purchases_and_sales_each_have_their_price(self, tmp_path: Path) -> None:
        made = Store(["SH600000"])
        made.plant("SH600000", PLANTED, 10.5)
        made.look(tmp_path)
        index = pd.MultiIndex.from_product(
            [["SH600000"], [CALENDAR[PLANTED]]], names=["instrument", "datetime"]
        )
        quotes = pd.DataFrame({"$close": 10.5, "$factor": 1.0, "$high": 11.0, "$low": 9.0}, index=index)
        for buy, sell, found in (("$high", "$low", (True, True)), ("$low", "$high", (False, False))):
            at = at_limit(quotes, CN, QlibStore(tmp_path), buy=buy, sell=sell, factors=True)
            assert (at.up.item(), at.down.item()) == found


class TestStatus:
    def test_special_treatment_has_a_limit_of_its_own(self, tmp_path: Path) -> None:
        made = Store(["SH600000", "SH600001", "SZ300001"])
        for code in made.codes:
            made.plant(code, 2, 10.5, 10.5, 10.5, 10.5, 11.03)
        made.look(tmp_path)
        (tmp_path / "side").mkdir()
        rows = [("SH600000", CALENDAR[4], pd.NaT, "*ST"), ("SZ300001", CALENDAR[4], pd.NaT, "ST")]
        rows += [("SH600001", CALENDAR[0], CALENDAR[3], "ST"), ("SH600001", CALENDAR[4], pd.NaT, "sane")]
        table = pd.DataFrame(rows, columns=["instrument", "start", "end", "status"])
        table.to_parquet(tmp_path / "side" / "status.parquet")
        found, at = made.look(tmp_path)
        assert [day_of(at, "SH600000", day) for day in (2, 6)] == [None, "up"]
        assert [day_of(at, "SH600001", day) for day in (2, 6)] == ["up", None]
        assert [day_of(at, "SZ300001", day) for day in (2, 6)] == [None, None]
        assert [*found.notes] == ["the side data `status` has words without rules of their own: sane"]

    def test_it_lasts_from_the_first_to_the_last_day_of_its_spell(self, tmp_path: Path) -> None:
        made = Store(["SH600000"])
        made.plant("SH600000", 2, 10.5, 11.03, 11.58, 12.16)  # by 5 % on each of four days, to the fen
        made.look(tmp_path)
        (tmp_path / "side").mkdir()
        spell = {"instrument": ["SH600000"], "start": [CALENDAR[3]], "end": [CALENDAR[4]], "status": ["ST"]}
        pd.DataFrame(spell).to_parquet(tmp_path / "side" / "status.parquet")
        _, at = made.look(tmp_path)
        assert [day_of(at, "SH600000", day) for day in (2, 3, 4, 5)] == [None, "up", "up", None]

    def test_of_other_stocks_and_in_unknown_words_it_says_nothing(self, tmp_path: Path) -> None:
        made = Store(["SH600000", "SH600001"])
        for code in made.codes:
            made.plant(code, PLANTED, 10.5)
        made.look(tmp_path)
        (tmp_path / "side").mkdir()
        rows = [
            ("SH600009", "ST"),
            ("SH600001", " st "),
            *(("SH600000", f"word {k}") for k in (6, 2, 3, 5, 1, 4)),
        ]
        table = pd.DataFrame(rows, columns=["instrument", "status"]).assign(start=CALENDAR[0], end=pd.NaT)
        table.to_parquet(tmp_path / "side" / "status.parquet")
        found, at = made.look(tmp_path)
        assert [day_of(at, code, PLANTED) for code in made.codes] == [None, "up"]
        (note,) = found.notes
        assert note.endswith("words without rules of their own: word 1, word 2, word 3, word 4, word 5")

    def test_without_the_table_nobody_has_it_and_that_is_told(self, tmp_path: Path) -> None:
        found, _ = Store(["SH600000"]).look(tmp_path)
        (note,) = found.notes
        assert "no stock is known to be ST: each has the price limit of its board" in note


class TestFirstDays:
    def test_days_without_a_limit(self, tmp_path: Path) -> None:
        made = Store(["SH600000", "SH688001"])
        made.close[:3, 1] = made.factor[:3, 1] = np.nan
        for day in range(4, 10):
            made.plant("SH688001", day, made.close[day - 1, 1] * 2)
        _, table = made.look(tmp_path)
        assert [day_of(table, "SH688001", day) for day in range(3, 9)] == [None] * 5 + ["up"]

    def test_a_limit_of_the_issue_price_closes_the_day_to_buyers(self, tmp_path: Path) -> None:
        made = Store(["SH600000", "SH600001"])
        made.close[:3, 1] = made.factor[:3, 1] = np.nan
        _, table = made.look(tmp_path)
        assert [day_of(table, "SH600001", day) for day in range(2, 5)] == [None, "up", None]

    def test_a_day_without_an_earlier_close_is_closed_to_buyers(self, tmp_path: Path) -> None:
        made = Store(["SH600000", "SH600001"])
        made.close[:, 1] = made.factor[:, 1] = np.nan  # never traded
        made.look(tmp_path)
        index = pd.MultiIndex.from_product([made.codes, CALENDAR[:2]], names=["instrument", "datetime"])
        close = [10.0, 10.0, np.nan, np.nan]
        quotes = pd.DataFrame({"$close": close, "$factor": 1.0}, index=index)
        found = at_limit(quotes, CN, QlibStore(tmp_path), buy="$close", sell="$close", factors=True)
        assert found.up.tolist() == [True, False, False, False]
        assert not found.down.any()

    def test_the_first_day_of_the_store_is_no_listing(self, tmp_path: Path) -> None:
        made = Store(["SH688001"])
        made.plant("SH688001", 1, 12.0)
        _, table = made.look(tmp_path)
        assert day_of(table, "SH688001", 1) == "up"


class TestByMove:
    def test_a_factor_that_leads_to_no_prices(self, tmp_path: Path) -> None:
        moves = {"SH600000": 1.0951, "SH600001": 1.0949, "SH600002": 0.9049, "SH600003": 0.9051}
        made = Store([*moves], price=10 / 3)
        for code, move in moves.items():
            made.plant(code, PLANTED, 10 / 3 * move)
        found, table = made.look(tmp_path)
        assert [day_of(table, code, PLANTED) for code in made.codes] == ["up", None, "down", None]
        (note,) = [note for note in found.notes if "multiple" in note]
        assert note == (
            "of 4 of 4 stocks close over factor is no multiple of 0.01: a move within 0.5 points of their price limit "
            "counts as at it"
        )

    @pytest.mark.parametrize(("off", "found"), [(0.0008, None), (-0.0008, None), (0.0012, 1), (-0.0012, 1)])
    def test_closes_within_a_tenth_of_a_tick_are_as_they_were_traded(
        self, tmp_path: Path, off: float, found: int | None
    ) -> None:
        made = Store(["SH600000", "SH600001"])
        made.close[:, 1] += off
        notes = [note for note in made.look(tmp_path)[0].notes if "multiple" in note]
        assert [note.partition(" stocks")[0] for note in notes] == ([] if found is None else ["of 1 of 2"])

    def test_a_twentieth_of_the_closes_may_be_off(self, tmp_path: Path) -> None:
        made = Store(["SH600000", "SH600001"])
        made.close[3, 1] += 0.005  # one of fourteen is more
        assert [note[:9] for note in made.look(tmp_path)[0].notes if "multiple" in note] == ["of 1 of 2"]

    def test_stocks_without_a_limit_are_not_counted(self, tmp_path: Path) -> None:
        made = Store(["SH600000", "SH688001", "SH688002"], price=10 / 3)
        made.close[:10, 1] = made.factor[:10, 1] = np.nan  # four days after its listing at the end
        made.close[:7, 2] = made.factor[:7, 2] = np.nan
        assert [note[:9] for note in made.look(tmp_path)[0].notes if "multiple" in note] == ["of 2 of 3"]

    def test_a_store_without_factors(self, tmp_path: Path) -> None:
        made = Store(["SH600000"], price=10 / 3)
        made.plant("SH600000", PLANTED, 10 / 3 * 1.1)
        found, table = made.look(tmp_path, factors=False)
        assert day_of(table, "SH600000", PLANTED) == "up"
        assert not [note for note in found.notes if "multiple" in note]

    def test_of_no_quotes_there_is_none(self, tmp_path: Path) -> None:
        Store(["SH600000"]).look(tmp_path)
        index = pd.MultiIndex.from_arrays([[], pd.DatetimeIndex([])], names=["instrument", "datetime"])
        quotes = pd.DataFrame(index=index, columns=["$close", "$factor"], dtype="float64")
        found = at_limit(quotes, CN, QlibStore(tmp_path), buy="$close", sell="$close", factors=True)
        assert found.up.shape == found.down.shape == (0,)

    def test_a_market_without_limits(self, tmp_path: Path) -> None:
        made = Store(["SH600000"], price=10 / 3)
        made.plant("SH600000", PLANTED, 30.0)
        found, table = made.look(tmp_path, read_rules("us"))
        assert not table.to_numpy().any()
        assert found.notes == []


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real market at {REAL}")
class TestRealMarket:
    """Nobody can trade beyond a price limit: if the table is right, no close of eleven years lies beyond one."""

    @pytest.mark.parametrize("begin", ["SZ300", "SH688"])
    def test_closes_stand_at_their_limits_and_not_a_fen_beyond(self, begin: str) -> None:
        store = QlibStore(REAL)
        codes = [code for code in store.instruments() if code.startswith(begin)]
        close, factor = store.read(["close", "factor"], codes).astype(np.float64)
        index = pd.MultiIndex.from_product([codes, store.calendar], names=["instrument", "datetime"])
        quotes = pd.DataFrame({"$close": close.T.ravel(), "$factor": factor.T.ravel()}, index=index)

        def moved(fen: int) -> AtLimit:
            moved = quotes.assign(price=quotes["$close"] + 0.01 * fen * quotes["$factor"])
            with np.errstate(divide="ignore", invalid="ignore"):
                return at_limit(moved, CN, store, buy="price", sell="price", factors=True)

        here = moved(0)
        assert not [note for note in here.notes if "multiple" in note]
        priced = quotes["$close"].notna().to_numpy()
        first = np.zeros_like(priced)
        there = priced.reshape(len(codes), -1)
        first.reshape(there.shape)[np.arange(len(codes)), there.argmax(axis=1)] = True
        up, down = here.up & ~first, here.down & ~first
        assert up.sum() > 0 < priced.sum()
        # a fen lower nearly all of them are not at the limit any more; what is left are a few resumptions without limit
        for side, beyond in ((up, moved(-1).up), (down, moved(1).down)):
            assert (beyond & side).sum() <= 0.003 * side.sum() + 1
