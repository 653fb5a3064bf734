"""Every fault that a table of side data may have."""

from __future__ import annotations

from qlib_ext.market.finding import Finding, Kind

JUMP = 50.0  # times: more than any day's news does to a firm's value, less than a change of units

KINDS = (
    Kind("side-unreadable", "error", "a file of side data is no Parquet or CSV table", "nothing can be read from it"),
    Kind("side-two-files", "error", "a table of side data has both a Parquet and a CSV file",
         "which of them is meant is anybody's guess"),
    Kind("side-unknown-shape", "error", "the columns of a table of side data fit no known shape",
         "nothing says when a row was known"),
    Kind("side-missing-column", "error", "a table of side data lacks a column that its shape needs",
         "a series without release dates, for one, would be known before it was published"),
    Kind("side-empty", "error", "a table of side data has no rows", "whatever reads it would get nothing"),
    Kind("side-missing-value", "error", "rows of a table of side data have no stock, day, name or period",
         "they belong nowhere"),
    Kind("side-bad-date", "error", "rows of a table of side data have text that is no day, a time of day or a time zone",
         "when they were known cannot be told"),
    Kind("side-bad-number", "error", "rows of a table of side data have text or infinity where a number belongs",
         "it would spread through every feature made of it"),
    Kind("side-bad-period", "error",
         "rows of a series have a reference period that cannot be read, or of another length than the rest",
         "which figure follows which cannot be told"),
    Kind("side-reversed-spell", "error", "spells of a table of side data end before they begin",
         "the stock would have no industry or concept in a time in which it had one"),
    Kind("side-doubled-row", "error",
         "a table of side data has two rows for the same stock and day, or the same release of a period",
         "which of them is true cannot be told"),
    Kind("side-bad-market-value", "error", "market values are zero or negative",
         "they weigh stocks, and no listed firm is worth nothing"),
    Kind("side-released-early", "error", "figures of a series are released before their period ends",
         "a model would know them too early"),
    Kind("side-no-known-code", "error", "no code of a table of side data has bars",
         "codes are written another way than in the store, and no stock would get a value"),
    Kind("side-overlapping-spells", "warning",
         "spells of one stock and name overlap, or a stock has two industries at once",
         "an earlier spell was probably meant to end where the next begins"),
    Kind("side-market-value-jump", "warning", f"market values jump by {JUMP:g} times or more within a week",
         "rows in different units are mixed"),
    Kind("side-few-stocks", "warning", "a table of side data has rows for less than half of the stocks with bars",
         "the other half has none"),
    Kind("side-nothing-inside", "warning", "all rows of a table of side data lie outside of the calendar",
         "no day of the store has any of it"),
    Kind("side-ends-early", "warning", "a table of side data ends long before the bars do",
         "later days have none of it, or old figures"),
    Kind("side-outside-calendar", "note", "some rows of a table of side data lie outside of the calendar",
         "they are not used"),
    Kind("side-unknown-code", "note", "a table of side data names codes without bars", "their rows are not used"),
)  # fmt: skip
_SEVERITY = {kind.name: kind.severity for kind in KINDS}


def fault(
    kind: str,
    message: str,
    *,
    file: str | None = None,
    instrument: str | None = None,
    date: str | None = None,
    count: int = 1,
) -> Finding:
    """Make a finding of one of `KINDS`, with its severity."""
    return Finding(kind, _SEVERITY[kind], message, file, instrument, date, count)
