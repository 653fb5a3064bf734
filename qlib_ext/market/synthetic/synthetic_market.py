"""What all synthetic markets share: their arguments, how they are written, and how bars and memberships become tables."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import exchange_calendars
import numpy as np
import pandas as pd

from qlib_ext.checks import LARGEST_SEED, UserError, brief, integer
from qlib_ext.files import read_json
from qlib_ext.market.progress import Progress
from qlib_ext.market.replace import recover, replaced
from qlib_ext.market.spells import spells_of
from qlib_ext.market.store import SAMPLE, QlibStore, StoreError
from qlib_ext.market.synthetic.planted import LOOKBACK_DAYS
from qlib_ext.market.synthetic.simulation import INDUSTRIES, Firms, Market
from qlib_ext.market.universes.reviews import after_fridays, mean_of_days

MINIMUM_STOCKS = 20
MINIMUM_DAYS = 2 * LOOKBACK_DAYS
REVIEW_BUFFER = 0.05  # a member keeps its place down to this share of the size below the line
# A review ranks by the mean market value of about half a year that ends four weeks before it takes effect.
REVIEW_WINDOW_DAYS, REVIEW_DELAY_DAYS = 120, 20


@dataclass(frozen=True)
class SyntheticMarket(ABC):
    """The arguments that make a market; equal arguments make equal bits.

    Parameters
    ----------
    seed
        Of every random draw, at least 0.
    stocks
        Firms over the whole range; some list late and some delist.
    start, end
        First and last calendar day, such as 2010-01-04; at least 120 trading days apart.

    Attributes
    ----------
    VERSION
        Raised whenever equal arguments would give other bits.
    EXCHANGE, PLACE
        Name of the calendar in `exchange_calendars`, and what messages call the place.
    MAXIMUM_STOCKS
        More would find no code.

    Raises
    ------
    UserError
        If an argument is out of range.
    """

    VERSION: ClassVar[int]
    EXCHANGE: ClassVar[str]
    PLACE: ClassVar[str]
    MAXIMUM_STOCKS: ClassVar[int]

    seed: int
    stocks: int
    start: str
    end: str

    def __post_init__(self) -> None:
        integer("seed", self.seed, 0, LARGEST_SEED)
        integer("stocks", self.stocks, MINIMUM_STOCKS)
        if self.stocks > self.MAXIMUM_STOCKS:
            raise UserError(f"`stocks` must be at most {self.MAXIMUM_STOCKS}, found {self.stocks}")
        for name in ("start", "end"):
            object.__setattr__(self, name, self._day(name, getattr(self, name)))
        if len(self.calendar()) < MINIMUM_DAYS:
            raise UserError(
                f"`start` and `end` must be at least {MINIMUM_DAYS} trading days apart, found {len(self.calendar())} "
                f"from {self.start} to {self.end}"
            )

    def calendar(self) -> pd.DatetimeIndex:
        """Trading days of the exchange from start to end."""
        if self.start > self.end:
            raise UserError(f"`start` must not be after `end`, found {self.start} and {self.end}")
        return pd.DatetimeIndex(
            exchange_calendars.get_calendar(self.EXCHANGE, start=self.start, end=self.end).sessions, freq=None
        )

    def write(self, out: str | Path, progress: Progress | None = None) -> tuple[QlibStore, bool]:
        """Write the market to `out`, whole or not at all; the store, and whether it was written or there already.

        A sample market with the same arguments is left as it is; one with others, or of an earlier version, is replaced. 5000
        stocks over 16 years take about a minute, 5 GB of memory and 1 GB of disk.

        Raises
        ------
        UserError
            If `out` is a file, a mount point, or a directory with something else in it, or cannot be replaced (see
            `qlib_ext.market.replace.replaced`).
        """
        out = Path(out).expanduser().resolve()
        recover(out)
        there = _check_target(out)
        if there == self._mark():
            try:
                return QlibStore(out), False
            except StoreError:
                pass  # parts were deleted since: make it anew
        with replaced(out) as new:
            self._make(new, progress)
            (new / SAMPLE).write_text(json.dumps(self._mark(), indent=2) + "\n", encoding="utf-8")
        return QlibStore(out), True

    def _mark(self) -> dict[str, object]:
        return {"made_by": "qlib-ext data sample", "version": self.VERSION, **self._arguments()}

    def _arguments(self) -> dict[str, object]:
        """The options of the command that makes it."""
        return asdict(self)

    @abstractmethod
    def _make(self, root: Path, progress: Progress | None) -> None:
        """Write store and side data into the new directory `root`."""

    def _write_side(self, root: Path, readme: str, firms: Firms, market: Market) -> Path:
        """Write what every market has beside its bars, and what explains it; the folder."""
        side = root / "side"
        side.mkdir()
        for name, values in (("market_value", market.market_value), ("planted_score", market.score)):
            table = long_table(self.calendar(), firms.codes, values, name.removeprefix("planted_"))
            table.to_parquet(side / f"{name}.parquet")
        industry_table(self.calendar(), firms, market).to_parquet(side / "industry.parquet")
        arguments = " ".join(f"--{name} {value}" for name, value in self._arguments().items())
        text = readme.format(arguments=arguments, version=self.VERSION)
        (side / "README.md").write_text(text, encoding="utf-8")
        return side

    def _day(self, name: str, value: object) -> str:
        try:
            day = pd.Timestamp(value)
            if pd.isna(day) or day.tz is not None or day != day.normalize():
                raise ValueError("not a day")
        except (ValueError, TypeError) as error:
            raise UserError(f"`{name}` must be a day such as 2010-01-04, found {brief(value)}") from error
        first, last = self._known_days()
        if not first <= day <= last:
            raise UserError(
                f"`{name}` must lie within the known {self.PLACE} calendar, {first.date()} to {last.date()}, "
                f"found {day.date()}"
            )
        return str(day.date())

    @classmethod
    @abstractmethod
    def _known_days(cls) -> tuple[pd.Timestamp, pd.Timestamp]:
        """The first and the last day that the calendar knows."""


@dataclass(frozen=True)
class UniversePlan:
    """How a universe is chosen.

    Attributes
    ----------
    count
        Members, where there are as many.
    among
        From the universes chosen before it, each bool `[S]`, to the stocks that may be members; None: all.
    """

    count: int
    among: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None


def choose(
    plan: Mapping[str, UniversePlan],
    reviews: Collection[int],
    market_value: np.ndarray,
    first_value: np.ndarray,
) -> dict[str, np.ndarray]:
    """Members of each universe, day by day, chosen from what was known before.

    A review ranks the firms listed for at least 60 days by their mean market value over up to 120 days that end 20
    days before, with an advantage for those that are members; the first day ranks by the value before it. A member
    that delists is replaced the same day by the next one of the last review.

    Parameters
    ----------
    plan
        The universes in the order in which they are chosen; the first is the widest.
    reviews
        Positions of the days on which a review takes effect.
    market_value
        `[D, S]` at the close, NaN when not listed.
    first_value
        `[S]` before the first day.

    Returns
    -------
    dict of bool `[D, S]`
    """
    widest = next(iter(plan))
    stocks = market_value.shape[1]
    members = {name: np.zeros(market_value.shape, dtype=bool) for name in plan}
    now = {name: np.zeros(stocks, dtype=bool) for name in plan}
    value = first_value
    for day in range(len(market_value)):
        listed = ~np.isnan(market_value[day])
        if day in reviews:
            seasoned = listed & ~np.isnan(market_value[day - LOOKBACK_DAYS])
            known = market_value[
                max(0, day - REVIEW_DELAY_DAYS - REVIEW_WINDOW_DAYS) : day - REVIEW_DELAY_DAYS
            ]
            value = np.where(seasoned, mean_of_days(known), np.nan)
        if day == 0 or day in reviews or (now[widest] & ~listed).any():
            for name, universe in plan.items():
                may = listed & ~np.isnan(value)
                if universe.among is not None:
                    may &= universe.among(now)
                # Between reviews whoever is in stays in.
                advantage = REVIEW_BUFFER * universe.count if day in reviews else stocks
                now[name] = _largest(value, may, universe.count, now[name], advantage)
        for name in plan:
            members[name][day] = now[name]
    return members


def adjusted(market: Market) -> dict[str, np.ndarray]:
    """The store's fields, [D, S] each. float32 keeps the order of the prices: rounding never swaps two numbers."""
    bars = {name: getattr(market, name) * market.factor for name in ("open", "high", "low", "close", "vwap")}
    bars["volume"] = market.volume / market.factor
    bars["amount"] = market.volume * market.vwap
    bars["factor"] = market.factor
    bars["change"] = market.change
    return bars


