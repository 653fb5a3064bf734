"""What stocks were traded for in currency, as far as a store can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qlib_ext.checks import UserError, above, one_of
from qlib_ext.market.importing.units import CLOSE_TO, PAIRS
from qlib_ext.market.store import QlibStore, StoreError
from qlib_ext.market.traded_amount import VOLUMES, volume_kind


@dataclass(frozen=True)
class TradedMoney:
    """Money that S stocks were traded for on D days.

    Attributes
    ----------
    money
        Currency, float64 `[D, S]`; NaN where it is not known.
    formula
        What it is made of.
    sure
        Whether the unit is known, by the store's own numbers or by the caller.
    said
        How the unit is known, or what is assumed and how to say otherwise, as a sentence.
    """

    money: np.ndarray
    formula: str
    sure: bool
    said: str


def traded_money(
    store: QlibStore,
    instruments: Sequence[str],
    volume: str = "auto",
    volume_unit: float | None = None,
) -> TradedMoney:
    """Money that stocks were traded for, day by day.

    It is the store's `amount`, else close times volume, with the raw close where volumes are raw shares. Where a store
    has both, they tell each other's unit: amount over volume is a price, and where it is 100 times that of the bars,
    volumes count lots of 100, where it is a thousandth, amounts count thousands, and so on. Where it has no amount,
    nothing in it tells shares from lots.

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
    amount, close, traded, factor = store.read(["amount", "close", "volume", "factor"], instruments).astype(
        np.float64
    )
    has_amount = not np.isnan(amount).all()
    if not has_amount and (np.isnan(close).all() or np.isnan(traded).all()):
        raise StoreError(
            "the store has no `amount` of these stocks, and not both `close` and `volume` to compute it from"
        )
    kind = volume_kind(traded, factor) if volume == "auto" else volume
    with np.errstate(invalid="ignore", divide="ignore"):
        uneven = bool(((np.abs(factor - 1) > 0.01) & (factor > 0)).any())
        computed = close * traded / (factor if kind == "raw" else 1.0)
    if has_amount:
        return _by_amount(amount, computed)
    if kind is None and uneven:
        raise UserError(
            "the store has no `amount`, and its volumes do not tell whether they are raw shares or adjusted ones "
            "(raw / factor): set `volume` to raw or adjusted"
        )
    formula = "close / factor x volume" if kind == "raw" else "close x volume"
    if volume_unit is not None:
        return TradedMoney(
            computed * volume_unit,
            formula,
            True,
            f"volumes count {volume_unit:g} shares, as the settings say",
        )
    return TradedMoney(
        computed,
        formula,
        False,
        "volumes are taken to count single shares, since the store has no amount to tell shares from lots of 100. If they "
        "are lots, orders are a hundredth as large beside the market as given here; then set volume_unit to 100",
    )


def _by_amount(amount: np.ndarray, computed: np.ndarray) -> TradedMoney:
    """Amounts in currency: their unit, in so far as volumes tell it."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where((amount > 0) & (computed > 0), amount / computed, np.nan)
    by_stock = [np.median(column[~np.isnan(column)]) for column in ratio.T if not np.isnan(column).all()]
    typical = float(np.median(by_stock)) if by_stock else float("nan")
    for shares, unit in PAIRS:
        if abs(typical * unit / shares - 1) < CLOSE_TO:
            said = f"amounts count {unit:,.0f} in currency, by what volumes and prices say"
            return TradedMoney(amount * unit, "amount", True, said)
    return TradedMoney(
        amount,
        "amount",
        False,
        "amounts are taken to be in currency: volumes and prices do not tell their unit",
    )
