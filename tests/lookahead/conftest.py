"""A small market with everything that can leak, and the leaks as a package that a workflow may name."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import qlib

from qlib_ext.lookahead.audit import audit
from qlib_ext.lookahead.findings import Result
from qlib_ext.market.store import QlibStore, write_store

DAYS, STOCKS = 260, 16
SEGMENTS = {"train": (0, 129), "valid": (130, 179), "test": (180, 258)}
T = 5


@pytest.fixture(scope="session", autouse=True)
def planted() -> Iterator[None]:
    """`planted_leaks` can be imported, and may be named in a workflow."""
    before = os.environ.get("QLIB_EXT_PACKAGES")
    os.environ["QLIB_EXT_PACKAGES"] = "planted_leaks"
    sys.path.insert(0, str(Path(__file__).parent))
    yield
    sys.path.remove(str(Path(__file__).parent))
    sys.modules.pop("planted_leaks", None)
    if before is None:
        del os.environ["QLIB_EXT_PACKAGES"]
    else:
        os.environ["QLIB_EXT_PACKAGES"] = before


def write_market(root: Path) -> QlibStore:
    """Bars with gaps and late listings, changing members, market values, industries and macro figures."""
    draw = np.random.default_rng(11)
    calendar = pd.bdate_range("2018-01-01", periods=DAYS)
    codes = [f"SH6000{i:02}" for i in range(STOCKS)]
    shape = (DAYS, STOCKS)
    close = 10 * np.exp(np.cumsum(draw.normal(0, 0.02, shape), axis=0))
    bars = {"close": close}
    for field in ("open", "high", "low", "vwap"):
        bars[field] = close * np.exp(draw.normal(0, 0.01, shape))
    bars["volume"] = np.exp(draw.normal(12, 1, shape))
    bars["factor"] = np.ones(shape)
    gone = draw.random(shape) < 0.02
    gone[:90, 3] = True
    for values in bars.values():
        values[gone] = np.nan
    bars["open"][draw.random(shape) < 0.1] = np.nan
    spells = [(code, calendar[0], calendar[-1]) for code in codes[:12]]
    spells[3] = (codes[3], calendar[95], calendar[-1])
    spells += [(code, calendar[0], calendar[60 + 40 * i]) for i, code in enumerate(codes[12:14])]
    spells += [(code, calendar[61 + 40 * i], calendar[-1]) for i, code in enumerate(codes[14:])]
    few = pd.DataFrame(spells, columns=["instrument", "start", "end"])
    store = write_store(root, calendar, codes, bars, {"few": few})
    side = root / "side"
    side.mkdir()
    filled = pd.DataFrame(close).ffill().to_numpy() * draw.uniform(1, 9, STOCKS)
    rows = [(day, code, filled[d, s]) for d, day in enumerate(calendar) for s, code in enumerate(codes)]
    values = pd.DataFrame(rows, columns=["datetime", "instrument", "market_value"])
    values.dropna().to_parquet(side / "market_value.parquet", index=False)
    table = []
    for code in codes:
        days = [0, *sorted(draw.choice(np.arange(20, DAYS - 20), 2, replace=False)), DAYS]
        for i in range(3):
            table.append((code, calendar[days[i]], calendar[days[i + 1] - 1], f"industry {draw.integers(4)}"))
    spells_of = pd.DataFrame(table, columns=["instrument", "start", "end", "industry"])
    spells_of.to_parquet(side / "industry.parquet", index=False)
    figures = []
    for month in pd.period_range(calendar[0] - pd.DateOffset(months=4), calendar[-1], freq="M"):
        released = month.end_time.normalize() + pd.Timedelta(days=12)
        figures.append(("cpi", str(month), 100 + draw.normal(), released))
    macro = pd.DataFrame(figures, columns=["series", "period", "value", "release_date"])
    macro.to_parquet(side / "macro.parquet", index=False)
    reports = [
        (calendar[day] + pd.Timedelta(days=int(draw.integers(7))), code, draw.normal(), draw.normal())
        for code in codes
        for day in range(int(draw.integers(30)), DAYS, 30)
    ]
    report = pd.DataFrame(reports, columns=["datetime", "instrument", "roe", "growth"])
    report.loc[draw.random(len(report)) < 0.2, "growth"] = np.nan
    report.to_parquet(side / "report.parquet", index=False)
    mood = pd.DataFrame({"datetime": calendar[::4], "score": draw.normal(size=len(calendar[::4]))})
    mood.to_parquet(side / "mood.parquet", index=False)
    return store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    return write_market(tmp_path_factory.mktemp("lookahead") / "store")


def read(root: Path) -> None:
    qlib.init(provider_uri=str(root), region="cn", kernels=1, logging_level=40)


@pytest.fixture
def use(store: QlibStore) -> Callable[[Path], None]:
    """Let Qlib read a store, by default the one above."""
    read(store.root)
    return read


@pytest.fixture
def segments(store: QlibStore) -> dict[str, list[str]]:
    return {name: [f"{store.calendar[day]:%Y-%m-%d}" for day in ends] for name, ends in SEGMENTS.items()}


@pytest.fixture
def task(segments: dict[str, list[str]]) -> Callable[..., dict[str, Any]]:
    """A task without a leak: Alpha360 of five days on daily panels, and what is changed of it or set in its features."""

    def make(
        handler: dict[str, Any] | None = None,
        model: Any = None,
        dataset: dict[str, Any] | None = None,
        features: str = "qlib_ext.features.alpha360.Alpha360",
        **settings: Any,
    ) -> dict[str, Any]:
        first, last = segments["train"]
        kwargs = {
            "instruments": "few",
            "features": {"class": features, "kwargs": {"lookback_days": T} | settings},
            "fit_start_time": first,
            "fit_end_time": last,
            "infer_processors": [{"class": "qlib_ext.data.processors.momentum_line.MomentumLine"}],
            "learn_processors": [{"class": "qlib_ext.data.processors.cross_section_norm.CrossSectionNorm"}],
        }
        made = {
            "model": model or {"class": "planted_leaks.Weighs", "kwargs": {}},
            "dataset": {
                "class": "qlib_ext.data.dataset.DailyPanelDataset",
                "kwargs": {
                    "handler": {
                        "class": "qlib_ext.data.handlers.panel.PanelHandler",
                        "kwargs": kwargs | (handler or {}),
                    },
                    "segments": segments,
                },
            },
        }
        changes = dict(dataset or {})
        made["dataset"]["class"] = changes.pop("class", made["dataset"]["class"])
        made["dataset"]["kwargs"] |= changes
        return copy.deepcopy(made)

    return make


@pytest.fixture
def table_task(segments: dict[str, list[str]]) -> Callable[..., dict[str, Any]]:
    """A task of Qlib's own handler and dataset, with segments that are purged by hand."""

    def make(
        features: dict[str, str] | None = None,
        infer: Any = (),
        learn: Any = (),
        segments_are: dict[str, list[str]] | None = None,
    ) -> dict[str, Any]:
        features = features or {"CHANGE": "$close/Ref($close, 1)-1", "OPEN": "$open/$close"}
        columns = {
            "feature": [list(features.values()), list(features)],
            "label": [["Ref($close, -2)/Ref($close, -1)-1"], ["RETURN"]],
        }
        purged = {
            name: [first, f"{pd.Timestamp(last) - 4 * pd.offsets.BDay():%Y-%m-%d}"]
            for name, (first, last) in segments.items()
        }
        handler = {
            "class": "DataHandlerLP",
            "module_path": "qlib.data.dataset.handler",
            "kwargs": {
                "instruments": "few",
                "data_loader": {
                    "class": "QlibDataLoader",
                    "module_path": "qlib.data.dataset.loader",
                    "kwargs": {"config": columns},
                },
                "infer_processors": list(infer),
                "learn_processors": list(learn),
            },
        }
        return {
            "model": {"class": "planted_leaks.Weighs", "kwargs": {}},
            "dataset": {
                "class": "DatasetH",
                "module_path": "qlib.data.dataset",
                "kwargs": {"handler": handler, "segments": segments_are or purged},
            },
        }

    return make


@pytest.fixture
def audited(use: Callable[[Path], None]) -> Callable[..., Result]:
    """A quick audit, of few dates."""

    def run(task: dict[str, Any], dates: int = 16, refits: int = 2, **kwargs: Any) -> Result:
        return audit(task, dates=dates, refits=refits, **kwargs)

    return run
