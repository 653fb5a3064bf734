"""What the numbers of a source say of its prices: whether they are raw, or adjusted already.

A source may carry a factor, an adjusted close, splits and dividends, or a change that knows the ex-days, and none of
them says whether the prices beside it are adjusted. The prices do, in three ways:

- cents: raw prices are whole cents. Where close / factor is and the close is not, the close is adjusted;
- steps: on an ex-day raw prices fall by what was given, and adjusted ones do not. Small steps say little each, and many
  of them enough;
- change: the rise of a day as the exchange counts it, which knows the ex-days, fits either the closes as they are or
  as they would be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

RAW, ADJUSTED = "raw", "adjusted"
STOCKS = 300  # that are looked at
STEP = 5e-4  # a smaller move of the factor is rounding
SURE = 6.0  # log odds that are believed: 400 to 1
MOST_OF_A_STEP = 20.0  # log odds that one step adds at the most
CENT, CENT_ROUNDING = 0.1, 3e-7  # of a cent: whole by chance are a fifth of all prices
FAR_FROM_ONE = 0.01  # a factor nearer to 1 leaves cents whole either way
NEARLY_ALL, HALF = 0.9, 0.6
FEWEST_DAYS = 20
# By how much a change in percent of two decimals and closes of whole cents may disagree.
CHANGE_ERROR, CHANGE_SHARE, CENTS_OF_A_RISE = 2e-4, 1e-3, 0.011
TELLING_MOVE = 3e-3
RARE = 0.05  # ex-days are rarer among the days of a stock
SHIFTED = 0.02  # how well the amounts taken off prices must agree from day to day


@dataclass
class Steps:
    """Steps that raw prices would show, and what the prices say of them.

    Attributes
    ----------
    count : int
    odds : float
        Log odds that the prices are raw.
    """

    count: int = 0
    odds: float = 0.0

    def see(self, close: np.ndarray, steps: np.ndarray) -> None:
        """One stock: closes `[n]`, and by how much the log of a raw one falls short of an adjusted one, `[n - 1]`."""
        moves = np.diff(np.log(close))
        at = np.abs(steps) > STEP
        usual = float(np.mean(np.abs(moves[~at]))) if (~at).any() else 0.01
        self.count += int(at.sum())
        gained = (np.abs(moves[at]) - np.abs(moves[at] + steps[at])) / max(usual, 1e-3)
        self.odds += float(np.clip(gained, -MOST_OF_A_STEP, MOST_OF_A_STEP).sum())

    @property
    def says(self) -> str | None:
        """`raw`, `adjusted`, or None where it is not sure."""
        return None if abs(self.odds) < SURE else RAW if self.odds > 0 else ADJUSTED


class Verdict(NamedTuple):
    """What the numbers say.

    Attributes
    ----------
    says : str or None
        `raw`, `adjusted`, or None where they do not tell.
    found : str
        Why, for a message.
    clash : bool
        Whether they contradict each other.
    """

    says: str | None
    found: str
    clash: bool = False


@dataclass
class FactorEvidence:
    """Whether prices beside a factor, or an adjusted close, are raw."""

    steps: Steps = field(default_factory=Steps)
    days: int = 0  # on which cents could tell
    whole: int = 0  # closes
    whole_without: int = 0  # closes / factor
    fits: int = 0  # changes that fit the closes as they are, and not the closes times the factor
    fits_times: int = 0
    outside: int = 0  # closes outside of low and high where the adjusted close is inside

    def see(self, values: Mapping[str, np.ndarray], factor: np.ndarray) -> None:
        """One stock; fields and the factor `[n]`, by day."""
        close = values["close"]
        there = (close > 0) & (factor > 0)
        if there.sum() < 2:
            return
        close, factor = close[there], factor[there]
        steps = np.diff(np.log(factor))
        self.steps.see(close, steps)
        far = np.abs(np.log(factor)) > FAR_FROM_ONE
        self.days += int(far.sum())
        self.whole += int(is_whole(close[far]).sum())
        self.whole_without += int(is_whole(close[far] / factor[far]).sum())
        if "low" in values and "high" in values:
            low, high = values["low"][there] * (1 - 1e-4), values["high"][there] * (1 + 1e-4)
            times = close * factor
            self.outside += int(
                (far & ((close < low) | (close > high)) & (times >= low) & (times <= high)).sum()
            )
        if "change" in values:
            change = as_fraction(values["change"][there][1:], close)
            as_is, times = (np.diff(np.log(prices)) for prices in (close, close * factor))
            as_is, times = np.expm1(as_is), np.expm1(times)
            error = 2 * (CHANGE_ERROR + CHANGE_SHARE * np.abs(change)) + CENTS_OF_A_RISE * np.minimum(
                1 / close[:-1], 0.1
            )
            telling = np.abs(as_is - times) > 2 * error
            self.fits += int((telling & (np.abs(change - as_is) < error)).sum())
            self.fits_times += int((telling & (np.abs(change - times) < error)).sum())

    @property
    def verdict(self) -> Verdict:
        """All of it put together: what cannot be by chance first."""
        cents = change = None
        if self.days >= FEWEST_DAYS:
            of_close, without = self.whole / self.days, self.whole_without / self.days
            if without >= NEARLY_ALL and of_close <= HALF:
                cents = ADJUSTED
            elif of_close >= NEARLY_ALL and without <= HALF:
                cents = RAW
        if self.fits + self.fits_times >= 3:
            if self.fits_times >= 4 * self.fits:
                change = RAW
            elif self.fits >= 4 * self.fits_times:
                change = ADJUSTED
        steps = self.steps.says
        found = []
        if cents is not None:
            found.append(
                f"the close is whole cents on {of_close:.0%} and close / factor on {without:.0%} of {self.days:,} days"
            )
        if steps is not None:
            smoother = "as they are" if steps == ADJUSTED else "times the factor"
            found.append(
                f"on {self.steps.count:,} days with a step of the factor the closes are smoother {smoother}"
            )
        if change is not None:
            fitting, of = max((self.fits, "as they are"), (self.fits_times, "times the factor"))
            found.append(f"the source's change fits the closes {of} on {fitting:,} such days")
        # Nobody computes a change of prices that he does not have, but many compute one of raw closes; adjusted prices
        # are often rounded to whole cents, and raw ones never are whole only once they are divided.
        sure = {cents} & {ADJUSTED} | {change} & {RAW}
        says = next(iter(sure), steps or cents or change) if len(sure) < 2 else None
        clash = len(sure) == 2 or (bool(sure) and steps is not None and steps not in sure)
        return Verdict(None if clash else says, ", ".join(found), clash)


@dataclass
class ChangeEvidence:
    """Whether a change that knows the ex-days belongs to raw prices."""

    days: int = 0
    above: int = 0  # days on which it lies above the rise of the closes, as on an ex-day of raw prices
    below: int = 0
    shifted: int = 0  # stocks whose prices are those of the change less an amount
    stocks: int = 0

    def see(self, values: Mapping[str, np.ndarray]) -> None:
        """One stock."""
        close = values["close"]
        there = close > 0
        close, change = close[there], values["change"][there][1:]
        if len(close) < 2:
            return
        above, below, known = unlike_rises(close, as_fraction(change, close))
        self.stocks += 1
        self.days += int(known.sum())
        self.above += int(above.sum())
        self.below += int(below.sum())
        self.shifted += _is_shifted(close, as_fraction(change, close), above | below)

    @property
    def raw(self) -> bool:
        """Whether the prices fall short of the change on some days, and fit it on all others."""
        return (
            self.above > 4 * self.below
            and self.above + self.below < RARE * self.days
            and self.days >= FEWEST_DAYS
        )

    @property
    def subtracted(self) -> bool:
        """Whether most stocks were adjusted by subtraction."""
        return 2 * self.shifted > self.stocks > 0


def unlike_rises(close: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a change lies above the rise of the closes, where below, and where it is known: bool `[n - 1]` each."""
    rise = close[1:] / close[:-1] - 1
    known = np.isfinite(change) & np.isfinite(rise)
    error = CHANGE_ERROR + CHANGE_SHARE * np.abs(rise) + CENTS_OF_A_RISE / close[:-1]
    with np.errstate(invalid="ignore"):
        return known & (change - rise > error), known & (rise - change > error), known


