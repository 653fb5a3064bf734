"""What a cron job runs: each way that it can end, its exit status, and the files that it leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.lock import exclusive
from qlib_ext.market.fetch.polite import SourceError
from qlib_ext.market.fetch.source import Fetched, Job, Source
from qlib_ext.market.importing.bars import Bars
from qlib_ext.market.store import QlibStore, write_store
from qlib_ext.recommend import daily as module
from qlib_ext.recommend.daily import DailyConfig, Status, daily
from qlib_ext.recommend.memory import Memory
from qlib_ext.recommend.recommendation import Recommendation

CODES = [f"SH6000{k:02}" for k in range(12)]
DAYS = pd.bdate_range("2024-03-04", "2024-03-15")
SECRET = "a-secret-of-many-letters"


def bars(days: pd.DatetimeIndex) -> dict[str, np.ndarray]:
    """Plain bars in which the audit finds no error."""
    step = 0.01 * np.random.default_rng(1).normal(size=(len(DAYS), len(CODES)))
    close = (10 * np.exp(np.cumsum(step, axis=0))).astype(np.float32)[: len(days)]
    volume = np.full_like(close, 1e6)
    same = dict.fromkeys(("open", "high", "low", "close", "vwap"), close)
    return {**same, "volume": volume, "amount": volume * close, "factor": np.ones_like(close)}


class Market(Source):
    """A source of these days.

    Parameters
    ----------
    until
        The last day that it has.
    fault
        What it says instead.
    """

    def __init__(self, until: str = "2024-03-15", fault: str | None = None) -> None:
        self.until, self.fault = pd.Timestamp(until), fault

    def fetch(self, job: Job) -> Fetched:
        job.folder.mkdir(exist_ok=True)
        if self.fault is not None:
            raise SourceError(self.fault)
        days = DAYS[self.until >= DAYS]
        if job.known is not None and days[-1] <= job.known:
            return Fetched(None)
        return Fetched(Bars(days, tuple(CODES), bars(days)))


def listed(store: str, day: str, warnings: list[str]) -> Recommendation:
    rows = {
        "rank": pd.array([*range(1, len(CODES)), None], dtype="Int64"),
        "score": [*np.linspace(1, -1, len(CODES) - 1), np.nan],
        "close": 10.0,
        "name": ["<b>Bank & Co</b>"] * (len(CODES) - 1) + ["A name of many words\nand of two lines " * 3],
        "suspended": [False] * (len(CODES) - 1) + [True],
        "limit_up": False,
        "limit_down": False,
        "new": False,
    }
    table = pd.DataFrame(rows, index=pd.Index(CODES, name="instrument"))
    orders = pd.DataFrame(
        [("BUY", CODES[0], 1200.0, 10.0, 12000.0, "rank 1; " * 20)],
        columns=["side", "instrument", "shares", "price", "value", "reason"],
    )
    source = {
        "run": "0123456789",
        "run_name": "mine",
        "store": store,
        "day": day,
        "universe": "csi300",
        "cash": 1.0,
    }
    return Recommendation(pd.Timestamp(day), table, orders, ["a note"], warnings, source)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store up to the Thursday, a source that has the Friday, and a run that ranks."""
    until = DAYS[:-1]
    write_store(tmp_path / "store", until, CODES, bars(until), {})
    given: dict[str, Any] = {}
    monkeypatch.setattr("qlib_ext.market.fetch.fetch.last_closed", lambda *_: DAYS[-1])
    monkeypatch.setattr(module, "built_source", lambda name, options: Market(**options))
    monkeypatch.setattr(module, "connect", lambda uri: None)

    def recommend(client: None, run: str, store: str, **options: Any) -> Recommendation:
        given.update(options)
        if run == "lost":
            raise UserError(f"no run `{run}` with password={SECRET}")
        day = f"{QlibStore(store).calendar[-1]:%Y-%m-%d}"
        found = listed(store, day, ["the model is due for retraining since 2024-01-01"])
        if options["memory"] is None:
            return found
        read = Memory.read(options["memory"], {"class": "Weekly"})
        return replace(found, memory=read.after(found.day, {"calls": len(read.days) + 1}))

    monkeypatch.setattr(module, "recommend", recommend)
    return tmp_path


