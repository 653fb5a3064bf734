"""Units of volume, amount and change, read off the prices; and the vwap that follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.importing.notes import Notes
from qlib_ext.market.traded_value import CLOSE_TO, PAIRS

VOLUME_UNITS = (1.0, 100.0, 1000.0)  # shares: lots of A-shares have 100, those of Taiwan 1000
AMOUNT_UNITS = (1.0, 1e3, 1e4, 1e6)  # currency
NEARLY_ALL = 0.9  # of the days of a stock in a unit of its own
FEWEST = 0.25  # of the stocks in the units of the market
OUTSIDE = 0.01  # a vwap may lie so far beyond low and high: amounts and volumes come rounded
MOST = 0.5  # if more of the rows of an instrument lie outside, its vwap is none
COMPUTED = "computed change"  # no field of a source can be called so
CHANGE_UNITS = {"fraction": 1.0, "percent": 100.0}


def settle_units(
    table: dict[str, np.ndarray],
    codes: Sequence[str],
    stocks: np.ndarray,
    settings: ImportSettings,
    notes: Notes,
) -> tuple[float | None, float]:
    """Bring `volume` to shares and `amount` to currency, in place.

    Amount over volume is a price. Where it is 100 times that of the bars, the volume counts lots of 100; where it
    is a thousandth, the amount counts thousands; and so on. Only what fits well is believed. The units that fit the
    most stocks are those of the market, and the volumes of a stock that they do not fit are in another unit where
    that fits nearly all of its days: vendors have shares for the STAR market and lots for the others.

    Parameters
    ----------
    table
        Field to array `[S, D]`, adjusted.
    codes
        S instruments, for messages.
    stocks
        bool `[S]`: without indices, whose amount and volume are those of their members.
    settings
        `volume_unit` and `amount_unit`, where they are known.
    notes
        Is told what was found.

    Returns
    -------
    The units, 1 where nothing says otherwise; None for that of the volume where stocks differ.
    """
    volume_unit, amount_unit = settings.volume_unit, settings.amount_unit
    others: dict[int, float] = {}  # stock to the unit of its volume
    if (volume_unit is None or amount_unit is None) and {"amount", "volume"} <= table.keys():
        ratios = {
            index: _amount_over_volume_over_price(table, index) for index in np.flatnonzero(stocks).tolist()
        }
        ratios = {index: ratio for index, ratio in ratios.items() if ratio.size}
        medians = np.array([np.median(own) for own in ratios.values()])
        if volume_unit is not None:
            pairs = [(volume_unit, amount) for amount in AMOUNT_UNITS]
        elif amount_unit is not None:
            pairs = [(volume, amount_unit) for volume in VOLUME_UNITS]
        else:
            pairs = list(PAIRS)
        if units := _of_most(medians, pairs):
            (found, amount_unit), ratio = units
            if volume_unit is None:
                others = _others(ratios, found, amount_unit)
            volume_unit = found
            if (found, amount_unit) != (1.0, 1.0):
                notes.add(
                    f"amount / volume is {ratio:.4g} times the price: volume read in units of {volume_unit:g} shares, "
                    f"amount in units of {amount_unit:g}"
                )
            for unit in sorted(set(others.values())):
                own = [codes[index] for index, of in others.items() if of == unit]
                notes.add(
                    f"{{instrument}} whose volume is in units of {unit:g} shares, by amount / volume against the price: "
                    f"read so, the others in units of {volume_unit:g}",
                    len(own),
                    own,
                )
        elif medians.size:
            notes.add(
                f"amount / volume is {np.median(medians):.4g} times the price, which no known units explain: volume and amount "
                "left as they are, name them with `--volume-unit` and `--amount-unit`"
            )
    volume_unit, amount_unit = volume_unit or 1.0, amount_unit or 1.0
    for field, unit in (("volume", volume_unit), ("amount", amount_unit)):
        if field in table and unit != 1:
            table[field] *= np.float32(unit)
    for index, unit in others.items():
        table["volume"][index] *= np.float32(unit / volume_unit)
    return (None if others else volume_unit), amount_unit


def _of_most(
    medians: np.ndarray, pairs: Sequence[tuple[float, float]]
) -> tuple[tuple[float, float], float] | None:
    """The pair (volume unit, amount unit) that fits the most stocks, and their ratio; None if it fits too few.

    A quarter of the stocks must be in it, so that it is no chance where prices are adjusted and amounts are not.
    """
    fits = {
        pair: medians[np.abs(medians * pair[1] / pair[0] - 1) < CLOSE_TO] for pair in pairs if medians.size
    }
    best = max(fits, key=lambda pair: fits[pair].size, default=None)
    if best is None or fits[best].size < FEWEST * medians.size:
        return None
    return best, float(np.median(fits[best]))


def _amount_over_volume_over_price(table: dict[str, np.ndarray], index: int) -> np.ndarray:
    """Of the days of a stock that have all three."""
    amount, volume, close = (
        table[field][index].astype(np.float64) for field in ("amount", "volume", "close")
    )
    traded = (amount > 0) & (volume > 0) & (close > 0)
    return amount[traded] / volume[traded] / close[traded]


def _others(ratios: Mapping[int, np.ndarray], volume_unit: float, amount_unit: float) -> dict[int, float]:
    """Stocks whose volume is in another unit than that of the market, and which."""
    found = {}
    for index, ratio in ratios.items():
        prices = {unit: ratio * amount_unit / unit for unit in VOLUME_UNITS}
        share = {unit: float(np.mean(np.abs(price - 1) < CLOSE_TO)) for unit, price in prices.items()}
        best = max(share, key=share.__getitem__)
        if best != volume_unit and share[best] >= NEARLY_ALL:
            found[index] = best
    return found


def check_vwap(
    table: dict[str, np.ndarray], codes: Sequence[str], calendar: np.ndarray, notes: Notes
) -> None:
    """Make `vwap` of amount and volume where the source has none, and keep it only where it can be one.

    A vwap lies between low and high. A row in which it does not, by more than 1 %, has none; an instrument most of
    whose rows are like that has none at all: an index, whose amount and volume are those of its members, or a stock
    in other units. If that is most instruments, there is no vwap.

    Parameters
    ----------
    table
        Field to array `[S, D]`, adjusted, in shares and currency; `vwap` is added, changed or removed.
    codes
        S instruments.
    calendar
        D days.
    notes
        Is told what was left out.
    """
    made = "vwap" not in table
    if made:
        if not {"amount", "volume"} <= table.keys():
            notes.add("no vwap: the source has neither it nor both amount and volume")
            return
        with np.errstate(divide="ignore", invalid="ignore"):
            table["vwap"] = np.where(
                table["volume"] > 0, table["amount"] / table["volume"], np.float32(np.nan)
            )
    vwap = table["vwap"]
    without = []
    checked = 0
    for index, code in enumerate(codes):
        row = vwap[index]
        low, high = (_bound(table, field, index) for field in ("low", "high"))
        with np.errstate(invalid="ignore"):
            outside = (row < low * (1 - OUTSIDE)) | (row > high * (1 + OUTSIDE))
        there = int((~np.isnan(row)).sum())
        checked += there > 0
        if outside.sum() > MOST * there:
            without.append(code)
            row[:] = np.nan
        elif outside.any():
            notes.add(
                "{bar} whose vwap lies more than 1 % outside low and high: its vwap left out",
                outside.sum(),
                (f"{code} {day}" for day in calendar[outside]),
            )
            row[outside] = np.nan
    if without and len(without) > MOST * checked:
        of = "amount / volume" if made else "the source's vwap"
        notes.add(
            f"no vwap: {of} lies outside low and high for {len(without):,} of {checked:,} instruments",
            len(without),
            without,
        )
        del table["vwap"]
    else:
        notes.add(
            "{instrument} whose vwap lies outside low and high on most days: without a vwap (an index has none; a stock "
            "may have a volume or an amount in another unit, or prices of another adjustment)",
            len(without),
            without,
        )
        if made:
            notes.add("vwap made as amount / volume")


def _bound(table: dict[str, np.ndarray], field: str, index: int) -> np.ndarray:
    """Low or high of an instrument, the close where it has none."""
    if field not in table:
        return table["close"][index]
    row = table[field][index]
    return np.where(np.isnan(row), table["close"][index], row)


def choose_change(table: dict[str, np.ndarray], unit: str, notes: Notes) -> str:
    """Make `change` a fraction: of the source where it is one or a percentage, else from the closes.

    The source's is worth having: it knows the first day, and the exchange's own close of the day before. Its unit is
    read off the rises of the closes, and it is not used where it fits neither (a difference of prices, say).

    Parameters
    ----------
    table
        Field to array `[S, D]`, with `COMPUTED` (rises of the adjusted closes), which is taken out, and perhaps
        `change`.
    unit
        `auto`, `fraction`, `percent` or `computed`.
    notes
        Is told what was found.

    Returns
    -------
    `fraction`, `percent` or `computed`.
    """
    computed = table.pop(COMPUTED)
    source = table.pop("change", None)
    if source is None or unit == "computed":
        table["change"] = computed
        return "computed"
    if unit == "auto":
        moved = np.abs(computed) > 5e-3
        moved &= ~np.isnan(source)
        if not moved.any():
            notes.add("too few moves tell the unit of the source's change: made from the closes instead")
            table["change"] = computed
            return "computed"
        ratio = source[moved] / computed[moved]
        fits = {name: np.abs(ratio / size - 1) < 0.05 for name, size in CHANGE_UNITS.items()}
        unit = next((name for name, fit in fits.items() if fit.mean() > 0.8), "computed")
        if unit == "computed":
            notes.add(
                "the source's change is neither the rise of the closes nor that in percent: made from the closes instead"
            )
            table["change"] = computed
            return unit
        if unit == "percent":
            notes.add("the source's change is in percent: made a fraction")
    source = source / np.float32(CHANGE_UNITS[unit])
    table["change"] = np.where(np.isnan(source), computed, source)
    return unit
