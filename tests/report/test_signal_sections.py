"""The signal's sections, on what the records make of a made-up market."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.market.store import write_store
from qlib_ext.metrics.moments import normal_quantiles
from qlib_ext.records.momentum import MomentumRecord
from qlib_ext.records.ranking import RankingRecord
from qlib_ext.records.signal_analysis import SignalAnalysisRecord
from qlib_ext.report import figures, plotly_charts
from qlib_ext.report.charts import Chart
from qlib_ext.report.colours import ramp
from qlib_ext.report.sections.base import Section
from qlib_ext.report.sections.information_coefficient import InformationCoefficient
from qlib_ext.report.sections.momentum import Momentum
from qlib_ext.report.sections.precision import Precision
from qlib_ext.report.sections.quantiles import Quantiles
from qlib_ext.report.sections.score import Score
from qlib_ext.report.smoothing import smooth, window_days
from qlib_ext.tracking.artifacts import RunArtifacts

SECTIONS = (InformationCoefficient, Quantiles, Precision, Score, Momentum)
STOCKS = 50
INDUSTRIES = ("Banks & <b>Brokers</b>", "Steel", "Tiny")


class _OnDisk:
    """What a record does with a run, on a folder."""

    root: Path

    def load_table(self, path: str) -> pd.DataFrame:
        return pd.read_parquet(self.root / path)

    def has(self, path: str) -> bool:
        return (self.root / path).is_file()

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        pass

    def _log(self, path: str, write: Callable[[Path], Any]) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        write(self.root / path)


class Ranking(_OnDisk, RankingRecord):
    pass


class MomentumOf(_OnDisk, MomentumRecord):
    pass


class Analysis(_OnDisk, SignalAnalysisRecord):
    pass


def made_of(root: Path, days: int, *, industry: bool = True) -> RunArtifacts:
    """The artifacts of a run of `days` test days whose scores know a little, the last of them without labels."""
    draw = np.random.default_rng(7)
    calendar = pd.bdate_range("2017-01-03", periods=days, name="datetime")
    codes = [f"SH6{k:05d}" for k in range(STOCKS)]
    known = draw.standard_t(5, (days, STOCKS)) * 0.02
    own = draw.normal(size=STOCKS)  # a score that lasts
    score = known / 0.02 * 0.08 + 0.6 * own + draw.normal(size=(days, STOCKS))
    classes = np.clip(
        np.digitize(known, [-0.03, -0.01, 0.01, 0.03]) + draw.integers(-1, 2, known.shape), 0, 4
    )
    logits = -np.abs(classes[..., None] - np.arange(5)) + draw.normal(0, 0.7, (days, STOCKS, 5))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    labels = {"RETURN": known, "NEXT_RETURN": np.roll(known, -1, axis=0), "MOMENTUM": classes * 1.0}
    labels["MOMENTUM_PERSISTENCE"] = np.where(draw.random(known.shape) < 0.6, classes, 2.0)
    rows = pd.MultiIndex.from_product([calendar, codes], names=["datetime", "instrument"])
    table = pd.DataFrame({name: values.ravel() for name, values in labels.items()}, index=rows)
    table.loc[calendar[-1:]] = np.nan
    predictions = pd.DataFrame({"score": score.ravel()}, index=rows)
    for k in range(5):
        predictions[f"momentum_{k}"] = probabilities[..., k].ravel().astype("float32")
    (root / "signal").mkdir(parents=True)
    predictions.to_parquet(root / "signal" / "predictions.parquet")
    table.to_parquet(root / "signal" / "labels.parquet")

    bars = {"close": np.ones((days, 1))}
    store = write_store(root / "store", calendar, codes[:1], bars, {})
    if industry:
        side = pd.DataFrame({"instrument": codes, "start": "2017-01-01", "end": None})
        side["industry"] = [
            INDUSTRIES[0] if k < 25 else INDUSTRIES[1] if k < 48 else INDUSTRIES[2] for k in range(STOCKS)
        ]
        (root / "store" / "side").mkdir()
        side.to_csv(root / "store" / "side" / "industry.csv", index=False)
    for kind in (Ranking, MomentumOf, Analysis):
        record = kind(recorder=None)
        record.root = root
        if isinstance(record, Analysis):
            record._analyse(store, predictions, table)
        else:
            record._generate()
    return RunArtifacts(root)


@pytest.fixture(scope="session")
def signal(tmp_path_factory: pytest.TempPathFactory) -> RunArtifacts:
    """Fourteen months."""
    return made_of(tmp_path_factory.mktemp("signal"), 300)


@pytest.fixture(scope="session", params=[1, 3])
def short(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunArtifacts:
    """Almost nothing: of one day even the labels are missing."""
    return made_of(tmp_path_factory.mktemp("short"), request.param, industry=False)


def text(page: str) -> str:
    return re.sub(r"<[^>]+>", " ", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))


@pytest.mark.parametrize("section", SECTIONS)
class TestAll:
    def test_every_chart_is_drawn_on_the_page_and_as_a_picture(
        self, section: type[Section], signal: RunArtifacts
    ) -> None:
        charts = section().charts(signal)
        page = section().render(signal)
        assert charts
        for name, chart in charts.items():
            assert f'id="chart-{name}"' in page
            assert plotly_charts.description(chart)["traces"]
            assert chart.alt
            assert chart.caption.endswith(".")
        assert [*re.findall(r'id="chart-([^"]+)"', page)] != []
        assert "nan" not in text(page).lower().split()
        assert "None" not in text(page)

    def test_a_run_of_a_day_or_three(self, section: type[Section], short: RunArtifacts) -> None:
        page = section().render(short)
        for chart in section().charts(short).values():
            assert figures.to_png(figures.drawn(chart))[:4] == b"\x89PNG"
        assert "nan" not in text(page).lower().split()

    def test_it_reads_nothing_that_it_does_not_name(
        self, section: type[Section], signal: RunArtifacts
    ) -> None:
        class Watched(RunArtifacts):
            def _file(self, path: str) -> Path:
                assert path in (*section.requires, *section.optional)
                return super()._file(path)

        section().render(Watched(signal.root))


class TestInformationCoefficient:
    def charts(self, run: RunArtifacts) -> Mapping[str, Any]:
        return InformationCoefficient().charts(run)

    def test_months_are_years_by_months(self, signal: RunArtifacts) -> None:
        daily = signal.table("ranking/daily.parquet")["rank_ic/RETURN"]
        table = self.charts(signal)["information_coefficient_monthly"].values
        assert table.shape == (2, 12)
        assert table.loc["2017", "Mar"] == pytest.approx(daily["2017-03"].mean())
        assert table.loc["2018", "Feb"] == pytest.approx(daily["2018-02"].mean())
        assert np.isnan(table.loc["2018", "Dec"])

    def test_decay_of_both_labels(self, signal: RunArtifacts) -> None:
        chart = self.charts(signal)["information_coefficient_decay"]
        assert [*chart.series] == ["RankIC, RETURN", "RankIC, NEXT_RETURN", "IC, RETURN", "IC, NEXT_RETURN"]
        assert [*chart.hidden] == ["IC, RETURN", "IC, NEXT_RETURN"]
        line = chart.series["RankIC, RETURN"]
        assert [*line.index] == [*range(21)]
        assert line[0] == pytest.approx(signal.table("ranking/daily.parquet")["rank_ic/RETURN"].mean())
        low, high = chart.bands["RankIC, RETURN"]
        assert (low < line).all()
        assert (line < high).all()

    def test_quantiles_of_the_normal_stand_against_the_days(self, signal: RunArtifacts) -> None:
        points = self.charts(signal)["information_coefficient_qq"].series["IC"]
        np.testing.assert_array_equal(points["x"], normal_quantiles(299))
        ic = signal.table("ranking/daily.parquet")["ic/RETURN"].dropna()
        assert points["text"].iloc[-1] == f"{ic.idxmax():%Y-%m-%d}"
        assert points["y"].iloc[0] == pytest.approx((ic.min() - ic.mean()) / ic.std())

    def test_industries_are_ordered_and_their_names_stay_text(self, signal: RunArtifacts) -> None:
        bars = self.charts(signal)["information_coefficient_industry"].values["RankIC"]
        assert {*bars.index} == {*INDUSTRIES[:2]}
        assert [*bars] == sorted(bars, reverse=True)
        page = InformationCoefficient().render(signal)
        assert "<b>Brokers" not in page
        assert "Never that many: Tiny." in page

    def test_without_industries_it_says_how_to_bring_them_in(self, short: RunArtifacts) -> None:
        assert "qlib-ext data side-data DIR industry FILE" in InformationCoefficient().render(short)

    def test_another_label(self, signal: RunArtifacts) -> None:
        section = InformationCoefficient("NEXT_RETURN")
        chart: Any = section.charts(signal)["information_coefficient_monthly"]
        monthly = chart.values
        daily = signal.table("ranking/daily.parquet")["rank_ic/NEXT_RETURN"]
        assert monthly.loc["2017", "Mar"] == pytest.approx(daily["2017-03"].mean())

    def test_a_run_without_the_signal_analysis_says_what_makes_it(self, made: Any) -> None:
        page = InformationCoefficient().render(made.view())
        assert "qlib_ext.records.signal_analysis.SignalAnalysisRecord makes them" in page


class TestQuantiles:
    def test_bars_and_lines(self, signal: RunArtifacts) -> None:
        charts: Mapping[str, Any] = Quantiles().charts(signal)
        table = signal.table("signal_analysis/quantiles.csv")
        bars = charts["quantile_means"].values
        np.testing.assert_allclose(bars["RETURN"], table.loc[table["label"] == "RETURN", "excess"] * 1e4)
        daily = signal.table("signal_analysis/daily.parquet")
        line = charts["quantile_values"].series["group 5"]
        np.testing.assert_allclose(line, (1 + daily["quantile/RETURN/5"].fillna(0)).cumprod())
        assert charts["quantile_values"].log_choice
        total = charts["quantile_spread"].series["running sum, RETURN"].iloc[-1]
        assert total == pytest.approx(daily["spread/RETURN"].sum())

    def test_the_page_says_the_spread(self, signal: RunArtifacts) -> None:
        spread = signal.json("signal_analysis/summary.json")["spread"]["RETURN"]
        assert f"+{spread['mean'] * 1e4:.1f}" in text(Quantiles().render(signal))


class TestPrecision:
    def test_intervals_and_the_base_rate(self, signal: RunArtifacts) -> None:
        chart: Any = Precision().charts(signal)["precision"]
        table = signal.table("signal_analysis/precision.csv")
        assert [*chart.values.index] == ["top 10", "top 20", "top 30", "top 50"]
        np.testing.assert_array_equal(chart.values["share that rose"], table["precision"])
        np.testing.assert_array_equal(chart.low["share that rose"], table["precision_low"])
        assert [*chart.levels.values()] == [table["base_rate"].iloc[0]]
        apart: Any = Precision().charts(signal)["precision_difference"]
        np.testing.assert_array_equal(apart.values["above the base rate"], table["difference"])
        # the list of all fifty stocks is no choice
        assert table.loc[50, "difference"] == pytest.approx(0)
        assert table.loc[50, "lift"] == pytest.approx(1)

    def test_without_the_signal_analysis(self, made: Any) -> None:
        chart: Any = Precision().charts(made.view())["precision"]
        assert chart.low is None
        page = Precision().render(made.view())
        assert "This run has no intervals, lift and NDCG" in page
        assert "NDCG@" not in page


class TestScore:
    def test_lines(self, signal: RunArtifacts) -> None:
        charts: Mapping[str, Any] = Score().charts(signal)
        by_lag = charts["score_autocorrelation"].series["rank autocorrelation"]
        assert [*by_lag.index] == [1, 2, 3, 4, 5, 10, 15, 20]
        assert (by_lag > 0.1).all()  # a part of the score lasts
        daily = signal.table("signal_analysis/daily.parquet")
        drawn = charts["score_turnover"].series["top 10"]
        assert drawn.iloc[-1] == pytest.approx(daily["turnover/top10"].iloc[-60:].mean())


class TestMomentum:
    def test_confusion_is_of_the_actual_class(self, signal: RunArtifacts) -> None:
        chart: Any = Momentum().charts(signal)["momentum_confusion"]
        assert [*chart.values.columns] == ["Sink", "Negative", "Volatile", "Positive", "Bounce"]
        np.testing.assert_allclose(chart.values.sum(axis=1), 1)
        classes = signal.table("momentum/classes.csv")
        np.testing.assert_allclose(np.diag(chart.values), classes["recall"])

    def test_bars_stand_beside_the_rules(self, signal: RunArtifacts) -> None:
        chart: Any = Momentum().charts(signal)["momentum_accuracy"]
        assert [*chart.values.columns] == ["Model", "Persistence", "Majority"]
        assert sorted(chart.values["Majority"]) == [0, 0, 0, 0, 1]

    def test_calibration_has_a_line_a_class(self, signal: RunArtifacts) -> None:
        chart: Any = Momentum().charts(signal)["momentum_calibration"]
        assert [*chart.series] == ["predicted class", "Sink", "Negative", "Volatile", "Positive", "Bounce"]
        assert chart.diagonal

    def test_shares_pile_up_to_one(self, signal: RunArtifacts) -> None:
        charts: Mapping[str, Any] = Momentum().charts(signal)
        for which in ("actual", "predicted"):
            total = sum(charts[f"momentum_shares_{which}"].series.values())
            np.testing.assert_allclose(total, 1)
            assert len(total) == 14

    def test_k_over_time(self, signal: RunArtifacts) -> None:
        chart: Any = Momentum().charts(signal)["momentum_k"]
        k = signal.table("momentum/daily.parquet")["k"]
        np.testing.assert_array_equal(chart.series["each day"].iloc[:-1], k.iloc[:-1])
        assert np.isnan(chart.series["each day"].iloc[-1])  # no labels, no k

    def test_nothing_judged_is_said_as_nothing(self, tmp_path: Path) -> None:
        run = made_of(tmp_path, 1, industry=False)
        assert Momentum().charts(run) == {}
        assert "Over 0 stocks and days" in Momentum().render(run)


class TestHelpers:
    def test_a_ramp_has_an_order(self) -> None:
        assert ramp(3) == ["#b35806", "#a9afb6", "#1f5a93"]
        assert len({*ramp(10)}) == 10
        assert ramp(1) == ["#1f5a93"]

    def test_windows(self) -> None:
        assert [window_days(count) for count in (1000, 100, 3, 0)] == [60, 25, 1, 1]
        smoothed = smooth(pd.Series([1.0, np.nan, 3, 5]), 2)
        np.testing.assert_array_equal(smoothed, [1, 1, 3, 4])


def test_charts_are_charts(signal: RunArtifacts) -> None:
    names = [name for section in SECTIONS for name in section().charts(signal)]
    assert len(names) == len({*names}) == 21
    assert all(isinstance(c, Chart) for section in SECTIONS for c in section().charts(signal).values())
