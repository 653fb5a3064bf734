"""The market as a whole: days without bars, days on which all stocks do the same, stocks that are the same."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np

from qlib_ext.checks import counted
from qlib_ext.market.codes import is_index
from qlib_ext.market.finding import Findings, Kind, listed
from qlib_ext.market.quality.bars import on
from qlib_ext.market.quality.series import Series
from qlib_ext.market.quality.source import FIELDS, Source

# Fewer stocks than this say nothing of the market.
STOCKS = 5
# In July 2015 more than half of the A shares were suspended at once, spread over days: 0.57 of the weeks around.
PARTIAL, NEIGHBOUR_DAYS = 0.5, 10
# More than half of the stocks repeat their bar: no market does.
REPEATED = 0.5
# The mean log return of the stocks of a day: the worst day of a century was -20 %.
MARKET_JUMP, RETURN_CLIP = 0.25, 2.0
# Mean log ratio of volumes: whole markets trade three times as much as the day before at the very most.
VOLUME_LEVEL, VOLUME_CLIP = float(np.log(10.0)), 8.0
# Correlation of a stock with the market, this many days before and after its own days.
LAGS, SHIFT_DAYS, SHIFT_LEAST, SHIFT_EXCESS, SHIFT_SIGMAS = 5, 120, 0.25, 0.2, 6.0
SHIFT_RECENT_DAYS = 250
DUPLICATE_DAYS = 20

KINDS = (
    Kind("day-empty", "error", "no stock has a close on a day between others",
         "every window over the day has a hole, every label across it is missing"),
    Kind("day-untraded", "error", "closes are there, and no stock has a volume above zero",
         "it was no trading day: the returns of the day are all zero"),
    Kind("day-partial", "warning", f"fewer than {PARTIAL:.0%} of the stocks of the days around have traded",
         "a download broke off on the day; ranks of the day are among few stocks"),
    Kind("last-day-partial", "error",
         f"on the last day fewer than {PARTIAL:.0%} of the stocks of the days before have traded",
         "the download of the day was not complete: recommendations would be made among the rest"),
    Kind("calendar-beyond-bars", "error",
         "the calendar has days before the first bar or after the last one of all stocks",
         "workflows that run to the end of the calendar find nothing there"),
    Kind("field-empty-day", "error",
         "a field is missing for all stocks on a day that has closes, and is there before and after",
         "a column of the download was lost"),
    Kind("day-copied", "error", "more than half of the stocks repeat the bar of the day before",
         "a day was written twice under two dates"),
    Kind("market-jump", "error", f"the stocks' mean log return of a day is beyond ±{MARKET_JUMP}",
         "bars of two downloads with different adjustments were joined there"),
    Kind("volume-level", "error", "volumes of all stocks change tenfold from a day to the next",
         "the unit changes there, such as from lots to shares"),
    Kind("stocks-identical", "warning", "two codes have the same closes, or the same volumes, on the same days",
         "one stock counts twice, or a file was copied to the wrong code"),
    Kind("days-shifted", "error", "a stock moves with the market of other days than its own",
         "its bars stand some days too early or too late: a model would see the future, or the past"),
)  # fmt: skip


class CrossSection:
    """Sums over the stocks of each day, gathered block by block.

    Parameters
    ----------
    source, found
        What is checked, and where findings go.

    Attributes
    ----------
    closes, traded : int [D]
        Stocks, without indices, that have a close; that traded.
    first, stop : dict
        Code to its first day with a close, and the day after its last one.
    index_close : dict
        Closes float64 `[D]` of the codes of indices and of those asked for by `keep`.
    """

    def __init__(self, source: Source, found: Findings, keep: frozenset[str]):
        days = len(source.days)
        self._days = source.days
        self._found = found
        self._keep = keep
        self.closes = np.zeros(days, dtype=int)
        self.traded = np.zeros(days, dtype=int)
        self.first: dict[str, int] = {}
        self.stop: dict[str, int] = {}
        self.index_close: dict[str, np.ndarray] = {}
        self._fields = {name: np.zeros(days, dtype=int) for name in FIELDS}
        self._repeated = np.zeros(days, dtype=int)
        self._stepped = np.zeros(days, dtype=int)
        self._returns, self._return_sum = np.zeros(days, dtype=int), np.zeros(days)
        self._volumes, self._volume_sum = np.zeros(days, dtype=int), np.zeros(days)
        self._digests: dict[tuple[str, bytes], list[tuple[str, str]]] = defaultdict(list)
        self._kept_returns: list[np.ndarray] = []
        self._kept: list[tuple[str, str]] = []
        self._told_shifts: set[str] = set()

    def check(self, series: Series, repeated: np.ndarray) -> None:
        """One block; `repeated` are bars that are exactly those of the day before, bool `[S, D]`."""
        codes = series.block.codes
        valid, traded = series.valid, series.traded
        for row in np.flatnonzero(valid.any(axis=1)).tolist():
            self.first[codes[row]] = int(np.argmax(valid[row]))
            self.stop[codes[row]] = len(self._days) - int(np.argmax(valid[row, ::-1]))
        stocks = ~np.array([is_index(code) for code in codes], dtype=bool)
        for row, code in enumerate(codes):
            if code in self._keep or not stocks[row]:
                self.index_close[code] = series.close[row]
        self._digest(series)
        self.closes += valid[stocks].sum(axis=0)
        self.traded += traded[stocks].sum(axis=0)
        for name, values in series.block.values.items():
            self._fields[name] += (~np.isnan(values[stocks]) & valid[stocks]).sum(axis=0)
        self._repeated += repeated[stocks].sum(axis=0)

        step = traded & (series.gap == 1)
        growth = np.where(step, series.log_return, np.nan)
        self._add(self._returns, self._return_sum, growth[stocks], RETURN_CLIP)
        self._stepped += step[stocks].sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            volume = np.log(series.field("volume").astype(np.float64))
        ratio = np.full(growth.shape, np.nan)
        ratio[:, 1:] = volume[:, 1:] - volume[:, :-1]
        self._add(self._volumes, self._volume_sum, ratio[stocks], VOLUME_CLIP)

        self._kept_returns.append(np.clip(growth, -0.2, 0.2).astype(np.float32))
        self._kept += [(code, series.block.file(row, "close")) for row, code in enumerate(codes)]

    @staticmethod
    def _add(count: np.ndarray, total: np.ndarray, values: np.ndarray, clip: float) -> None:
        usable = np.isfinite(values)
        count += usable.sum(axis=0)
        total += np.where(usable, np.clip(values, -clip, clip), 0.0).sum(axis=0)

    def _digest(self, series: Series) -> None:
        """Remember each stock's closes and volumes by what they are."""
        for name in ("close", "volume"):
            values = series.field(name)
            usable = np.isfinite(values) & (values > 0)
            for row in np.flatnonzero(usable.sum(axis=1) >= DUPLICATE_DAYS).tolist():
                numbers = np.where(usable[row], values[row], 0)
                if np.ptp(numbers[usable[row]]) == 0:
                    continue  # a constant is told as such
                key = (name, hashlib.blake2b(numbers.tobytes(), digest_size=16).digest())
                self._digests[key].append((series.block.codes[row], series.block.file(row, name)))

    @property
    def return_counts(self) -> np.ndarray:
        """Stocks with a return of one day, by day: int `[D]`."""
        return self._returns

    def mean_return(self) -> np.ndarray:
        """Mean log return of the stocks by day, clipped at ±0.2: float `[D]`, NaN where there is none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.clip(self._return_sum / self._returns, -0.2, 0.2)

    def market_days(self) -> np.ndarray:
        """Days on which the stocks jumped, or repeated their bars, together: bool `[D]`."""
        return self._jumped() | self._copied()

    def _jumped(self) -> np.ndarray:
        return (self._returns >= STOCKS) & (np.abs(self._return_sum) > MARKET_JUMP * self._returns)

    def _copied(self) -> np.ndarray:
        return (self._stepped >= STOCKS) & (self._repeated > REPEATED * self._stepped)

    def finish(self) -> None:
        """Tell what the sums show."""
        inside = np.flatnonzero(self.closes)
        if not inside.size:
            return
        first, last = int(inside[0]), int(inside[-1])
        self._check_presence(first, last)
        said = "{} of {} stocks have the prices and the volume of the day before"
        self._days_of("day-copied", self._copied(), said, self._repeated, self._stepped)
        with np.errstate(invalid="ignore", divide="ignore"):
            growth, volumes = self._return_sum / self._returns, np.exp(self._volume_sum / self._volumes)
        said = "the mean log return of {} stocks is {:+.2f}"
        self._days_of("market-jump", self._jumped(), said, self._returns, growth)
        level = (self._volumes >= STOCKS) & (np.abs(self._volume_sum) > VOLUME_LEVEL * self._volumes)
        said = "volumes of {} stocks are {:.3g} times those of the day before"
        self._days_of("volume-level", level, said, self._volumes, volumes)
        for (name, _), same in self._digests.items():
            if len(same) > 1:
                (code, file), *others = same
                message = (
                    f"{code} has the same {name} on the same days as {listed([code for code, _ in others])}"
                )
                begins = self._days[self.first[code]] if code in self.first else None
                self._found.add("stocks-identical", message, file, code, begins, len(same))
        self._check_shifts()

    def _check_presence(self, first: int, last: int) -> None:
        days = len(self._days)
        outside = np.ones(days, dtype=bool)
        outside[first : last + 1] = False
        said = f"no stock has a bar; bars are from {on(self._days, first)} to {on(self._days, last)}"
        self._days_of("calendar-beyond-bars", outside, said)
        empty = self.closes == 0
        self._days_of("day-empty", empty & ~outside, "no stock has a close")
        traded = self.traded > 0
        untraded = ~traded & ~empty & (self.traded.max() > 0)
        self._days_of("day-untraded", untraded, "{} stocks have a close and none has a volume", self.closes)
        around = neighbour_median(self.traded, NEIGHBOUR_DAYS)
        few = traded & (around >= STOCKS) & (self.traded < PARTIAL * around)
        last_few = few & (np.arange(days) == last)

        said = "{} stocks traded, {:g} on a day around"
        self._days_of("last-day-partial", last_few, said, self.traded, around)
        self._days_of("day-partial", few & ~last_few, said, self.traded, around)
        for name, counts in self._fields.items():
            there = np.flatnonzero(counts)
            if not there.size:
                continue
            between = np.zeros(days, dtype=bool)
            between[there[0] : there[-1] + 1] = True
            missing = between & (counts == 0) & (self.closes >= STOCKS)
            said = f"{{}} stocks have a close and none has `{name}`"
            self._days_of("field-empty-day", missing, said, self.closes, file=f"features/*/{name}.day.bin")

    def _days_of(
        self, kind: str, mask: np.ndarray, say: str, *numbers: np.ndarray, file: str = "features"
    ) -> None:
        """One finding for the days of `mask` `[D]`, told by the first, with a place for its day of each of `numbers`."""
        if not mask.any():
            return
        day, count = int(np.argmax(mask)), int(mask.sum())
        others = [on(self._days, int(other)) for other in np.flatnonzero(mask)[1:]]
        more = f"; {count} days, also {listed(others, 3)}" if count > 1 else ""
        said = say.format(*(values[day] for values in numbers))
        self._found.add(kind, f"{on(self._days, day)}: {said}{more}", file, date=self._days[day], count=count)

    def _check_shifts(self) -> None:
        """Correlation of each stock's returns with the market's mean, at lags of a few days."""
        days = len(self._days)
        mean = self.mean_return()
        usable = self._returns >= STOCKS
        for window in (slice(0, days), slice(max(0, days - SHIFT_RECENT_DAYS), days)):
            if window.stop - window.start < SHIFT_DAYS:
                continue
            market = np.where(usable, np.nan_to_num(mean), 0.0)[window]
            there = usable[window].astype(np.float64)
            row = 0
            for growth in self._kept_returns:
                self._tell_shifts(growth[:, window], market, there, row, window)
                row += len(growth)

    def _tell_shifts(
        self, growth: np.ndarray, market: np.ndarray, there: np.ndarray, row: int, window: slice
    ) -> None:
        own = np.isfinite(growth)
        mask = own.astype(np.float64)
        values = np.where(own, growth, 0.0).astype(np.float64)
        # Positive lag: the stock's day t against the market's day t - lag, so its bars stand `lag` days late.
        lags = range(-LAGS, LAGS + 1)
        known = np.stack([_delayed(there, lag) for lag in lags], axis=1)  # [D, lags]
        other = np.stack([_delayed(market * there, lag) for lag in lags], axis=1)
        count = mask @ known  # [S, lags]
        mean_own, mean_other = values @ known / count, mask @ other / count
        covariance = values @ other / count - mean_own * mean_other
        spread_own = np.square(values) @ known / count - mean_own**2
        spread_other = mask @ np.square(other) / count - mean_other**2
        table = np.nan_to_num((covariance / np.sqrt(spread_own * spread_other)).T)
        counts = count.T
        best = np.argmax(table, axis=0)
        columns = np.arange(table.shape[1])
        least = np.maximum(SHIFT_EXCESS, SHIFT_SIGMAS / np.sqrt(np.maximum(counts[LAGS], 1)))
        shifted = (
            (best != LAGS)
            & (counts[LAGS] >= SHIFT_DAYS)
            & (table[best, columns] > SHIFT_LEAST)
            & (
                table[best, columns] - np.abs(table[LAGS]) > least
            )  # bonds move against the market, on the day
        )
        for column in np.flatnonzero(shifted).tolist():
            code, file = self._kept[row + column]
            if code in self._told_shifts:
                continue
            self._told_shifts.add(code)
            lag = int(best[column] - LAGS)
            where = f"{counted(abs(lag), 'day')} {'late' if lag > 0 else 'early'}"
            first = window.start + int(np.argmax(own[column]))
            message = (
                f"{code}: its bars seem to stand {where}: correlation with the market is "
                f"{table[LAGS, column]:.2f} on its own days and {table[best[column], column]:.2f} there "
                f"({int(counts[LAGS][column])} days from {on(self._days, first)})"
            )
            self._found.add("days-shifted", message, file, code, self._days[first], int(counts[LAGS][column]))


def neighbour_median(counts: np.ndarray, reach: int) -> np.ndarray:
    """Median of `counts` `[D]` over up to `reach` days before and after each day, itself left out: float `[D]`."""
    days = len(counts)
    padded = np.concatenate([np.full(reach, np.nan), counts.astype(float), np.full(reach, np.nan)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).copy()
    windows[:, reach] = np.nan
    ordered = np.sort(windows, axis=1)  # NaN last
    known = (~np.isnan(ordered)).sum(axis=1)
    rows = np.arange(days)
    low, high = np.maximum(known - 1, 0) // 2, known // 2
    middle = (ordered[rows, low] + ordered[rows, np.minimum(high, 2 * reach)]) / 2
    return np.where(known > 0, middle, 0.0)


def _delayed(values: np.ndarray, lag: int) -> np.ndarray:
    """`values` `[D]` of `lag` days before, zero where that is outside."""
    moved = np.roll(values, lag)
    if lag > 0:
        moved[:lag] = 0
    elif lag < 0:
        moved[lag:] = 0
    return moved
