"""Stores made and brought up to date of what stand-ins for the vendors give."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.lock import exclusive
from qlib_ext.market.fetch import fetch as module
from qlib_ext.market.fetch.fetch import fetch, last_closed
from qlib_ext.market.fetch.polite import SourceError
from qlib_ext.market.fetch.source import Source
from qlib_ext.market.fetch.sources.akshare import Akshare
from qlib_ext.market.fetch.sources.baostock import Baostock
from qlib_ext.market.fetch.sources.tushare import Tushare
from qlib_ext.market.fetch.sources.yfinance import Yfinance
from qlib_ext.market.side_data.side_data import SideData
from qlib_ext.market.store import QlibStore
from tests.market.fetch.conftest import (
    DELISTED,
    INDEX,
    STOCKS,
    Answer,
    Market,
    TushareServer,
    YFRateLimitError,
)

Closing = Callable[[str], pd.Timestamp]


def sources(tushare: TushareServer) -> dict[str, Source]:
    return {
        "tushare": Tushare(address=tushare.url),
        "baostock": Baostock(),
        "akshare": Akshare(market_values=True),
    }


@pytest.mark.parametrize("name", ["tushare", "baostock", "akshare"])
@pytest.mark.usefixtures("baostock", "akshare")
def test_a_store_is_made_and_goes_on(
    name: str, market: Market, tushare: TushareServer, out: Path, closing: Closing
) -> None:
    source = sources(tushare)[name]
    asked = {"start": "2024-01-24", "universes": ("csi300",)}
    made = fetch(source, out, **asked, now=closing("2024-03-08"))  # type: ignore[arg-type]
    assert made.made
    market.check(made.store)
    assert set(made.store.instruments()) == {*STOCKS, INDEX}
    assert INDEX not in set(made.store.membership("stocks")["instrument"])
    market.until = pd.Timestamp("2024-03-15")
    later = fetch(sources(tushare)[name], out, universes=("csi300",), now=closing("2024-03-15"))
    assert not later.made
    assert len(later.days) == 5
    market.check(later.store)
    assert later.store.fields("SH600000") == made.store.fields("SH600000")
    members = later.store.membership("csi300")
    mask = later.store.member_mask("csi300", [STOCKS[5]])[:, 0]
    assert set(members["instrument"]) == {
        STOCKS[k] for k in ((0, 1, 2, 5) if name == "akshare" else (0, 1, 2, 3, 5))
    }
    assert mask[-1]
    side = SideData(later.store)
    assert side.read("name").frame["instrument"].nunique() == len(STOCKS)
    industry = side.read("industry").frame
    assert "SH600000" in set(industry["instrument"])
    if name != "baostock":
        value = side.read("market_value").frame
        row = value[(value["instrument"] == "SZ000001") & (value["datetime"] == "2024-03-15")]
        truth = market.of("SZ000001")["market_value"].iloc[-1]
        np.testing.assert_allclose(row["market_value"], truth, rtol=1e-9)
        assert len(industry[industry["instrument"] == "SH600000"]) == 2
    if name != "akshare":
        (spell,) = side.read("status").frame.itertuples(index=False)
        assert (spell.instrument, spell.status) == ("SZ000003", "ST")
        assert (f"{spell.start:%Y-%m-%d}", f"{spell.end:%Y-%m-%d}") == ("2024-02-05", "2024-02-29")
    again = fetch(sources(tushare)[name], out, universes=("csi300",), now=closing("2024-03-15"))
    assert not again.changed


class TestTushare:
    @pytest.fixture
    def made(self, tushare: TushareServer, out: Path, closing: Closing) -> TushareServer:
        fetch(Tushare(address=tushare.url), out, start="2024-02-20", now=closing("2024-03-08"))
        return tushare

    def test_only_what_is_new_is_asked_for(
        self, made: TushareServer, market: Market, out: Path, closing: Closing
    ) -> None:
        made.calls.clear()
        market.until = pd.Timestamp("2024-03-11")
        done = fetch(Tushare(address=made.url), out, now=closing("2024-03-11"))
        days = [asked["trade_date"] for name, asked in made.calls if name == "daily"]
        assert days == ["20240311", "20240308"]  # the new one, and the last known one again
        assert list(done.days) == [pd.Timestamp("2024-03-11")]
        assert done.rows == len(STOCKS) - 1 + 1  # without the delisted, with the index

    def test_a_day_that_is_not_out_yet_changes_nothing(
        self, made: TushareServer, out: Path, closing: Closing
    ) -> None:
        before = QlibStore(out).fingerprint()
        done = fetch(Tushare(address=made.url), out, now=closing("2024-03-11"))
        assert not done.changed
        assert QlibStore(out).fingerprint() == before

    def test_a_new_scale_of_the_factors_is_fetched_whole_and_keeps_the_stores_scale(
        self, made: TushareServer, market: Market, out: Path, closing: Closing
    ) -> None:
        market.until = pd.Timestamp("2024-03-11")
        before = market.bars["factor"].copy()
        market.bars.loc[market.bars["code"] == "SZ000001", "factor"] *= 2
        made.calls.clear()
        done = fetch(Tushare(address=made.url), out, now=closing("2024-03-11"))
        assert {
            asked["ts_code"] for name, asked in made.calls if name == "adj_factor" and "ts_code" in asked
        } == {"000001.SZ"}
        assert any("SZ000001" in note and "fetched again whole" in note for note in done.notes)
        market.bars["factor"] = before
        close, factor = QlibStore(out).read(["close", "factor"], ["SZ000001"])[:, :, 0]
        truth = market.of("SZ000001", "2024-02-20")
        np.testing.assert_allclose(close, truth["close"] * truth["factor"], rtol=2e-6)
        np.testing.assert_allclose(factor, truth["factor"], rtol=2e-6)

    def test_another_past_is_an_error_and_rebuild_takes_it(
        self, made: TushareServer, market: Market, out: Path, closing: Closing
    ) -> None:
        market.until = pd.Timestamp("2024-03-11")
        rows = (market.bars["code"] == "SZ000001") & (market.bars["date"] >= "2024-03-01")
        market.bars.loc[rows, "factor"] *= 1.5
        with pytest.raises(UserError, match=r"SZ000001.*`--rebuild` makes the store anew"):
            fetch(Tushare(address=made.url), out, now=closing("2024-03-11"))
        done = fetch(Tushare(address=made.url), out, rebuild=True, now=closing("2024-03-11"))
        assert done.made
        (factor,) = done.store.read(["factor"], ["SZ000001"])[:, :, 0]
        np.testing.assert_allclose(factor, market.of("SZ000001", "2024-02-20")["factor"], rtol=2e-6)

    def test_it_goes_on_where_it_was_cut_short(
        self, tushare: TushareServer, market: Market, out: Path, closing: Closing
    ) -> None:
        source = Tushare(address=tushare.url, tries=1)
        whole = source.day_bars
        left = [4]

        def cut(day: pd.Timestamp) -> pd.DataFrame:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return whole(day)

        source.day_bars = cut  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            fetch(source, out, start="2024-02-20", now=closing("2024-03-08"))
        assert not out.exists()
        tushare.calls.clear()
        done = fetch(Tushare(address=tushare.url), out, now=closing("2024-03-08"))
        assert done.days[0] == pd.Timestamp("2024-02-20")  # which it remembers
        assert sum(name == "daily" for name, _ in tushare.calls) == len(done.days) - 4

    def test_errors_that_pass_are_tried_again(
        self, tushare: TushareServer, out: Path, closing: Closing, no_pause: list[float]
    ) -> None:
        too_often = "抱歉，您每分钟最多访问该接口50次，权限的具体详情访问：https://tushare.pro/document/1?doc_id=108。"
        tushare.refuse = {"daily": [too_often], "adj_factor": [502]}
        fetch(Tushare(address=tushare.url), out, start="2024-03-04", now=closing("2024-03-08"))
        assert sorted(no_pause) == [2.0, 60.0]

    def test_a_table_that_is_not_granted_is_left_out(
        self, tushare: TushareServer, out: Path, closing: Closing
    ) -> None:
        refused = "抱歉，您没有接口访问权限，权限的具体详情访问：https://tushare.pro/document/1?doc_id=108。"
        tushare.refuse = {"stock_st": [refused], "index_member_all": [refused]}
        done = fetch(Tushare(address=tushare.url), out, start="2024-03-04", now=closing("2024-03-08"))
        assert "side data market_value" in done.brought
        assert not {"side data status", "side data industry"} & set(done.brought)
        assert any("does not grant this account its industries" in note for note in done.notes)
        assert any("stock_st" in note for note in done.notes)
        assert sum(name == "stock_st" for name, _ in tushare.calls) == 1  # and not asked again each day

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda s: s.rename.update(vol="volume"),
                r"`daily` must give the columns .*vol.*found .*\(no vol\): the source may",
            ),
            (
                lambda s: s.refuse.update(daily=["抱歉，您没有接口访问权限"]),
                "does not grant this account what was asked",
            ),
            (lambda s: s.refuse.update(stock_basic=["抱歉，您每天最多访问该接口5次"]), "ask no more today"),
            (
                lambda s: s.refuse.update(stock_basic=[500] * 9),
                "failed 5 times, last with: the server gave no answer",
            ),
            (lambda s: setattr(s, "daily", s.adj_factor), "KeyError|must give|failed"),
            (
                lambda s: s.refuse.update(stock_basic=["系统维护中"]),
                "failed with Exception: 系统维护中: the source may have changed",
            ),
        ],
    )
    def test_what_went_wrong_is_one_sentence(
        self, tushare: TushareServer, out: Path, closing: Closing, change: Callable[[Any], None], message: str
    ) -> None:
        change(tushare)
        with pytest.raises(SourceError, match=message):
            fetch(Tushare(address=tushare.url), out, start="2024-03-04", now=closing("2024-03-08"))
        assert not out.exists()

    def test_other_units_are_noticed(
        self, tushare: TushareServer, market: Market, out: Path, closing: Closing
    ) -> None:
        market.bars["volume"] *= 100  # in hands of hands
        with pytest.raises(SourceError, match=r"ratio is near the close, found one of 0\.01 times it"):
            fetch(Tushare(address=tushare.url), out, start="2024-03-04", now=closing("2024-03-08"))

    def test_the_token_is_needed_and_shown_nowhere(
        self,
        tushare: TushareServer,
        tmp_path: Path,
        out: Path,
        monkeypatch: pytest.MonkeyPatch,
        closing: Closing,
    ) -> None:
        monkeypatch.delenv("TUSHARE_TOKEN")
        with pytest.raises(UserError, match="set the variable TUSHARE_TOKEN"):
            Tushare()
        (tmp_path / "token").write_text("another-long-value\n")
        source = Tushare(token_file=str(tmp_path / "token"), address=tushare.url)
        with pytest.raises(SourceError, match="does not know the token") as caught:
            fetch(source, out, now=closing("2024-03-08"))
        assert "another-long-value" not in str(caught.value)
        monkeypatch.setattr(
            tushare, "answer", lambda asked: {"code": 1, "msg": f"odd {asked['token']}", "data": None}
        )
        with pytest.raises(SourceError, match=r"odd \*\*\*"):
            fetch(source, out, now=closing("2024-03-08"))
        assert "TUSHARE_TOKEN" not in os.environ


class TestBaostock:
    def test_network_errors_pass_and_a_lost_login_is_made_again(
        self, baostock: Any, out: Path, closing: Closing, capsys: pytest.CaptureFixture[str]
    ) -> None:
        baostock.errors = ["10002007", "10001001"]
        done = fetch(Baostock(), out, start="2024-03-04", now=closing("2024-03-08"))
        assert done.made
        assert baostock.logins == 2
        assert capsys.readouterr().out == ""

    def test_an_error_code_is_told(self, baostock: Any, out: Path, closing: Closing) -> None:
        baostock.errors = ["10001011"]
        with pytest.raises(SourceError, match=r"baostock refused with 10001011 an error; it has blocked"):
            fetch(Baostock(), out, start="2024-03-04", now=closing("2024-03-08"))

    def test_a_function_that_is_gone_is_told(self, baostock: Any, out: Path, closing: Closing) -> None:
        del baostock.module.query_adjust_factor
        with pytest.raises(
            SourceError, match=r"baostock must have a function `query_adjust_factor`, found none"
        ):
            fetch(Baostock(), out, start="2024-03-04", now=closing("2024-03-08"))

    @pytest.mark.usefixtures("baostock")
    def test_an_index_that_it_does_not_know(self, out: Path, closing: Closing) -> None:
        with pytest.raises(SourceError, match="knows the members of csi300, csi500, sse50, found csi1000"):
            fetch(Baostock(), out, start="2024-03-04", universes=("csi1000",), now=closing("2024-03-08"))


class TestAkshare:
    def test_members_of_today_gather_with_a_warning(
        self, akshare: Any, market: Market, out: Path, closing: Closing
    ) -> None:
        done = fetch(Akshare(), out, start="2024-02-20", universes=("csi300",), now=closing("2024-03-08"))
        assert any("of today alone" in note for note in done.notes)
        assert DELISTED in set(done.store.instruments())

    def test_a_page_that_changed(self, akshare: Any, out: Path, closing: Closing) -> None:
        def changed(**_: Any) -> pd.DataFrame:
            raise TypeError("'NoneType' object is not subscriptable")

        akshare.stock_zh_a_hist = changed
        with pytest.raises(
            SourceError, match=r"`stock_zh_a_hist` failed with TypeError.*the source may have changed"
        ):
            fetch(Akshare(), out, start="2024-02-20", now=closing("2024-03-08"))


class TestYfinance:
    def test_a_rescaled_past_is_fetched_whole(
        self, yfinance: Any, market: Market, out: Path, closing: Closing
    ) -> None:
        market.bars["factor"] = market.bars.groupby("code")["factor"].transform(lambda f: f / f.iloc[0])
        tickers = ["600000.SS", "000003.SZ"]
        yfinance.errors = [YFRateLimitError("Too Many Requests")]
        made = fetch(Yfinance(tickers, region="cn"), out, start="2024-01-24", now=closing("2024-03-08"))
        assert set(made.store.instruments()) == {"SH600000", "SZ000003"}
        assert "amount" not in made.store.fields("SH600000")
        (before,) = made.store.read(["close"], ["SH600000"])[:, :, 0]
        market.until, yfinance.ratio = (
            pd.Timestamp("2024-03-11"),
            1.02,
        )  # a dividend: all of the past is rescaled
        done = fetch(Yfinance(tickers, region="cn"), out, now=closing("2024-03-11"))
        assert any("fetched again whole" in note for note in done.notes)
        (after,) = done.store.read(["close"], ["SH600000"])[:, :, 0]
        np.testing.assert_array_equal(after[:-1], before)
        truth = market.of("SH600000")
        np.testing.assert_allclose(
            after[-1] / after[-2] - 1, (truth["close"] * truth["factor"]).pct_change().iloc[-1], atol=1e-6
        )

    @pytest.mark.usefixtures("yfinance")
    def test_a_ticker_without_bars_is_told(self, out: Path, closing: Closing) -> None:
        done = fetch(
            Yfinance(["600000.SS", "600999.SS"], region="cn"),
            out,
            start="2024-03-04",
            now=closing("2024-03-08"),
        )
        assert any("SH600999" in note and "has no bar" in note for note in done.notes)

    @pytest.mark.usefixtures("yfinance")
    def test_an_index_is_asked_for_by_its_ticker(self, out: Path, closing: Closing) -> None:
        source = Yfinance(["600000.SS"], region="cn")
        done = fetch(source, out, start="2024-03-04", benchmarks=("000300.SS",), now=closing("2024-03-08"))
        assert set(done.store.instruments()) == {"SH600000", INDEX}

    @pytest.mark.usefixtures("yfinance")
    def test_nothing_at_all_is_an_error(self, out: Path, closing: Closing) -> None:
        with pytest.raises(SourceError, match=r"must have bars of .* found none of 1 code"):
            fetch(Yfinance(["600999.SS"], region="cn"), out, start="2024-03-04", now=closing("2024-03-08"))


class TestFetch:
    def test_what_is_wrong_is_told_before_anything_is_asked(
        self, tushare: TushareServer, out: Path, tmp_path: Path, closing: Closing
    ) -> None:
        source = Tushare(address=tushare.url)
        for given, message in [
            ({"start": "2024-13-01"}, "`start` must be a day"),
            ({"start": "2024-04-01"}, "`end` must not be before `start`"),
            ({"folder": out / "in"}, "must lie outside of the store"),
        ]:
            with pytest.raises(UserError, match=message):
                fetch(source, out, now=closing("2024-03-08"), **given)  # type: ignore[arg-type]
        (tmp_path / "else").mkdir()
        (tmp_path / "else" / "mine.txt").touch()
        with pytest.raises(UserError, match="new or an empty folder"):
            fetch(source, out, folder=tmp_path / "else", now=closing("2024-03-08"))
        assert not tushare.calls
        assert [path.name for path in (tmp_path / "else").iterdir()] == ["mine.txt"]

    @pytest.mark.usefixtures("baostock")
    def test_a_folder_of_another_source(self, tushare: TushareServer, out: Path, closing: Closing) -> None:
        fetch(Tushare(address=tushare.url), out, start="2024-03-04", now=closing("2024-03-08"))
        with pytest.raises(UserError, match="must hold what came from Baostock"):
            fetch(Baostock(), out, now=closing("2024-03-08"))

    def test_two_at_once(self, tushare: TushareServer, out: Path, closing: Closing) -> None:
        with (
            exclusive(out.with_name(".store.downloads.lock")),
            pytest.raises(UserError, match="is fetching into"),
        ):
            fetch(Tushare(address=tushare.url), out, now=closing("2024-03-08"))

    def test_a_damaged_download(
        self, tushare: TushareServer, market: Market, out: Path, closing: Closing
    ) -> None:
        fetch(Tushare(address=tushare.url), out, start="2024-03-04", now=closing("2024-03-08"))
        (out.with_name("store.downloads") / "days" / "2024-03-08.parquet").write_bytes(b"PAR1")
        market.until = pd.Timestamp("2024-03-11")
        with pytest.raises(UserError, match=r"2024-03-08\.parquet` must be a download of this program"):
            fetch(Tushare(address=tushare.url), out, now=closing("2024-03-11"))

    @pytest.mark.parametrize(
        ("moment", "day"),
        [
            ("2024-03-08 14:00", "2024-03-07"),
            ("2024-03-08 15:30", "2024-03-07"),
            ("2024-03-08 16:30", "2024-03-08"),
            ("2024-03-10 12:00", "2024-03-08"),
        ],
    )
    def test_a_day_is_over_an_hour_after_its_close(self, moment: str, day: str) -> None:
        assert last_closed("cn", pd.Timestamp(moment, tz="Asia/Shanghai")) == pd.Timestamp(day)


NEXT = "2024-03-11"


class TestASecondCall:
    """What a first call refused, or could not write, is not lost for the next one."""

    @pytest.fixture
    def made(self, baostock: Any, market: Market, out: Path, closing: Closing) -> Any:
        fetch(Baostock(), out, start="2024-01-24", universes=("csi300",), now=closing("2024-03-08"))
        market.until = pd.Timestamp(NEXT)
        return baostock

    @pytest.mark.usefixtures("made")
    def test_a_changed_past_stays_a_contradiction_until_it_is_taken(
        self, market: Market, out: Path, closing: Closing
    ) -> None:
        rows = (market.bars["code"] == "SH600000") & (market.bars["date"] >= "2024-02-01")
        market.bars.loc[rows, "factor"] *= 1.1
        for _ in range(2):
            with pytest.raises(UserError, match="contradicts the store: SH600000"):
                fetch(Baostock(), out, now=closing(NEXT))
        done = fetch(Baostock(), out, revise=True, now=closing(NEXT))
        truth = market.of("SH600000")
        close = done.store.read(["close"], ["SH600000"])[0][:, 0]
        np.testing.assert_allclose(
            close[1:] / close[:-1],
            ((truth["close"] * truth["factor"]).shift(-1) / (truth["close"] * truth["factor"]))[:-1],
            rtol=5e-6,
        )
        assert not (out.with_name("store.downloads") / "pending.json").exists()

    @pytest.mark.usefixtures("made")
    def test_side_tables_that_failed_come_with_the_next_call(
        self, out: Path, closing: Closing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise OSError("no space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(module, "write_universe", full)
            with pytest.raises(OSError, match="no space"):
                fetch(Baostock(), out, universes=("csi300",), now=closing(NEXT))
        done = fetch(Baostock(), out, universes=("csi300",), now=closing(NEXT))
        assert "universe csi300" in done.brought
        assert not fetch(Baostock(), out, universes=("csi300",), now=closing(NEXT)).changed

    def test_what_is_asked_for_later_comes_without_a_newer_day(
        self, baostock: Any, out: Path, closing: Closing
    ) -> None:
        fetch(Baostock(), out, start="2024-01-24", now=closing("2024-03-08"))
        done = fetch(Baostock(), out, universes=("csi300",), start="2024-01-10", now=closing("2024-03-08"))
        assert done.changed
        assert "csi300" in done.store.universes()
        assert any(
            "begins on 2024-01-24: days before it get in by `--rebuild`" in note for note in done.notes
        )

    @pytest.mark.usefixtures("made")
    def test_members_of_a_month_keep_their_first_day(
        self, market: Market, out: Path, closing: Closing
    ) -> None:
        fetch(Baostock(), out, universes=("csi300",), now=closing(NEXT))
        members = QlibStore(out).membership("csi300")
        (joined,) = members.loc[members["instrument"] == STOCKS[5], "start"]
        assert joined == pd.Timestamp("2024-03-01")

    @pytest.mark.usefixtures("made")
    def test_a_bar_that_comes_late_is_added(self, market: Market, out: Path, closing: Closing) -> None:
        bars = market.bars
        market.bars = bars[~((bars["code"] == "SZ300001") & (bars["date"] == NEXT))].reset_index(drop=True)
        fetch(Baostock(), out, now=closing(NEXT))
        market.bars, market.until = bars, pd.Timestamp("2024-03-12")
        done = fetch(Baostock(), out, now=closing("2024-03-12"))
        market.check(done.store)
        assert any("1 bar of a day of the store that came late: added" in note for note in done.notes)


def test_rebuild_does_not_shorten_a_store(baostock: Any, out: Path, tmp_path: Path, closing: Closing) -> None:
    fetch(Baostock(), out, folder=tmp_path / "other", start="2024-01-24", now=closing("2024-03-08"))
    asked = len(baostock.calls)
    with pytest.raises(
        UserError, match="begins on 2024-02-07, found one that begins on 2024-01-24: name the"
    ):
        fetch(Baostock(), out, rebuild=True, now=closing("2024-03-08"))
    assert len(baostock.calls) == asked


def test_a_source_that_stands_still_is_told(baostock: Any, out: Path, closing: Closing) -> None:
    made = fetch(Baostock(), out, start="2024-03-04", now=closing("2024-03-11"))
    assert (made.behind, [note for note in made.notes if "stands still" in note]) == (1, [])
    done = fetch(Baostock(), out, now=closing("2024-03-13"))
    assert done.behind == 3
    assert any("3 trading days before 2024-03-13: the source stands still" in note for note in done.notes)


def test_a_stock_that_is_fetched_again_has_the_days_before_its_piece(
    tushare: TushareServer, market: Market, out: Path, closing: Closing
) -> None:
    fetch(Tushare(address=tushare.url), out, start="2024-02-26", now=closing("2024-03-08"))
    market.bars.loc[market.bars["code"] == "SH600000", "factor"] *= 1.1
    market.until = pd.Timestamp(NEXT)
    fetch(Tushare(address=tushare.url), out, start="2024-03-04", now=closing(NEXT))
    done = fetch(Tushare(address=tushare.url), out, rebuild=True, now=closing(NEXT))
    assert np.isfinite(done.store.read(["close"], ["SH600000"])).all()


def test_a_damaged_first_day_is_said_anew(baostock: Any, out: Path, closing: Closing) -> None:
    fetch(Baostock(), out, start="2024-03-04", now=closing("2024-03-08"))
    begun = out.with_name("store.downloads") / "begun.json"
    begun.write_text('"2024-0')
    with pytest.raises(UserError, match="say `--start`"):
        fetch(Baostock(), out, now=closing("2024-03-08"))
    fetch(Baostock(), out, start="2024-03-04", now=closing("2024-03-08"))
    assert begun.read_text() == '"2024-03-04"'


def test_a_login_that_fails_again_is_a_sentence(baostock: Any, out: Path, closing: Closing) -> None:
    login = baostock.module.login

    def once() -> Answer:
        return login() if not baostock.logins else Answer(None, "10002007", "网络接收错误。")

    baostock.module.login, baostock.errors = once, ["10001001"] * 9
    with pytest.raises(
        SourceError, match="failed 5 times, last with: 10001001 an error, and the login 10002007"
    ):
        fetch(Baostock(), out, start="2024-03-04", now=closing("2024-03-08"))
