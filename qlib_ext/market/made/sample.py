"""The sample market: a made A-share market in Qlib's format, so that everything runs without real data.

`qlib-ext data sample --out DIR --seed N` writes it. What the market imitates is told in
`qlib_ext.market.made.simulation`, what can be predicted in it in `qlib_ext.market.made.planted`. The directory holds

- a Qlib store: `calendars/`, `features/`, `instruments/` with the fields open, high, low, close, vwap (adjusted
  yuan), volume (adjusted shares), amount (yuan, = volume * vwap), factor (adjusted = raw * factor) and change
  (a fraction: 0.1 is a limit day);
- the universes sse50, csi100 and csi300, and their indices SH000016, SH000903 and SH000300, whose bars lie with
  those of the stocks and which `all.txt` lists;
- `side/market_value.parquet`, `side/industry.parquet`, `side/planted_score.parquet`, `side/README.md`, and
  `side/sample.json`, the arguments that made it, by which the command knows its own work.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import exchange_calendars
import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, integer
from qlib_ext.market.made.planted import LOOKBACK_DAYS
from qlib_ext.market.made.simulation import INDUSTRIES, Firms, Market, Progress, found_firms, simulate
from qlib_ext.market.replace import recover, replaced
from qlib_ext.market.store import QlibStore, StoreError, write_store

VERSION = 2  # raise it whenever equal arguments would give other bits
MARK = Path("side") / "sample.json"
MINIMUM_STOCKS, MAXIMUM_STOCKS = 20, 7273  # more codes than Shanghai's main board has numbers for
MINIMUM_DAYS = 2 * LOOKBACK_DAYS
INDICES = {"sse50": "SH000016", "csi100": "SH000903", "csi300": "SH000300"}
# A review ranks by the mean market value of about half a year that ends four weeks before it takes effect.
REVIEW_WINDOW_DAYS, REVIEW_DELAY_DAYS = 120, 20
REVIEW_BUFFER = 0.05  # a member keeps its place down to this share of the size below the line


@dataclass(frozen=True)
class SampleMarket:
    """The arguments that make a sample market; equal arguments make equal bits.

    Parameters
    ----------
    seed
        Of every random draw, at least 0.
    stocks
        Firms over the whole range, 20 to 7273; some list late and some delist. From 430 on the universes have 50,
        100 and 300 members. With fewer, csi300 has 70 % of the firms, csi100 a third of that, and sse50 half of
        Shanghai's share of csi300.
    start, end
        First and last calendar day, such as 2010-01-04; at least 120 trading days apart.

    Raises
    ------
    UserError
        If an argument is out of range.
    """

    seed: int = 0
    stocks: int = 430
    start: str = "2010-01-04"
    end: str = "2020-12-31"

    def __post_init__(self) -> None:
        integer("seed", self.seed, 0)
        integer("stocks", self.stocks, MINIMUM_STOCKS)
        if self.stocks > MAXIMUM_STOCKS:
            raise UserError(f"`stocks` must be at most {MAXIMUM_STOCKS}, found {self.stocks}")
        for name in ("start", "end"):
            object.__setattr__(self, name, _day(name, getattr(self, name)))
        if len(self.calendar()) < MINIMUM_DAYS:
            raise UserError(
                f"`start` and `end` must be at least {MINIMUM_DAYS} trading days apart, found {len(self.calendar())} "
                f"from {self.start} to {self.end}"
            )

    def calendar(self) -> pd.DatetimeIndex:
        """Trading days of the Shanghai exchange from start to end."""
        if self.start > self.end:
            raise UserError(f"`start` must not be after `end`, found {self.start} and {self.end}")
        return pd.DatetimeIndex(
            exchange_calendars.get_calendar("XSHG", start=self.start, end=self.end).sessions, freq=None
        )

    def write(self, out: str | Path, progress: Progress | None = None) -> tuple[QlibStore, bool]:
        """Write the market to `out`, whole or not at all.

        A sample market with the same arguments is left as it is; one with others, or of an earlier version, is
        replaced. 5000 stocks over 16 years take about a minute, 5 GB of memory and 1 GB of disk.

        Parameters
        ----------
        progress
            Called with (done, total, what) as the work goes on.

        Returns
        -------
        store : QlibStore
        written : bool
            False if it was there already.

        Raises
        ------
        UserError
            If `out` is a file, a mount point, or a directory with something else in it, or cannot be replaced
            (see `qlib_ext.market.replace.replaced`).
        """
        out = Path(out).expanduser().resolve()
        recover(out)
        there = _check_target(out)
        if there == self._mark():
            try:
                return QlibStore(out), False
            except StoreError:
                pass  # parts were deleted since: make it anew
        with replaced(out) as made:
            self._make(made, progress)
        return QlibStore(out), True

    def _mark(self) -> dict[str, object]:
        return {"made_by": "qlib-ext data sample", "version": VERSION, **asdict(self)}

    def _make(self, root: Path, progress: Progress | None) -> None:
        calendar = self.calendar()
        firms = found_firms(self.seed, self.stocks, len(calendar))
        market = simulate(self.seed, firms, calendar, progress)
        members = choose_members(calendar, firms.codes, market.market_value, firms.price * firms.shares)
        bars = _adjusted(market)
        for mask in members.values():
            for field, values in _index_bars(market, mask).items():
                bars[field] = np.column_stack([bars[field], values])
        memberships = {universe: _spells(calendar, firms.codes, mask) for universe, mask in members.items()}
        write_store(
            root, calendar, [*firms.codes, *(INDICES[u] for u in members)], bars, memberships, progress
        )
        side = root / "side"
        side.mkdir()
        _long(calendar, firms.codes, market.market_value, "market_value").to_parquet(
            side / "market_value.parquet"
        )
        _long(calendar, firms.codes, market.score, "score").to_parquet(side / "planted_score.parquet")
        _industry_table(calendar, firms, market).to_parquet(side / "industry.parquet")
        arguments = f"--seed {self.seed} --stocks {self.stocks} --start {self.start} --end {self.end}"
        (side / "README.md").write_text(README.format(arguments=arguments, version=VERSION), encoding="utf-8")
        (root / MARK).write_text(json.dumps(self._mark(), indent=2) + "\n", encoding="utf-8")


README = """# A made market

