from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from qlib.workflow import R

from qlib_ext.checks import UserError
from qlib_ext.metrics import risk
from qlib_ext.metrics.holdings import contributions
from qlib_ext.records import portfolio_tables as tables
from qlib_ext.records.backtest import BacktestRecord
from qlib_ext.records.portfolio import LOGGED, PortfolioRecord

FREE = {"open_cost": 0.0, "close_cost": 0.0, "min_cost": 0.0}


def backtest(run: Any, workplace: Any, topk: int = 8, **exchange: Any) -> None:
    strategy = {"class": "qlib_ext.strategy.topk_dropout.TopkDropout", "kwargs": {"topk": topk, "n_drop": 2}}
    settings = {"account": 1e8, "exchange_kwargs": exchange}
    BacktestRecord(recorder=run, strategy=strategy, backtest={"benchmark": "SH000300"} | settings).generate()


def portfolio(run: Any, **arguments: Any) -> PortfolioRecord:
    made = PortfolioRecord(recorder=run, **{"window_days": 20, "draws": 50} | arguments)
    made.generate()
    return made


def table(run: Any, path: str) -> pd.DataFrame:
    file = run.download_artifact(path)
    return pd.read_parquet(file) if path.endswith(".parquet") else pd.read_csv(file, index_col=0)


def setup_of(run: Any) -> dict[str, Any]:
    return json.loads(Path(run.download_artifact("portfolio/setup.json")).read_text())


def paths(run: Any) -> set[str]:
    return {item.path for item in run.client.list_artifacts(run.id, "portfolio")}


