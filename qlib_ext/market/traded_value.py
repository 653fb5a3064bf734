"""What stocks were traded for in money, whatever a store has to say it with.

Where a store has the field `amount`, that is it. Elsewhere it is price times volume, and stores differ in what their
`volume` is: Qlib's convention is adjusted shares (raw shares / factor, so that adjusted close x volume is money), but
many stores hold the raw shares beside adjusted prices, and there close x volume grows with every dividend: money is
close / factor x volume. Which of the two a store has is read off its volumes, for raw ones count shares and are whole
numbers. A stock without a factor has prices that were not adjusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from qlib_ext.checks import UserError, above, one_of
from qlib_ext.market.store import QlibStore, StoreError

VOLUMES = ("auto", "raw", "adjusted")
# Pairs (volume unit, amount unit) that vendors use; no two of them give the same ratio.
PAIRS = (
    (1.0, 1.0), (100.0, 1.0), (1000.0, 1.0), (1.0, 1e3), (100.0, 1e3), (1.0, 1e4), (100.0, 1e4), (1.0, 1e6),
)  # fmt: skip
CLOSE_TO = 0.1  # how far the median of amount / volume / price may lie from a unit
# float32 tells whole numbers from others only where its steps are much finer than 1.
_MOST, _MOST_PRODUCT = 2.0**20, 2.0**18
_TOLERANCE = 0.05
_FEWEST = 50  # volumes to judge by
_NEARLY_ALL = 0.95


class TradedValue:
    """What stocks were traded for, day by day, never computed from later days.

    Parameters
    ----------
    store
        With the field `amount`, or with `close` and `volume`.
    instruments
        S codes.
    volume
        Where the value must be computed: `raw` or `adjusted` shares; `auto`: read off the volumes of the days that
        are known.

    Attributes
    ----------
    formula : str
        What the values are made of: `amount`, `close x volume` or `close / factor x volume`; `close x volume` too,
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
        _check_fields(store, self._close, self._volume)

    def between(self, first: int, after: int) -> np.ndarray:
        """Value of the days `first` to `after` - 1 of the calendar, float64 `[after - first, S]`.

        NaN where nothing is known, as on a suspended day. No day from `after` on is looked at.

        Raises
        ------
        UserError
            If `volume` is `auto` and the volumes of the days before `after` do not tell.
        """
        if self.formula == "amount":
            return self._amount[first:after].astype(np.float64)
        if self._kind is None:
            self._kind = self._kind_by(after)
            if self._kind is None and _uneven(self._factor[:after]).any():
                raise _undecided(f" up to {self._calendar[after - 1]:%Y-%m-%d}")
        return self._product(slice(first, after), self._kind, np.float64)

    def daily(self) -> np.ndarray:
        """Value of every day, float32 `[D, S]`, each as it was known on the day.

        Days before the first ones that tell what volumes are have none, where raw and adjusted shares differ.

        Raises
        ------
        UserError
            If `volume` is `auto` and the volumes do not tell.
        """
        if self.formula == "amount":
            return self._amount.copy()
        kind, days = self._kind, 1
        while kind is None:
            kind = self._kind_by(days)
            if kind is not None or days == len(self._calendar):
                break
            days = min(days + 1 + days // 4, len(self._calendar))
        uneven = _uneven(self._factor)
        if kind is None and uneven.any():
            raise _undecided("")
        value = self._product(slice(None), kind, np.float32)
        value[: days - 1][uneven[: days - 1]] = np.nan
        return value

    def _kind_by(self, after: int) -> str | None:
        return volume_kind(self._volume[:after], self._factor[:after])

    def _product(self, days: slice, kind: str | None, dtype: type[np.floating]) -> np.ndarray:
        if kind == "raw":
            self.formula = "close / factor x volume"
        return _product(
            self._close[days].astype(dtype, copy=False), self._volume[days], self._factor[days], kind
        )


@dataclass(frozen=True)
class ValueInCurrency:
    """What S stocks were traded for on D days, in currency.

    Attributes
    ----------
    value
        Float64 `[D, S]`; NaN where it is not known.
    formula
        What it is made of.
    sure
        Whether the unit is known, by the store's own numbers or by the caller.
    said
        How the unit is known, or what is assumed and how to say otherwise, as a sentence.
    """

    value: np.ndarray
    formula: str
    sure: bool
    said: str


def value_in_currency(
    store: QlibStore,
    instruments: Sequence[str],
    volume: str = "auto",
    volume_unit: float | None = None,
) -> ValueInCurrency:
    """What stocks were traded for in currency, looked at afterwards: all days tell what volumes are.

    Where a store has `amount` and `volume`, they tell each other's unit: amount over volume is a price, and where it
    is 100 times that of the bars, volumes count lots of 100, where it is a thousandth, amounts count thousands, and so
    on. Where it has no amount, nothing in it tells shares from lots.

    Parameters
    ----------
    store
        With `amount`, or with `close` and `volume`.
    instruments
        S codes.
    volume
        `raw` or `adjusted` shares (raw / factor); `auto` reads it off the volumes.
    volume_unit
        Shares in one unit of the store's volume, such as 100 for lots; None reads it off the amounts, else takes 1.

    Raises
    ------
    UserError
        If an argument does not fit, or volumes do not tell whether they are raw.
    StoreError
        If the store has none of the fields.
    """
    one_of("volume", volume, VOLUMES)
    if volume_unit is not None:
        above("volume_unit", volume_unit, 0)
    amount, close, shares, factor = store.read(["amount", "close", "volume", "factor"], instruments).astype(
        np.float64
    )
    has_amount = not np.isnan(amount).all()
    if not has_amount:
        _check_fields(store, close, shares)
    kind = volume_kind(shares, factor) if volume == "auto" else volume
    computed = _product(close, shares, factor, kind)
    if has_amount:
        fitting = fitting_units(amount_over_product(zip(amount.T, computed.T, strict=True)))
        if fitting:
            said = f"amounts count {fitting[0][1]:,.0f} in currency, by what volumes and prices say"
            return ValueInCurrency(amount * fitting[0][1], "amount", True, said)
        said = "amounts are taken to be in currency: volumes and prices do not tell their unit"
        return ValueInCurrency(amount, "amount", False, said)
    if kind is None and _uneven(factor).any():
        raise _undecided("")
    formula = "close / factor x volume" if kind == "raw" else "close x volume"
    if volume_unit is not None:
        said = f"volumes count {volume_unit:g} shares, as the settings say"
        return ValueInCurrency(computed * volume_unit, formula, True, said)
    said = (
        "volumes are taken to count single shares, since the store has no amount to tell shares from lots of 100. If "
        "they are lots, orders are a hundredth as large beside the market as given here; then set volume_unit to 100"
    )
    return ValueInCurrency(computed, formula, False, said)


def amount_over_product(stocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """The typical ratio of amount to price x volume: the median over the stocks of their medians, so that none decides.

    Parameters
    ----------
    stocks
        Amount and price x volume of each stock, float64 `[D]`. Days on which one is not above 0 do not count.
    """
    medians = []
    for amount, product in stocks:
        traded = (amount > 0) & (product > 0)
        if traded.any():
            medians.append(np.median(amount[traded] / product[traded]))
    return float(np.median(medians)) if medians else float("nan")


def fitting_units(ratio: float, pairs: Sequence[tuple[float, float]] = PAIRS) -> list[tuple[float, float]]:
    """The pairs (volume unit, amount unit) that explain a ratio of amount to price x volume well."""
    return [pair for pair in pairs if abs(ratio * pair[1] / pair[0] - 1) < CLOSE_TO]


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


def _product(close: np.ndarray, volume: np.ndarray, factor: np.ndarray, kind: str | None) -> np.ndarray:
    """Money of shares of a kind; a missing factor counts as 1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        money = close * volume
        return np.where(np.isnan(factor), money, money / factor) if kind == "raw" else money


def _check_fields(store: QlibStore, close: np.ndarray, volume: np.ndarray) -> None:
    for field, values in (("close", close), ("volume", volume)):
        if np.isnan(values).all():
            raise StoreError(
                f"`{store.root}` has no `amount` of these stocks, and no `{field}` to compute it from: import the bars "
                "anew with what is missing, or go by market values (`qlib-ext data side-data DIR market_value FILE`)"
            )


def _undecided(days: str) -> UserError:
    return UserError(
        f"the store has no `amount`, and its volumes{days} do not tell whether they are raw shares or adjusted ones "
        "(raw / factor): set `volume` to raw or adjusted, on the command line with --volume"
    )