def config(place: Path, **given: Any) -> DailyConfig:
    defaults = {"store": str(place / "store"), "run": "mine", "out": str(place / "lists"), "source": "market"}
    return DailyConfig.of({**defaults, **given}, "it")


def status(place: Path) -> dict[str, Any]:
    return json.loads((place / "lists" / "status.json").read_text())


class TestList:
    def test_a_new_day_makes_a_list(self, place: Path) -> None:
        outcome = daily(config(place, top=5))
        assert outcome.status == Status.LIST == 0
        assert outcome.day == "2024-03-15"
        names = ["2024-03-15.csv", "2024-03-15.orders.csv", "2024-03-15.html", "2024-03-15.txt"]
        assert [path.name for path in outcome.files] == [
            *names,
            "latest.html",
            "latest.txt",
            "2024-03-15.json",
        ]
        assert all(path.is_file() for path in outcome.files)
        found = json.loads((place / "lists" / "2024-03-15.json").read_text())
        assert len(found["list"]) == len(CODES)
        assert found["list"][0] | {"rank": 1, "instrument": CODES[0]} == found["list"][0]
        assert found["list"][-1]["score"] is None
        assert found["orders"][0]["side"] == "BUY"
        assert found["fetched"][0] == "1 day and 12 bars added"
        assert status(place)["exit_status"] == 0
        assert status(place)["files"] == [path.name for path in outcome.files]

    def test_the_mail_has_its_subject_first_and_short_lines(self, place: Path) -> None:
        lines = daily(config(place, top=12)).text.splitlines()
        assert lines[0] == "qlib-ext daily: list of 2024-03-15 by mine, 11 stocks, 1 warning"
        assert lines[2] == "WARNING: the model is due for retraining since 2024-01-01"
        assert max(map(len, lines)) <= 78
        assert [line[:16].split() for line in lines[5:7]] == [["1", "SH600000"], ["2", "SH600001"]]
        (last,) = [line for line in lines if line.endswith("suspended")]
        assert last.startswith(" " * 38)  # a long name goes on under itself
        assert any(line.startswith("BUY  SH600000         1,200 at 10.00  rank 1;") for line in lines)

    def test_the_page_shows_text_as_text(self, place: Path) -> None:
        daily(config(place))
        page = (place / "lists" / "latest.html").read_text()
        assert "<b>Bank" not in page
        assert "&lt;b&gt;Bank &amp; Co&lt;/b&gt;" in page
        assert r"A name of many words\nand of two lines" in page
        assert "due for retraining" in page

    def test_it_may_run_twice(self, place: Path) -> None:
        daily(config(place))
        before = {path: path.read_bytes() for path in (place / "lists").glob("2024*")}
        outcome = daily(config(place))
        assert outcome.status == Status.NO_NEW_DAY == 3
        assert outcome.headline == "qlib-ext daily: no new day: the list of 2024-03-15 is there"
        assert {path: path.read_bytes() for path in (place / "lists").glob("2024*")} == before
        assert status(place)["exit_status"] == 3
        assert daily(config(place), again=True).status == Status.LIST
        assert (
            daily(config(place, run="other")).status == Status.LIST
        )  # another run has no list of the day yet

    def test_a_day_without_a_list_gets_one_though_nothing_is_new(self, place: Path) -> None:
        outcome = daily(config(place, options={"until": "2024-03-14"}))
        assert (outcome.status, outcome.day) == (Status.LIST, "2024-03-14")
        assert "- The source had no newer day" in outcome.text

    def test_a_list_that_was_cut_short_is_made_again(self, place: Path) -> None:
        daily(config(place))
        (place / "lists" / "2024-03-15.json").write_text('{"wanted": "mi')
        assert daily(config(place)).status == Status.LIST

    def test_without_a_source_the_store_is_taken_as_it_is(self, place: Path) -> None:
        outcome = daily(config(place, source=None))
        assert (outcome.status, outcome.day) == (Status.LIST, "2024-03-14")
        assert "Nothing was fetched" in outcome.text

    def test_what_the_strategy_remembers_is_kept_from_call_to_call(self, place: Path) -> None:
        asked = config(place, source=None, cash=1e6, memory=str(place / "memory.json"))
        daily(asked)
        daily(asked)  # the list is there: nothing is asked, nothing remembered
        daily(replace(asked, source="market"))
        days = json.loads((place / "memory.json").read_text())["days"]
        assert days == {f"{DAYS[-2]:%Y-%m-%d}": {"calls": 1}, f"{DAYS[-1]:%Y-%m-%d}": {"calls": 2}}


