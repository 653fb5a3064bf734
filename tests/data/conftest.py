"""A small market with what real ones have: gaps, late listings, delistings, changing membership, absent members."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import qlib
from qlib.contrib.data.handler import Alpha360

from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.processors.momentum_line import MomentumLine
from qlib_ext.features.alpha360 import FIELDS
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.market.store import QlibStore, write_store

UNIVERSE, INDEX = "few", "SH000300"
GHOST = "SH600999"  # a member that has no bars


@dataclass(frozen=True)
class TinyMarket:
    """Bars `[D, S]` by field, and the memberships, before they are written."""

    calendar: pd.DatetimeIndex
    codes: tuple[str, ...]
    bars: Mapping[str, np.ndarray]
    memberships: Mapping[str, pd.DataFrame]
    segments: Mapping[str, tuple[int, int]]  # positions of first and last day

    def write(self, root: Path) -> QlibStore:
        return write_store(root, self.calendar, self.codes, self.bars, self.memberships)

    def without(self, field: str) -> TinyMarket:
        return replace(self, bars={name: bars for name, bars in self.bars.items() if name != field})

    def moved(self, days: slice) -> TinyMarket:
        """Every price and volume of `days` becomes another one; bars that are missing stay so."""
        draw = np.random.default_rng(99)
        bars = {name: values.copy() for name, values in self.bars.items()}
        for values in bars.values():
            values[days] *= draw.uniform(0.5, 2.0, values[days].shape)
        return replace(self, bars=bars)

    def day(self, position: int) -> str:
        return f"{self.calendar[position]:%Y-%m-%d}"

    def dates(self, segment: str) -> tuple[str, str]:
        first, last = self.segments[segment]
        return self.day(first), self.day(last)

    def members(self, universe: str = UNIVERSE) -> dict[pd.Timestamp, list[str]]:
        """The members of each day that have a close, in the order of their codes; by plain loops."""
        spells = self.memberships[universe].to_numpy().tolist()
        return {
            day: [
                code
                for column, code in enumerate(self.codes)
                if any(code == member and start <= day <= end for member, start, end in spells)
                and not np.isnan(self.bars["close"][position, column])
            ]
            for position, day in enumerate(self.calendar)
        }


def handler_kwargs(tiny: TinyMarket) -> dict[str, Any]:
    """Alpha360 and the labels of the main workflow."""
    fit_start, fit_end = tiny.dates("train")
    return {
        "instruments": UNIVERSE,
        "fit_start_time": fit_start,
        "fit_end_time": fit_end,
        "infer_processors": [{"class": "qlib_ext.data.processors.momentum_line.MomentumLine"}],
        "learn_processors": [{"class": "qlib_ext.data.processors.cross_section_norm.CrossSectionNorm"}],
    }


def alpha360(**kwargs: Any) -> dict[str, Any]:
    """What a handler is told of Alpha360 with other settings."""
    return {"features": {"class": "qlib_ext.features.alpha360.Alpha360", "kwargs": kwargs}}


def make_market() -> TinyMarket:
    days, stocks = 200, 12
    train, valid, test = (0, 119), (120, 159), (160, 199)
    draw = np.random.default_rng(7)
    calendar = pd.bdate_range("2018-01-01", periods=days)
    codes = [f"SH6000{i:02}" for i in range(stocks)]
    shape = (days, stocks + 1)  # and the index
    close = 10 * np.exp(np.cumsum(draw.normal(0, 0.02, shape), axis=0))
    close = np.where(draw.random(shape) < 0.1, np.roll(close, 4, axis=0), close)  # momentum of exactly 0
    bars = {"close": close}
    for field in ("open", "high", "low", "vwap"):
        bars[field] = close * np.exp(draw.normal(0, 0.01, shape))
    bars["volume"] = np.exp(draw.normal(12, 1, shape))
    bars["volume"][draw.random(shape) < 0.01] = 0.0
    gone = draw.random(shape) < 0.03
    gone[40:55, 1] = True  # suspended for long
    gone[70:, 2] = True  # delisted
    gone[:90, 3] = True  # listed late
    gone[train[1] - 3 : valid[0] + 4, 4] = True  # suspended where segments touch
    gone[:, -1] = False
    for values in bars.values():
        values[gone] = np.nan
    for field in ("high", "vwap"):  # single prices are missing, too
        bars[field][draw.random(shape) < 0.02] = np.nan
    spells = [(code, calendar[0], calendar[-1]) for code in codes[:8]]
    spells += [(codes[8], calendar[100], calendar[-1])]  # joins
    spells += [
        (codes[9], calendar[0], calendar[125]),
        (codes[9], calendar[160], calendar[-1]),
    ]  # leaves, returns
    spells += [(GHOST, calendar[0], calendar[-1])]
    few = pd.DataFrame(spells, columns=["instrument", "start", "end"])
    ghosts = few[few["instrument"] == GHOST]
    return TinyMarket(
        calendar,
        (*codes, INDEX),
        bars,
        {UNIVERSE: few, "ghosts": ghosts},
        {"train": train, "valid": valid, "test": test},
    )


@pytest.fixture(scope="session")
def tiny() -> TinyMarket:
    return make_market()


@pytest.fixture(scope="session")
def store(tiny: TinyMarket, tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    return tiny.write(tmp_path_factory.mktemp("tiny") / "store")


def read_with_qlib(store: QlibStore | Path) -> None:
    """Let Qlib read a store, with nothing in its cache of another one."""
    root = store.root if isinstance(store, QlibStore) else store
    qlib.init(provider_uri=str(root), region="cn", kernels=1, logging_level=40)


@pytest.fixture(scope="module", autouse=True)
def qlib_reads_the_store(store: QlibStore) -> None:
    read_with_qlib(store)


@pytest.fixture
def use(store: QlibStore) -> Iterator[Callable[[QlibStore | Path], None]]:
    """Let Qlib read another store for the length of a test."""
    yield read_with_qlib
    read_with_qlib(store)


@pytest.fixture(scope="session")
def panel(store: QlibStore) -> MarketPanel:
    return MarketPanel.load(store, UNIVERSE, FIELDS)


@pytest.fixture(scope="session")
def make_dataset(tiny: TinyMarket) -> Callable[..., DailyPanelDataset]:
    """A dataset of the store that Qlib reads, as a workflow would describe it."""

    def make(handler: Mapping[str, Any] | None = None, **changes: Any) -> DailyPanelDataset:
        arguments = {
            "handler": {
                "class": "qlib_ext.data.handlers.panel.PanelHandler",
                "kwargs": handler_kwargs(tiny) | dict(handler or {}),
            },
            "segments": {name: list(tiny.dates(name)) for name in tiny.segments},
            "benchmark": INDEX,
        }
        return DailyPanelDataset(**(arguments | changes))

    return make


@pytest.fixture(scope="module")
def dataset(qlib_reads_the_store: None, make_dataset: Callable[..., DailyPanelDataset]) -> DailyPanelDataset:
    """One for the tests of a module that leave it as it is."""
    return make_dataset()


@pytest.fixture(scope="session")
def qlib_table(
    tiny: TinyMarket, store: QlibStore, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., pd.DataFrame]:
    """Qlib's own Alpha360, its processors as Qlib's benchmarks set them, and MomentumLine under it: one table."""
    tables: dict[bool, pd.DataFrame] = {}

    def make(vwap: bool = True) -> pd.DataFrame:
        if vwap not in tables:
            other = (
                store if vwap else tiny.without("vwap").write(tmp_path_factory.mktemp("no_vwap") / "store")
            )
            read_with_qlib(other)
            line = MomentumLine()
            fields, names = line.expressions()
            fit_start, fit_end = tiny.dates("train")
            robust = {"fields_group": "feature", "clip_outlier": True}
            handler = Alpha360(
                instruments=UNIVERSE,
                start_time=tiny.day(0),
                end_time=tiny.day(len(tiny.calendar) - 1),
                fit_start_time=fit_start,
                fit_end_time=fit_end,
                infer_processors=[
                    {"class": "RobustZScoreNorm", "kwargs": robust},
                    {"class": "Fillna", "kwargs": {"fields_group": "feature"}},
                    line,
                ],
                learn_processors=[],
                label=(
                    ["Ref($close, -2) / Ref($close, -1) - 1", "Ref($close, -1) / $close - 1", *fields],
                    ["RETURN", "NEXT_RETURN", *names],
                ),
            )
            tables[vwap] = handler.fetch(data_key="infer", col_set=["feature", "label"])
            read_with_qlib(store)
        return tables[vwap]

    return make


@pytest.fixture(scope="session")
def read() -> Callable[[QlibStore | Path], None]:
    """For fixtures that live longer than a test; what they read must be put back by hand."""
    return read_with_qlib
