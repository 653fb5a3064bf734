"""The ranked list of a day: scores, and what a person must know of each stock before trading it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from qlib.backtest.decision import OrderDir
from qlib.data import D

from qlib_ext.backtest.rule_based_exchange import RuleBasedExchange
from qlib_ext.backtest.simulation import with_price_limit
from qlib_ext.market.side_data.side_data import SideData
from qlib_ext.market.side_data.table import INDUSTRY
from qlib_ext.market.store import QlibStore
from qlib_ext.recommend.scoring import Scored
from qlib_ext.recommend.trained import TrainedRun
from qlib_ext.records.backtest import completed
from qlib_ext.terminal import quiet_qlib

NAME = "name"  # the table of side data with the firms' names
PRICE_DIGITS = 4  # a store holds prices in single precision
UNIT_DAYS = 60  # trading days whose closes tell the unit of the store's price changes


def daily_list(run: TrainedRun, store: QlibStore, scored: Scored, trained: TrainedRun) -> pd.DataFrame:
    """Rank the scored stocks of a day and say what is known of them.

    Members of the universe without a score come after the others, without a rank: most are suspended that day, and a
    backtest gives them no score either.

    Parameters
    ----------
    run
        Whose backtest says by which price limit stocks trade.
    store
        The market.
    scored
        The day.
    trained
        Whose training it was: the run itself, or the one whose model scores for it.

    Returns
    -------
    DataFrame
        Indexed by `instrument`, in the order of the ranks. `rank` (1 is best; equal scores by code, as the strategies
        rank them), `score`; of a classification task X its class `X_class` and probabilities `X_0` ...; what else the
        model predicts; `name` and `industry` where the store has these side data; `close`, as it was traded (adjusted
        where the store has no `factor`); `suspended`, `limit_up`, `limit_down`, that day and by the price limit of the
        run's backtest; `training_days`, on how many days of the training the stock was seen (missing where the
        store does not reach back to the training), and `new`, that it was on none.
    """
    panel = scored.panel
    day = panel.calendar.get_loc(scored.day)
    members = pd.Index(panel.instruments)[panel.members[day]]
    predicted = scored.predictions
    order = predicted["score"].dropna().sort_index().sort_values(ascending=False, kind="stable").index
    silent = members.difference(order)
    table = pd.DataFrame(index=pd.Index([*order, *silent], name="instrument", dtype=object))
    table["rank"] = pd.Series(range(1, len(order) + 1), index=order, dtype="Int64")
    table["score"] = predicted["score"]
    for task, classes in class_columns(predicted.columns).items():
        table[f"{task}_class"] = pd.Series(
            predicted[classes].to_numpy().argmax(axis=1), index=predicted.index, dtype="Int64"
        )
    for column in predicted.columns.drop("score"):
        table[column] = predicted[column]
    side = SideData(store)
    for name in (NAME, INDUSTRY):
        if name in side:
            table[name] = as_of_day(side, name, scored.day).reindex(table.index)
    codes = [*table.index]
    with quiet_qlib():
        flags = limits(run, codes, store, scored.day)
    closes = store.read(["close", "factor"], codes)[:, : day + 1].astype(np.float64)
    close, factor = closes[0, -1], closes[1, -1]
    traded = np.where(np.isfinite(factor) & (factor > 0), close / factor, close)
    table["close"] = traded.round(PRICE_DIGITS)
    table = table.join(flags)
    begin_end = trained.segment("train")
    seen = pd.Series(pd.NA, index=table.index, dtype="Int64")
    if begin_end is not None:
        training = (panel.calendar >= begin_end[0]) & (panel.calendar <= begin_end[1])
        if training.any():
            days = pd.Series(panel.present[training].sum(axis=0), index=pd.Index(panel.instruments))
            seen = days.reindex(table.index).astype("Int64")
    table["training_days"] = seen
    table["new"] = (seen == 0).fillna(False).astype(bool)
    return table


def class_columns(columns: Sequence[str] | pd.Index) -> dict[str, list[str]]:
    """Classification tasks by name, each with the columns of its probabilities in order: X -> X_0, X_1, ..."""
    tasks: dict[str, list[str]] = {}
    for column in columns:
        task, mark, number = str(column).rpartition("_")
        if mark and number.isdigit() and int(number) == len(tasks.get(task, [])):
            tasks.setdefault(task, []).append(str(column))
    return {task: found for task, found in tasks.items() if len(found) > 1}


def as_of_day(side: SideData, name: str, day: pd.Timestamp) -> pd.Series:
    """What each stock of a table of spells belongs to on a day, by instrument; several at once are joined by `; `."""
    table = side.read(name, "spells")
    frame = table.frame
    now = frame[(frame["start"] <= day) & (frame["end"].isna() | (day <= frame["end"]))]
    values = now.groupby(now["instrument"].astype(str), observed=True)[table.column]
    return values.agg(lambda found: "; ".join(dict.fromkeys(map(str, found))))


def backtest_settings(run: TrainedRun) -> dict[str, Any] | None:
    """Arguments of the first record of the run that trades with a strategy; None where it has none."""
    records = run.config.get("record", [])
    for record in [records] if isinstance(records, Mapping) else records:
        kwargs = record.get("kwargs") or {}
        if "strategy" in kwargs:
            return dict(kwargs)
    return None


def exchange_settings(run: TrainedRun) -> dict[str, Any]:
    """What the run's backtest gave its exchange, the package's defaults filled in."""
    kwargs = backtest_settings(run) or {}
    return completed((kwargs.get("backtest") or {}).get("exchange_kwargs") or {})


def exchange_of_day(
    run: TrainedRun, codes: list[str], store: QlibStore, day: pd.Timestamp
) -> RuleBasedExchange:
    """The exchange of the run's backtest on one day of the store."""
    calendar = store.calendar
    begin = calendar[max(0, calendar.get_loc(day) - UNIT_DAYS)]
    kwargs, _ = with_price_limit(exchange_settings(run), codes, begin, day)
    return RuleBasedExchange(freq="day", start_time=day, end_time=day, codes=codes, **kwargs)


def limits(run: TrainedRun, codes: list[str], store: QlibStore, day: pd.Timestamp) -> pd.DataFrame:
    """Which stocks were `suspended`, at `limit_up` or at `limit_down` on a day, as the run's exchange sees it."""
    exchange = exchange_of_day(run, codes, store, day)
    volume = D.features(codes, ["$close", "$volume"], day, day)
    volume.columns = ["close", "volume"]
    volume = volume.droplevel("datetime").reindex(codes)
    untraded = ~(volume["volume"] > 0) if exchange.has_volumes else False
    suspended = (volume["close"].isna() | untraded).to_numpy()
    known = set(exchange.quote.get_all_stock())

    def at(direction: OrderDir) -> np.ndarray:
        flags = [
            code in known and bool(exchange.check_stock_limit(code, day, day, direction)) for code in codes
        ]
        return np.array(flags, dtype=bool)

    return pd.DataFrame(
        {
            "suspended": suspended,
            "limit_up": at(OrderDir.BUY) & ~suspended,
            "limit_down": at(OrderDir.SELL) & ~suspended,
        },
        index=pd.Index(codes, name="instrument"),
    )
