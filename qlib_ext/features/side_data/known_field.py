"""One number of side data as it was known at the close of each day: what `side.NAME.FIELD` reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, brief, nearest
from qlib_ext.features.engine.rolling import Plane
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.macro import releases
from qlib_ext.market.side_data.side_data import SideData
from qlib_ext.market.store import StoreError

EACH = 20  # of so many days one is looked at to say how much is known


@dataclass(frozen=True)
class KnownField:
    """The newest number of each stock by each day, held as the rows of its table.

    Attributes
    ----------
    keys
        Of M rows, ascending: position of the stock times `width`, plus the row's day.
    values
        float32 `[M]`.
    days
        The D days of the market, counted from the first that a row or the market has.
    width
        More than the last of `days`.
    everyone
        Whether a row is of the whole market; its stock is 0 then.
    newest
        The last day with a row.
    """

    keys: np.ndarray
    values: np.ndarray
    days: np.ndarray
    width: int
    everyone: bool
    newest: pd.Timestamp

    @classmethod
    def read(cls, side: SideData, name: str, field: str, market: MarketPanel) -> KnownField:
        """The rows of a field that are of a stock of the market and known by its last day.

        Raises
        ------
        SideDataError
            If there is no such table, it has no numbers, or a fault.
        UserError
            If the table has no such field.
        StoreError
            If no row is known of any stock of the market.
        """
        check_field(side, name, field)
        table = side.read(name)
        frame = table.frame
        stock = np.zeros(len(frame), np.int64)
        if table.shape == "series":
            released, figures, newest = releases(name, frame[frame["series"] == field], "level")
            told = (
                np.diff(newest, prepend=newest[0] - 1) != 0
            )  # a revision of an older period says nothing new
            stamps, numbers, stock = released[told], figures[told], np.zeros(int(told.sum()), np.int64)
        else:
            numbers = frame[field].to_numpy()
            stamps = frame["datetime"].to_numpy().astype("M8[D]").astype(np.int64)
            if table.shape == "values":
                codes = frame["instrument"].astype("category").cat
                stock = pd.Index(market.instruments).get_indexer(codes.categories)[codes.codes.to_numpy()]
        today = market.calendar.to_numpy().astype("M8[D]").astype(np.int64)
        used = (stock >= 0) & (stamps <= today[-1]) & ~np.isnan(numbers)
        if not used.any():
            raise StoreError(
                f"`side.{name}.{field}` of `{side.root}` has no number of any of the {len(market.instruments)} stocks by "
                f"{market.calendar[-1]:%Y-%m-%d}: `qlib-ext data check` says more"
            )
        stock, stamps, numbers = stock[used], stamps[used], numbers[used]
        first = min(int(stamps.min()), int(today[0]))
        width = int(today[-1]) - first + 1
        small = len(market.instruments) * width < 2**31
        keys = (stock * width + stamps - first).astype(np.int32 if small else np.int64)
        order = np.argsort(keys, kind="stable")
        last = pd.Timestamp(int(stamps.max()), unit="D")
        values = numbers.astype(np.float32)
        return cls(keys[order], values[order], today - first, width, table.shape != "values", last)

    def at(self, days: slice, stocks: Plane) -> tuple[Plane, Plane]:
        """What was known of some stocks at the close of some days, and how many calendar days before it became so.

        Parameters
        ----------
        days, stocks
            Positions in the market.

        Returns
        -------
        values, age
            float32 `[days, stocks]`, NaN where nothing was known yet. A row dated a day without trading is known at the
            next close.
        """
        of = np.arange(1) if self.everyone else stocks
        begin = of[:, None] * self.width
        wanted = (begin + self.days[days]).astype(self.keys.dtype)  # ascending
        last = self.keys.searchsorted(wanted, side="right") - 1
        key = self.keys[np.maximum(last, 0)]
        known = (last >= 0) & (key >= begin)
        nan = np.float32(np.nan)
        values = np.where(known, self.values[last], nan).T
        age = np.where(known, (wanted - key).astype(np.float32), nan).T
        if self.everyone:
            shape = len(values), len(stocks)
            return np.broadcast_to(values, shape), np.broadcast_to(age, shape)
        return values, age

    def coverage(self, market: MarketPanel) -> float:
        """About for what share of a market's stocks and days something was known."""
        days = slice(EACH - 1, None, EACH) if len(market.calendar) >= EACH else slice(None)
        values, _ = self.at(days, np.arange(len(market.instruments)))
        return float(np.mean(~np.isnan(values[market.present[days]])))


def check_field(side: SideData, name: str, field: str) -> None:
    """Raise a UserError if a store has no such number, which names those that it has."""
    known = side.fields(name)
    if field not in known:
        raise UserError(
            f"`side.{name}.{field}`: the side data {brief(name)} of `{side.root}` have no {field}"
            f"{nearest(field, known)}, they have {', '.join(known)}"
        )