def index_bars(market: Market, members: np.ndarray) -> dict[str, np.ndarray]:
    """Bars of the capitalisation-weighted index of `members` [D, S], from 1000: fields of [D].

    A price index, as the real ones are: dividends are not reinvested. Members' highs and lows don't fall at the
    same moment, so only half of their weighted sum beyond open and close counts.
    """
    value = market.market_value
    before = np.vstack([value[:1] / (1.0 + market.change[:1]), value[:-1]])
    base = np.where(members, before, 0.0).sum(axis=1)

    def relative(price: np.ndarray | None) -> np.ndarray:
        """Value of the members at `price` over their value at the last close."""
        ratio = np.ones_like(value) if price is None else np.nan_to_num(price / market.close, nan=1.0)
        return np.where(members, np.nan_to_num(value) * ratio, 0.0).sum(axis=1) / base

    growth = relative(None)
    close = 1000.0 * np.cumprod(growth)
    previous = close / growth
    opened = previous * relative(market.open)
    top, bottom = np.maximum(opened, close), np.minimum(opened, close)
    high = top + 0.5 * np.maximum(previous * relative(market.high) - top, 0.0)
    low = bottom - 0.5 * np.maximum(bottom - previous * relative(market.low), 0.0)
    return {
        "open": opened,
        "high": high,
        "low": low,
        "close": close,
        "vwap": np.clip((high + low + close) / 3, low, high),
        "volume": np.where(members, np.nan_to_num(market.volume), 0.0).sum(axis=1),
        "amount": np.where(members, np.nan_to_num(market.volume * market.vwap), 0.0).sum(axis=1),
        "factor": np.ones(len(close)),
        "change": growth - 1.0,
    }


