from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.records.backtest import BacktestRecord
from qlib_ext.records.signal import SignalRecord
from qlib_ext.records.trades import (
    TradesRecord,
    beside_market,
    by_month,
    by_reason,
    holding_periods,
    in_groups,
    totals,
)

STRATEGY = {"class": "qlib_ext.strategy.topk_dropout.TopkDropout", "kwargs": {"topk": 8, "n_drop": 2}}


@pytest.fixture
def traded(run: Any, workplace: Any, model: Any) -> Any:
    SignalRecord(recorder=run, model=model, dataset=workplace).generate()
    BacktestRecord(recorder=run, strategy=STRATEGY, backtest={"account": 1e7}).generate()
    return run


def summary(run: Any) -> dict[str, Any]:
    return json.loads(Path(run.download_artifact("trades/summary.json")).read_text())


class TestRecord:
    def test_it_adds_up_to_the_orders(self, traded: Any, files: Any, read: Any) -> None:
        before = files()
        made = TradesRecord(traded)
        made.generate()
        assert files() - before == {*made.list(), *made.may_make}
        orders, told = read("backtest/orders.parquet"), summary(traded)
        reasons, monthly = read("trades/reasons.csv"), read("trades/monthly.csv")
        assert told["orders"] == len(orders) == reasons["orders"].sum() == monthly.to_numpy().sum()
        assert told["filled"] + told["partly"] + told["not_filled"] == told["orders"]
        assert told["value"] == pytest.approx(orders["value"].sum()) == pytest.approx(reasons["value"].sum())
        groups = read("trades/participation.csv")
        assert groups["orders"].sum() == (orders["filled"] > 0).sum()
        assert groups["share_of_value"].sum() == pytest.approx(1)
        metrics = traded.list_metrics()
        assert metrics["trades/orders"] == len(orders)
        assert metrics["trades/holding_days"] == pytest.approx(told["holding_days"])

    def test_orders_are_set_beside_the_market(self, traded: Any, read: Any) -> None:
        made = TradesRecord(traded, volume_unit=1)
        made.generate()
        from qlib.data import D

        orders, daily = read("backtest/orders.parquet"), read("backtest/daily.parquet")
        known, _ = made._money(orders)
        sized = beside_market(orders, known, daily["account"].shift(fill_value=1e7))
        money = D.features([f"SH6{n:05d}" for n in range(40)], ["$close*$volume"]).iloc[:, 0]
        expected = money.loc[sized.index.swaplevel()].to_numpy()
        np.testing.assert_allclose(sized["traded_amount"], expected, rtol=1e-6)
        np.testing.assert_allclose(sized["share"], sized["value"] / expected, rtol=1e-6)
        before = daily["account"].shift(fill_value=1e7)
        by_day = sized.groupby("datetime")["weight"].sum().reindex(daily.index, fill_value=0.0)
        np.testing.assert_allclose(by_day, daily["turnover"], rtol=1e-9)
        by_hand = sized["value"] / before.reindex(sized.index.get_level_values("datetime")).to_numpy()
        np.testing.assert_allclose(sized["weight"], by_hand)
        assert summary(traded)["traded_amount"]["sure"]

    def test_lots_make_the_market_a_hundred_times_as_large(self, traded: Any, read: Any) -> None:
        TradesRecord(traded).generate()
        assert not summary(traded)["traded_amount"]["sure"]
        capacity = read("trades/capacity.csv")["account"]
        TradesRecord(traded, volume_unit=100).generate()
        np.testing.assert_allclose(read("trades/capacity.csv")["account"], 100 * capacity)

    def test_a_store_that_cannot_tell(self, traded: Any, files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from qlib_ext.market.store import QlibStore

        reading = QlibStore.read

        def without_volume(self: QlibStore, fields: Any, *args: Any) -> np.ndarray:
            found = reading(self, fields, *args)
            found[[name == "volume" for name in fields]] = np.nan
            return found

        monkeypatch.setattr(QlibStore, "read", without_volume)
        TradesRecord(traded).generate()
        told = summary(traded)["traded_amount"]
        assert not told["known"]
        assert "no `amount` of these stocks" in told["said"]
        assert "trades/capacity.csv" not in files()

    def test_without_a_single_order(self, run: Any, workplace: Any, model: Any, files: Any) -> None:
        SignalRecord(recorder=run, model=model, dataset=workplace).generate()
        nothing = {"account": 10.0}  # no lot costs as little
        BacktestRecord(recorder=run, strategy=STRATEGY, backtest=nothing).generate()
        orders = Path(run.download_artifact("backtest/orders.parquet"))
        pd.read_parquet(orders).iloc[:0].to_parquet(orders)
        run.log_artifact(str(orders), "backtest")
        TradesRecord(run).generate()
        assert summary(run)["orders"] == 0
        assert summary(run)["fill_rate"] is None
        assert not summary(run)["traded_amount"]["known"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"volume": "shares"}, "`volume` must be one of"),
            ({"volume_unit": -1}, "`volume_unit` must be above 0, found -1"),
            ({"limits": []}, r"`limits` must be a list of shares, found \[\]"),
            ({"limits": [0.05, 0]}, r"`limits\[1\]` must lie in \(0, 1\], found 0"),
            ({"shares": [1]}, r"`shares\[0\]` must lie in \[0, 1\), found 1"),
        ],
    )
    def test_wrong_arguments(self, workplace: Any, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            TradesRecord(None, **arguments)


def orders(*rows: tuple[Any, ...]) -> pd.DataFrame:
    names = [
        "datetime",
        "instrument",
        "direction",
        "sent",
        "status",
        "reason",
        "wanted_value",
        "value",
        "cost",
    ]
    table = pd.DataFrame(rows, columns=names)
    table["datetime"] = pd.to_datetime(table["datetime"])
    return table.set_index(["datetime", "instrument"])


class TestTables:
    known = orders(
        ("2020-01-02", "A", "buy", True, "filled", None, 100.0, 95.0, 1.0),
        ("2020-01-03", "B", "buy", True, "partly", "no cash", 100.0, 40.0, 1.0),
        ("2020-02-03", "A", "sell", False, "not filled", "price limit down", 90.0, 0.0, 0.0),
        ("2020-02-04", "A", "sell", False, "not filled", "price limit down", 80.0, 0.0, 0.0),
    )

    def test_reasons(self) -> None:
        table = by_reason(self.known).reset_index()
        assert [*table["outcome"]] == ["filled", "no cash", "price limit down"]
        assert [*table["direction"]] == ["buy", "buy", "sell"]
        assert [*table["orders"]] == [1, 1, 2]
        assert [*table["partly"]] == [0, 1, 0]
        assert [*table["held_back"]] == [0, 0, 2]
        assert [*table["wanted_value"]] == [100, 100, 170]

    def test_months(self) -> None:
        table = by_month(self.known)
        assert table.loc["2020-01"].to_dict() == {"filled": 1, "partly": 1, "not filled": 0}
        assert table.loc["2020-02"].to_dict() == {"filled": 0, "partly": 0, "not filled": 2}

    def test_holdings(self) -> None:
        days = pd.bdate_range("2020-01-01", periods=5, name="datetime")
        rows = [(0, "A"), (1, "A"), (3, "A"), (4, "A"), (2, "B")]
        index = pd.MultiIndex.from_tuples(
            [(days[k], code) for k, code in rows], names=["datetime", "instrument"]
        )
        positions = pd.DataFrame({"amount": 1.0, "price": [1.0, 2.0, 3.0, 4.0, 5.0]}, index=index)
        table = holding_periods(positions, days).reset_index()
        assert [*table["instrument"]] == ["A", "B", "A"]
        assert [*table["days_held"]] == [2, 1, 2]
        assert [*table["finished"]] == [True, True, False]
        assert [*table["value"]] == [2, 5, 4]
        told = totals(self.known, table.set_index("instrument"), 5)
        assert (told["holding_days"], told["finished_holdings"], told["fill_rate"]) == (1.5, 2, 135 / 370)

    def test_groups(self) -> None:
        shares = pd.DataFrame({"share": [0.0001, 0.0005, 0.2, np.nan], "value": [1.0, 1.0, 2.0, 4.0]})
        table = in_groups(shares)
        assert table.index[0] == "up to 0.01%"
        assert table["orders"].to_dict() == {
            "up to 0.01%": 1,
            "0.01 to 0.1%": 1,
            "0.1 to 1%": 0,
            "1 to 5%": 0,
            "5 to 10%": 0,
            "above 10%": 1,
            "not known": 1,
        }
        assert table.loc["above 10%", "share_of_value"] == 0.25
