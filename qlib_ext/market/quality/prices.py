"""Bars against the bars before them: jumps, spikes, what stands still, `factor` and `change`."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, counted
from qlib_ext.market.codes import is_index
from qlib_ext.market.finding import Findings, Kind, listed
from qlib_ext.market.quality.bars import Say, cells, on, sentence
from qlib_ext.market.quality.series import Series, runs
from qlib_ext.market.quality.source import Source
from qlib_ext.market.rules.exchange_rules import ExchangeRules, read_rules

WIDEST_LIMIT = 0.20  # of funds and indices, which the table of rules does not have
FUND = re.compile(r"(SH5|SZ1[568])\d+")
# The limit price is rounded to a cent, and on an ex-day so is the price that it is counted from.
LIMIT_CENTS, LIMIT_TOLERANCE = 0.02, 0.002
# Newly listed stocks have no limit, or a wider one, on up to this many days.
NEW_DAYS = 5
# Beyond the limit by no more than this it may be a special day of the exchange; by more it is no trade.
LIMIT_EXCESS = 0.05
# Without limits: a move of 40 % in a day, the smallest that most splits (3 for 2 and more) would leave behind.
JUMP = float(np.log(1.4))
# A missing adjustment leaves the day itself as it was: the money traded (below twice the median of the days before),
# and the range from high to low, which is small beside the jump. News moves both: no crash of 2000 to 2014 among 200
# US stocks passes for a split by these two.
USUAL_MONEY, MONEY_DAYS, NARROW = 2.0, 20, 0.25
# What a resumption after a suspension may well bring, and a model's labels will hardly bear: 25 %.
RESUMED_JUMP, SUSPENDED_DAYS = float(np.log(1.25)), 5
SPIKE, SPIKE_REVERTS = 0.25, 0.25
# A factor that moves by 5 % or more is a distribution: the raw price must fall by about as much.
FACTOR_MOVE, FACTOR_STEP = 0.05, 1e-4
FACTOR_UNANSWERED_IN_LIMITS, FACTOR_UNANSWERED = 0.5, 0.25
FACTOR_DRIFT_SHARE, FACTOR_DRIFT_DAYS = 0.1, 60
FACTOR_CONSTANT_DAYS, FACTOR_CONSTANT_STOCKS = 250, 10
# Closes repeat: 5 in a row at most in ten years of 644 liquid A shares, whole bars 3.
STALE_CLOSES, STALE_BARS = 10, 5
LONG_GAP_DAYS = 500
CHANGE_TOLERANCE = 1e-3
# Below this move a percentage and a fraction cannot be told apart.
TELLING_MOVE = 3e-3
MOVE = 1e-4
MOST_CELLS = 100  # remembered of one stock and kind

KINDS = (
    Kind("jump-unexplained", "error",
         "the adjusted close jumps like a split, or far beyond the exchange's limit, and factor does not explain it",
         "an adjustment is missing: the return is not one that anybody earned"),
    Kind("fund-split", "warning", "the price of a fund jumps far beyond the exchange's limit, and factor does not explain it",
         "funds split and merge their shares, for which few vendors adjust: the return is not one that anybody earned"),
    Kind("factor-jump", "error", f"factor moves by {FACTOR_MOVE:.0%} or more and the raw price does not answer",
         "an adjustment was made on the wrong day or twice: the adjusted price jumps"),
    Kind("price-spike", "error", f"the close moves by more than {SPIKE:.0%} and is back the next day",
         "a wrong price, and two returns that nobody earned"),
    Kind("price-limit", "warning", "the close moves further than the exchange's daily limit lets it",
         "the price or the adjustment is wrong, or the day was a special one"),
    Kind("jump-large", "warning",
         "the close moves by a factor of 1.4 or more in a day, up or down, where there is no daily limit, and trading was not as usual",
         "it will be news; if it is a missing adjustment, the return is not real"),
    Kind("jump-after-suspension", "warning",
         "the close moves by a factor of 1.25 or more, up or down, over days without trading",
         "such a return is one label among many days, and pulls a model towards it"),
    Kind("stale-run", "warning",
         f"the close stands still over {STALE_CLOSES} traded days, or the whole bar over {STALE_BARS}",
         "old values were carried forward as if they were trades"),
    Kind("bar-repeated", "warning", "prices and volume are exactly those of the day before",
         "a day was written twice, or a gap filled"),
    Kind("volume-zero-with-move", "warning", "volume is zero and the close moved",
         "the return belongs to another day, or the price or factor is wrong"),
    Kind("suspension-carried", "note", "suspended days carry the last close with a volume of 0, or none",
         "whoever reads closes alone takes them for trading days with a return of 0"),
    Kind("gap-long", "note", f"a stock trades again after more than {LONG_GAP_DAYS} days",
         "the code may be another firm's now, or bars are lost"),
    Kind("change-inconsistent", "warning", "change is not the return of the close",
         "price, factor or change is wrong, and which of them nobody can tell from here; limits are kept by change"),
    Kind("change-in-percent", "warning", "change is in percent",
         "Qlib's `limit_threshold` reads it as a fraction, so that almost no order would be filled (the backtest of this package tells the unit by itself)",
         "divides it by 100"),
    Kind("factor-nonpositive", "error", "factor is zero or negative", "raw prices and lots made with it mean nothing",
         "replaces it by NaN"),
    Kind("factor-missing", "warning", "there is a close and no factor", "lots cannot be sized on the day"),
    Kind("factor-drifts", "warning", "factor moves on more than a tenth of a stock's days",
         "it is no adjustment factor, or was derived from rounded prices"),
    Kind("factor-constant", "note", "no stock's factor ever moves",
         "prices are unadjusted, or adjusted beforehand; lots are then sized in adjusted shares"),
)  # fmt: skip


@dataclass(frozen=True)
class _Pending:
    """Days of one stock and kind: told only when days on which the whole market did the same are known."""

    kind: str
    code: str
    file: str
    days: np.ndarray
    texts: Mapping[int, str]
    count: int


class PriceChecks:
    """Returns of the stocks, block by block.

    Parameters
    ----------
    source, found
        What is checked, and where findings go.
    region
        `cn` has daily limits.
    """

    def __init__(self, source: Source, found: Findings, region: str | None):
        self._days = source.days
        self._found = found
        self._cells = partial(cells, found, source.days)
        self._limited = region == "cn"
        self._pending: list[_Pending] = []
        self._percent: list[tuple[str, str]] = []
        self._with_change = 0
        self._carried_stocks: list[str] = []
        self._carried_days = 0
        self._carried_first: int | None = None
        self._factor_moves = False
        self._factor_stocks = 0

    def check(self, series: Series) -> np.ndarray:
        """One block; the bars that are exactly those of the day before, bool `[S, D]`."""
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            self._check_factor(series)
            self._check_jumps(series)
            self._check_change(series)
            return self._check_standing_still(series)

    def _check_jumps(self, series: Series) -> None:
        growth, factor, gap = series.log_return, series.log_factor, series.gap
        raw = growth - factor
        size = np.abs(growth)
        move = np.abs(np.expm1(growth))
        next_day = (gap == 1) & series.traded
        spike = _spikes(growth, factor) & series.traded
        if self._limited:
            first = np.argmax(series.valid, axis=1).tolist()
            limits = np.stack(
                [
                    price_limit(code, self._days, at)
                    for code, at in zip(series.block.codes, first, strict=True)
                ]
            )
            rounding = LIMIT_TOLERANCE + LIMIT_CENTS / series.previous(series.raw_close)
            excess = move - limits - rounding
            beyond = next_day & (series.age > NEW_DAYS) & (excess > 0)
            spike &= excess > 0
            usual = ~_with_next(spike)
            unanswered = (np.abs(factor) > FACTOR_MOVE) & (
                np.abs(raw) < FACTOR_UNANSWERED_IN_LIMITS * np.abs(factor)
            )
            stepped = beyond & unanswered & usual
            jumped = beyond & ~unanswered & (excess > LIMIT_EXCESS) & usual
            limited = beyond & ~unanswered & ~jumped & usual
            large = np.zeros_like(limited)
            resumed = series.traded & (gap > 1) & (size > RESUMED_JUMP)
        else:
            spike &= _narrow(series, np.abs(series.log_return) > JUMP)
            usual = ~_with_next(spike)
            soon = (gap >= 1) & (gap <= SUSPENDED_DAYS) & series.traded
            unanswered = (np.abs(factor) > FACTOR_MOVE) & (np.abs(raw) < FACTOR_UNANSWERED * np.abs(factor))
            stepped = soon & unanswered & (size > 2 * FACTOR_MOVE) & usual
            large = soon & (size > JUMP) & ~unanswered & usual
            jumped = large & _narrow(series, large) & self._usual_money(series, large)
            large &= ~jumped
            limited = np.zeros_like(large)
            resumed = series.traded & (gap > SUSPENDED_DAYS) & (size > RESUMED_JUMP)
        steps = np.abs(factor) > FACTOR_STEP

        def told(row: int, day: int) -> str:
            moved = f"factor by {np.expm1(factor[row, day]):+.1%}" if steps[row, day] else "factor not at all"
            return f"the close moved by {np.expm1(growth[row, day]):+.1%}, {moved}"

        def told_gap(row: int, day: int) -> str:
            return f"{told(row, day)}, after {counted(int(gap[row, day]) - 1, 'day')} without trading"

        def told_spike(row: int, day: int) -> str:
            there, back = np.expm1(growth[row, day]), np.expm1(growth[row, day + 1])
            return f"the close moved by {there:+.1%}, and by {back:+.1%} the next day"

        self._remember(series, "price-spike", "close", spike, told_spike)
        self._remember(series, "factor-jump", "factor", stepped, told)
        funds = np.array([FUND.fullmatch(code) is not None for code in series.block.codes])[:, None]
        self._remember(series, "jump-unexplained", "close", jumped & ~funds, told)
        self._remember(series, "fund-split", "close", jumped & funds, told)
        self._remember(series, "price-limit", "close", limited, told)
        self._remember(series, "jump-large", "close", large, told)
        self._remember(series, "jump-after-suspension", "close", resumed, told_gap)

    def _usual_money(self, series: Series, candidates: np.ndarray) -> np.ndarray:
        """Candidates on which the money traded is about that of the days before, and known: bool `[S, D]`."""
        usual = np.zeros_like(candidates)
        volume = series.field("volume")
        for row, day in zip(*np.nonzero(candidates), strict=True):
            past = slice(max(0, day - MONEY_DAYS), day)
            money = series.close[row, past] * volume[row, past]
            money = money[money > 0]
            now = series.close[row, day] * volume[row, day]
            if money.size and now > 0:
                usual[row, day] = now / np.median(money) < USUAL_MONEY
        return usual

    def _check_standing_still(self, series: Series) -> np.ndarray:
        """Stale runs, repeated bars, suspensions and long gaps; the repeated bars."""
        block, close, field = series.block, series.close, series.field
        consecutive = np.zeros(series.shape, dtype=bool)
        consecutive[:, 1:] = series.traded[:, 1:] & series.traded[:, :-1]
        same_close = consecutive.copy()
        same_close[:, 1:] &= close[:, 1:] == close[:, :-1]
        same_bar = same_close.copy()
        for name in ("open", "high", "low"):
            values = field(name)
            same_bar[:, 1:] &= values[:, 1:] == values[:, :-1]
        told: set[int] = set()
        for mask, least, what in ((same_close, STALE_CLOSES, "close"), (same_bar, STALE_BARS, "bar")):
            for row, start, length, times in runs(mask, least):
                code = block.codes[row]
                if row in told or is_index(code):  # that of an index is told among the benchmarks
                    continue
                told.add(row)
                first = start - 1  # the day whose bar the next ones repeat
                more = f"; {times} such runs" if times > 1 else ""
                message = f"{code}: the {what} of {on(self._days, first)} stands still over {length + 1} traded days{more}"
                self._found.add(
                    "stale-run", message, block.file(row, "close"), code, self._days[first], length + 1
                )
        volume = field("volume")
        repeated = same_bar & (volume > 0)
        repeated[:, 1:] &= volume[:, 1:] == volume[:, :-1]
        said = "prices and volume ({:.6g}) are those of the day before"
        self._remember(series, "bar-repeated", "close", repeated, said, volume)
        untraded = ~(volume > 0) & series.has_volume[:, None] & series.valid
        moved = untraded & (volume == 0) & (np.abs(series.log_return) > MOVE)
        said = "volume 0, and the close moved by {:+.2%} (factor by {:+.2%})"
        moves = np.expm1(series.log_return), np.expm1(series.log_factor)
        self._cells("volume-zero-with-move", block, "volume", moved, said, *moves)
        carried = untraded & (np.abs(series.log_return) <= MOVE)
        touched = np.flatnonzero(carried.any(axis=1))
        if touched.size:
            self._carried_stocks += [block.codes[row] for row in touched]
            self._carried_days += int(carried.sum())
            first = int(np.argmax(carried.any(axis=0)))
            self._carried_first = first if self._carried_first is None else min(first, self._carried_first)
        lasting = series.traded & (series.gap > LONG_GAP_DAYS)
        said = "trades again after {} days without trading"
        self._cells("gap-long", block, "close", lasting, said, series.gap - 1)
        return repeated

    def _check_change(self, series: Series) -> None:
        """`change` in the unit that explains more of the stock's moves."""
        block, change = series.block, series.field("change").astype(np.float64)
        expected = np.expm1(series.log_return)
        percent, wrong = unit_of_change(change, expected)
        self._with_change += int((np.isfinite(change) & np.isfinite(expected)).any(axis=1).sum())
        for row in np.flatnonzero(percent).tolist():
            self._percent.append((block.codes[row], block.file(row, "change")))
        fraction = change / np.where(percent, 100, 1)[:, None]
        said = "change says {:+.2%}, the closes {:+.2%}"
        self._cells("change-inconsistent", block, "change", wrong, said, fraction, expected)

    def _check_factor(self, series: Series) -> None:
        block, factor = series.block, series.field("factor")
        if "factor" not in block.values:
            return
        self._cells("factor-nonpositive", block, "factor", factor <= 0, "factor is {:.6g}", factor)
        has = block.has("factor")
        missing = series.valid & np.isnan(factor) & has[:, None]
        self._cells("factor-missing", block, "factor", missing, "close {:.6g} and no factor", series.close)
        steps = np.abs(series.log_factor) > FACTOR_STEP
        of_stocks = has & ~np.array([is_index(code) for code in block.codes], dtype=bool)
        self._factor_stocks += int((of_stocks & (np.isfinite(factor) & (factor > 0)).any(axis=1)).sum())
        self._factor_moves |= bool(steps[of_stocks].any())
        count, days = steps.sum(axis=1), series.valid.sum(axis=1)
        drifts = (days >= FACTOR_DRIFT_DAYS) & (count > FACTOR_DRIFT_SHARE * days)
        for row in np.flatnonzero(drifts).tolist():
            code, first = block.codes[row], int(np.argmax(steps[row]))
            message = (
                f"{code}: factor moves on {count[row]} of {days[row]} days, first on {on(self._days, first)}"
            )
            self._found.add(
                "factor-drifts", message, block.file(row, "factor"), code, self._days[first], count[row]
            )

    def _remember(
        self, series: Series, kind: str, field: str, mask: np.ndarray, say: Say, *numbers: np.ndarray
    ) -> None:
        """Keep what `mask` touches, with its words, until `finish`."""
        for row in np.flatnonzero(mask.any(axis=1)).tolist():
            days = np.flatnonzero(mask[row])
            kept = days[:MOST_CELLS]
            texts = {day: sentence(say, row, day, *numbers) for day in kept.tolist()}
            code, file = series.block.codes[row], series.block.file(row, field)
            self._pending.append(_Pending(kind, code, file, kept, texts, len(days)))

    def finish(self, of_the_market: np.ndarray) -> None:
        """Tell what was kept.

        Parameters
        ----------
        of_the_market
            Days on which the whole market jumped or was repeated, bool `[D]`: those are told once, of the day.
        """
        for pending in self._pending:
            alone = pending.days[~of_the_market[pending.days]]
            if not alone.size:
                continue
            day = int(alone[0])
            count = pending.count - (len(pending.days) - len(alone))
            more = f" (on {count} days)" if count > 1 else ""
            message = f"{pending.code} {on(self._days, day)}: {pending.texts[day]}{more}"
            self._found.add(pending.kind, message, pending.file, pending.code, self._days[day], count)
        if self._percent and 2 * len(self._percent) > self._with_change:
            code, file = self._percent[0]
            message = (
                f"change is in percent in {len(self._percent)} of {self._with_change} stocks, such as {code}"
            )
            self._found.add("change-in-percent", message, file, code, count=len(self._percent))
        else:
            for code, file in self._percent:
                message = f"{code}: change is in percent; most stocks have it as a fraction"
                self._found.add("change-in-percent", message, file, code)
        if self._carried_first is not None:
            message = (
                f"{self._carried_days} days of {len(self._carried_stocks)} stocks carry the last close with a volume "
                f"of 0, such as {listed(self._carried_stocks, 3)}"
            )
            self._found.add(
                "suspension-carried",
                message,
                instrument=self._carried_stocks[0],
                date=self._days[self._carried_first],
                count=self._carried_days,
            )
        lasting = len(self._days) >= FACTOR_CONSTANT_DAYS
        if lasting and self._factor_stocks >= FACTOR_CONSTANT_STOCKS and not self._factor_moves:
            message = f"factor never moves in any of {self._factor_stocks} stocks over {len(self._days)} days"
            self._found.add("factor-constant", message, count=self._factor_stocks)


