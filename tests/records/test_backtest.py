from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
import pytest
from qlib.data.cache import H
from qlib.utils import init_instance_by_config

from qlib_ext.checks import UserError
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.portfolio_series import series_of
from qlib_ext.records.backtest import EXCHANGE, BacktestRecord, first_day, summarise
from qlib_ext.records.signal import SignalRecord
from tests.records.conftest import QUIET, STOCKS

STRATEGY = {"class": "qlib_ext.strategy.topk_dropout.TopkDropout", "kwargs": {"topk": 8, "n_drop": 2}}


@pytest.fixture
def scored(run: Any, workplace: Any, model: Any) -> Any:
    SignalRecord(recorder=run, model=model, dataset=workplace).generate()
    return run


def record(run: Any, workplace: Any, **arguments: Any) -> BacktestRecord:
    return BacktestRecord(recorder=run, **({"strategy": STRATEGY} | arguments))


def test_it_writes_what_it_names(scored: Any, workplace: Any, files: Any) -> None:
    before = files()
    made = record(scored, workplace)
    made.generate()
    assert files() - before == set(made.list())


class TestNumbers:
    @pytest.fixture
    def made(self, scored: Any, workplace: Any) -> Any:
        record(scored, workplace, backtest={"account": 1e7}).generate()
        return scored

    def test_the_accounts_balance(self, made: Any, read: Any) -> None:
        daily, positions = read("backtest/daily.parquet"), read("backtest/positions.parquet")
        assert [*daily.columns] == ["return", "cost", "benchmark", "turnover", "account", "value", "cash"]
        np.testing.assert_allclose(daily["value"] + daily["cash"], daily["account"])
        growth = daily["account"] / daily["account"].shift(fill_value=1e7) - 1
        np.testing.assert_allclose(growth, daily["return"] - daily["cost"], atol=1e-12)
        held = (positions["amount"] * positions["price"]).groupby("datetime").sum()
        np.testing.assert_allclose(held, daily["value"])
        weights = positions["weight"].groupby("datetime").sum()
        np.testing.assert_allclose(weights, daily["value"] / daily["account"])

    def test_the_index_is_the_benchmark(self, made: Any, workplace: Any, read: Any) -> None:
        daily = read("backtest/daily.parquet")
        from qlib.data import D

        index = (
            D.features([workplace.benchmark], ["$close/Ref($close,1)-1"]).droplevel("instrument").iloc[:, 0]
        )
        np.testing.assert_allclose(daily["benchmark"], index.loc[daily.index])

    @pytest.mark.parametrize("backtest", [{}, {"benchmark": None}])
    def test_as_qlib_builds_it_the_index_is_the_datasets(
        self, scored: Any, workplace: Any, backtest: dict[str, Any]
    ) -> None:
        config = {
            "class": "qlib_ext.records.backtest.BacktestRecord",
            "kwargs": {"strategy": STRATEGY, "backtest": backtest},
        }
        given = {"model": None, "dataset": workplace}  # Qlib drops both for a class that does not take both
        init_instance_by_config(config, recorder=scored, try_kwargs=given).generate()
        told = json.loads(Path(scored.download_artifact("backtest/setup.json")).read_text(encoding="utf-8"))
        assert told["benchmark"] == workplace.benchmark

    def test_metrics_are_those_of_the_daily_series(self, made: Any, read: Any) -> None:
        daily, metrics = read("backtest/daily.parquet"), made.list_metrics()
        net, index = daily["return"] - daily["cost"], daily["benchmark"]
        years = len(daily) / 243
        wealth = (1 + net).cumprod()
        assert metrics["backtest/annualised_return"] == pytest.approx(wealth.iloc[-1] ** (1 / years) - 1)
        relative = wealth.iloc[-1] / (1 + index).prod()
        assert metrics["backtest/annualised_excess_return"] == pytest.approx(relative ** (1 / years) - 1)
        ratio = (net - index).mean() / (net - index).std() * 243**0.5
        assert metrics["backtest/information_ratio"] == pytest.approx(ratio)
        worst = (wealth / wealth.cummax().clip(lower=1.0) - 1).min()
        assert metrics["backtest/max_drawdown"] == pytest.approx(worst)
        assert metrics["backtest/turnover"] == pytest.approx(daily["turnover"].mean())
        assert (
            metrics["backtest/annualised_excess_return_without_cost"]
            > metrics["backtest/annualised_excess_return"]
        )
        assert metrics["backtest/annualised_excess_return"] > 0.5  # the scores know a little of the future

    def test_a_second_time_gives_the_same_bytes(self, made: Any, workplace: Any, read: Any) -> None:
        first = read("backtest/daily.parquet")
        record(made, workplace, backtest={"account": 1e7}).generate()
        pd.testing.assert_frame_equal(read("backtest/daily.parquet"), first, check_exact=True)