Nothing here is real: no price, no firm, no index. Codes look like those of the Shanghai and Shenzhen exchanges so
that software for them can be tried, and any likeness to the security that bears the same code is chance. Only the
trading calendar is the real one. Results on this market say whether software works, never whether an idea earns.

Made by `qlib-ext data sample {arguments}` (generator version {version}).

| file | columns | point in time |
|---|---|---|
| market_value.parquet | datetime, instrument, market_value (yuan, all shares at the last close) | known at the close of the day |
| industry.parquet | instrument, start, end (both days included), industry | known from `start` on |
| planted_score.parquet | datetime, instrument, score | known at the close of the day |

`planted_score.parquet` is what can be predicted: it follows from the bars of the last 60 days (short-term reversal,
position within the range, volume shock; see `qlib_ext.market.made.planted`) and pushes the return from the close of day
t+1 to the close of day t+2. Its mean daily RankIC against `Ref($close, -2) / Ref($close, -1) - 1` over csi300 is
about 0.10; no model can lastingly do better. Volume is in adjusted shares (raw shares / factor), amount in yuan,
amount = volume * vwap; for indices vwap is a typical price and volume and amount are sums over members.
"""


def choose_members(
    calendar: pd.DatetimeIndex, codes: list[str], market_value: np.ndarray, first_value: np.ndarray
) -> dict[str, np.ndarray]:
    """Members of each universe, day by day, chosen from what was known before.

    A review takes effect on the first trading day after the second Friday of June and of December. It ranks the
    firms listed for at least 60 days by their mean market value over up to 120 days that end 20 days before, with
    an advantage for those that are members; the first day ranks by the value before it. csi100 is chosen among
    csi300, sse50 among csi300's Shanghai stocks. A member that delists is replaced the same day by the next one of
    the last review.

    Parameters
    ----------
    calendar
        D days.
    codes
        S codes.
    market_value
        Yuan `[D, S]` at the close, NaN when not listed.
    first_value
        Yuan `[S]` before the first day.

    Returns
    -------
    dict of bool `[D, S]`
        For csi300, csi100 and sse50.
    """
    shanghai = np.array([code.startswith("SH") for code in codes])
    everyone = np.ones(len(codes), dtype=bool)
    size = min(300, round(0.7 * len(codes)))
    sse50_size = min(50, max(1, round(size * shanghai.mean() / 2)))
    plan = {
        "csi300": (size, lambda chosen: everyone),
        "csi100": (round(size / 3), lambda chosen: chosen["csi300"]),
        "sse50": (sse50_size, lambda chosen: chosen["csi300"] & shanghai),
    }
    reviews = set(_review_days(calendar))
    members = {name: np.zeros(market_value.shape, dtype=bool) for name in plan}
    now = {name: np.zeros(len(codes), dtype=bool) for name in plan}
    value = first_value
    for day in range(len(calendar)):
        listed = ~np.isnan(market_value[day])
        if day in reviews:
            seasoned = listed & ~np.isnan(market_value[day - LOOKBACK_DAYS])
            known = market_value[
                max(0, day - REVIEW_DELAY_DAYS - REVIEW_WINDOW_DAYS) : day - REVIEW_DELAY_DAYS
            ]
            value = np.where(seasoned, _column_mean(known), np.nan)
        if day == 0 or day in reviews or (now["csi300"] & ~listed).any():
            for name, (count, eligible) in plan.items():
                may = eligible(now) & listed & ~np.isnan(value)
                # Between reviews whoever is in stays in.
                advantage = REVIEW_BUFFER * count if day in reviews else len(codes)
                now[name] = _largest(value, may, count, now[name], advantage)
        for name in plan:
            members[name][day] = now[name]
    return members


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


def _review_days(calendar: pd.DatetimeIndex) -> list[int]:
    """Index of the first trading day after each second Friday of June and December that lies in the calendar."""
    days = []
    for year in range(calendar[0].year, calendar[-1].year + 1):
        for month in (6, 12):
            friday = pd.date_range(f"{year}-{month:02d}-01", periods=14, freq="D")
            second = friday[friday.weekday == 4][1]
            day = int(calendar.searchsorted(second, side="right"))
            if LOOKBACK_DAYS <= day < len(calendar):
                days.append(day)
    return days


def _column_mean(values: np.ndarray) -> np.ndarray:
    """Mean over days of what is there, NaN where nothing is: [S]."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0.0).sum(axis=0) / there.sum(axis=0)