@pytest.fixture(scope="module")
def made(workplace: Any, model: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run whose backtest was measured, for tests that leave it as it is."""
    with R.start(experiment_name="records"):
        recorder = R.get_recorder()
        file = tmp_path_factory.mktemp("signal") / "predictions.parquet"
        model.predict(workplace).sort_index().to_parquet(file)
        recorder.log_artifact(str(file), "signal")
        backtest(recorder, workplace)
        portfolio(recorder)
    return recorder


@pytest.fixture
def scored(run: Any, made: Any) -> Any:
    """A run with the scores, for backtests of its own."""
    run.log_artifact(made.download_artifact("signal/predictions.parquet"), "signal")
    return run


def test_it_writes_what_it_names(made: Any) -> None:
    assert paths(made) == set(PortfolioRecord(recorder=made).list())


class TestMetrics:
    @pytest.fixture(scope="class")
    def metrics(self, made: Any) -> pd.DataFrame:
        return table(made, "portfolio/metrics.csv")

    def test_they_are_those_of_the_backtests_summary(self, made: Any, metrics: pd.DataFrame) -> None:
        summary = table(made, "backtest/summary.csv").rename(columns={"ratio": "sharpe_ratio"})
        ours = metrics.loc[summary.columns, summary.index].T.astype(float)
        np.testing.assert_allclose(ours, summary, rtol=1e-12)

    def test_the_forty_are_all_there(self, metrics: pd.DataFrame) -> None:
        assert len(metrics) >= 40
        assert {*metrics.index[metrics["portfolio_with_cost"].isna()]} <= {"gain_to_pain"}  # no month lost
        assert metrics["how"].str.len().min() > 10
        beside = metrics["group"] == "Beside the index"
        assert metrics.loc[beside, ["benchmark", "excess_with_cost"]].isna().all(axis=None)
        assert metrics.loc[~beside, ["benchmark", "excess_with_cost"]].notna().mean().min() > 0.9
        assert set(metrics["unit"]) == {"percent", "ratio", "days"}

    def test_intervals_hold_their_figures(self, metrics: pd.DataFrame) -> None:
        for column in ("portfolio_with_cost", "excess_with_cost"):
            low, high = metrics[f"{column}_low"], metrics[f"{column}_high"]
            sure = low.notna()
            assert sure.sum() >= 8
            assert (high[sure] > low[sure]).all()
            inside = (metrics[column] > low) & (metrics[column] < high)
            assert inside[sure].mean() > 0.8
        assert metrics.loc["max_drawdown", "portfolio_with_cost_low"] != 0
        assert np.isnan(metrics.loc["max_drawdown", "portfolio_with_cost_low"])

    def test_some_are_logged(self, made: Any, metrics: pd.DataFrame) -> None:
        logged = made.list_metrics()
        for name in LOGGED:
            assert logged[f"portfolio/{name}"] == pytest.approx(metrics.loc[name, "portfolio_with_cost"])


class TestTables:
    def test_months_and_years_compound_to_the_whole(self, made: Any) -> None:
        daily = table(made, "backtest/daily.parquet")
        for name in ("monthly", "yearly"):
            found = table(made, f"portfolio/{name}.csv")
            assert found["days"].sum() == len(daily)
            whole = (1 + found["portfolio_with_cost"]).prod() - 1
            assert whole == pytest.approx(risk.cumulative_return(daily["return"] - daily["cost"]))
            excess = (1 + found["excess_without_cost"]).prod() - 1
            relative = risk.relative_return(daily["return"], daily["benchmark"])
            assert excess == pytest.approx(risk.cumulative_return(relative))
            assert found["turnover"].sum() == pytest.approx(daily["turnover"].sum())
            assert found["cost"].sum() == pytest.approx(daily["cost"].sum())
        month = table(made, "portfolio/monthly.csv")
        days = daily.index.strftime("%Y-%m") == month.index[1]
        expected = (1 + daily.loc[days, "benchmark"].astype(float)).prod() - 1
        assert month.iloc[1]["benchmark"] == pytest.approx(expected)

    def test_the_year_has_its_own_risk(self, made: Any) -> None:
        daily = table(made, "backtest/daily.parquet")
        (year,) = table(made, "portfolio/yearly.csv").index  # the made market's test lies in one
        row = table(made, "portfolio/yearly.csv").loc[year]
        net = daily["return"] - daily["cost"]
        assert row["max_drawdown"] == pytest.approx(risk.max_drawdown(net))
        assert row["volatility"] == pytest.approx(net.std() * 243**0.5)
        assert row["sharpe_ratio"] == pytest.approx(risk.sharpe_ratio(net, 243))
        assert row["information_ratio"] == pytest.approx(risk.information_ratio(net, daily["benchmark"], 243))

    def test_drawdowns_have_their_days(self, made: Any) -> None:
        daily, found = table(made, "backtest/daily.parquet"), table(made, "portfolio/drawdowns.csv")
        net = daily["return"] - daily["cost"]
        below = pd.Series(risk.drawdown(net), daily.index)
        own = found.loc[["portfolio_with_cost"]]
        assert [*own["rank"]] == [*range(1, len(own) + 1)]
        assert own["depth"].is_monotonic_increasing
        worst = own.iloc[0]
        assert worst["depth"] == pytest.approx(risk.max_drawdown(net))
        assert below[worst["trough"]] == pytest.approx(worst["depth"])
        if isinstance(worst["peak"], str):
            assert below[worst["peak"]] == 0

    def test_rolling_begins_after_a_window(self, made: Any) -> None:
        daily, found = table(made, "backtest/daily.parquet"), table(made, "portfolio/rolling.parquet")
        assert found.iloc[:19].isna().all(axis=None)
        assert found.iloc[19:].notna().all(axis=None)
        net = (daily["return"] - daily["cost"]).iloc[5:25]
        assert found["sharpe_ratio"].iloc[24] == pytest.approx(risk.sharpe_ratio(net, 243))
        beta = net.cov(daily["benchmark"].iloc[5:25]) / daily["benchmark"].iloc[5:25].var()
        assert found["beta"].iloc[24] == pytest.approx(beta)

    def test_holdings_by_hand(self, made: Any) -> None:
        daily, positions = table(made, "backtest/daily.parquet"), table(made, "backtest/positions.parquet")
        found = table(made, "portfolio/holdings.parquet")
        day = daily.index[-5]
        held = positions.loc[day]
        value = (held["amount"] * held["price"]).sort_values(ascending=False)
        share = value / value.sum()
        assert found.loc[day, "stocks"] == len(held)
        assert found.loc[day, "top_5"] == pytest.approx(share.iloc[:5].sum())
        assert found.loc[day, "herfindahl"] == pytest.approx((share**2).sum())
        assert found.loc[day, "effective_stocks"] == pytest.approx(1 / (share**2).sum())
        assert found.loc[day, "cash"] == pytest.approx(1 - value.sum() / daily.loc[day, "account"])


class TestContributions:
    def test_they_add_up_to_the_return_before_cost(self, made: Any) -> None:
        found, setup = table(made, "portfolio/contributions.csv"), setup_of(made)
        whole = risk.cumulative_return(table(made, "backtest/daily.parquet")["return"])
        assert setup["return_before_cost"] == pytest.approx(whole, abs=1e-12)
        # Trades fill at the close at which the day is valued: nothing is left over.
        assert setup["trading"] == pytest.approx(0, abs=1e-9)
        assert found["contribution"].sum() == pytest.approx(whole, abs=1e-9)
        assert found["contribution"].is_monotonic_decreasing

    def test_a_day_without_trades_is_that_of_its_stocks(self, scored: Any, workplace: Any) -> None:
        backtest(
            scored, workplace, topk=40, limit_threshold=None
        )  # every stock: nothing to change after a while
        portfolio(scored)
        daily = table(scored, "backtest/daily.parquet")
        positions = table(scored, "backtest/positions.parquet")
        quiet = np.flatnonzero(daily["turnover"].iloc[1:] == 0) + 1
        assert len(quiet) > 20
        price, weight = positions["price"].unstack(), positions["weight"].unstack()
        for k in quiet:
            moves = price.iloc[k] / price.iloc[k - 1] - 1
            assert (weight.iloc[k - 1] * moves).sum() == pytest.approx(daily["return"].iloc[k], abs=1e-9)
        assert setup_of(scored)["trading"] == pytest.approx(0, abs=1e-9)

    def test_trades_at_another_price_are_set_apart(self, scored: Any, workplace: Any) -> None:
        # The made store has no open; half the day's rise stands for a price before the close.
        backtest(scored, workplace, deal_price="$close/(1+$change/2)")
        portfolio(scored)
        setup = setup_of(scored)
        parts = table(scored, "portfolio/contributions.csv")["contribution"].sum()
        whole = risk.cumulative_return(table(scored, "backtest/daily.parquet")["return"])
        assert abs(setup["trading"]) > 1e-3
        assert parts + setup["trading"] == pytest.approx(whole, abs=1e-9)

    def test_what_is_said_of_a_stock(self, made: Any) -> None:
        found = table(made, "portfolio/contributions.csv")
        positions = table(made, "backtest/positions.parquet")
        counts = positions.groupby("instrument").size()
        assert found["days_held"].to_dict() == counts.to_dict()
        code = counts.idxmax()
        own = positions.xs(code, level="instrument")
        assert found.loc[code, "average_weight"] == pytest.approx(own["weight"].mean())
        assert found.loc[code, "first_held"] == f"{own.index[0]:%Y-%m-%d}"
        assert found.loc[code, "last_held"] == f"{own.index[-1]:%Y-%m-%d}"


class TestShorts:
    """One stock is held long for three days, and one is short for two of them."""

    DAYS = pd.bdate_range("2023-01-02", periods=4, name="datetime")
    CODES = pd.Index(["LONG", "SHORT"], name="instrument")

    @pytest.fixture
    def held(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Positions, the account, and closes."""
        close = pd.DataFrame([[10.0, 20.0], [11.0, 18.0], [12.0, 21.0], [12.0, 21.0]], self.DAYS, self.CODES)
        amount = pd.DataFrame([[5.0, -2.0], [5.0, -2.0], [5.0, np.nan], [np.nan] * 2], self.DAYS, self.CODES)
        positions = pd.DataFrame({"amount": amount.stack(), "price": close.stack()}).dropna()
        account = np.array([100.0, 109.0, 108.0, 108.0])  # both gain, then the long 5 and the short -6
        daily = pd.DataFrame({"account": account, "cash": account}, self.DAYS)
        daily["return"] = daily["account"].pct_change().fillna(0.0)
        return positions, daily, close

    def test_what_is_short_adds_what_it_loses(self, held: tuple[pd.DataFrame, ...]) -> None:
        positions, daily, close = held
        weights = tables.wide_weights(positions, daily)
        returns = tables.held_returns(positions, weights, close)
        parts, rest = contributions(
            tables.day_before(weights), returns.to_numpy(), daily["return"].to_numpy()
        )
        assert rest == pytest.approx(0, abs=1e-12)
        found = tables.contributors(weights, returns, pd.DataFrame(parts, self.DAYS, self.CODES), None)
        assert found["contribution"].to_dict() == pytest.approx({"LONG": 0.1, "SHORT": -0.02})
        assert found["days_held"].to_dict() == {"LONG": 3, "SHORT": 2}
        assert found.loc["SHORT", "average_weight"] == pytest.approx((-0.4 - 36 / 109) / 2)

    def test_it_counts_as_a_stock_without_its_sign(self, held: tuple[pd.DataFrame, ...]) -> None:
        weights = tables.wide_weights(held[0], held[1])
        found = tables.concentration(weights, held[1])
        assert found["stocks"].tolist() == [2, 2, 1, 0]
        assert found["effective_stocks"].iloc[0] == pytest.approx(81 / 41)

    def test_industries_are_shares_of_long_and_short_together(self, held: tuple[pd.DataFrame, ...]) -> None:
        weights = tables.wide_weights(held[0], held[1])
        industry = tables.Membership(("a", "b"), pd.DataFrame([[0, 1]] * 4, self.DAYS, self.CODES))
        by_day, _ = tables.by_industry(weights, weights * 0.0, industry, None)
        assert by_day["weight"].unstack().iloc[0].tolist() == pytest.approx([5 / 9, -4 / 9])


class TestCosts:
    def test_a_backtest_at_another_cost_comes_close(self, scored: Any, workplace: Any) -> None:
        # Trades held fixed are the first order: what is lost to 40 basis points is met to a few per cent of it.
        backtest(scored, workplace, **FREE)
        portfolio(scored, cost_bps=[0, 40])
        sweep = table(scored, "portfolio/cost_sweep.csv")["annualised_return"]
        free = risk.annualised_return(table(scored, "backtest/daily.parquet")["return"], 243)
        assert sweep[0] == pytest.approx(free, abs=1e-12)
        backtest(scored, workplace, open_cost=0.004, close_cost=0.004, min_cost=0.0)
        summary = table(scored, "backtest/summary.csv")
        own, excess = summary.loc["portfolio_with_cost"], summary.loc["excess_with_cost"]
        lost = free - own["annualised_return"]
        assert lost > 0.05
        assert sweep[40] == pytest.approx(own["annualised_return"], abs=0.03 * lost)
        # At its own cost, a flat share of what is traded, it is that backtest.
        portfolio(scored, cost_bps=[40])
        same = table(scored, "portfolio/cost_sweep.csv").loc[40]
        assert same["annualised_return"] == pytest.approx(own["annualised_return"], abs=1e-9)
        assert same["sharpe_ratio"] == pytest.approx(own["ratio"], abs=1e-9)
        assert same["max_drawdown"] == pytest.approx(own["max_drawdown"], abs=1e-9)
        assert same["annualised_excess_return"] == pytest.approx(excess["annualised_return"], abs=1e-9)
        assert same["information_ratio"] == pytest.approx(excess["ratio"], abs=1e-9)
        assert setup_of(scored)["own_cost_bps"] == pytest.approx(40, abs=1e-6)

    def test_at_the_break_even_nothing_is_left(self, made: Any) -> None:
        setup, daily = setup_of(made), table(made, "backtest/daily.parquet")
        net = daily["return"] - setup["break_even_excess_bps"] * 1e-4 * daily["turnover"]
        left = risk.cumulative_return(risk.relative_return(net, daily["benchmark"]))
        assert left == pytest.approx(0, abs=1e-4)
        assert setup["break_even_bps"] > 0


class TestIndustries:
    @pytest.fixture
    def side(self, place: Any) -> Iterator[None]:
        """Three industries in the store; one stock changes its own, one has none."""
        home, dataset = place
        codes = [f"SH6{number:05d}" for number in range(39)]
        first, last = dataset.calendar[0], dataset.calendar[80]
        rows = [(code, first, pd.NaT, f"industry {k % 3}") for k, code in enumerate(codes)]
        rows[0] = (codes[0], first, last, "industry 0")
        rows.append((codes[0], last + pd.Timedelta(days=1), pd.NaT, "industry 2"))
        folder = home / "store" / "side"
        folder.mkdir()
        columns = ["instrument", "start", "end", "industry"]
        pd.DataFrame(rows, columns=columns).to_parquet(folder / "industry.parquet")
        yield
        (folder / "industry.parquet").unlink()
        folder.rmdir()

    @pytest.mark.usefixtures("side")
    def test_weights_and_contributions(self, made: Any, scored: Any) -> None:
        for path in ("daily.parquet", "positions.parquet", "setup.json"):
            scored.log_artifact(made.download_artifact(f"backtest/{path}"), "backtest")
        portfolio(scored)
        assert setup_of(scored)["no_industries"] == ""
        by_day, overall = (table(scored, f"portfolio/industries.{kind}") for kind in ("parquet", "csv"))
        assert {"industry 0", "industry 1", "industry 2", "unknown"} == {*overall.index}
        for column in ("weight", "universe"):
            np.testing.assert_allclose(by_day[column].groupby("datetime").sum(min_count=1).dropna(), 1)
        stocks = table(scored, "portfolio/contributions.csv")
        assert overall["contribution"].sum() == pytest.approx(stocks["contribution"].sum(), abs=1e-12)
        never = [code for code in stocks.index if code != "SH600000"]
        by_stock = stocks.loc[never].groupby("industry")["contribution"].sum()
        assert overall.loc["industry 1", "contribution"] == pytest.approx(by_stock["industry 1"], abs=1e-12)
        # by hand on one day
        day = by_day.index[0][0] + pd.Timedelta(days=14)
        held = table(scored, "backtest/positions.parquet").loc[day]
        own = [code for code in held.index if int(code[3:]) % 3 == 1]
        expected = held.loc[own, "weight"].sum() / held["weight"].sum()
        assert by_day.loc[(day, "industry 1"), "weight"] == pytest.approx(expected)
        scores = table(scored, "signal/predictions.parquet")["score"].loc[day].dropna()
        share = sum(int(code[3:]) % 3 == 1 for code in scores.index) / len(scores)
        assert by_day.loc[(day, "industry 1"), "universe"] == pytest.approx(share)

    def test_without_any(self, made: Any) -> None:
        assert "portfolio/industries.csv" not in paths(made)
        assert "qlib-ext data side-data" in setup_of(made)["no_industries"]


class TestEdges:
    def test_three_days(self, scored: Any, workplace: Any) -> None:
        strategy = {"class": "qlib_ext.strategy.topk_dropout.TopkDropout", "kwargs": {"topk": 8, "n_drop": 2}}
        days = workplace.calendar
        span = {"start": str(days[70].date()), "end": str(days[72].date())}
        BacktestRecord(
            recorder=scored, strategy=strategy, backtest={"benchmark": "SH000300"}, **span
        ).generate()
        portfolio(scored)
        assert table(scored, "portfolio/rolling.parquet").isna().all(axis=None)
        metrics = table(scored, "portfolio/metrics.csv")["portfolio_with_cost"]
        summary = table(scored, "backtest/summary.csv").loc["portfolio_with_cost"]
        assert metrics["cumulative_return"] == pytest.approx(summary["cumulative_return"])

    def test_no_trade_at_all(self, scored: Any, workplace: Any) -> None:
        backtest(scored, workplace, limit_threshold=["$close > 0", "$close > 0"])  # nothing may be traded
        portfolio(scored)
        assert table(scored, "portfolio/contributions.csv").empty
        holdings = table(scored, "portfolio/holdings.parquet")
        assert (holdings["stocks"] == 0).all()
        assert (holdings["cash"] == 1).all()
        metrics = table(scored, "portfolio/metrics.csv")["portfolio_with_cost"]
        assert metrics["cumulative_return"] == 0
        assert setup_of(scored)["own_cost_bps"] is None
        assert len(table(scored, "portfolio/cost_sweep.csv")) == 13

    def test_without_a_backtest(self, run: Any) -> None:
        with pytest.raises(UserError, match="BacktestRecord"):
            PortfolioRecord(recorder=run).generate()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"window_days": 1}, "`window_days` must be at least 2, found 1"),
            ({"cost_bps": []}, r"`cost_bps` must be a list of costs in basis points, found \[\]"),
            ({"cost_bps": "10"}, "`cost_bps` must be a list"),
            ({"cost_bps": [5, -1]}, r"`cost_bps\[1\]` must be at least 0, found -1"),
            ({"draws": 0}, "`draws` must be at least 1"),
            ({"level": 95}, r"`level` must lie in \(0, 1\), found 95"),
        ],
    )
    def test_refuses(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            PortfolioRecord(recorder=None, **arguments)