class TestOrders:
    @pytest.fixture
    def made(self, scored: Any, workplace: Any) -> Any:
        record(scored, workplace, backtest={"account": 1e7}).generate()
        return scored

    def test_they_add_up_to_the_account(self, made: Any, read: Any) -> None:
        orders, daily = read("backtest/orders.parquet"), read("backtest/daily.parquet")
        before = daily["account"].shift(fill_value=1e7)
        by_day = orders.groupby("datetime")[["value", "cost"]].sum().reindex(daily.index, fill_value=0.0)
        np.testing.assert_allclose(by_day["value"], daily["turnover"] * before, rtol=1e-9)
        np.testing.assert_allclose(by_day["cost"], daily["cost"] * before, rtol=1e-9)

    def test_the_suspended_are_there_with_their_reason(self, made: Any, workplace: Any, read: Any) -> None:
        from qlib.data import D

        orders = read("backtest/orders.parquet")
        unfilled = orders[orders["status"] != "filled"]
        assert "suspended, no volume" in {*unfilled["reason"]}
        volume = D.features([f"SH6{n:05d}" for n in range(40)], ["$volume"])["$volume"]
        still = unfilled[unfilled["reason"] == "suspended, no volume"].index.swaplevel()
        assert (volume.loc[still] == 0).all()
        traded = orders[orders["filled"] > 0].index.swaplevel()
        assert (volume.loc[traded] > 0).all()

    def test_as_csv_they_are_the_same(self, made: Any, read: Any) -> None:
        for name in ("orders", "positions"):
            table = read(f"backtest/{name}.parquet").reset_index()
            text = pd.read_csv(
                made.download_artifact(f"backtest/{name}.csv"),
                parse_dates=["datetime"],
                float_precision="round_trip",
            )
            pd.testing.assert_frame_equal(table, text, check_dtype=False)

    def test_positions_say_how_long_a_stock_is_held(self, made: Any, read: Any) -> None:
        positions = read("backtest/positions.parquet")
        held = positions["days_held"].unstack()
        there = held.notna()
        counted = there.cumsum() - there.cumsum().where(~there).ffill().fillna(
            0
        )  # days since it was last not held
        np.testing.assert_array_equal(held.fillna(0), counted)


class TestPeriod:
    def test_it_begins_a_day_after_the_scores_and_ends_inside_the_calendar(
        self, scored: Any, workplace: Any, read: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, logger="qlib_ext"):
            record(scored, workplace).generate()
        days = read("backtest/daily.parquet").index
        assert days[0] == workplace.calendar[61]  # the first scores are of day 60
        assert days[-1] == workplace.calendar[-2]
        setup = json.loads(Path(scored.download_artifact("backtest/setup.json")).read_text())
        assert setup["end"] == f"{workplace.calendar[-2]:%Y-%m-%d}"
        note, _ = setup["notes"]
        assert f"trading ends on {workplace.calendar[-2]:%Y-%m-%d}" in note
        assert note in caplog.text

    def test_it_can_be_narrowed(self, scored: Any, workplace: Any, read: Any) -> None:
        start, end = workplace.calendar[70], workplace.calendar[80]
        record(scored, workplace, start=str(start.date()), end=end.date()).generate()
        days = read("backtest/daily.parquet").index
        assert (days[0], days[-1]) == (start, end)
        assert json.loads(Path(scored.download_artifact("backtest/setup.json")).read_text())["notes"] == [
            first_day(read("backtest/daily.parquet"), "close", 243)
        ]

    def test_no_day_at_all(self, scored: Any, workplace: Any) -> None:
        with pytest.raises(UserError, match=r"there is no day to trade on: the scores are of"):
            record(scored, workplace, start="2030-01-01").generate()


