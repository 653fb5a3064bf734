"""Amounts of money as a reader takes them in."""

from __future__ import annotations

import math

from qlib_ext.report.html import NONE

NAMES = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))


def format_amount(amount: float) -> str:
    """An amount in at most three digits, `146 million`; below a million written out, `12,500`; an en dash for NaN."""
    if amount is None or math.isnan(amount):
        return NONE
    if math.isinf(amount):
        return "unlimited"
    size = abs(amount)
    if round(size) >= 999_500:
        for unit, name in NAMES:
            if size >= 0.9995 * unit:
                return f"{_three_digits(amount / unit)} {name}"
    return f"{amount:,.0f}" if size >= 100 or amount == 0 else f"{amount:,.2f}"


def _three_digits(value: float) -> str:
    decimals = max(0, 2 - max(0, math.floor(math.log10(abs(value)))))
    written = f"{value:,.{decimals}f}"
    return written.rstrip("0").rstrip(".") if "." in written else written
