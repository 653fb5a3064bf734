from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qlib_ext.metrics.significance import bootstrap_mean
from qlib_ext.report import headline
from qlib_ext.report.headline import Estimate


@pytest.fixture(scope="module")
def known(made: Any) -> dict[str, Estimate]:
    return headline.estimates(made.view())


class TestEstimates:
    def test_values_are_those_that_the_run_logged(self, made: Any, known: dict[str, Estimate]) -> None:
        for name, estimate in known.items():
            if name in made.metrics:
                assert estimate.value == made.metrics[name], name
        assert {"IC", "RankICIR", "precision/50", "momentum/accuracy", "backtest/sharpe_ratio"} <= {*known}

    def test_the_interval_of_a_mean_is_the_one_of_the_bootstrap_of_means(
        self, made: Any, known: dict[str, Estimate]
    ) -> None:
        daily = made.view().table("ranking/daily.parquet")
        interval = bootstrap_mean(daily["rank_ic/RETURN"])
        found = known["RankIC"]
        np.testing.assert_allclose([found.low, found.high], interval, rtol=1e-9)

    def test_compounded_figures_are_those_of_resampled_days(
        self, made: Any, known: dict[str, Estimate]
    ) -> None:
        """The mean daily growth over the index, in logarithms, has the same quantiles as what it compounds to."""
        daily = made.view().table("backtest/daily.parquet")
        growth = np.log1p(daily["return"] - daily["cost"]) - np.log1p(daily["benchmark"])
        found = known["backtest/annualised_excess_return"]
        expected = np.expm1(243 * np.array(bootstrap_mean(growth)))
        np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-4)

    def test_every_interval_holds_its_value(self, known: dict[str, Estimate]) -> None:
        for name, found in known.items():
            if name != "momentum/accuracy" and not name.startswith("momentum"):  # made up apart from its days
                assert found.low <= found.value + 1e-12, name
                assert found.value - 1e-12 <= found.high, name

    @pytest.mark.parametrize(
        ("low", "high", "sign"),
        [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (np.nan, np.nan, 0), (0.0, 1.0, 0)],
    )
    def test_the_sign_is_known_where_zero_lies_outside(self, low: float, high: float, sign: int) -> None:
        assert Estimate(0.0, low, high).sign == sign


class TestGroups:
    def test_it_says_what_the_run_logged(self, made: Any, known: dict[str, Estimate]) -> None:
        groups = headline.groups(made.view(), known)
        rows = {row.name: row for group in groups for row in group.rows}
        metrics = made.metrics
        assert rows["IC"].value == f"{metrics['IC']:.4f}"
        assert rows["IC"].interval == f"{known['IC'].low:.4f} to {known['IC'].high:.4f}"
        assert rows["RankICIR"].beside == f"NEXT_RETURN {metrics['NEXT_RETURN/RankICIR']:.4f}"
        assert rows["Precision@30"].value == f"{metrics['precision/30']:.2%}"
        assert f"base rate {metrics['base_rate']:.2%}" in rows["Precision@30"].beside
        assert rows["Accuracy"].value == "69.17%"
        assert rows["Accuracy"].beside == "persistence 67.43%, majority 41.02%"
        daily = made.view().table("momentum/daily.parquet")
        lead = (daily["accuracy"] - daily["persistence_accuracy"]).mean()
        assert rows["Lead over persistence"].value == f"{100 * lead:+.2f} pp"
        excess = metrics["backtest/annualised_excess_return"]
        assert rows["Excess return a year, after cost"].value == f"{excess:+.2%}".replace("-", "−")
        ratio = f"{metrics['backtest/information_ratio']:.2f}".replace("-", "−")
        assert rows["Information ratio, after cost"].value == ratio
        assert rows["Max drawdown, after cost"].value == f"−{-metrics['backtest/max_drawdown']:.2%}"
        assert rows["Max drawdown, after cost"].interval == ""
        assert rows["Turnover a day"].value == "19.00%"
        assert all(group.note for group in groups)

    def test_a_run_without_momentum_or_backtest(self, make: Callable[..., Any]) -> None:
        run = make(days=5, epochs=1)
        for folder in ("momentum", "backtest"):
            for file in (run.root / folder).iterdir():
                file.unlink()
        titles = [group.title for group in headline.groups(run.view())]
        assert titles == ["Ranking against RETURN", "Precision of the top of the list"]

    def test_the_lead_over_persistence_is_the_records(self, make: Callable[..., Any]) -> None:
        run = make(days=5, epochs=1)
        found = run.view().table("momentum/estimates.parquet")
        found.loc["momentum/over_persistence"] = 0.02, -0.01, 0.05
        run.put("momentum/estimates.parquet", found)
        assert headline.estimates(run.view())["momentum/over_persistence"] == Estimate(0.02, -0.01, 0.05)

    def test_one_day_has_no_interval(self, make: Callable[..., Any]) -> None:
        run = make(days=3, epochs=1)  # the last two have no return
        rows = headline.groups(run.view())[0].rows
        assert [row.interval for row in rows] == [""] * 5
