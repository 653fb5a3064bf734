from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.report import html
from qlib_ext.report.sections.cumulative_return import CumulativeReturn
from qlib_ext.report.sections.drawdown import Drawdown
from qlib_ext.report.sections.information_coefficient import InformationCoefficient
from qlib_ext.report.sections.precision import Precision
from qlib_ext.report.sections.summary import Summary
from qlib_ext.report.sections.training import Training


def lines(chart: Any) -> dict[str, np.ndarray]:
    """The series of a chart by their names."""
    return {name: values.to_numpy(dtype=float) for name, values in chart.series.items()}


class TestNumbers:
    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            (html.percent(0.12345), "12.35%"),
            (html.percent(-0.5, 1), "−50.0%"),
            (html.percent(0.01, signed=True), "+1.00%"),
            (html.percent(-0.000001, signed=True), "0.00%"),
            (html.number(-0.00001), "0.0000"),
            (html.number(1234.5, 1), "1,234.5"),
            (html.points(0.015), "+1.50 pp"),
            (html.count(1234567), "1,234,567"),
            (html.percent(float("nan")), "–"),
            (html.number(float("nan")), "–"),
            (html.points(float("nan")), "–"),
            (html.count(float("nan")), "–"),
        ],
    )
    def test_written(self, written: str, expected: str) -> None:
        assert written == expected


class TestTable:
    def test_one_of_many_columns_can_become_cards(self) -> None:
        made = html.table(["Stock", "Days", "Why", "When"], [["A", 3, "x" * 40, "2020-01-02"]], numbers=[1])
        assert '<table class="cards">' in made
        assert '<td class="number" data-label="Days">3</td><td class="long" data-label="Why">xxx' in made
        assert '<td class="date" data-label="When">2020-01-02</td>' in made

    def test_one_of_few_columns_stays_one(self) -> None:
        assert "data-label" not in html.table(["Stock", "Days", "Why"], [["A", 3, "x" * 40]])


class TestSummary:
    def test_the_account_is_the_one_of_the_backtest(self, made: Any) -> None:
        curve = lines(Summary().charts(made.view())["account"])
        value = lines(CumulativeReturn().charts(made.view())["cumulative_return"])
        np.testing.assert_array_equal(curve["Portfolio, after cost"], value["Portfolio, after cost"])
        np.testing.assert_array_equal(curve["Index SH000300"], value["Index"])
        assert 'id="chart-account"' in Summary().render(made.view())


class TestCumulativeReturn:
    def test_lines_compound_the_daily_returns(self, made: Any) -> None:
        daily = made.view().table("backtest/daily.parquet")
        drawn = CumulativeReturn().charts(made.view())
        value = lines(drawn["cumulative_return"])
        net = daily["return"] - daily["cost"]
        np.testing.assert_allclose(value["Portfolio, after cost"], (1 + net).cumprod())
        np.testing.assert_allclose(value["Portfolio, before cost"], (1 + daily["return"]).cumprod())
        np.testing.assert_allclose(value["Index"], (1 + daily["benchmark"]).cumprod())
        over = lines(drawn["excess_return"])["Over the index, after cost"]
        np.testing.assert_allclose(over, (1 + net).cumprod() / (1 + daily["benchmark"]).cumprod())

    def test_it_says_how_it_was_traded(self, made: Any) -> None:
        page = CumulativeReturn().render(made.view())
        assert "TopkDropout (topk 50, n_drop 5) trades from 2017-01-03" in page
        assert "0.05% of the value, to sell 0.15%" in page
        assert "no trade beyond a move of 9.5%" in page

    def test_a_strategy_of_parts_is_said_without_modules(self, make: Callable[..., Any]) -> None:
        run = make(days=10)
        setup = json.loads((run.root / "backtest" / "setup.json").read_text())
        bounds = {"class": "a.b.WeightBounds", "kwargs": {"most": 0.05}}
        portfolio = {"optimiser": {"class": "a.b.HierarchicalRiskParity"}, "constraints": [bounds]}
        setup["strategy"] = {"class": "a.TargetWeights", "kwargs": {"portfolio": portfolio}}
        run.put("backtest/setup.json", json.dumps(setup))
        said = "TargetWeights (portfolio optimiser HierarchicalRiskParity, constraints WeightBounds (most 0.05)) trades"
        assert said in CumulativeReturn().render(run.view())

    def test_a_note_stands_once_with_a_summary_or_without(self, make: Callable[..., Any]) -> None:
        run = make(days=5, epochs=1)
        parts = (Summary(), CumulativeReturn())
        assert [part.render(run.view()).count("Trading ends on") for part in parts] == [1, 0]
        (run.root / "ranking" / "estimates.parquet").unlink()  # the summary is then left out
        assert CumulativeReturn().render(run.view()).count("Trading ends on") == 1