def price_limit(code: str, days: np.ndarray, listed: int = 0) -> np.ndarray:
    """The daily limit of a stock of mainland China by day, as the exchange's dated rules have it.

    Parameters
    ----------
    code
        Of a stock, a fund or an index.
    days
        datetime64[D] `[D]`.
    listed
        Position of its first bar. One on the first day of all says nothing of the listing.

    Returns
    -------
    float `[D]`
        A fraction, NaN where there is no limit: on the first days of a listing, most of the time.
    """
    rules = _rules()
    try:
        board = rules.board(code)
    except UserError:
        board = ""
    if not board or is_index(code):
        return np.full(len(days), WIDEST_LIMIT)
    limits = _limits_of_board(board, days.tobytes())
    if listed > 0:
        limits, begin = limits.copy(), pd.Timestamp(days[listed])
        for age, day in enumerate(days[listed : listed + rules.first_days]):
            limits[listed + age] = _limit_on(board, day, listed=begin, age=age)
    return limits


@functools.lru_cache(maxsize=1)
def _rules() -> ExchangeRules:
    return read_rules("cn")


@functools.lru_cache(maxsize=16)
def _limits_of_board(board: str, days: bytes) -> np.ndarray:
    """Limits of a board by day."""
    return np.array([_limit_on(board, day) for day in np.frombuffer(days, dtype="M8[D]")])