class TestRefuses:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                {
                    "strategy": {
                        "class": "qlib_ext.strategy.topk_dropout.TopkDropout",
                        "kwargs": {"topk": 0, "n_drop": 0},
                    }
                },
                "`topk` must be at least 1",
            ),
            ({"strategy": {"class": "qlib_ext.strategy.topk_dropout.Topk"}}, "names no class"),
            ({"backtest": {"acount": 1}}, r"`backtest` has no place for `acount` \(did you mean account\?\)"),
            ({"backtest": {"account": 0}}, "`backtest.account` must be above 0, found 0"),
            (
                {"backtest": {"exchange_kwargs": {"open_fee": 1}}},
                "`backtest.exchange_kwargs` has no place for `open_fee`",
            ),
            ({"days_per_year": 0}, "`days_per_year` must be above 0"),
        ],
    )
    def test_wrong_arguments(self, workplace: Any, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            record(None, workplace, **arguments)

    def test_an_index_that_is_not_there(self, scored: Any, workplace: Any) -> None:
        with pytest.raises(UserError, match="found none for SH999999 in the store"):
            record(scored, workplace, backtest={"benchmark": "SH999999"}).generate()

    def test_no_index_at_all(
        self, run: Any, workplace: Any, model: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = workplace.describe() | {"benchmark": None}
        monkeypatch.setattr(workplace, "describe", lambda: told)
        SignalRecord(recorder=run, model=model, dataset=workplace).generate()
        with pytest.raises(
            UserError, match=r"must be an instrument code.*in either. Where .* say `benchmark: null`"
        ):
            BacktestRecord(recorder=run, strategy=STRATEGY).generate()

    def test_a_price_limit_without_the_change(
        self, scored: Any, workplace: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from qlib.data import D

        features = D.features

        def without_change(*args: Any, **kwargs: Any) -> pd.DataFrame:
            table = features(*args, **kwargs)
            return table.assign(**{"$change": np.nan}) if "$change" in table else table

        monkeypatch.setattr(D._provider, "features", without_change)
        with pytest.raises(UserError, match="a price limit needs the field `change`"):
            record(scored, workplace).generate()

    def test_a_store_that_holds_changes_in_percent_trades_the_same(
        self, scored: Any, workplace: Any, read: Any, place: Any
    ) -> None:
        settings = {"exchange_kwargs": {"limit_threshold": 0.04}}  # which many a move is beyond
        record(scored, workplace, backtest=settings).generate()
        as_fraction = read("backtest/daily.parquet")
        assert as_fraction["turnover"].mean() > 0.05
        assert read("backtest/orders.parquet")["reason"].str.startswith("price limit").any()
        files = {path: path.read_bytes() for path in (place[0] / "store").rglob("change.day.bin")}
        try:
            for path, content in files.items():
                start, moves = content[:4], np.frombuffer(content[4:], "<f4")
                path.write_bytes(start + (moves * np.float32(100)).tobytes())
            H.clear()  # what Qlib remembers
            record(scored, workplace, backtest=settings).generate()
        finally:
            for path, content in files.items():
                path.write_bytes(content)
            H.clear()
        pd.testing.assert_frame_equal(read("backtest/daily.parquet"), as_fraction)

    def test_a_limit_by_expressions_needs_no_change(self, scored: Any, workplace: Any, read: Any) -> None:
        move, still = "$close/Ref($close,1)-1", "($volume <= 0)"
        limit = [f"({move} >= 0.095) | {still}", f"({move} <= -0.095) | {still}"]
        record(scored, workplace, backtest={"exchange_kwargs": {"limit_threshold": limit}}).generate()
        by_expression = read("backtest/daily.parquet")
        record(scored, workplace).generate()
        pd.testing.assert_frame_equal(by_expression, read("backtest/daily.parquet"))


class TestSuspensions:
    def test_nothing_is_traded_on_a_day_without_volume(
        self, scored: Any, workplace: Any, read: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from qlib.data import D

        def changes() -> pd.DataFrame:
            """Which of the stocks are traded on which of the days without volume."""
            amount = read("backtest/positions.parquet")["amount"].unstack(fill_value=0.0)
            volume = D.features(list(amount.columns), ["$volume"])["$volume"].unstack("instrument")
            return (amount.diff() != 0)[volume.reindex_like(amount) == 0].fillna(False)

        record(scored, workplace).generate()
        assert not changes().to_numpy(dtype=bool).any()
        # and there was something to forbid: by the price limit alone they are traded
        limit = ["$change >= 0.095", "$change <= -0.095"]
        record(scored, workplace, backtest={"exchange_kwargs": {"limit_threshold": limit}}).generate()
        assert changes().to_numpy(dtype=bool).any()


class TestUnsold:
    """Four stocks are bought, then never trade again, and their scores fall."""

    @pytest.fixture
    def stuck(self, run: Any, workplace: Any) -> Any:
        class Falling:
            def predict(self, dataset: Any) -> pd.Series:
                days, codes = (dataset.rows.get_level_values(name) for name in dataset.rows.names)
                draw = np.random.default_rng(0)
                level = np.where(days < workplace.calendar[QUIET.start - 1], 1.0, -1.0)
                return pd.Series(draw.random(len(days)) + level * codes.isin(STOCKS[:4]), dataset.rows)

        SignalRecord(recorder=run, model=Falling(), dataset=workplace).generate()
        return run

    def told(self, run: Any, workplace: Any, day: int) -> list[str]:
        strategy = {"class": STRATEGY["class"], "kwargs": {"topk": 8, "n_drop": 4}}
        record(run, workplace, strategy=strategy, end=workplace.calendar[day]).generate()
        setup = json.loads(Path(run.download_artifact("backtest/setup.json")).read_text(encoding="utf-8"))
        return [note for note in setup["notes"] if "could not be sold" in note]

    def test_it_is_noted_with_its_share_of_the_account(self, stuck: Any, workplace: Any, read: Any) -> None:
        (note,) = self.told(stuck, workplace, QUIET.stop - 1)
        positions = read("backtest/positions.parquet")
        last = positions.loc[workplace.calendar[QUIET.stop - 1], "weight"]
        assert note.startswith(f"what could not be sold is {last[STOCKS[:4]].sum():.2%} of the account")
        for code in STOCKS[:4]:
            assert (
                f"{code} ({last[code]:.2%}, 20 sales since {workplace.calendar[QUIET.start]:%Y-%m-%d}" in note
            )

    def test_a_few_days_are_no_news(self, stuck: Any, workplace: Any) -> None:
        assert self.told(stuck, workplace, QUIET.start + 5) == []

    def test_what_is_sold_later_is_none_of_it(self, stuck: Any, workplace: Any) -> None:
        assert self.told(stuck, workplace, QUIET.stop + 5) == []


class TestSummary:
    def test_by_hand(self) -> None:
        daily = pd.DataFrame({"return": [0.10, -0.20], "cost": [0.0, 0.0], "benchmark": [0.0, -0.10]})
        table = summarise(series_of(daily, per_year=2))
        assert table.loc["portfolio_with_cost", "cumulative_return"] == pytest.approx(1.1 * 0.8 - 1)
        assert table.loc["portfolio_with_cost", "max_drawdown"] == pytest.approx(-0.2)
        assert table.loc["excess_with_cost", "annualised_return"] == pytest.approx(0.88 / 0.9 - 1)
        difference = np.array([0.1, -0.1])
        assert table.loc["excess_with_cost", "annualised_volatility"] == pytest.approx(
            difference.std(ddof=1) * 2**0.5
        )
        assert table.loc["excess_with_cost", "ratio"] == pytest.approx(0.0)
        pd.testing.assert_series_equal(
            table.loc["excess_with_cost"], table.loc["excess_without_cost"], check_names=False
        )


class TestFirstDay:
    def test_what_the_index_has_before_the_account_is_told(self) -> None:
        """The account keeps up with the index from the second day on; the first day of the index is all it lacks."""
        days = pd.bdate_range("2020-01-01", periods=5, name="datetime")
        index = np.array([0.05, 0.01, -0.02, 0.03, 0.01])
        daily = pd.DataFrame({"return": [0.0, *index[1:]], "cost": 0.0, "benchmark": index}, index=days)
        assert first_day(daily, "open", 5) == (
            "the account begins in cash and buys on 2020-01-01 at the day's open, while the index's whole return of that "
            "day counts, +5.00%: over the index after cost -4.76% a year, from the day after +0.00%"
        )

    def test_a_day_or_two_make_no_year(self) -> None:
        days = pd.bdate_range("2020-01-01", periods=2)
        daily = pd.DataFrame({"return": 0.0, "cost": 0.0, "benchmark": 0.01}, index=days)
        assert first_day(daily, "close", 243).endswith("counts, +1.00%")


class TestRules:
    def test_they_are_told_and_traded_by(self, scored: Any, workplace: Any, read: Any) -> None:
        made = record(scored, workplace, backtest={"exchange_kwargs": {"rules": "cn", "commission": 0.0003}})
        assert made.exchange_kwargs == {"deal_price": "close", "rules": "cn", "commission": 0.0003}
        made.generate()
        setup = json.loads(Path(scored.download_artifact("backtest/setup.json")).read_text())
        assert setup["rules"]["name"] == "cn"
        duty = [row["says"] for row in setup["rules"]["in_force"] if row["rule"] == "stamp duty"]
        assert duty == ["0% of a purchase, 0.1% of a sale"]
        assert any("no side data `status`" in note for note in setup["notes"])
        orders = read("backtest/orders.parquet")
        traded = orders[orders["filled"] > 0]
        levy = np.where(traded["direction"] == "sell", 0.00102, 0.00002)
        due = np.maximum(0.0003 * traded["value"], 5) + levy * traded["value"]
        np.testing.assert_allclose(traded["cost"], due)
        assert len(traded) > 100

    def test_without_any_the_costs_are_qlibs(self, workplace: Any) -> None:
        assert record(None, workplace).exchange_kwargs == dict(EXCHANGE)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"rules": "ch"}, r"`rules` must be one of cn, us, or a YAML file; found 'ch'"),
            ({"commission": 0.0003}, "`commission` takes the place of that of a table of rules"),
            ({"rules": "cn", "comission": 0.0003}, r"no place for `comission` \(did you mean commission"),
        ],
    )
    def test_wrong_ones_show_before_the_training(
        self, workplace: Any, given: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            record(None, workplace, backtest={"exchange_kwargs": given})


class TestTargetWeights:
    STRATEGY: ClassVar[dict[str, Any]] = {
        "class": "qlib_ext.strategy.target_weights.TargetWeights",
        "kwargs": {
            "portfolio": {
                "optimiser": {"class": "qlib_ext.portfolio.optimisers.top_k.TopK", "kwargs": {"k": 5}},
                "risk_model": {
                    "class": "qlib_ext.portfolio.risk_models.covariance.Covariance",
                    "kwargs": {
                        "estimator": {"class": "skfolio.moments.LedoitWolf"},
                        "window": 40,
                        "min_days": 20,
                    },
                },
                "invested": 0.9,
            }
        },
    }

    def test_what_it_decides_is_written_and_traded(
        self, scored: Any, workplace: Any, read: Any, files: Any
    ) -> None:
        record(scored, workplace, strategy=self.STRATEGY).generate()
        made = {path for path in files() if path.startswith("portfolio_decisions/")}
        assert made == {*BacktestRecord.may_make}
        days, stocks = read("portfolio_decisions/days.parquet"), read("portfolio_decisions/stocks.parquet")
        assert len(days) == len(days.index.to_period("W").unique())  # weekly
        assert days["invested"].to_numpy() == pytest.approx(0.9)
        targets = stocks["weight"].groupby("datetime").sum()
        assert targets.to_numpy() == pytest.approx(0.9)
        held = read("backtest/positions.parquet")["weight"].loc[days.index[0]]
        assert held.sum() == pytest.approx(0.9, abs=0.01)

    @pytest.mark.parametrize(
        ("band", "kwargs", "said"),
        [
            (
                "industry_band.IndustryBand",
                {"width": 0.02},
                "needs the side data `industry`, found none in the store",
            ),
            (
                "style_bands.StyleBands",
                {"bands": {"sise": [-0.1, 0.1]}},
                r"factors of the risk model or styles, beta, .*; found 'sise' \(did you mean size\?\)",
            ),
        ],
    )
    def test_what_cannot_be_had_shows_before_the_training(
        self, scored: Any, workplace: Any, band: str, kwargs: dict[str, Any], said: str
    ) -> None:
        constraint = {"class": f"qlib_ext.portfolio.constraints.{band}", "kwargs": kwargs}
        portfolio = {**self.STRATEGY["kwargs"]["portfolio"], "constraints": [constraint]}
        asking = record(scored, workplace, strategy={**self.STRATEGY, "kwargs": {"portfolio": portfolio}})
        spec = SimpleNamespace(
            store=QlibStore("store"), benchmark="SH000300", require_segment=print, require_field=print
        )
        with pytest.raises(UserError, match=said):
            asking.check_before(cast(DatasetSpec, spec))