class TestDrawdown:
    def test_lines_fall_from_the_peak(self, made: Any) -> None:
        daily = made.view().table("backtest/daily.parquet")
        value = (1 + daily["return"] - daily["cost"]).cumprod()
        drawn = lines(Drawdown().charts(made.view())["drawdown"])["Portfolio, after cost"]
        np.testing.assert_allclose(drawn, value / value.cummax().clip(lower=1) - 1)


class TestInformationCoefficient:
    def test_lines(self, made: Any) -> None:
        daily = made.view().table("ranking/daily.parquet")
        charts = InformationCoefficient("NEXT_RETURN", window=20).charts(made.view())
        rank_ic = daily["rank_ic/NEXT_RETURN"]
        drawn = lines(charts["information_coefficient"])
        np.testing.assert_array_equal(drawn["RankIC, each day"], rank_ic)
        np.testing.assert_allclose(drawn["RankIC, mean of 20 days"][19], rank_ic[:20].mean())
        summed = lines(charts["information_coefficient_sum"])["RankIC"]
        np.testing.assert_allclose(summed[-1], rank_ic.sum())

    def test_the_first_label_is_the_default(self, made: Any) -> None:
        assert "the raw label RETURN," in InformationCoefficient().render(made.view())

    def test_an_unknown_label(self, made: Any) -> None:
        with pytest.raises(
            UserError, match=r"`label` must be one of RETURN, NEXT_RETURN, found 'RETURNS' \(did you mean"
        ):
            InformationCoefficient("RETURNS").render(made.view())

    def test_a_wrong_window(self) -> None:
        with pytest.raises(UserError, match="`window` must be at least 1, found 0"):
            InformationCoefficient(window=0)


class TestPrecision:
    def test_bars_are_the_means(self, made: Any) -> None:
        daily = made.view().table("ranking/daily.parquet")
        chart = Precision().charts(made.view())["precision"]
        expected = [daily[f"precision/{n}"].mean() for n in (10, 20, 30, 50)]
        np.testing.assert_allclose(chart.values["share that rose"], expected)
        assert [*chart.levels.values()] == [pytest.approx(daily["base_rate"].mean())]
        assert [*chart.values.index] == ["top 10", "top 20", "top 30", "top 50"]


class TestTraining:
    def test_curves_and_the_best_epoch(self, made: Any) -> None:
        history = made.view().table("training/history.parquet")
        charts = {chart.ylabel: chart for chart in Training().charts(made.view()).values()}
        assert [*charts][2:7] == ["V", "β", "Gradient norm", "Weight decay", "Gradient cosine"]
        first = charts["Loss of score"]
        np.testing.assert_array_equal(first.series["train"], history["train/loss/score"])
        np.testing.assert_array_equal(first.series["validation"], history["valid/loss/score"])
        best = history.loc[history["best"], "epoch"].iloc[-1]
        assert first.marks == {"kept": best}
        assert f"epoch {best} had the best validation score" in Training().render(made.view())

    def test_only_what_the_balancer_has_is_explained(self, make: Callable[..., Any]) -> None:
        run = make(days=5, epochs=4)
        assert "the task overfits" in Training().render(run.view())
        history = run.view().table("training/history.parquet")
        equal = history[[name for name in history if not name.startswith(("balance/V", "balance/beta"))]]
        run.put("training/history.parquet", equal)
        page = Training().render(run.view())
        assert "the task overfits" not in page
        assert "The weight decay is fixed." in page
        assert "The weights are those" not in page
        assert "pull apart" in page
        run.put("training/history.parquet", equal.drop(columns=["gradient/cosine", "gradient/norm/momentum"]))
        assert "pull apart" not in Training().render(run.view())

    def test_the_weights_of_a_scalarizer_are_drawn(self, make: Callable[..., Any]) -> None:
        run = make(days=5, epochs=4)
        history = run.view().table("training/history.parquet")
        history["balance/weight/score"] = [np.nan, 0.4, 0.5, 0.6]
        run.put("training/history.parquet", history)
        (chart,) = [chart for chart in Training().charts(run.view()).values() if chart.ylabel == "Weight"]
        np.testing.assert_array_equal(chart.series["score"], history["balance/weight/score"])
        assert "The weights are those that the balancer gave" in Training().render(run.view())

    def test_a_balancer_that_logs_nothing(self, make: Callable[..., Any]) -> None:
        run = make(days=5, epochs=4)
        history = run.view().table("training/history.parquet")
        plain = history[[name for name in history if not name.startswith(("balance", "gradient"))]]
        run.put("training/history.parquet", plain.assign(best=False))
        assert len(Training().charts(run.view())) == 6
        page = Training().render(run.view())
        assert "The balancer of this run logs nothing of its own." in page
        assert "no epoch was marked best" in page