def _adjusted(market: Market) -> dict[str, np.ndarray]:
    """The store's fields, [D, S] each. float32 keeps the order of the prices: rounding never swaps two numbers."""
    bars = {name: getattr(market, name) * market.factor for name in ("open", "high", "low", "close", "vwap")}
    bars["volume"] = market.volume / market.factor
    bars["amount"] = market.volume * market.vwap
    bars["factor"] = market.factor
    bars["change"] = market.change
    return bars


def _index_bars(market: Market, members: np.ndarray) -> dict[str, np.ndarray]:
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


def _spells(calendar: pd.DatetimeIndex, codes: list[str], mask: np.ndarray) -> pd.DataFrame:
    """Rows instrument, start, end of the runs of True in `mask` [D, S], by instrument and start."""
    edges = np.diff(np.pad(mask.astype(np.int8), ((1, 1), (0, 0))), axis=0)
    column, first = np.nonzero(edges.T == 1)
    _, after = np.nonzero(edges.T == -1)
    return pd.DataFrame(
        {"instrument": np.array(codes)[column], "start": calendar[first], "end": calendar[after - 1]}
    )


def _industry_table(calendar: pd.DatetimeIndex, firms: Firms, market: Market) -> pd.DataFrame:
    listed = ~np.isnan(market.market_value)
    index = np.stack([firms.industries(day) for day in range(len(calendar))])
    tables = [
        _spells(calendar, firms.codes, listed & (index == number)).assign(industry=name)
        for number, name in enumerate(INDUSTRIES)
    ]
    return pd.concat(tables).sort_values(["instrument", "start"], ignore_index=True)


def _long(calendar: pd.DatetimeIndex, codes: list[str], values: np.ndarray, name: str) -> pd.DataFrame:
    """Values [D, S] that are there, as a table datetime, instrument, `name`."""
    day, column = np.nonzero(~np.isnan(values))
    instrument = pd.Categorical.from_codes(column, categories=codes)
    return pd.DataFrame({"datetime": calendar[day], "instrument": instrument, name: values[day, column]})


def _day(name: str, value: object) -> str:
    try:
        day = pd.Timestamp(value)
        if pd.isna(day) or day.tz is not None or day != day.normalize():
            raise ValueError("not a day")
    except (ValueError, TypeError) as error:
        raise UserError(f"`{name}` must be a day such as 2010-01-04, found {value!r}") from error
    kind = exchange_calendars.exchange_calendar_xshg.XSHGExchangeCalendar
    first, last = kind.bound_min(), kind.bound_max()
    if not first <= day <= last:
        raise UserError(
            f"`{name}` must lie within the known Shanghai calendar, {first.date()} to {last.date()}, found {day.date()}"
        )
    return str(day.date())


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
        mark = json.loads((out / MARK).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        mark = None
    if not isinstance(mark, dict) or mark.get("made_by") != "qlib-ext data sample":
        raise UserError(
            f"`out` must be a new or empty directory or a sample market to replace, found something else at `{out}`; "
            "nothing was written"
        )
    return mark
