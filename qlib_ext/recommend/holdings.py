"""What an account holds, read from a CSV file as a person or a broker writes it."""

from __future__ import annotations

import contextlib
import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qlib_ext.checks import UserError, brief, nearest
from qlib_ext.files import MIB, read_text
from qlib_ext.market.codes import code_in_store
from qlib_ext.market.store import QlibStore

CASH = "CASH"  # the row that holds the cash, in currency
COLUMNS = {
    "code": ("code", "instrument", "symbol", "ticker"),
    "shares": ("shares", "amount", "quantity"),
    "days_held": ("days_held",),
}


@dataclass(frozen=True)
class Holdings:
    """An account at the close of a day.

    Attributes
    ----------
    cash
        In currency.
    shares
        Instrument code -> shares as they are traded, not adjusted; above 0.
    days_held
        Instrument code -> trading days since the purchase, of those for which it is known.
    """

    cash: float
    shares: Mapping[str, float] = field(default_factory=dict)
    days_held: Mapping[str, int] = field(default_factory=dict)


def read_holdings(path: Path, store: QlibStore, cash: float | None = None) -> Holdings:
    """Read a CSV file with the columns `code` and `shares`, and where it is known `days_held`.

    Parameters
    ----------
    path
        The file. A row with the code CASH holds the cash; a row of 0 shares is nothing held.
    store
        Whose codes the file must use; letters may be small.
    cash
        In currency, instead of the row.

    Raises
    ------
    UserError
        If the file is no such table, a code is unknown or comes twice, a number is negative or none, or the cash is
        missing or given twice. The message names the line.
    """
    try:
        text = read_text(path, MIB, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"`--current` must be a CSV file in UTF-8, found {path}: {error}") from error
    rows = list(csv.reader(text.splitlines()))
    if not rows or not any(cell.strip() for cell in rows[0]):
        raise UserError(f"{path} is empty: its first line must be `code,shares`")
    place = _columns(path, [cell.strip().lower() for cell in rows[0]])
    known = set(store.instruments())
    shares: dict[str, float] = {}
    days: dict[str, int] = {}
    seen: dict[str, int] = {}
    in_file: float | None = None
    for line, row in enumerate(rows[1:], start=2):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        cells += [""] * (1 + max(place.values()) - len(cells))
        code = cells[place["code"]].upper()
        if code != CASH:
            with contextlib.suppress(UserError):  # what is no code is no stock either, which is told below
                code = code_in_store(code, known)
        where = f"{path}, line {line}"
        if code in seen:
            raise UserError(
                f"{where}: {code} must come once, found it in line {seen[code]} too; add the rows up"
            )
        seen[code] = line
        number = _number(
            where, f"the {'cash' if code == CASH else f'shares of {code}'}", cells[place["shares"]]
        )
        if code == CASH:
            in_file = number
            continue
        if code not in known:
            raise UserError(
                f"{where}: the store {store.root} has no stock {brief(code)}{nearest(code, known)}; codes are written as "
                f"in {min(known)}"
            )
        if number == 0:
            continue
        shares[code] = number
        held = cells[place["days_held"]] if "days_held" in place else ""
        if held:
            if not held.isdigit():
                raise UserError(f"{where}: `days_held` must be a number of trading days, found {brief(held)}")
            days[code] = int(held)
    if cash is not None and in_file is not None:
        raise UserError(f"the cash must be given once, found it in {path} and as `--cash`")
    if cash is None and in_file is None:
        raise UserError(
            f"the orders depend on the cash: add a row `{CASH},<amount>` to {path}, or give `--cash`"
        )
    held_cash = in_file if cash is None else cash
    assert held_cash is not None
    return Holdings(check_cash(held_cash), shares, days)


def check_cash(cash: float) -> float:
    """Return an amount of cash if it is a finite number of at least 0."""
    if not math.isfinite(cash) or cash < 0:
        raise UserError(f"`--cash` must be an amount of at least 0, found {brief(cash)}")
    return float(cash)


def _columns(path: Path, names: list[str]) -> dict[str, int]:
    place = {}
    for column, called in COLUMNS.items():
        found = [names.index(name) for name in called if name in names]
        if len(found) > 1:
            raise UserError(f"{path} must have one column for the {column}, found {' and '.join(called)}")
        if found:
            place[column] = found[0]
        elif column != "days_held":
            raise UserError(f"{path} must have the columns code and shares, found {', '.join(names)}")
    return place


def _number(where: str, what: str, text: str) -> float:
    try:
        number = float(text.replace("_", "x"))
    except ValueError as error:
        raise UserError(
            f"{where}: {what} must be a number, without separators; found {brief(text)}"
        ) from error
    if not math.isfinite(number) or number < 0:
        raise UserError(f"{where}: {what} must be at least 0, found {brief(text)}")
    return number
