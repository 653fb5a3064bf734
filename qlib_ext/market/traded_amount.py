"""How much money a stock was traded for, whatever a store has to say it with.

Where a store has the field `amount`, that is it. Elsewhere it is price times volume, and stores differ in what their
`volume` is: Qlib's convention is adjusted shares (raw shares / factor, so that adjusted close x volume is money), but
many stores hold the raw shares beside adjusted prices, and there close x volume grows with every dividend: money is
close / factor x volume. Which of the two a store has is read off its volumes, for raw ones count shares and are whole
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qlib_ext.checks import UserError, one_of
from qlib_ext.market.store import QlibStore, StoreError

VOLUMES = ("auto", "raw", "adjusted")
# float32 tells whole numbers from others only where its steps are much finer than 1.
_MOST, _MOST_PRODUCT = 2.0**20, 2.0**18
_TOLERANCE = 0.05
_FEWEST = 50  # volumes to judge by
_NEARLY_ALL = 0.95


class TradedAmount:
    """What stocks were traded for, day by day, never computed from later days.

    Parameters
    ----------
    store
        With the field `amount`, or with `close` and `volume`.
    instruments
        S codes.
    volume
        Where the amount must be computed: `raw` or `adjusted` shares; `auto`: read off the volumes of the days that
        are known when an amount is asked for.

    Attributes
    ----------
    formula : str
        What the amounts are made of: `amount`, `close x volume` or `close / factor x volume`; `close x volume` too,
        as long as no factor differs from 1.

    Raises
    ------
    UserError
        If `volume` is none of its choices.
    StoreError
        If the store has none of the fields.
    """

    def __init__(self, store: QlibStore, instruments: Sequence[str], volume: str = "auto"):
        self.volume = one_of("volume", volume, VOLUMES)
        self.formula = "close x volume"
        self._calendar = store.calendar
        self._kind = None if volume == "auto" else volume
        (self._amount,) = store.read(["amount"], instruments)
        if not np.isnan(self._amount).all():
            self.formula = "amount"
            return
        self._close, self._volume, self._factor = store.read(["close", "volume", "factor"], instruments)
        for field, values in (("close", self._close), ("volume", self._volume)):
            if np.isnan(values).all():
                raise StoreError(
                    f"`{store.root}` has no `amount` of these stocks, and no `{field}` to compute it from; choose by "
                    "market value, or import the bars anew with what is missing"
                )

    def between(self, first: int, after: int) -> np.ndarray:
        """Money of the days `first` to `after` - 1 of the calendar, float64 `[after - first, S]`.

        NaN where nothing is known, as on a suspended day. No day from `after` on is looked at.

        Raises
        ------
        UserError
            If `volume` is `auto` and the volumes of the days before `after` do not tell.
        """
        if self.formula == "amount":
            return self._amount[first:after].astype(np.float64)
        with np.errstate(invalid="ignore"):
            money = self._close[first:after].astype(np.float64) * self._volume[first:after]
            if self._raw(after):
                self.formula = "close / factor x volume"
                return money / self._factor[first:after]
        return money

    def _raw(self, after: int) -> bool:
        if self._kind is None:
            volume, factor = self._volume[:after], self._factor[:after]
            self._kind = volume_kind(volume, factor)
            if self._kind is None and _uneven(factor).any():
                raise UserError(
                    "the store has no `amount`, and its volumes up to "
                    f"{self._calendar[after - 1]:%Y-%m-%d} do not tell whether they are raw shares or adjusted ones "
                    "(raw / factor): say which, --volume raw or --volume adjusted"
                )
        return self._kind == "raw"


def volume_kind(volume: np.ndarray, factor: np.ndarray) -> str | None:
    """Whether volumes are `raw` shares or `adjusted` ones, raw / factor.

    Raw shares are whole numbers, and so is volume x factor where the volume is adjusted. By chance a quotient of
    whole shares and a factor above 1 is hardly ever whole, nor is a product with a factor below 1; so volumes count
    as raw that are whole where the factor is above 1, and as adjusted that are whole, times the factor, where it is
    below. Only where this says nothing does the other product count.

    Parameters
    ----------
    volume, factor
        Bars of the same shape, NaN where there is none. Rows with a factor within 1 % of 1 say nothing, nor do
        volumes so large that float32 has no fractions for them.

    Returns
    -------
    `raw`, `adjusted`, or None where the volumes do not tell. Volumes that somebody adjusted and rounded to whole
    numbers are taken for raw.
    """
    with np.errstate(invalid="ignore"):
        rows = (volume > 0) & _uneven(factor)
    shares, factors = volume[rows].astype(np.float64), factor[rows].astype(np.float64)
    above = factors > 1
    verdicts = {
        _verdict("raw", _whole(shares[above], _MOST), _whole((shares * factors)[above], _MOST_PRODUCT)),
        _verdict(
            "adjusted", _whole((shares * factors)[~above], _MOST_PRODUCT), _whole(shares[~above], _MOST)
        ),
    } - {None}
    return verdicts.pop() if len(verdicts) == 1 else None


def _verdict(first: str, first_whole: bool | None, other_whole: bool | None) -> str | None:
    """What whole numbers say: `first` if its own are whole, the other kind if only the other's are."""
    if first_whole:
        return first
    if first_whole is False and other_whole:
        return "adjusted" if first == "raw" else "raw"
    return None


def _uneven(factor: np.ndarray) -> np.ndarray:
    """Where raw and adjusted differ by more than 1 %."""
    with np.errstate(invalid="ignore"):
        return (np.abs(factor - 1) > 0.01) & (factor > 0)


def _whole(numbers: np.ndarray, most: float) -> bool | None:
    """Whether nearly all are whole, of those small enough to tell; None where these are too few."""
    numbers = numbers[numbers < most]
    if len(numbers) < _FEWEST:
        return None
    return bool(np.mean(np.abs(numbers - np.round(numbers)) < _TOLERANCE) >= _NEARLY_ALL)
