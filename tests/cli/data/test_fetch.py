from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qlib_ext.market.exchange_days import exchange_days
from qlib_ext.market.fetch.polite import SourceError
from qlib_ext.market.fetch.source import Fetched, Job, Source
from qlib_ext.market.importing.bars import Bars
from qlib_ext.market.store import QlibStore

Command = Callable[..., tuple[int, str, str]]
DAYS = exchange_days("XSHG", pd.Timestamp("2024-03-04"), pd.Timestamp("2024-03-15"))


class Planted(Source):
    """Two stocks up to a day; it may be cut short or fail."""

    def __init__(self, until: str = "2024-03-14", ends_by: str = "") -> None:
        self.until, self.ends_by = until, ends_by

    def fetch(self, job: Job) -> Fetched:
        job.folder.mkdir(exist_ok=True)
        if self.ends_by == "Ctrl-C":
            raise KeyboardInterrupt
        if self.ends_by:
            raise SourceError(self.ends_by)
        days = DAYS[str(self.until) >= DAYS.strftime("%Y-%m-%d")]
        if job.known is not None and days[-1] <= job.known:
            return Fetched(None)
        codes = sorted(job.codes or {"SH600000", "SZ000001"})
        price = np.linspace(10, 11, len(DAYS), dtype=np.float32)[: len(days), None].repeat(len(codes), axis=1)
        fields = dict.fromkeys(("open", "high", "low", "close", "vwap"), price)
        job.notes.add("a note of the source")
        return Fetched(Bars(days, tuple(codes), {**fields, "volume": price * 1e5, "factor": price * 0 + 1}))


@pytest.fixture
def planted(command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`qlib-ext data fetch planted`."""
    monkeypatch.setattr(
        "qlib_ext.recommend.sources.build", lambda config, kind, name: Planted(**config["kwargs"])
    )
    monkeypatch.setattr("qlib_ext.recommend.sources.class_path", lambda name: name)
    return lambda *words: command("data", "fetch", "planted", "--out", "cn", *words)


def test_a_store_is_made_brought_up_to_date_and_left(planted: Command, tmp_path: Path) -> None:
    status, out, _ = planted("--start", "2024-03-04")
    assert status == 0
    assert "note: a note of the source" in out
    assert "cn: 2 instruments, 9 days from 2024-03-04 to 2024-03-14" in out
    assert "The audit has " in out
    status, out, _ = planted("--option", "until=2024-03-15")
    assert status == 0
    assert "cn: 1 day added, up to 2024-03-15, 2 bars" in out
    status, out, _ = planted("--option", "until=2024-03-15", "--end", "2024-03-15")
    assert (status, out) == (0, "planted has no day after 2024-03-15: cn is left as it is\n")
    assert len(QlibStore(tmp_path / "cn").calendar) == 10


def test_codes_of_a_file(planted: Command, tmp_path: Path) -> None:
    (tmp_path / "codes.txt").write_text("# mine\n600000.SH\n\n600000.SH\n")
    assert planted("--codes", "codes.txt")[0] == 0
    assert QlibStore(tmp_path / "cn").instruments() == ["SH600000"]
    assert planted("--codes", "no.txt")[2].startswith("error: `--codes` must be a file of codes, one a line")


def test_ctrl_c_says_that_the_same_command_goes_on(planted: Command, tmp_path: Path) -> None:
    status, _, err = planted("--option", "ends_by=Ctrl-C")
    assert (status, err) == (130, "stopped; what came is kept, and the same command goes on from there\n")
    assert not (tmp_path / "cn").exists()


def test_a_source_that_fails_is_one_line(planted: Command) -> None:
    assert planted("--option", "ends_by=the source has changed") == (2, "", "error: the source has changed\n")


def test_an_unknown_source(command: Command) -> None:
    status, _, err = command("data", "fetch", "tushar", "--out", "cn")
    assert status == 2
    assert err.startswith(
        "error: `SOURCE` must be one of akshare, archive, baostock, tushare, yfinance, found 'tushar'"
    )