def with_indices(
    bars: dict[str, np.ndarray], market: Market, masks: Iterable[np.ndarray]
) -> dict[str, np.ndarray]:
    """Bars `[D, S]` with a column more for the index of each of `masks`."""
    columns = [index_bars(market, mask) for mask in masks]
    return {
        field: np.column_stack([values, *(index[field] for index in columns)])
        for field, values in bars.items()
    }


def review_days(calendar: pd.DatetimeIndex, months: Sequence[int], nth: int) -> set[int]:
    """Positions of the reviews after the nth Friday of some months, where there is history before."""
    days = after_fridays(calendar, months, nth)
    return {int(day) for day in days if LOOKBACK_DAYS <= day < len(calendar)}


def industry_table(calendar: pd.DatetimeIndex, firms: Firms, market: Market) -> pd.DataFrame:
    """Rows instrument, start, end and industry while listed, by instrument and start."""
    listed = ~np.isnan(market.market_value)
    index = np.stack([firms.industries(day) for day in range(len(calendar))])
    tables = [
        spells_of(calendar, firms.codes, listed & (index == number)).assign(industry=name)
        for number, name in enumerate(INDUSTRIES)
    ]
    return pd.concat(tables).sort_values(["instrument", "start"], ignore_index=True)


def long_table(calendar: pd.DatetimeIndex, codes: list[str], values: np.ndarray, name: str) -> pd.DataFrame:
    """Values [D, S] that are there, as a table datetime, instrument, `name`."""
    day, column = np.nonzero(~np.isnan(values))
    instrument = pd.Categorical.from_codes(column, categories=codes)
    return pd.DataFrame({"datetime": calendar[day], "instrument": instrument, name: values[day, column]})


def _largest(
    value: np.ndarray, may: np.ndarray, count: int, members: np.ndarray, advantage: float
) -> np.ndarray:
    """The `count` largest among those who may, members moved up by `advantage` ranks: bool [S]."""
    candidates = np.flatnonzero(may)
    ranks = np.argsort(np.argsort(-value[candidates], kind="stable"), kind="stable")
    order = np.argsort(ranks - advantage * members[candidates], kind="stable")
    chosen = np.zeros(len(value), dtype=bool)
    chosen[candidates[order[:count]]] = True
    return chosen


def _check_target(out: Path) -> dict[str, object] | None:
    """What is at `out`: None for nothing, the mark of a sample market; anything else is refused."""
    if not out.exists():
        return None
    if not out.is_dir():
        raise UserError(f"`out` must be a directory, found a file at `{out}`")
    if out.is_mount():
        raise UserError(
            f"`out` must be a directory that can be moved into place, found the mount point `{out}`; "
            f"name one below it, such as `{out / 'sample'}`"
        )
    if not any(out.iterdir()):
        return None
    try:
        mark = read_json(out / SAMPLE)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        mark = None
    if not isinstance(mark, dict) or mark.get("made_by") != "qlib-ext data sample":
        raise UserError(
            f"`out` must be a new or empty directory or a sample market to replace, found something else at `{out}`; "
            "nothing was written"
        )
    return mark
