"""What a backtest traded: what filled and what did not, how long stocks were held, how large orders were."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from qlib.config import C

from qlib_ext.checks import UserError, above, between, brief, one_of
from qlib_ext.market.store import QlibStore
from qlib_ext.market.traded_value import VOLUMES, value_in_currency
from qlib_ext.metrics.capacity import capacity, participation, share_above
from qlib_ext.metrics.spells import spells
from qlib_ext.records.base import Record

FILLED = "filled"
# Edges of the groups of orders by their share of the traded amount.
GROUPS = (0.0, 0.0001, 0.001, 0.01, 0.05, 0.10, np.inf)
# Accounts of the curve, in currency: from a million to 300 billions in steps of about three.
ACCOUNTS = tuple(lead * 10.0**power for power in range(6, 12) for lead in (1, 3))


class TradesRecord(Record):
    """Count the orders of the backtest, measure holding times, and set each order beside the market's own trading.

    Writes under `trades/`:

    - `reasons.csv`: by direction and by what became of the orders (`filled`, or the reason why not in full), how many,
      how many of them filled in part, how many the strategy held back, and their wanted and filled value.
    - `monthly.csv`: by month, orders that filled, filled in part and did not.
    - `holdings.csv`: each holding of a stock without a break: first and last day, trading days held, whether it was
      sold before the end.
    - `participation.csv`: how many orders and how much value lie in which group of shares of the money that
      their stock was traded for that day (the traded amount).
    - `capacity.csv`: the account beyond which 1, 5 and 10% of the orders' value would be more than 5 and 10% of what the
      stock is traded for.
    - `capacity_curve.csv`: for accounts of several sizes, the share of the orders' value above each limit.
    - `summary.json`: totals, and how the traded amount is known, or why not; the last four are left out then.

    Logs `trades/orders`, `trades/fill_rate` (filled over wanted value), `trades/holding_days` (mean of the finished
    holdings) and `trades/participation` (mean share of the traded amount, weighted by value).

    Parameters
    ----------
    recorder
        Given by Qlib.
    volume
        Whether the store's volumes are `raw` or `adjusted` shares (raw / factor); `auto` reads it off them.
    volume_unit
        Shares in one unit of the store's volume, such as 100 for lots. By default read off the store's `amount`; a store
        without one is taken to count shares, and the report says so.
    limits
        Shares of the traded amount beyond which an order counts as large, each in (0, 1].
    shares
        Shares of the orders' value that may be larger, each in [0, 1).

    Raises
    ------
    UserError
        If an argument lies outside its range.

    Notes
    -----
    An order is taken to keep its share of the account: in an account ten times as large every order is ten times as
    large. The price is not taken to move with it; that is what the limits stand for.
    """

    needs = (
        "backtest/orders.parquet",
        "backtest/daily.parquet",
        "backtest/positions.parquet",
        "backtest/setup.json",
    )
    makes = ("trades/reasons.csv", "trades/monthly.csv", "trades/holdings.csv", "trades/summary.json")
    may_make = (
        "trades/participation.csv",
        "trades/capacity.csv",
        "trades/capacity_curve.csv",
    )

    def __init__(
        self,
        recorder: Any,
        volume: str = "auto",
        volume_unit: float | None = None,
        limits: Sequence[float] = (0.05, 0.10),
        shares: Sequence[float] = (0.01, 0.05, 0.10),
    ):
        super().__init__(recorder)
        self.volume = one_of("volume", volume, VOLUMES)
        self.volume_unit = None if volume_unit is None else float(above("volume_unit", volume_unit, 0))
        for name, given in (("limits", limits), ("shares", shares)):
            if not isinstance(given, (list, tuple)) or not given:
                raise UserError(f"`{name}` must be a list of shares, found {brief(given)}")
        self.limits = sorted(
            {between(f"limits[{k}]", limit, 0, 1, open_low=True) for k, limit in enumerate(limits)}
        )
        self.shares = sorted(
            {between(f"shares[{k}]", share, 0, 1, open_high=True) for k, share in enumerate(shares)}
        )

    def _generate(self) -> None:
        orders = self.load_table("backtest/orders.parquet")
        daily = self.load_table("backtest/daily.parquet")
        positions = self.load_table("backtest/positions.parquet")
        account = float(self.load_json("backtest/setup.json")["account"])
        holdings = holding_periods(positions, pd.DatetimeIndex(daily.index))
        self.save_csv("trades/reasons.csv", by_reason(orders))
        self.save_csv("trades/monthly.csv", by_month(orders))
        self.save_csv("trades/holdings.csv", holdings)
        summary = totals(orders, holdings, len(daily))
        logged = {name: summary[name] for name in ("orders", "fill_rate", "holding_days")}
        known, told = self._money(orders)
        summary["traded_amount"] = told
        if known is not None:
            sized = beside_market(orders, known, daily["account"].shift(fill_value=account))
            self.save_csv("trades/participation.csv", in_groups(sized))
            self.save_csv("trades/capacity.csv", self._capacity(sized))
            self.save_csv("trades/capacity_curve.csv", self._curve(sized))
            there = sized["share"].notna()
            told["orders_without"] = int((~there).sum())
            weighted = (
                np.average(sized["share"][there], weights=sized["value"][there]) if there.any() else np.nan
            )
            summary["participation"] = logged["participation"] = float(weighted)
        self.save_json("trades/summary.json", summary)
        self.log_metrics({f"trades/{name}": value for name, value in logged.items() if np.isfinite(value)})

    def _money(self, orders: pd.DataFrame) -> tuple[pd.Series | None, dict[str, Any]]:
        """What the stock of each order was traded for on its day, and how that is known."""
        if not (orders["filled"] > 0).any():
            return None, {"known": False, "said": "no order filled"}
        store = QlibStore(Path(C.dpm.get_data_uri("day")))
        codes = sorted(orders.index.get_level_values("instrument").unique())
        try:
            found = value_in_currency(store, codes, self.volume, self.volume_unit)
        except UserError as error:  # a store without volumes is a store like any other; the report says so
            return None, {"known": False, "said": str(error)}
        table = pd.DataFrame(found.value, index=store.calendar, columns=codes)
        days = table.index.get_indexer(orders.index.get_level_values("datetime"))
        columns = table.columns.get_indexer(orders.index.get_level_values("instrument"))
        money = pd.Series(table.to_numpy()[days, columns], index=orders.index)
        return money, {"known": True, "sure": found.sure, "formula": found.formula, "said": found.said}

    def _capacity(self, sized: pd.DataFrame) -> pd.DataFrame:
        weight, traded = sized["weight"].to_numpy(), sized["traded_amount"].to_numpy()
        rows = [
            (limit, share, capacity(weight, traded, limit, share))
            for limit in self.limits
            for share in self.shares
        ]
        return pd.DataFrame(rows, columns=["limit", "share", "account"]).set_index("limit")

    def _curve(self, sized: pd.DataFrame) -> pd.DataFrame:
        weight, traded = sized["weight"].to_numpy(), sized["traded_amount"].to_numpy()
        curves = {f"{limit:g}": share_above(weight, traded, limit, ACCOUNTS) for limit in self.limits}
        return pd.DataFrame(curves, index=pd.Index(ACCOUNTS, name="account"))


def by_reason(orders: pd.DataFrame) -> pd.DataFrame:
    """Orders by direction and by what became of them, those that filled first, then the most frequent.

    Index: `direction`. Columns: `outcome` (`filled` or the reason), `orders`, `partly` (of them), `held_back` (of
    them), `wanted_value`, `value`.
    """
    outcome = orders["reason"].fillna(FILLED)
    table = (
        orders.assign(
            outcome=outcome,
            orders=1,
            partly=(orders["status"] == "partly").astype(int),
            held_back=(~orders["sent"]).astype(int),
        )
        .groupby(["direction", "outcome"])[["orders", "partly", "held_back", "wanted_value", "value"]]
        .sum()
        .reset_index()
    )
    table["later"] = table["outcome"] != FILLED
    table = table.sort_values(["direction", "later", "orders"], ascending=[True, True, False], kind="stable")
    return table.drop(columns="later").set_index("direction")


def by_month(orders: pd.DataFrame) -> pd.DataFrame:
    """Numbers of orders by month and status, months without any left out."""
    month = orders.index.get_level_values("datetime").strftime("%Y-%m")
    counts = orders.groupby([month, orders["status"].to_numpy()]).size().unstack(fill_value=0)
    return counts.reindex(columns=["filled", "partly", "not filled"], fill_value=0).rename_axis(
        index="month", columns=None
    )


def holding_periods(positions: pd.DataFrame, days: pd.DatetimeIndex) -> pd.DataFrame:
    """Each holding of a stock without a break, by its first day.

    Index: `instrument`. Columns: `first` and `last` day at whose close it was held, `days_held`, `finished` (False
    where it was still held on the last day), `value` (on the last day).
    """
    value = positions["value"] if "value" in positions else positions["amount"] * positions["price"]
    wide = value.unstack("instrument").reindex(days)
    stock, first, after = spells(wide.notna().to_numpy(dtype=bool))
    table = pd.DataFrame(
        {
            "instrument": wide.columns.to_numpy()[stock],
            "first": days[first],
            "last": days[after - 1],
            "days_held": after - first,
            "finished": after < len(days),
            "value": wide.to_numpy()[after - 1, stock],
        }
    )
    return table.sort_values(["first", "instrument"], ignore_index=True).set_index("instrument")


def totals(orders: pd.DataFrame, holdings: pd.DataFrame, days: int) -> dict[str, Any]:
    """Figures of all orders; NaN where there is nothing to divide by."""
    counts = orders["status"].value_counts()
    finished = holdings.loc[holdings["finished"], "days_held"]
    wanted = orders["wanted_value"].sum()
    return {
        "orders": len(orders),
        "filled": int(counts.get("filled", 0)),
        "partly": int(counts.get("partly", 0)),
        "not_filled": int(counts.get("not filled", 0)),
        "held_back": int((~orders["sent"]).sum()),
        "wanted_value": float(wanted),
        "value": float(orders["value"].sum()),
        "cost": float(orders["cost"].sum()),
        "fill_rate": float(orders["value"].sum() / wanted) if wanted > 0 else np.nan,
        "days": days,
        "days_with_orders": int(orders.index.get_level_values("datetime").nunique()),
        "holdings": len(holdings),
        "finished_holdings": len(finished),
        "holding_days": float(finished.mean()) if len(finished) else np.nan,
        "median_holding_days": float(finished.median()) if len(finished) else np.nan,
    }


def beside_market(orders: pd.DataFrame, money: pd.Series, before: pd.Series) -> pd.DataFrame:
    """Orders that filled, beside the money that their stock was traded for and the account of the day before."""
    done = (orders["filled"] > 0).to_numpy()
    table = orders.loc[done, ["direction", "value"]]
    table = table.assign(traded_amount=money.to_numpy()[done])
    table["share"] = participation(table["value"], table["traded_amount"])
    account = before.reindex(table.index.get_level_values("datetime")).to_numpy()
    return table.assign(weight=table["value"].to_numpy() / account)


def in_groups(sized: pd.DataFrame) -> pd.DataFrame:
    """Number and value of the orders by their share of the traded amount, and of those of which it is not known."""
    names = [_group(low, high) for low, high in itertools.pairwise(GROUPS)]
    cut = (
        pd.cut(sized["share"], GROUPS, labels=names, include_lowest=True).astype("object").fillna("not known")
    )
    table = sized.assign(orders=1).groupby(cut)[["orders", "value"]].sum()
    table = table.reindex([*names, "not known"], fill_value=0).rename_axis(index="share")
    return table.assign(share_of_value=table["value"] / max(sized["value"].sum(), np.finfo(float).tiny))


def _group(low: float, high: float) -> str:
    if low == 0:
        return f"up to {100 * high:g}%"
    return f"above {100 * low:g}%" if np.isinf(high) else f"{100 * low:g} to {100 * high:g}%"
