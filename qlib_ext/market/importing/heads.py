"""The head of a table in text: its separator, its lines of names, and the decimal sign of its numbers."""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

from qlib_ext.checks import UserError
from qlib_ext.market.columns import Known, field_of

LINES = 60  # that are looked at
MOST_TITLES = 5  # lines before the names
SIGNS = {"point": ".", "comma": ","}
# What pandas writes before the names where columns have two levels.
_LEVELS = {"", "price", "ticker", "tickers", "symbol", "symbols", "attributes", "field"}
_PAIR = re.compile(r"\('.*', '.*'\)")  # a column of two levels in Parquet
# A comma or a point is sure to be the decimal sign, or sure to part thousands.
_DECIMAL = r"[-+(]*(?:0|\d{{4,}}|\d{{1,3}}(?:{other}\d{{3}})+){sign}\d+|\d+{sign}(?:\d{{1,2}}|\d{{4,}})|\d{{1,3}}(?:{other}\d{{3}}){{2,}}"
_SURE = {
    sign: re.compile(rf"[-+(]*(?:{_DECIMAL.format(sign=re.escape(sign), other=re.escape(other))})\D*")
    for sign, other in ((".", ","), (",", "."))
}
_UNSURE = re.compile(r"[-+(]*\d{1,3},\d{3}\D*")


@dataclass(frozen=True)
class Head:
    """What stands before the rows of a table.

    Attributes
    ----------
    names : tuple of str
        A name a column.
    skipped : int
        Lines up to and with the last one of names.
    titles : tuple of str
        Lines that name nothing.
    separator, decimal : str
        Of a text.
    codes : tuple of str
        The instrument of each column, empty for the day; no code at all in a table of one level of names.
    """

    names: tuple[str, ...]
    skipped: int = 1
    titles: tuple[str, ...] = ()
    separator: str = ","
    decimal: str = "."
    codes: tuple[str, ...] = ()


def text_head(lines: Sequence[str], known: Known, decimal: str, where: str) -> Head:
    """The head of a table in text.

    Parameters
    ----------
    lines
        The first `LINES` lines, blank ones too; one of them is not blank.
    known
        Names of fields, as `recognise` takes them.
    decimal
        `point`, `comma` or `auto`.
    where
        The file, for messages.

    Raises
    ------
    UserError
        If `auto` cannot tell thousands from decimals.
    """
    filled = [number for number, line in enumerate(lines) if line.strip()]
    tops = [_cells(lines[number], _separator(lines[number])) for number in filled[: MOST_TITLES + 1]]
    first = next((k for k, cells in enumerate(tops) if _fields(cells, known) > 2), 0)
    if first and len(tops[first - 1]) == len(tops[first]) and _is_level(tops[first - 1][0]):
        first -= 1  # the tickers stand above the fields
    separator = _separator(lines[filled[first]])
    rows = [_cells(lines[number], separator) for number in filled[first:]]
    names, codes, used = _levels(rows, known)
    return Head(
        tuple(names),
        filled[first + used - 1] + 1,
        tuple(lines[number].strip() for number in filled[:first]),
        separator,
        _decimal_sign(rows[used:], decimal, where),
        tuple(codes),
    )


def column_head(header: Sequence[str], known: Known) -> Head:
    """The head of a table whose columns have names already, perhaps of two levels: `('Close', 'AAPL')`."""
    if not any(_PAIR.fullmatch(name) for name in header):
        return Head(tuple(header))
    pairs = [ast.literal_eval(name) if _PAIR.fullmatch(name) else (name, "") for name in header]
    levels = [["", *(str(pair[level]) for pair in pairs)] for level in (0, 1)]
    names, codes = _which(levels, known)
    return Head(tuple(names[1:]), codes=tuple(codes[1:]))


def _levels(rows: Sequence[Sequence[str]], known: Known) -> tuple[list[str], list[str], int]:
    """Names and instruments of the columns, and how many rows say them."""
    top = rows[0]
    closing = next((k for k, row in enumerate(rows[1:4], start=1) if row and not any(row[1:])), None)
    two = len(rows) > 1 and len(rows[1]) == len(top) > 1 and all(_is_level(row[0]) for row in rows[:2])
    if two and closing in (None, 2) and not any(_is_number(cell) for cell in rows[1][1:]):
        names, codes = _which(rows[:2], known)
        day = rows[2][0] if closing == 2 else ""
        return [day or "date", *names[1:]], ["", *codes[1:]], 2 if closing is None else 3
    return list(top), [], 1


def _which(levels: Sequence[Sequence[str]], known: Known) -> tuple[list[str], list[str]]:
    """The level of fields and that of instruments."""
    first, second = sorted(levels, key=lambda level: -_fields(level[1:], known))
    return list(first), list(second)


def _fields(cells: Sequence[str], known: Known) -> int:
    """How many different fields some cells name."""
    return len({field_of(cell, known) for cell in cells} - {None})


def _is_level(cell: str) -> bool:
    return cell.strip().lower() in _LEVELS


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+]?\d+(\.\d*)?", cell.strip()) is not None


def _separator(line: str) -> str:
    return max(",\t;|", key=line.count)


def _cells(line: str, separator: str) -> list[str]:
    text = line.lstrip("\ufeff").rstrip("\r\n")
    return [cell.strip() for cell in next(csv.reader([text], delimiter=separator), [])] or [""]


def _decimal_sign(rows: Sequence[Sequence[str]], asked: str, where: str) -> str:
    """The sign before decimals, by numbers that leave no doubt; a point where no number has a comma."""
    if asked != "auto":
        return SIGNS[asked]
    cells = [cell.replace(" ", "") for row in rows for cell in row if "," in cell or "." in cell]
    sure = {
        sign: next((cell for cell in cells if form.fullmatch(cell)), None) for sign, form in _SURE.items()
    }
    found = [sign for sign, cell in sure.items() if cell is not None]
    unsure = next((cell for cell in cells if _UNSURE.fullmatch(cell)), None)
    if len(found) == 2 or (not found and unsure is not None):
        shown = " and ".join(repr(cell) for cell in sure.values() if cell is not None) or repr(unsure)
        raise UserError(
            f"`{where}` has numbers such as {shown}, which do not tell whether a comma parts thousands or decimals: say "
            "`--decimal point` (1,234 is 1234) or `--decimal comma` (1,234 is 1.234)"
        )
    return found[0] if found else "."


_SCALES = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12, "千": 1e3, "万": 1e4, "百万": 1e6, "亿": 1e8}
_WRITTEN = re.compile(
    rf"(?P<debit>\()?(?P<sign>[-+]?)[$€£¥]?(?P<digits>\d[\d.,]*)(?P<scale>{'|'.join(_SCALES)})?(?P<percent>%)?(?(debit)\))",
    re.IGNORECASE,
)


def written_number(text: str, decimal: str) -> float | None:
    """A number as people write it, None where it is none: `1,234.5`, `3.16M`, `1.2亿`, `(1.2)` and `1.2%`, which is 0.012."""
    match = _WRITTEN.fullmatch(re.sub(r"\s", "", text))
    if match is None:
        return None
    thousands = "," if decimal == "." else "."
    digits = match["digits"]
    if thousands in digits:
        whole, *_ = digits.split(decimal)
        if not re.fullmatch(rf"\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+", whole):
            return None
        digits = digits.replace(thousands, "")
    try:
        number = float(digits.replace(decimal, "."))
    except ValueError:
        return None
    number *= _SCALES[match["scale"].lower()] if match["scale"] else 1.0
    number /= 100.0 if match["percent"] else 1.0
    return -number if (match["sign"] == "-") != (match["debit"] is not None) else number
