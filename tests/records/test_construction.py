from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from qlib.config import C
from qlib.workflow import R

from qlib_ext.checks import UserError
from qlib_ext.market.store import QlibStore
from qlib_ext.portfolio.diary import Diary
from qlib_ext.records.backtest import BacktestRecord
from qlib_ext.records.construction import ConstructionRecord
from qlib_ext.records.signal import SignalRecord
from qlib_ext.report.figures import drawn, to_png
from qlib_ext.report.sections.base import Section
from qlib_ext.report.sections.construction import Construction
from qlib_ext.report.sections.diversification import Diversification
from qlib_ext.report.sections.forecast_risk import ForecastRisk
from qlib_ext.strategy.topk_dropout import TopkDropout
from qlib_ext.tracking.artifacts import RunArtifacts
from tests.portfolio.decisions import decisions
from tests.records.conftest import FIRST, LAST, STOCKS

EVERY = 5


class Decided(TopkDropout):
    """Trades as TopkDropout does, and has the diary of other decisions."""

    notes = ("a note",)

    @property
    def diary(self) -> Diary:
        diary = Diary()
        calendar = QlibStore(C.dpm.get_data_uri("day")).calendar[FIRST:LAST]
        for day, decision in decisions(calendar, STOCKS, EVERY):
            diary.add(day, decision)
        return diary


@pytest.fixture(scope="module")
def run(workplace: Any, model: Any) -> Iterator[Any]:
    """A run whose strategy made decisions, with what the record makes of them."""
    with R.start(experiment_name="records"):
        recorder = R.get_recorder()
        recorder.save_objects(task={"model": {"class": "a.Model"}})
        SignalRecord(recorder=recorder, model=model, dataset=workplace).generate()
        strategy = {"class": "qlib_ext.strategy.topk_dropout.TopkDropout", "kwargs": {"topk": 8, "n_drop": 2}}
        record = BacktestRecord(recorder, strategy, {"account": 1e7}, days_per_year=240)
        record._strategy = lambda signal: Decided(signal=signal, topk=8, n_drop=2)  # type: ignore[method-assign]
        record.generate()
        ConstructionRecord(recorder, window_days=20, look_back_days=40).generate()
        yield recorder


def setup(run: Any) -> dict[str, Any]:
    return json.loads(Path(run.download_artifact("construction/setup.json")).read_text())


def test_all_that_it_says_it_writes(run: Any, files: Any) -> None:
    made = {path for path in files() if path.startswith("construction/")}
    assert made == {*ConstructionRecord.makes, *ConstructionRecord.may_make}
    known = setup(run)
    assert known["rebalancings"] == len(range(0, LAST - FIRST - 1, EVERY))
    assert known["relaxed"] == known["kept"] == 0


def test_forecasts_beside_what_came(run: Any, read: Any) -> None:
    daily, decided = read("backtest/daily.parquet"), read("portfolio_decisions/days.parquet")
    risk, summary = read("construction/risk.parquet"), read("construction/risk.csv")
    assert risk.loc[: decided.index[0], "forecast/volatility"].isna().all(), (
        "nothing is forecast of the first trade's day"
    )
    close = QlibStore(C.dpm.get_data_uri("day")).read(["close"], STOCKS)[0].astype(float)
    market = pd.Series(
        (close[1:] / close[:-1] - 1).mean(axis=1), QlibStore(C.dpm.get_data_uri("day")).calendar[1:]
    )
    days = daily.index[daily.index > decided.index[0]]
    active = (daily["return"] - market).loc[days]
    np.testing.assert_allclose(risk.loc[days, "return/deviation"], active, atol=1e-6)
    for day in days:
        before = decided.index[decided.index < day][-1]
        assert risk.loc[day, "forecast/deviation"] == decided.loc[before, "deviation"]
    z = active / risk.loc[days, "forecast/deviation"]
    assert summary.loc["deviation", "bias"] == pytest.approx(z.std(), rel=1e-5)
    assert summary.loc["deviation", "realised"] == pytest.approx(active.std() * 240**0.5, rel=1e-5)
    assert risk["bias/deviation"].iloc[-1] == pytest.approx(z[-20:].std(), rel=1e-5)
    logged = run.list_metrics()
    assert logged["construction/realised_tracking_error"] == pytest.approx(active.std() * 240**0.5, rel=1e-5)


def test_rebalancings_have_their_causes(run: Any, read: Any) -> None:
    table, stocks = read("construction/rebalancings.parquet"), read("portfolio_decisions/stocks.parquet")
    causes = [f"turnover/{cause}" for cause in ("left", "new", "out", "changed")]
    np.testing.assert_allclose(table[causes].sum(axis=1), table["turnover"])
    second, first = table.index[1], table.index[0]
    held, weight = stocks.loc[second, "held"], stocks.loc[first, "weight"]
    assert table.loc[second, "drift"] == pytest.approx(held.sub(weight, fill_value=0).abs().sum())
    assert np.isnan(table.loc[first, "drift"])
    daily = read("backtest/daily.parquet")
    until = daily.loc[(daily.index >= first) & (daily.index < second), "turnover"]
    assert table.loc[first, "traded"] == pytest.approx(until.sum())
    assert table.loc[first, "period_days"] == EVERY
    came = daily.loc[(daily.index > first) & (daily.index <= second), "return"]
    assert table.loc[first, "realised/volatility"] == pytest.approx(((came**2).mean() * 240) ** 0.5)


