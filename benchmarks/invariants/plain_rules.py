"""The rules of the Chinese exchanges once more, in whole fen and with nothing of the package's own.

Written down a second time on purpose: what the package does is held against it.
"""

from __future__ import annotations

import datetime as dt

ISSUE = -1  # a limit relative to the issue price
DUTY = [  # from, of a purchase, of a sale
    (dt.date(2001, 11, 16), 0.002, 0.002),
    (dt.date(2005, 1, 24), 0.001, 0.001),
    (dt.date(2007, 5, 30), 0.003, 0.003),
    (dt.date(2008, 4, 24), 0.001, 0.001),
    (dt.date(2008, 9, 19), 0.0, 0.001),
    (dt.date(2023, 8, 28), 0.0, 0.0005),
]
TRANSFER = [(dt.date(2001, 1, 1), 0.0), (dt.date(2015, 8, 1), 0.00002), (dt.date(2022, 4, 29), 0.00001)]
CHINEXT_REFORM, STAR_OPENS = dt.date(2020, 8, 24), dt.date(2019, 7, 22)
FIRST_DAY_LIMITS, MAIN_REFORM = dt.date(2014, 1, 1), dt.date(2023, 4, 10)
SPECIAL_AS_OTHERS = dt.date(2026, 7, 6)  # ST stocks of the main board


def board(code: str) -> str:
    """The board of a code."""
    if code.startswith("SH688"):
        return "star"
    return "chinext" if code.startswith("SZ30") else "main"


def limit_percent(
    code: str, day: dt.date, special: bool, listed: dt.date | None, age: int | None
) -> int | None:
    """Price limit in percent; None: none; `ISSUE`: relative to the issue price, and wider than anything else.

    `listed` and `age` (trading days since) of a stock that was listed lately.
    """
    where = board(code)
    reformed = {"star": STAR_OPENS, "chinext": CHINEXT_REFORM, "main": MAIN_REFORM}[where]
    if listed is not None and age is not None:
        if listed >= reformed:
            if age < 5:
                return None
        elif age == 0:
            return ISSUE if listed >= FIRST_DAY_LIMITS else None
    if where == "star":
        return 20
    if where == "chinext" and day >= CHINEXT_REFORM:
        return 20
    return 5 if special and not (where == "main" and day >= SPECIAL_AS_OTHERS) else 10


def limit_prices(reference: int, percent: int) -> tuple[int, int]:
    """Lower and upper limit price in fen, rounded half up, at least a fen away."""
    down, up = (reference * (100 - percent) + 50) // 100, (reference * (100 + percent) + 50) // 100
    return max(1, min(down, reference - 1)), max(up, reference + 1)


def least_and_step(code: str) -> tuple[int, int]:
    """Shares of a purchase: at least, and in steps of."""
    return (200, 1) if board(code) == "star" else (100, 100)


def cost(
    value: float, buying: bool, day: dt.date, commission: float, minimum: float, china: bool = True
) -> float:
    """What a trade costs."""
    levies = 0.0
    if china:
        _, buy, sell = [row for row in DUTY if row[0] <= day][-1]
        levies = (buy if buying else sell) + [rate for begin, rate in TRANSFER if begin <= day][-1]
    return max(commission * value, minimum) + levies * value