def as_fraction(change: np.ndarray, close: np.ndarray) -> np.ndarray:
    """A change of closes `[n]` as a fraction, `[n - 1]`, whether it is one or in percent."""
    rise = close[1:] / close[:-1] - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.abs(change / rise)[np.abs(rise) > TELLING_MOVE]
    ratio = ratio[np.isfinite(ratio)]
    return change / 100 if ratio.size and np.median(ratio) > 10 else change


def is_whole(prices: np.ndarray) -> np.ndarray:
    """Which prices are whole cents, as far as rounding lets them."""
    cents = 100 * prices
    return np.abs(cents - np.round(cents)) < CENT + CENT_ROUNDING * cents


def _is_shifted(close: np.ndarray, change: np.ndarray, unlike: np.ndarray) -> bool:
    """Whether prices are those that a change is of, less an amount that seldom changes."""
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.diff(close) / change - close[:-1]  # change = move / (close before + amount)
    telling = np.isfinite(off) & (np.abs(change) > 2 * TELLING_MOVE)
    if telling.sum() < FEWEST_DAYS or unlike[telling].mean() < HALF / 2:
        return False
    amounts, whole = off[telling], (off + close[:-1])[telling]
    return bool(np.mean(np.abs(np.diff(amounts)) < SHIFTED * np.abs(whole[1:])) > HALF)
