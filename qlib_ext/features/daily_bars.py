"""Windows of daily bars beside macro indicators, from a market that is held once.

Source: "Collaborative Optimization in Financial Data Mining Through Deep Learning and ResNeXt", section IV.A: windows of
fixed length of open, high, low, close and volume, joined with macroeconomic indicators, missing values filled, every
feature standardised by its z-score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlib_ext.checks import UserError, above, integer, one_of
from qlib_ext.config.build import build
from qlib_ext.features.allocation import Allocate, in_memory
from qlib_ext.features.base import FeatureSet, prices_and_volume
from qlib_ext.features.market_panel import MarketPanel, day_blocks
from qlib_ext.features.side_data.macro import Macro
from qlib_ext.market.store import QlibStore

BARS = ("open", "high", "low", "close", "volume")
FORMS = ("change", "level")
FILLS = ("forward", "linear")
BLOCK_CELLS = 1 << 20  # days times stocks that statistics are summed over at a time


class DailyBars(FeatureSet):
    r"""Daily bars of a stock and macro indicators of all.

    With p a price and c the adjusted close of a stock, v its adjusted volume, after missing bars are filled:

    .. math:: x_{p,t} = \log \frac{p_t}{c_{t-1}}, \qquad x_{v,t} = \log \frac{v_t}{v_{t-1}}

    in the form `change`; :math:`p_t` and :math:`v_t` themselves in the form `level`. An indicator is the figure that the
    close of its own day knew, on each day of the window. Every feature is z-scored by its mean and standard deviation
    over the training days (a bar's over all rows, an indicator's over days), clipped, and 0 where it is missing.

    Parameters
    ----------
    bars
        Fields of the bars, in the order of the features; `close` must be among them in the form `change`.
    macro
        A `Macro` that names its series, or `{class, kwargs}` of one: its M indicators follow the bars, and a figure
        enters on its release. None joins none.
    lookback_days
        T, in trading days.
    form
        `change` or `level`. Levels are what the paper's words say; see Notes.
    fill
        `forward`: a missing bar is the last one before it. `linear`: a line from the last bar before it to the next one
        after it, as the paper has it; that reads the future, and `look_ahead` says so. Macro figures have a `fill` of
        their own.
    fill_limit_days
        For how many trading days a bar is carried forward; the longest gap that a line is drawn across.
    clip
        In standard deviations, so that one wrong print does not outweigh a day; None clips nothing.

    Attributes
    ----------
    median, scale : ndarray `[T, F]` float32
        Mean and standard deviation of every feature over the training rows, alike at all lags.

    Raises
    ------
    UserError
        If an argument is out of range, or the macro table names no series.

    Notes
    -----
    A price or volume that is not above 0 counts as missing. A stock's first bar has no change, nor has the first after
    a gap that is longer than `fill_limit_days`. Fields are filled one by one: a day that lacks only its open keeps the
    rest.

    *Levels look ahead*: vendors adjust prices for the splits of later years, so a low price of long ago says that the
    share was to rise and be split. Changes have nothing of it.

    Departures
    ----------
    Filled forward by default where the paper interpolates; changes by default where it does not say what it
    standardises; clipped.
    """

    def __init__(
        self,
        bars: Sequence[str] = BARS,
        macro: Mapping[str, Any] | Macro | None = None,
        lookback_days: int = 20,
        form: str = "change",
        fill: str = "forward",
        fill_limit_days: int = 5,
        clip: float | None = 10.0,
    ) -> None:
        self.bars = tuple(bars)
        self.macro = None if macro is None else build(macro, Macro, name="macro")
        indicators = () if self.macro is None else self.macro.names
        if indicators is None:
            raise UserError(
                "`macro.series` must name the series, so that the features do not change with the store; found none"
            )
        self.indicators = tuple(indicators)
        self.form = one_of("form", form, FORMS)
        self.fill = one_of("fill", fill, FILLS)
        self.fill_limit_days = integer("fill_limit_days", fill_limit_days, 0)
        self.clip = None if clip is None else float(above("clip", clip, 0))
        if not self.bars or len(set(self.bars)) < len(self.bars):
            raise UserError(f"`bars` must name fields, each once, found {list(self.bars)}")
        if self.form == "change" and "close" not in self.bars:
            raise UserError(
                f"`bars` must hold `close`, which prices are compared with, found {list(self.bars)}"
            )
        twice = set(self.bars) & set(self.indicators)
        if twice:
            raise UserError(
                f"an indicator must have another name than a bar, found {', '.join(sorted(twice))}"
            )
        super().__init__([*self.bars, *self.indicators], lookback_days, fields=self.bars)
        self._macro_facts: dict[str, Any] | None = None
        self._joined: np.ndarray | None = None
        self._joined_on: Tensor | None = None

    @property
    def history_days(self) -> int:
        """The window, what its first bars are filled from, and the close that its first change is from."""
        return self.lookback_days + self.fill_limit_days + (self.form == "change")

    def identity(self) -> dict[str, Any]:
        names = ("bars", "indicators", "lookback_days", "form", "fill", "fill_limit_days", "clip")
        settings = {name: getattr(self, name) for name in names}
        return {"class": type(self).__name__, **settings, "macro": self._macro_facts}

    def describe(self) -> dict[str, Any]:
        """Form, filling, indicators and what looks ahead."""
        return {
            "bars": list(self.bars),
            "form": self.form,
            "fill": {"method": self.fill, "limit_days": self.fill_limit_days},
            "clip": self.clip,
            **({} if self._macro_facts is None else {"macro": self._macro_facts}),
            "look_ahead": self.look_ahead(),
        }

    def families(self) -> dict[str, tuple[str, ...]]:
        """The prices, the volume, and the indicators."""
        return prices_and_volume(self.bars) | ({"macro": self.indicators} if self.indicators else {})

    def look_ahead(self) -> list[str]:
        """What of the features is known only later, as sentences; empty where nothing is."""
        found = []
        if self.fill == "linear":
            found.append("missing bars are interpolated, so a feature may follow from bars of later days")
        if self.form == "level":
            found.append(
                "levels of adjusted prices and volumes hold the splits of later years where the vendor adjusts "
                "backwards"
            )
        if self.macro is not None and self.macro.fill == "linear":
            found.append(
                "macro figures are interpolated between releases, so a figure counts before it is published"
            )
        return found

    def notes(self, store: QlibStore) -> list[str]:
        """What looks ahead, and what the macro figures are."""
        return [*super().notes(store), *([] if self.macro is None else self.macro.notes(store))]

    def check_store(self, store: QlibStore) -> None:
        """Raise a UserError if there is no macro table where one is asked for."""
        if self.macro is None:
            return
        reason = self.macro.lacks(store)
        if reason is not None:
            raise UserError(
                f"`macro` does not fit the store {store.root}: {reason}; bring a table in (`qlib-ext data side-data DIR "
                "NAME FILE`), make a market that has one (`qlib-ext data sample --region us --out DIR`), or leave it out"
            )
        # what is read now, whatever becomes of the file: a run tells of this
        self._macro_facts = self.macro.describe(store)

    def join(self, store: QlibStore, market: MarketPanel) -> None:
        """Read the indicators as the close of each day knew them, NaN where nothing is known."""
        if self.macro is None:
            return
        values = self.macro.load(store, market.calendar).values  # [D, M]
        empty = np.full((self.lookback_days - 1, len(self.indicators)), np.nan, np.float32)
        self._joined = np.concatenate([empty, values.astype(np.float32)])
        self._joined_on = None

    def padded_shape(self, market: MarketPanel) -> tuple[int, ...]:
        days, stocks = market.members.shape
        return days + self.lookback_days - 1, stocks, len(self.bars)

    def pad(self, market: MarketPanel, allocate: Allocate = in_memory) -> np.ndarray:
        """The bars' features before they are normalised, `[D + T - 1, S, bars]`."""
        days = len(market.calendar)
        return self.padded_planes(market, lambda name: self._feature(market, name, days), self.bars, allocate)

    def statistics(
        self, market: MarketPanel, rows: np.ndarray, padded: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation; a UserError names a feature that is missing or the same on all the rows."""
        # What comes after the last day to fit on must not reach it, not even by a line that is drawn to a later bar.
        stop = int(np.flatnonzero(rows.any(axis=1))[-1]) + 1
        rows = rows[:stop]
        moments = [_moments(self._feature(market, name, stop), rows) for name in self.bars]
        if self.indicators:
            known = self._indicators()[self.lookback_days - 1 :][:stop][rows.any(axis=1)].astype(np.float64)
            moments += [_moments(column, np.ones(len(column), dtype=bool)) for column in known.T]
        for name, (_, deviation) in zip(self.names, moments, strict=True):
            if not deviation > 0:
                what = "is not known" if np.isnan(deviation) else "is the same"
                raise UserError(
                    f"the feature `{name}` {what} on all days to fit on: leave it out, or fit on others"
                )
        mean, deviation = np.array(moments, dtype=np.float32).T
        shape = self.lookback_days, len(self.names)
        return np.broadcast_to(mean, shape).copy(), np.broadcast_to(deviation, shape).copy()

    def gather(self, padded: Tensor, day: int, columns: Tensor) -> Tensor:
        """Features of one day, `[N, T, F]` float32, finite; bars first.

        Under `fill` forward and `form` change it uses no bar and no indicator after `day`.
        """
        steps = slice(day, day + self.lookback_days)
        window = padded[steps].index_select(1, columns)  # [T, N, bars]
        if self.indicators:
            joined = self._on(padded.device)[steps].unsqueeze(1).expand(-1, len(columns), -1)  # [T, N, M]
            window = torch.cat([window, joined], dim=2)  # [T, N, F]
        return self.normalised(window, self.clip)  # [N, T, F]

    def _feature(self, market: MarketPanel, name: str, days: int) -> np.ndarray:
        """One bar's feature on the first days, before it is normalised, `[days, S]` float32; it reads no other day."""
        plane = self._filled(market.field(name)[:days])
        if self.form == "level":
            return plane
        base = plane if name in ("volume", "close") else self._filled(market.field("close")[:days])
        change = np.full_like(plane, np.nan)
        with np.errstate(invalid="ignore"):
            np.divide(plane[1:], base[:-1], out=change[1:])
            np.log(change, out=change)
        return change

    def _filled(self, plane: np.ndarray) -> np.ndarray:
        """A field of the bars `[days, S]`, NaN where it is missing and not filled."""
        with np.errstate(invalid="ignore"):
            plane = np.where(plane > 0, plane, np.float32(np.nan))
        fill = _fill_forward if self.fill == "forward" else _fill_linear
        return fill(plane, self.fill_limit_days)

    def _indicators(self) -> np.ndarray:
        if self._joined is None:
            raise RuntimeError("the features have no indicators yet: call `join` first")
        return self._joined

    def _on(self, device: torch.device) -> Tensor:
        if self._joined_on is None or self._joined_on.device != device:
            self._joined_on = torch.from_numpy(self._indicators()).to(device)
        return self._joined_on

    def __getstate__(self) -> dict[str, object]:
        # indicators belong to a calendar, and facts to a store: whoever loads the market again joins them again
        return {**super().__getstate__(), "_joined": None, "_joined_on": None, "_macro_facts": None}


def _last_known(known: np.ndarray) -> np.ndarray:
    """Position of the last day with a value up to each day, `[D, S]`; -1 before the first."""
    days = np.arange(len(known), dtype=np.int32)[:, None]
    return np.maximum.accumulate(np.where(known, days, np.int32(-1)), axis=0)


def _fill_forward(plane: np.ndarray, limit: int) -> np.ndarray:
    last = _last_known(~np.isnan(plane))
    days = np.arange(len(plane), dtype=np.int32)[:, None]
    taken = np.take_along_axis(plane, np.maximum(last, 0), axis=0)
    return np.where((last >= 0) & (days - last <= limit), taken, np.float32(np.nan))


def _fill_linear(plane: np.ndarray, limit: int) -> np.ndarray:
    known = ~np.isnan(plane)
    last = _last_known(known)
    following = len(plane) - 1 - _last_known(known[::-1])[::-1]  # D after the last
    days = np.arange(len(plane), dtype=np.int32)[:, None]
    inside = (last >= 0) & (following < len(plane)) & (following - last - 1 <= limit)
    before = np.take_along_axis(plane, np.maximum(last, 0), axis=0)
    after = np.take_along_axis(plane, np.minimum(following, len(plane) - 1), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        line = before + (after - before) * ((days - last) / (following - last)).astype(np.float32)
    return np.where(known, plane, np.where(inside, line, np.float32(np.nan)))


def _moments(plane: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the values that are there in `rows`; NaN where there is none."""
    number, total, squares = 0, 0.0, 0.0
    shape = plane.shape if plane.ndim == 2 else (len(plane), 1)
    blocks = list(day_blocks(shape, BLOCK_CELLS))
    for block in blocks:
        inside = plane[block][rows[block]].astype(np.float64)
        inside = inside[~np.isnan(inside)]
        number, total = number + len(inside), total + inside.sum()
    if not number:
        return np.nan, np.nan
    mean = total / number
    for block in blocks:
        inside = plane[block][rows[block]].astype(np.float64)
        squares += float(np.nansum((inside - mean) ** 2))
    deviation = (squares / number) ** 0.5
    return mean, deviation if deviation > 1e-12 * max(1.0, abs(mean)) else 0.0