class TestStopped:
    @pytest.mark.parametrize(
        ("error", "status_"), [(UserError("no such universe"), 2), (ZeroDivisionError("a fault"), 1)]
    )
    def test_an_error_is_no_list_of_yesterday(
        self, place: Path, error: Exception, status_: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        daily(config(place, options={"until": "2024-03-14"}))

        def broken(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(module, "check_store", broken)
        with pytest.raises(type(error)):
            daily(config(place))
        assert status(place)["exit_status"] == status_
        text = (place / "lists" / "status.txt").read_text()
        assert text.startswith("qlib-ext daily: stopped by an error: ")
        assert "2024-03-14" not in text

    def test_a_source_that_stands_still(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            "qlib_ext.market.fetch.fetch.last_closed", lambda *_: DAYS[-1] + pd.Timedelta(days=4)
        )
        outcome = daily(config(place))
        assert outcome.status == Status.SOURCE_FAILED
        assert outcome.headline == "qlib-ext daily: market stands still since 2024-03-15"
        assert not list((place / "lists").glob("2024*"))

    def test_the_memory_is_kept_before_the_day_is_done(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = config(place, source=None, cash=1e6, memory=str(place / "memory.json"))

        def crash(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "write_list", crash)
        with pytest.raises(KeyboardInterrupt):
            daily(asked)
        assert list(json.loads((place / "memory.json").read_text())["days"]) == [f"{DAYS[-2]:%Y-%m-%d}"]

    def test_the_source_fails(self, place: Path) -> None:
        before = QlibStore(place / "store").fingerprint()
        outcome = daily(config(place, options={"fault": "the vendor has changed"}))
        assert outcome.status == Status.SOURCE_FAILED == 4
        assert outcome.headline == "qlib-ext daily: no new data from market"
        assert "the vendor has changed" in outcome.text
        assert QlibStore(place / "store").fingerprint() == before
        assert not list((place / "lists").glob("2024*"))
        assert (place / "lists" / "status.txt").read_text() == outcome.text

    def test_the_audit_has_errors_until_somebody_accepts_them(self, place: Path) -> None:
        days = DAYS[:-1]
        values = bars(days)
        values["close"] = values["close"].copy()
        values["close"][3, 2] = 0.0
        shutil.rmtree(place / "store")
        write_store(place / "store", days, CODES, values, {})
        outcome = daily(config(place, source=None))
        assert outcome.status == Status.AUDIT_FAILED == 5
        assert "price-zero: SH600002" in outcome.text
        assert "To read them: qlib-ext data check" in outcome.text
        (line,) = [line for line in outcome.text.splitlines() if "accept: [" in line]
        kinds = tuple(line.partition("[")[2].rstrip("]").split(", "))
        assert "price-zero:SH600002" in kinds
        other = [kind.replace("SH600002", "SH600003") for kind in kinds]
        assert daily(config(place, source=None, accept=other)).status == Status.AUDIT_FAILED
        assert daily(config(place, source=None, accept=kinds)).status == Status.LIST
        whole = [kind.partition(":")[0] for kind in kinds]
        assert (
            daily(config(place, source=None, accept=list(dict.fromkeys(whole))), again=True).status
            == Status.LIST
        )

    def test_the_run_does_not_score(self, place: Path) -> None:
        outcome = daily(config(place, run="lost"))
        assert outcome.status == Status.NO_LIST == 6
        assert outcome.headline == "qlib-ext daily: no list of 2024-03-15"
        assert SECRET not in outcome.text
        assert daily(config(place)).status == Status.LIST  # the day was fetched: it is made up for

    def test_another_call_is_at_it(self, place: Path) -> None:
        (place / "lists").mkdir()
        with exclusive(place / "lists" / ".lock"):
            outcome = daily(config(place))
        assert outcome.status == Status.BUSY == 7
        assert not (place / "lists" / "status.json").exists()


class TestConfig:
    def test_a_file_names_paths_from_its_folder(self, tmp_path: Path) -> None:
        (tmp_path / "daily.yaml").write_text("{store: market, run: mine, holdings: mine.csv, top: 5}")
        found = DailyConfig.read(tmp_path / "daily.yaml", top=7)
        assert (found.store, found.holdings, found.top) == (
            str(tmp_path / "market"),
            str(tmp_path / "mine.csv"),
            7,
        )

    def test_options_of_the_source_are_joined(self, tmp_path: Path) -> None:
        text = "{store: market, run: mine, source: tushare, options: {per_minute: 50, token_file: token}}"
        (tmp_path / "daily.yaml").write_text(text)
        found = DailyConfig.read(tmp_path / "daily.yaml", options={"tries": "2"})
        assert found.options == {"per_minute": 50, "token_file": str(tmp_path / "token"), "tries": "2"}
        assert DailyConfig.read(tmp_path / "daily.yaml", source="baostock").options == {}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[1]", "must be a mapping"),
            ("{store: a}", "must say run"),
            ("{store: a, run: b, stores: c}", r"no place for `stores` \(did you mean store or source\?\)"),
            ("{store: a, run: b, top: 0}", "`top` must be at least 1"),
            (
                "{store: a, run: b, accept: [price-zer]}",
                r"`accept` must name kinds of fault.*did you mean price-zero",
            ),
            ("{store: a, run: b, universes: csi300}", "`universes` must be a list of names"),
            ("{store: a, run: b, universes: [csi300]}", "are for a source, found no `source`"),
            ("{store: a, run: b, memory: m.json}", "`memory` goes with orders"),
            ("{store: 3, run: b}", "`store` must be a text"),
            ("{store: a, run: b, source: 5}", "`source` must be a text, found 5"),
            ("{store: a, run: b, tracking_uri: 5}", "`tracking_uri` must be a text"),
            ("{store: a, run: b, revise: maybe}", "`revise` must be true or false, found"),
            ("{store: a, run: b, cash: -1}", "must be an amount of at least 0"),
            ("store: [", "must be a YAML file of settings"),
        ],
    )
    def test_what_is_wrong_is_told(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "daily.yaml").write_text(text)
        with pytest.raises(UserError, match=message):
            DailyConfig.read(tmp_path / "daily.yaml")


class TestSources:
    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            (
                "tushar",
                {},
                r"`SOURCE` must be one of akshare, archive, baostock, tushare, yfinance.*did you mean tushare",
            ),
            ("baostock", {"per_minut": "3"}, "per_minut"),
            ("baostock", {"per_minute": "-3"}, "`per_minute` must be above 0"),
            ("yfinance", {"tickers": "nofile.txt"}, "`tickers` must be names, or a file of them"),
            ("mine.Source", {}, "QLIB_EXT_PACKAGES"),
            ("qlib_ext.model.losses.mse.MSE", {}, "Source"),
        ],
    )
    def test_what_is_wrong_is_told(self, name: str, options: Mapping[str, str], message: str) -> None:
        from qlib_ext.recommend.sources import built_source

        with pytest.raises(UserError, match=message):
            built_source(name, options)

    @pytest.mark.parametrize(
        ("text", "tickers"),
        [("ON", ("ON",)), ("AAPL, MSFT", ("AAPL", "MSFT")), ("[AAPL, BRK-B]", ("AAPL", "BRK-B"))],
    )
    def test_tickers(self, text: str, tickers: tuple[str, ...]) -> None:
        from qlib_ext.recommend.sources import built_source

        assert built_source("yfinance", {"tickers": text}).tickers == tickers  # type: ignore[attr-defined]

    def test_a_class_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from qlib_ext.recommend.sources import built_source

        found: Callable[..., Any] = built_source(
            "qlib_ext.market.fetch.sources.baostock.Baostock", {"tries": "2"}
        )  # type: ignore[assignment]
        assert found.client.polite.tries == 2  # type: ignore[attr-defined]