def _limit_on(board: str, day: np.datetime64, **listing: Any) -> float:
    """NaN where the rules have no limit, or do not reach back."""
    try:
        limit = _rules().price_limit(board, pd.Timestamp(day), **listing)
    except ValueError:  # a UserError, or a day that is none
        return np.nan
    return np.nan if limit.up is None or limit.down is None else max(limit.up, limit.down)


def unit_of_change(change: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each stock's `change` is in percent, and where it is not the return in its unit.

    Parameters
    ----------
    change, expected
        float `[S, D]`; the return of the closes, a fraction. Days without either count for nothing.

    Returns
    -------
    percent : bool `[S]`
        Where percent explains more of the stock's moves than a fraction does.
    wrong : bool `[S, D]`
    """
    known = np.isfinite(change) & np.isfinite(expected)
    tolerance = CHANGE_TOLERANCE * (1 + np.abs(expected))
    as_fraction = np.abs(change - expected) <= tolerance
    as_percent = np.abs(change / 100 - expected) <= tolerance
    telling = known & (np.abs(expected) > TELLING_MOVE)
    percent = (as_percent & telling).sum(axis=1) > (as_fraction & telling).sum(axis=1)
    return percent, known & ~np.where(percent[:, None], as_percent, as_fraction)


def _spikes(growth: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Days whose return is large and is undone on the very next day, factor at rest: bool `[S, D]`."""
    there, back = growth[:, :-1], growth[:, 1:]
    rest = (np.abs(factor[:, :-1]) < FACTOR_STEP) & (np.abs(factor[:, 1:]) < FACTOR_STEP)
    result = np.zeros(growth.shape, dtype=bool)
    result[:, :-1] = (np.abs(there) > SPIKE) & (np.abs(there + back) < SPIKE_REVERTS * np.abs(there)) & rest
    return result


def _narrow(series: Series, unknown: np.ndarray) -> np.ndarray:
    """Days whose range from high to low is small beside the move of the close; `unknown` where there is no range."""
    high, low = (series.field(name).astype(np.float64) for name in ("high", "low"))
    spread = np.log(np.where(high > 0, high, np.nan) / np.where(low > 0, low, np.nan))
    return np.where(np.isnan(spread), unknown, spread < NARROW * np.abs(series.log_return))


def _with_next(mask: np.ndarray) -> np.ndarray:
    """`mask` `[S, D]` and the day after each True."""
    both = mask.copy()
    both[:, 1:] |= mask[:, :-1]
    return both
