from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from qlib.config import C

from qlib_ext.market.store import QlibStore
from qlib_ext.records.attributed import gather
from qlib_ext.records.attribution import TRADED, VIEWS, AttributionRecord
from qlib_ext.records.backtest import BacktestRecord
from qlib_ext.records.benchmarks import BenchmarksRecord
from qlib_ext.records.signal import SignalRecord
from qlib_ext.report.charts import Bars
from qlib_ext.report.sections.attribution import Attribution
from qlib_ext.tracking.artifacts import RunArtifacts
from tests.records.conftest import FIRST, STOCKS


@pytest.fixture
def traded(run: Any, workplace: Any, model: Any) -> Any:
    SignalRecord(recorder=run, model=model, dataset=workplace).generate()
    strategy = {"class": "qlib_ext.strategy.topk_dropout.TopkDropout", "kwargs": {"topk": 8, "n_drop": 2}}
    BacktestRecord(recorder=run, strategy=strategy, backtest={"account": 1e7}, days_per_year=240).generate()
    return run


@pytest.fixture
def side(workplace: Any) -> Iterator[None]:
    """Market values of all stocks, and industries of all but five; one stock moves."""
    folder = Path(C.dpm.get_data_uri("day")) / "side"
    folder.mkdir()
    middle = workplace.calendar[90]
    rows = [(code, "2020-01-01", None, f"industry {k % 3}") for k, code in enumerate(STOCKS[:34])]
    rows += [(STOCKS[34], "2020-01-01", f"{middle:%Y-%m-%d}", "industry 0")]
    rows += [(STOCKS[34], f"{middle + pd.Timedelta(days=1):%Y-%m-%d}", None, "industry 1")]
    files = [folder / "industry.csv", folder / "market_value.csv"]
    pd.DataFrame(rows, columns=["instrument", "start", "end", "industry"]).to_csv(files[0], index=False)
    values = np.exp(np.random.default_rng(1).normal(20, 1, len(STOCKS)))
    days = workplace.calendar[::20]
    known = [(f"{day:%Y-%m-%d}", *row) for day in days for row in zip(STOCKS, values, strict=True)]
    pd.DataFrame(known, columns=["datetime", "instrument", "market_value"]).to_csv(files[1], index=False)
    yield
    for file in files:
        file.unlink()
    folder.rmdir()


def setup(run: Any) -> dict[str, Any]:
    return json.loads(Path(run.download_artifact("attribution/setup.json")).read_text())


def rendered(run: Any, folder: Path) -> str:
    """The section of the report."""
    for path in Attribution.requires:
        run.download_artifact(path, str(folder))
    return Attribution().render(RunArtifacts(folder))


def test_parts_add_up_to_the_difference(
    traded: Any, read: Any, files: Any, side: None, tmp_path: Path
) -> None:
    before = files()
    record = AttributionRecord(traded)
    record.generate()
    assert files() - before == {*record.list()}
    BenchmarksRecord(traded, draws=2).generate()
    account, daily = read("backtest/daily.parquet"), read("attribution/daily.parquet")
    own, metrics = account["return"] - account["cost"], traded.list_metrics()
    for benchmark in ("equal_weight", "value_weight"):
        beside = daily[f"{benchmark}/benchmark"]
        np.testing.assert_allclose(beside, read("benchmarks/daily.parquet")[benchmark], atol=1e-12)
        whole = np.prod(1 + own) - np.prod(1 + beside)
        tables = {
            name: read(f"attribution/{name}.csv").loc[benchmark]
            for name in ("summary", "yearly", "industries", "factors")
        }
        summary, years = tables["summary"], tables["yearly"]
        last = read("attribution/cumulative.parquet").iloc[-1]
        for view, parts in VIEWS.items():
            days = daily[[f"{benchmark}/{part}" for part in parts]].sum(axis=1)
            np.testing.assert_allclose(days, own - beside, atol=1e-12)
            made = summary[summary["view"] == view]
            assert [*made["part"]] == [*parts]
            assert made["contribution"].sum() == pytest.approx(whole, abs=1e-12)
            assert last[[f"{benchmark}/{part}" for part in parts]].sum() == pytest.approx(whole)
            assert (made["low"] <= made["a_year"]).all()
            assert years[[*parts]].sum() == pytest.approx(years["portfolio"] - years["benchmark"], abs=1e-12)
        added = summary[summary["view"] == "factor"].set_index("part")["contribution"]
        assert added["cost"] < 0
        assert (daily[f"{benchmark}/trading"] == 0).all(), "trades fill at the close"
        industries, factors = tables["industries"], tables["factors"]
        assert {*industries["industry"]} == {"industry 0", "industry 1", "industry 2", "unknown", "cash"}
        assert industries["benchmark_weight"].sum() == pytest.approx(1)
        traded_away = added[[*TRADED]].sum()
        assert industries["contribution"].sum() + traded_away == pytest.approx(whole, abs=1e-12)
        assert factors["contribution"].sum() + added["specific"] + traded_away == pytest.approx(
            whole, abs=1e-12
        )
        a_year = daily[f"{benchmark}/specific"].mean() * 240
        assert metrics[f"attribution/{benchmark}/specific"] == pytest.approx(a_year)
    page = rendered(traded, tmp_path)
    assert "Against the universe at equal weight" in page
    assert "Against the universe by value" in page
    assert "is more than chance would bring" in page, "the scores know the future"
    for benchmark in ("equal_weight", "value_weight"):
        for chart in ("industry", "factor", "industries", "over_time"):
            assert page.count(f'"chart-attribution_{chart}_{benchmark}"') == 1
    waterfall = Attribution().charts(RunArtifacts(tmp_path))["attribution_factor_equal_weight"]
    assert isinstance(waterfall, Bars)
    assert waterfall.start is not None
    ends = (waterfall.start + waterfall.values).max(axis=1)
    assert ends.iloc[-2] == pytest.approx(ends.iloc[-1]), "the last part ends where the portfolio does"


