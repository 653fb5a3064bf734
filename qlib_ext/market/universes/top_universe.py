"""Universes that are chosen: the N stocks with the highest traded value or market value, from what was known."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, between, brief, integer, one_of
from qlib_ext.market.codes import code_in_store
from qlib_ext.market.side_data.side_data import SideData
from qlib_ext.market.spells import spells_of
from qlib_ext.market.store import QlibStore, StoreError
from qlib_ext.market.traded_value import VOLUMES, TradedValue
from qlib_ext.market.universes.reviews import after_fridays, mean_of_days
from qlib_ext.market.universes.universes import COMMAND, Universe, check_name

MEASURES = ("amount", "market_value")
# Indices of the mainland exchanges; a bar of one looks like that of a stock.
_INDEX_CODES = ("SH000", "SZ399")
REVIEW_MONTHS = (6, 12)
CARRIED_DAYS = 31  # calendar days that a market value counts, so that one a month will do


@dataclass(frozen=True)
class TopUniverse:
    """The N stocks with the highest mean traded value or market value, picked anew at each review.

    A review on day t sees the days up to t - `delay_days`, and of these the last `window_days`. It ranks the stocks
    of the choice by

        sum of the traded value over the window / days since the first bar that lie in the window

    (a suspended day counts as 0: a stock that is rarely traded is not liquid), or by the mean of the market values
    in the window. Ties go to the lower code. The choice are the members of `of` on day t (who is a member of an index is published before
    it takes effect), of `exchange`, or every code with bars; without `exclude`, without stocks that have closes on
    fewer than `min_history_days` of the days seen, and without those that have had none for the last
    `absent_days` of them, which are taken for delisted.

    The first review is the first day on which that history is there. From one review to the next a member stays,
    unless it leaves `of` or is taken for delisted; with `refill` the next in the ranking of that review that is still in the choice takes its
    place the same day.

    Parameters
    ----------
    name
        Of the universe.
    top
        N, the nominal size.
    by
        `amount` (the field, or computed: see `qlib_ext.market.traded_value`) or `market_value` (side data).
    of
        Universe whose members are chosen from.
    exchange
        First letters of the codes to choose from, such as SH.
    exclude
        Codes that are no stocks, such as indices.
    window_days, min_history_days, delay_days, absent_days
        Trading days, as above.
    on
        Days of the reviews; one that is no trading day moves to the next one.
    every_months
        Months from one review to the next, instead of `on`.
    review_months
        Months of a review, instead of `on`: on the first trading day after the second Friday, as index providers
        do. The default: 6 and 12, if neither `on` nor `every_months` is given.
    buffer
        Share of N: at a review the best (1 - buffer) N are in, then the members among the best (1 + buffer) N,
        then the others by rank.
    refill
        Whether a member that leaves between reviews is replaced.
    volume
        Of a store without `amount`: `raw` or `adjusted` shares; `auto`: read off them.

    Raises
    ------
    UserError
        If an argument is out of its range, or reviews are given in more than one way.
    """

    name: str
    top: int
    by: str = "amount"
    of: str | None = None
    exchange: str | None = None
    exclude: Sequence[str] = field(default=())
    window_days: int = 240
    min_history_days: int = 60
    delay_days: int = 1
    absent_days: int = 60
    on: Sequence[Any] = field(default=())
    every_months: int | None = None
    review_months: Sequence[int] = field(default=())
    buffer: float = 0.0
    refill: bool = False
    volume: str = "auto"

    def __post_init__(self) -> None:
        check_name(self.name)
        integer("top", self.top, 1)
        one_of("by", self.by, MEASURES)
        integer("min_history_days", self.min_history_days, 1)
        integer("window_days", self.window_days, 1)
        integer("delay_days", self.delay_days, 1)
        integer("absent_days", self.absent_days, 1)
        between("buffer", self.buffer, 0, 1, open_high=True)
        one_of("volume", self.volume, VOLUMES)
        if sum(map(bool, (self.on, self.every_months is not None, self.review_months))) > 1:
            raise UserError("`on`, `every_months` and `review_months` exclude each other: give one of them")
        if self.every_months is not None:
            integer("every_months", self.every_months, 1)
        for month in self.review_months:
            between("review_months", integer("review_months", month), 1, 12)
        if self.of == self.name:
            raise UserError(
                f"`of` must be another universe than the one that is made, found {brief(self.of)}"
            )
        object.__setattr__(self, "exclude", tuple(code.upper() for code in self.exclude))
        object.__setattr__(self, "on", tuple(sorted({_day(day) for day in self.on})))
        object.__setattr__(self, "review_months", tuple(sorted({*self.review_months})))

    def choose(self, store: QlibStore) -> Universe:
        """Choose the members from the bars and side data of a store.

        Raises
        ------
        StoreError
            If the store lacks `of`, the stocks to choose from, or what they are ranked by.
        UserError
            If `exclude` names a code that is not there, no review is possible, or see `TradedValue`.
        """
        calendar = store.calendar
        codes, parent = self._choice(store)
        close = store.read(["close"], codes)[0]
        first_review = self.min_history_days - 1 + self.delay_days
        if first_review >= len(calendar):
            raise UserError(
                f"a review needs {first_review + 1} days (`min_history_days` and `delay_days`), the store has "
                f"{len(calendar)}"
            )
        reviews, notes = self._reviews(calendar, first_review)
        value, formula = self._measure(store, codes, close)
        members, table, short = self._members(calendar, close, parent, reviews, value)
        if not members.any():
            raise StoreError(
                f"no stock has closes on {self.min_history_days} days before any review: lower `min_history_days`"
            )
        if short:
            notes.append(
                f"{len(short)} of {len(reviews)} reviews found fewer than {self.top} stocks, the first on "
                f"{calendar[short[0]]:%Y-%m-%d}"
            )
        indices = sorted(
            {code for code in np.array(codes)[members.any(axis=0)] if code.startswith(_INDEX_CODES)}
        )
        if indices:
            notes.append(
                f"{len(indices)} of the members look like indices, no stocks: leave them out with "
                f"--exclude {','.join(indices)}"
            )
        return Universe(
            name=self.name,
            spells=spells_of(calendar, codes, members),
            size=self.top,
            rule=self._rule(formula()),
            command=self.command(),
            notes=tuple(notes),
            reviews=table,
        )

    def command(self) -> str:
        """The command that makes it again in the store DIR."""
        words: list[object] = [*COMMAND, self.name, "--top", self.top, "--by", self.by]
        for option, value in (("--of", self.of), ("--exchange", self.exchange)):
            words += [] if value is None else [option, value]
        words += ["--exclude", ",".join(self.exclude)] if self.exclude else []
        for option in ("window_days", "min_history_days", "delay_days", "absent_days"):
            words += [f"--{option.replace('_', '-')}", getattr(self, option)]
        words += ["--on", ",".join(f"{day:%Y-%m-%d}" for day in self.on)] if self.on else []
        words += ["--every-months", self.every_months] if self.every_months is not None else []
        words += ["--review-months", ",".join(map(str, self.review_months))] if self.review_months else []
        words += ["--buffer", self.buffer] if self.buffer else []
        words += ["--refill"] if self.refill else []
        words += ["--volume", self.volume] if self.volume != "auto" else []
        return shlex.join(map(str, words))

    # -- what is chosen from ---------------------------------------------------------------------------------

    def _choice(self, store: QlibStore) -> tuple[list[str], np.ndarray]:
        """S codes to choose from, sorted, and whether each may be chosen, bool [D, S]."""
        known = store.instruments()
        exclude = {code_in_store(code, known) for code in self.exclude}
        unknown = sorted(exclude - set(known) - {*self._named(store)})
        if unknown:
            raise UserError(f"`exclude` must name codes of the store, found {', '.join(unknown)}")
        codes = [code for code in known if code not in exclude]
        if self.exchange is not None:
            codes = [code for code in codes if code.startswith(self.exchange.upper())]
        if self.of is None:
            return self._some(store, codes), np.ones((len(store.calendar), len(codes)), dtype=bool)
        named = {*self._named(store)}
        codes = self._some(store, [code for code in codes if code in named])
        return codes, store.member_mask(self.of, codes)

    def _named(self, store: QlibStore) -> pd.Series:
        return store.membership(self.of)["instrument"] if self.of is not None else pd.Series(dtype=object)

    def _some(self, store: QlibStore, codes: list[str]) -> list[str]:
        if not codes:
            of = f" of `{self.of}`" if self.of else ""
            exchange = f" whose codes begin with {self.exchange.upper()}" if self.exchange else ""
            raise StoreError(f"`{store.root}` has no bars of any stock{of}{exchange} to choose from")
        return codes

    def _measure(
        self, store: QlibStore, codes: list[str], close: np.ndarray
    ) -> tuple[Callable[[int], np.ndarray], Callable[[], str]]:
        """A function from the number of days known to what stocks are ranked by, and one that says what it is."""
        if self.by == "market_value":
            values = SideData(store).values("market_value", store.calendar, codes, CARRIED_DAYS)

            def mean_value(after: int) -> np.ndarray:
                return mean_of_days(values[max(0, after - self.window_days) : after])

            return mean_value, lambda: "market value"
        there = ~np.isnan(close)
        first_bar = np.where(there.any(axis=0), there.argmax(axis=0), len(close))
        traded = TradedValue(store, codes, self.volume)

        def mean_amount(after: int) -> np.ndarray:
            first = max(0, after - self.window_days)
            money = traded.between(first, after)
            listed = after - np.maximum(first_bar, first)
            total = np.where(np.isnan(money), 0.0, money).sum(axis=0)
            known = ~np.isnan(money).all(axis=0) & (listed > 0)
            return np.divide(total, listed, out=np.full(len(codes), np.nan), where=known)

        return mean_amount, lambda: f"traded value ({traded.formula})"

    # -- when ------------------------------------------------------------------------------------------------

    def _reviews(self, calendar: pd.DatetimeIndex, first: int) -> tuple[list[int], list[str]]:
        """Days of the reviews as indices of the calendar, ascending, and what was changed of those asked for."""
        if self.on:
            days = calendar.searchsorted(pd.DatetimeIndex(self.on), side="left")
            early, late = int((days < first).sum()), int((days >= len(calendar)).sum())
            notes = []
            if late:
                notes.append(f"{late} of {len(days)} review days lie after the calendar: left out")
            if early:
                notes.append(
                    f"{early} of {len(days)} review days have too little history before them: the first review is "
                    f"on {calendar[first]:%Y-%m-%d}"
                )
            if late == len(days):
                raise UserError(
                    f"`on` must name days up to the last of the store, {calendar[-1]:%Y-%m-%d}, found "
                    f"{self.on[0]:%Y-%m-%d}"
                )
            return sorted({max(int(day), first) for day in days if day < len(calendar)}), notes
        if self.every_months is not None:
            count = 1 + (calendar[-1].to_period("M") - calendar[first].to_period("M")).n // self.every_months
            asked = [calendar[first] + pd.DateOffset(months=self.every_months * k) for k in range(count)]
            days = calendar.searchsorted(pd.DatetimeIndex(asked), side="left")
        else:
            days = after_fridays(calendar, self.review_months or REVIEW_MONTHS, 2)
        return sorted({first, *(int(day) for day in days if first < day < len(calendar))}), []

    # -- who -------------------------------------------------------------------------------------------------

    def _members(
        self,
        calendar: pd.DatetimeIndex,
        close: np.ndarray,
        parent: np.ndarray,
        reviews: list[int],
        value: Callable[[int], np.ndarray],
    ) -> tuple[np.ndarray, pd.DataFrame, list[int]]:
        """Members bool [D, S], what the reviews did, and the days of those that found too few."""
        members = np.zeros(parent.shape, dtype=bool)
        now = np.zeros(parent.shape[1], dtype=bool)
        ranking = np.empty(0, dtype=np.int64)
        since = np.full(parent.shape[1], self.absent_days)  # days known without a close
        history = np.zeros(parent.shape[1], dtype=np.int64)  # days known with one
        seen, rows, short = 0, [], []
        for day in range(reviews[0], len(calendar)):
            after = day - self.delay_days + 1  # the days before this one are known
            for known in range(seen, after):
                there = ~np.isnan(close[known])
                since = np.where(there, 0, since + 1)
                history += there
            seen = after
            may = parent[day] & (since < self.absent_days)
            if day in reviews:
                measured = value(after)
                ranking = _ranking(measured, may & (history >= self.min_history_days) & (measured > 0))
                chosen = self._pick(ranking, now)
                rows.append((calendar[day], chosen.sum(), (chosen & ~now).sum(), (now & ~chosen).sum()))
                now = chosen
                if now.sum() < self.top:
                    short.append(day)
            else:
                now = now & may
                if self.refill and now.sum() < self.top:
                    next_ones = ranking[may[ranking] & ~now[ranking]]
                    now[next_ones[: self.top - now.sum()]] = True
            members[day] = now
        table = pd.DataFrame(rows, columns=["datetime", "size", "joined", "left"]).set_index("datetime")
        return members, table, short

    def _pick(self, ranking: np.ndarray, members: np.ndarray) -> np.ndarray:
        """The members of a review, bool [S], from the stocks in the order of their ranks and the members so far."""
        place = np.arange(1, len(ranking) + 1)
        stays = members[ranking] & (place <= (1 + self.buffer) * self.top)
        turn = np.where(place <= (1 - self.buffer) * self.top, 0, np.where(stays, 1, 2))
        chosen = np.zeros(len(members), dtype=bool)
        chosen[ranking[np.argsort(turn, kind="stable")[: self.top]]] = True
        return chosen

    def _rule(self, formula: str) -> str:
        pool = f" of {self.of}" if self.of else ""
        pool += f" with codes of {self.exchange.upper()}" if self.exchange else ""
        pool += f" without {', '.join(self.exclude)}" if self.exclude else ""
        if self.on:
            when = "on " + ", ".join(f"{day:%Y-%m-%d}" for day in self.on)
        elif self.every_months is not None:
            when = f"every {self.every_months} months"
        else:
            names = [f"{pd.Timestamp(2000, month, 1):%B}" for month in self.review_months or REVIEW_MONTHS]
            when = f"on the first trading day after the second Friday of {' and '.join(names)}"
        buffer = f", with a buffer of {self.buffer:.0%}" if self.buffer else ""
        delay = "1 day" if self.delay_days == 1 else f"{self.delay_days} days"
        fate = "is replaced by the next in rank" if self.refill else "is not replaced"
        return (
            f"the top {self.top} stocks{pool} by mean {formula} over the {self.window_days} days that end {delay} before "
            f"the review, picked {when}{buffer}; stocks with fewer than "
            f"{self.min_history_days} days of history, or without a close for {self.absent_days} days, are left out; "
            f"a member that leaves between reviews {fate}"
        )


def _ranking(measured: np.ndarray, may: np.ndarray) -> np.ndarray:
    """Indices of those who may, highest first; codes are sorted, so a stable order sends ties to the lower one."""
    candidates = np.flatnonzero(may)
    return candidates[np.argsort(-measured[candidates], kind="stable")]


def _day(value: Any) -> pd.Timestamp:
    try:
        day = pd.Timestamp(value)
    except (ValueError, TypeError) as error:
        raise UserError(f"`on` must name days such as 2015-06-15, found {brief(value)}") from error
    if pd.isna(day) or day.tz is not None or day != day.normalize():
        raise UserError(f"`on` must name days such as 2015-06-15, found {brief(value)}")
    return day
