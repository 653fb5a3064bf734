"""Two small markets without a fault, and a copy of either to plant one in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import exchange_calendars
import numpy as np
import pandas as pd
import pytest

from qlib_ext.market.quality.check import QualityReport, check_store
from qlib_ext.market.store import write_store
from qlib_ext.market.synthetic.sample import SampleMarket

PRICES = ("open", "high", "low", "close", "vwap")


@dataclass(frozen=True)
class Planted:
    """A store to spoil: its files, one at a time."""

    root: Path

    def audit(self, **kwargs: str | None) -> QualityReport:
        return check_store(self.root, **kwargs)

    # the calendar

    @property
    def days(self) -> list[str]:
        return (self.root / "calendars" / "day.txt").read_text().split("\n")[:-1]

    def set_days(self, days: list[str]) -> None:
        self.text("calendars/day.txt", "".join(f"{day}\n" for day in days))

    def insert_day(self, at: int, day: str, *, copied: bool = False) -> None:
        """Put a day before line `at`, without bars or with those of the day before."""
        self._every_bin(lambda row: np.insert(row, at, row[at - 1] if copied else np.nan))
        days = self.days
        self.set_days([*days[:at], day, *days[at:]])

    def drop_day(self, at: int) -> None:
        self._every_bin(lambda row: np.delete(row, at))
        days = self.days
        self.set_days([*days[:at], *days[at + 1 :]])

    def _every_bin(self, edit: Callable[[np.ndarray], np.ndarray]) -> None:
        """Every file of bars over the whole calendar, before the calendar is written."""
        for path in sorted(self.root.glob("features/*/*.day.bin")):
            start, values = self.read(path)
            row = np.full(len(self.days), np.nan, dtype=np.float32)
            row[start : start + len(values)] = values
            row = edit(row)
            there = np.flatnonzero(~np.isnan(row))
            self.write(path, there[0], row[there[0] : there[-1] + 1])

    # bars

    @property
    def stocks(self) -> list[str]:
        """Codes without indices that have a close on every day of the calendar, then the others."""
        codes = [path.name.upper() for path in sorted((self.root / "features").iterdir())]
        codes = [code for code in codes if not code.startswith(("SH000", "QQQ"))]
        return sorted(codes, key=lambda code: (np.isnan(self.row(code, "close")).sum(), code))

    def path(self, code: str, field: str) -> Path:
        return self.root / "features" / code.lower() / f"{field}.day.bin"

    def file(self, code: str, field: str) -> str:
        return self.path(code, field).relative_to(self.root).as_posix()

    @staticmethod
    def read(path: Path) -> tuple[int, np.ndarray]:
        content = np.fromfile(path, dtype="<f4")
        return int(content[0]), content[1:]

    @staticmethod
    def write(path: Path, start: float, values: np.ndarray) -> None:
        put(path, np.concatenate([[start], values]).astype("<f4").tobytes())

    def row(self, code: str, field: str) -> np.ndarray:
        """A field over the whole calendar."""
        start, values = self.read(self.path(code, field))
        row = np.full(len(self.days), np.nan, dtype=np.float32)
        row[start : start + len(values)] = values
        return row

    def set(self, code: str, field: str, days: int | slice, value: object) -> None:
        """Overwrite days of one file, which keeps its range."""
        start, values = self.read(self.path(code, field))
        row = self.row(code, field)
        row[days] = value
        self.write(self.path(code, field), start, row[start : start + len(values)])

    def scale(self, code: str, days: slice, by: float, fields: tuple[str, ...] = (*PRICES, "amount")) -> None:
        for field in fields:
            self.set(code, field, days, self.row(code, field)[days] * np.float32(by))

    def settle(self, code: str) -> None:
        """Make `change` and `amount` follow from the other fields, so that only what was planted is wrong."""
        close = pd.Series(self.row(code, "close").astype(float))
        change = (close / close.ffill().shift() - 1).to_numpy()
        known = ~np.isnan(change)
        self.set(code, "change", known, change[known])  # type: ignore[arg-type]
        amount = self.row(code, "volume").astype(float) * self.row(code, "vwap")
        if not code.startswith("SH000"):
            self.set(code, "amount", slice(None), amount)

    # memberships

    def rows(self, universe: str) -> list[list[str]]:
        text = (self.root / "instruments" / f"{universe}.txt").read_text()
        return [line.split("\t") for line in text.splitlines()]

    def set_rows(self, universe: str, rows: list[list[str]]) -> None:
        self.text(f"instruments/{universe}.txt", "".join("\t".join(row) + "\n" for row in rows))

    def text(self, file: str, text: str) -> str:
        put(self.root / file, text.encode())
        return file

    def bytes(self, file: str, content: bytes) -> str:
        put(self.root / file, content)
        return file


def put(path: Path, content: bytes) -> None:
    """Write a new file: the one that is there is shared with the market that it was copied from."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(autouse=True)
def unflushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: that a new store reaches it is tested where stores are replaced."""
    monkeypatch.setattr("qlib_ext.market.replace._flush", lambda path: None)


@pytest.fixture(scope="session")
def sample_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample market of 20 stocks, a year and a quarter."""
    root = tmp_path_factory.mktemp("audit") / "sample"
    SampleMarket(seed=4, stocks=20, start="2014-01-02", end="2015-03-31").write(root)
    return root


@pytest.fixture(scope="session")
def clean(sample_store: Path) -> Iterator[Path]:
    """The same without its side data, which take more time to check than the rest."""
    root = sample_store.with_name("cn")
    shutil.copytree(sample_store, root, ignore=shutil.ignore_patterns("*.parquet"))
    before = snapshot(root)
    yield root
    assert snapshot(root) == before, "a test wrote into a file that it shares with this market"


@pytest.fixture(scope="session")
def clean_us(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A made US market of 12 stocks over two and a half years: no daily limits, no index by its form."""
    root = tmp_path_factory.mktemp("audit") / "us"
    days = pd.DatetimeIndex(
        exchange_calendars.get_calendar("XNYS", start="2010-01-04", end="2012-06-29").sessions, freq=None
    )
    rng = np.random.default_rng(7)
    shape = (len(days), 12)
    growth = 0.01 * rng.standard_normal((len(days), 1)) + 0.012 * rng.standard_normal(shape)
    close = 50 * np.exp(np.cumsum(growth, axis=0))
    opened = close * np.exp(0.003 * rng.standard_normal(shape))
    high = np.maximum(opened, close) * np.exp(0.006 * rng.random(shape))
    low = np.minimum(opened, close) * np.exp(-0.006 * rng.random(shape))
    volume = 1e6 * np.exp(0.3 * rng.standard_normal(shape))
    factor = np.ones(shape)
    factor[200:] = 1.02
    vwap = (high + low + close) / 3
    change = np.expm1(np.diff(np.log(close), axis=0, prepend=np.nan))
    bars = {"open": opened, "high": high, "low": low, "close": close, "vwap": vwap, "volume": volume}
    bars |= {"amount": volume * vwap, "factor": factor, "change": change}
    codes = [f"{letter}{letter}X" for letter in "ABCDEFGHIJKL"]
    members = pd.DataFrame({"instrument": codes, "start": days[0], "end": days[-1]})
    write_store(root, days, codes, bars, {"stocks": members})
    before = snapshot(root)
    yield root
    assert snapshot(root) == before, "a test wrote into a file that it shares with this market"


@pytest.fixture
def market(clean: Path, tmp_path: Path) -> Planted:
    shutil.copytree(clean, tmp_path / "store", copy_function=os.link)
    return Planted(tmp_path / "store")


@pytest.fixture
def us_market(clean_us: Path, tmp_path: Path) -> Planted:
    shutil.copytree(clean_us, tmp_path / "us", copy_function=os.link)
    return Planted(tmp_path / "us")