def test_limits_by_the_days_on_which_they_bound(run: Any, read: Any) -> None:
    limits = read("construction/limits.csv")
    assert limits.index.tolist() == ["weight", "turnover"]
    assert limits["binding"].tolist() == pytest.approx([1, 1 - 1 / setup(run)["rebalancings"]])
    assert limits.loc["weight", "stocks"] == 2


def test_stocks_that_move_together(run: Any, read: Any) -> None:
    pairs, facts = read("construction/correlations.parquet")["correlation"], read("construction/together.csv")
    (day,) = pairs.index.get_level_values("datetime").unique()
    rebalancings = read("construction/rebalancings.parquet")
    assert day == rebalancings.index[-1]
    weights = read("portfolio_decisions/stocks.parquet").loc[day, "weight"]
    square = pairs.loc[day].unstack("column")
    assert {*square.index} == {*weights.index[weights > 0]}
    store = QlibStore(C.dpm.get_data_uri("day"))
    close = pd.DataFrame(store.read(["close"], STOCKS)[0], store.calendar, STOCKS).astype(float)
    past = close.pct_change().loc[: rebalancings["known"].iloc[-1]].tail(40)
    expected = past[square.index].corr()
    np.testing.assert_allclose(square.loc[square.index, square.index], expected, atol=1e-5)
    assert facts["stocks"].tolist() == [5]
    parts = read("construction/components.parquet").loc[day]
    assert parts["share"].sum() == pytest.approx(1)
    assert parts["portfolio"].sum() == pytest.approx(1)


def test_shares_of_risk_by_industry_and_by_factor(run: Any, read: Any) -> None:
    for name in ("industries", "factors"):
        table = read(f"construction/{name}.parquet")
        np.testing.assert_allclose(table.groupby("datetime")[["risk_share", "active_share"]].sum(), 1)
    assert "specific" in table.index.get_level_values("factor")


class TestSections:
    @pytest.fixture
    def view(self, run: Any, tmp_path: Path) -> RunArtifacts:
        for folder in ("construction", "portfolio_decisions"):
            run.download_artifact(folder, str(tmp_path))
        return RunArtifacts(tmp_path)

    @pytest.mark.parametrize("section", [Construction(), ForecastRisk(), Diversification()])
    def test_each_draws_all_its_charts_and_says_no_undefined_figure(
        self, section: Section, view: RunArtifacts
    ) -> None:
        page = section.render(view)
        charts = section.charts(view)
        assert page.count('<figure class="chart"') == len(charts) >= 4
        for name, chart in charts.items():
            assert f'id="chart-{name}"' in page
            assert to_png(drawn(chart)).startswith(b"\x89PNG")
        assert "nan" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)

    def test_what_they_say(self, view: RunArtifacts) -> None:
        made = Construction().render(view)
        assert "The portfolio was rebalanced 12 times, every 5.0 trading days on average." in made
        assert "most often at the limit \u201cweight\u201d: on 100% of the rebalancings" in made
        assert "No limit ever gave way" in made
        risk = ForecastRisk().render(view)
        assert "Volatility came out" in risk
        assert "ten stocks that add most make 100% of the forecast variance" in risk
        page = Diversification().render(view)
        assert "The 5 stocks of the rebalancing of" in page
        assert "At that risk the frontier within the limits expects" in page


def test_one_decision_and_a_few_days_are_enough(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing to look back over, no forecast, one covariance without factors: the pages say what there is."""
    record = ConstructionRecord(run, window_days=20)
    load = record.load_table

    def cut(path: str) -> pd.DataFrame:
        table = load(path)
        if path == "backtest/daily.parquet":
            return table.iloc[:3]
        if path.endswith("decisions/frontier.parquet"):
            return table[table["kind"] != "frontier within limits"].assign(expected=np.nan)
        if path.endswith(("factors.parquet", "limits.parquet")):
            return table.iloc[:0]
        days = table.index.get_level_values("datetime")
        return table[days == days[0]]

    def keep(path: str, write: Any) -> None:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        write(tmp_path / path)

    monkeypatch.setattr(record, "load_table", cut)
    monkeypatch.setattr(record, "_log", keep)
    monkeypatch.setattr(record, "log_metrics", lambda metrics: None)
    record.generate()
    keep("portfolio_decisions/stocks.parquet", cut("portfolio_decisions/stocks.parquet").to_parquet)
    view = RunArtifacts(tmp_path)
    pages = [section.render(view) for section in (Construction(), ForecastRisk(), Diversification())]
    assert "There was one rebalancing, which bought 95.0% of the account." in pages[0]
    assert "No limit bound the weights. No limit ever gave way" in pages[0]
    assert "Where the risk lies" in pages[1]
    assert "The portfolio expects no return of any stock" in pages[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window_days": 1}, "`window_days` must be at least 2, found 1"),
        ({"look_back_days": 5}, "`look_back_days` must be at least 20, found 5"),
        ({"most_stocks": 1}, "`most_stocks` must be at least 2, found 1"),
    ],
)
def test_what_is_wrong_is_said_at_once(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ConstructionRecord(recorder=None, **arguments)


def test_a_strategy_without_decisions_leaves_a_sentence(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    record = ConstructionRecord(run)
    written: dict[str, Any] = {}
    monkeypatch.setattr(record, "has", lambda path: path.startswith("backtest/"))
    monkeypatch.setattr(record, "_log", written.setdefault)
    record.generate()
    assert [*written] == ["construction/setup.json"]
    written["construction/setup.json"](file := Path(run.download_artifact("backtest/setup.json")))
    assert "TopkDropout, trades no target weights" in json.loads(file.read_text())["note"]