def test_what_is_not_known_is_told(traded: Any, read: Any, tmp_path: Path) -> None:
    AttributionRecord(traded).generate()
    found = setup(traded)
    assert found["benchmarks"] == ["equal_weight"]
    assert "there is no side/market_value" in found["no_value_weight"]
    assert "the store has no side data `industry`" in found["no_industries"]
    assert found["unknown"]["momentum"] == 1.0, "the store has less than a year"
    assert found["unknown"]["beta"] == 0.0
    assert found["exposures"]["size"] == "trailing median of the traded value"
    assert [*read("attribution/industries.csv")["industry"]].count("all stocks") == 1
    industries = read("attribution/summary.csv").set_index("part").loc["industries", "contribution"]
    assert industries == 0, "of all stocks together there is but the market"
    page = rendered(traded, tmp_path)
    assert "There are no industries: the store has no side data" in page
    assert "Nothing is held against the universe by value: there is no side/market_value" in page
    assert "attribution_industries" not in page
    assert "Not known of the portfolio, by weight: " in page
    assert "momentum of 100.0%" in page


@pytest.fixture
def weights(workplace: Any) -> pd.DataFrame:
    """Of a portfolio that never trades."""
    return pd.DataFrame(0.1, workplace.calendar[FIRST + 1 :], STOCKS[:8])


def test_nothing_of_a_later_day_moves_the_day(
    weights: pd.DataFrame, side: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = QlibStore(C.dpm.get_data_uri("day"))
    whole = gather(store, "csi300", "SH000300", weights)
    cut, load = 30, QlibStore.read

    def scrambled(self: QlibStore, fields: Any, *given: Any, **named: Any) -> np.ndarray:
        bars = load(self, fields, *given, **named)
        close = bars[[*fields].index("close")] if "close" in fields else bars[:0, 0]
        later = close[FIRST + 1 + cut :]
        later *= np.random.default_rng(0).uniform(0.5, 2, later.shape)
        return bars

    monkeypatch.setattr(QlibStore, "read", scrambled)
    changed = gather(store, "csi300", "SH000300", weights)
    assert {*changed.styles} == {*whole.styles}
    for name, plane in whole.styles.items():
        np.testing.assert_array_equal(plane[: cut + 1], changed.styles[name][: cut + 1], err_msg=name)
        assert name in ("size", "momentum") or not np.array_equal(
            plane[cut + 1], changed.styles[name][cut + 1]
        )
    np.testing.assert_array_equal(whole.returns[:cut], changed.returns[:cut])
    assert not np.array_equal(whole.returns[cut], changed.returns[cut])


def test_stocks_outside_the_universe_are_attributed_too(weights: pd.DataFrame, side: None) -> None:
    weights["SH000300"] = 0.1
    given = gather(QlibStore(C.dpm.get_data_uri("day")), "csi300", None, weights)
    assert given.weights.shape[1] == len(STOCKS) + 1
    assert given.benchmarks["equal_weight"][:, 0].sum() == 0
    assert given.values[:, 0].sum() == 0
    assert np.isfinite(given.returns[:, 0]).all()
    assert given.groups[given.group[0, 0]] == "unknown"
    assert given.unknown["industry"] == pytest.approx(1 / 9)


def test_a_fine_classification_is_told(weights: pd.DataFrame, side: None) -> None:
    store = QlibStore(C.dpm.get_data_uri("day"))
    assert gather(store, "csi300", None, weights).notes == []
    file = store.root / "side" / "industry.csv"
    table = pd.read_csv(file)
    table.assign(industry=table["instrument"]).to_csv(file, index=False)
    (note,) = gather(store, "csi300", None, weights).notes
    assert note.startswith("an industry has 1.0 members of the universe on a middling day")


def test_what_has_no_close_is_told(weights: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    load = QlibStore.read

    def without(self: QlibStore, fields: Any, *given: Any, **named: Any) -> np.ndarray:
        bars = load(self, fields, *given, **named)
        if [*fields] == ["close"]:
            bars[0, :, 0] = np.nan
        return bars

    monkeypatch.setattr(QlibStore, "read", without)
    given = gather(QlibStore(C.dpm.get_data_uri("day")), "csi300", None, weights)
    assert given.notes[0].startswith("1 stock held had no close in the store")
    assert (given.returns[1:, 0] == 0).all()


def test_an_account_that_never_held_a_stock(run: Any, read: Any, workplace: Any) -> None:
    days = pd.DatetimeIndex(workplace.calendar[FIRST + 1 :], name="datetime")
    daily = pd.DataFrame({"return": 0.0, "cost": 0.0, "account": 1e6}, days)
    held = pd.DataFrame({"amount": [], "price": []}, pd.MultiIndex.from_arrays([[], []]))
    told = {
        "data/summary.json": {"universe": "csi300"},
        "backtest/setup.json": {"benchmark": None, "days_per_year": 240},
    }
    record = AttributionRecord(run)
    record.load_table = {"backtest/daily.parquet": daily, "backtest/positions.parquet": held}.__getitem__  # type: ignore[method-assign]
    record.load_json = told.__getitem__  # type: ignore[method-assign]
    record._generate()
    summary = read("attribution/summary.csv").set_index("part")["contribution"]
    assert summary["allocation"] == pytest.approx(summary["difference"])
    assert summary["selection"] == pytest.approx(0, abs=1e-12)
    assert summary["specific"] == pytest.approx(0, abs=1e-12)
