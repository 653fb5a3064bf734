"""A user's file of scores, of whatever model: its columns recognised, its codes written as the store has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, counted, one_of
from qlib_ext.config.security import PICKLES
from qlib_ext.files import open_table
from qlib_ext.market.codes import code_in_store
from qlib_ext.market.columns import Known, recognise
from qlib_ext.market.side_data.rows import BLANK, Rows
from qlib_ext.market.side_data.user_table import NAMES, TEXT_SUFFIXES
from qlib_ext.market.store import QlibStore
from qlib_ext.market.text_files import check_parquet, reading, separator

SCORE = "score"
FIELDS = ("datetime", "instrument", SCORE)
# How people call a score, without case and punctuation; the first group of which a column is there counts.
SCORES: Known = {
    SCORE: (
        frozenset({"score", "scores"}),
        frozenset(["pred", "preds", "prediction", "predictions", "predicted", "yhat", "forecast"]),
        frozenset(["factor", "signal", "alpha", "因子", "因子值"]),
        frozenset({"value"}),
    )
}


@dataclass(frozen=True)
class ScoreFile:
    """Scores as a file has them.

    Attributes
    ----------
    scores
        Indexed by (datetime, instrument), sorted, each row once, no value missing; of instruments that the store has and
        of whatever days.
    notes
        What was left out or changed, in counted sentences.
    """

    scores: pd.Series
    notes: tuple[str, ...]


def read_scores(
    path: str | Path,
    store: QlibStore,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
) -> ScoreFile:
    """Read a table of scores: a row a day and stock, or a row a day and a column a stock.

    Parameters
    ----------
    path
        CSV (`.csv`, `.tsv`, `.txt`, `.gz` too) or Parquet, there the day and the code may be the index.
    store
        Whose codes are meant, in any form that `qlib_ext.market.codes` reads.
    columns
        `datetime`, `instrument` or `score` to the column's name, for those that are not recognised.
    encoding
        Of a CSV file.

    Raises
    ------
    UserError
        If the file is missing, a pickle or cannot be read; a column is missing or unclear; a day is none, a score no finite
        number, a stock and day there twice; no instrument is one of the store, or there is no score at all.
    """
    path, named = Path(path).expanduser(), dict(columns or {})
    for field in named:
        one_of("column", field, FIELDS)
    with reading(path, encoding):
        table = _frame(path, named, encoding, set(store.instruments()))
    rows = Rows(table, f"`{path}`")
    days, numbers = rows.days("datetime"), rows.numbers(SCORE)
    codes, notes = _spelled(table["instrument"], store, path)
    if not rows.found:
        there = pd.Series(codes)
        rows.report((there == "").to_numpy(), "side-missing-value", "has no `instrument`")
        rows.label(there, days)
        twice = pd.DataFrame({"day": days, "code": codes}).duplicated().to_numpy()
        rows.report(twice, "side-doubled-row", "repeats a stock and day; keep one row for each")
    if rows.found:
        more = f"; there are {len(rows.found) - 1} other kinds of fault" if len(rows.found) > 1 else ""
        raise UserError(f"{rows.found[0].message}{more}")
    known = pd.Index(codes).isin(store.instruments())
    blank = np.isnan(numbers)
    if blank.any():
        notes.append(f"{int(blank.sum()):,} of {len(table):,} rows of {path.name} have no score: left out")
    kept = known & ~blank
    if not kept.any():
        raise UserError(f"`{path}` must have scores, found none in its {len(table):,} rows")
    index = pd.MultiIndex.from_arrays([days[kept], codes[kept]], names=FIELDS[:2])
    return ScoreFile(pd.Series(numbers[kept], index=index, name=SCORE).sort_index(), tuple(notes))


def on_trading_days(
    scores: pd.Series, calendar: pd.DatetimeIndex, name: str
) -> tuple[pd.Series, tuple[str, ...]]:
    """The scores of trading days, and what is said of the others.

    Parameters
    ----------
    scores
        As of `ScoreFile`.
    calendar
        Of the store.
    name
        What the scores are called in notes.
    """
    day = scores.index.get_level_values("datetime")
    notes = []
    for wrong, what in (
        (day < calendar[0], f"before the store begins, {calendar[0]:%Y-%m-%d}"),
        (day > calendar[-1], f"after the store ends, {calendar[-1]:%Y-%m-%d}"),
        (
            (day >= calendar[0]) & (day <= calendar[-1]) & ~day.isin(calendar),
            "on which the store has no trading",
        ),
    ):
        days = day[wrong].unique()
        if len(days):
            notes.append(
                f"{counted(len(days), 'day')} of {name} {what}, such as {days[0]:%Y-%m-%d}: left out"
            )
    return scores[day.isin(calendar)], tuple(notes)


def _frame(path: Path, named: dict[str, str], encoding: str, codes: set[str]) -> pd.DataFrame:
    """Columns `datetime`, `instrument` and `score`, as the file has them."""
    suffix = next((each for each in (".parquet", *TEXT_SUFFIXES) if path.name.lower().endswith(each)), None)
    if path.suffix.lower() in PICKLES:
        raise UserError(
            f"scores must be CSV or Parquet, found `{path}`: a pickle runs what it holds when it is opened. Where you trust "
            f"it: python -c \"import pandas; pandas.read_pickle('{path}').to_frame().to_parquet('scores.parquet')\""
        )
    if suffix is None:
        raise UserError(
            f"scores must be one of .parquet, {', '.join(TEXT_SUFFIXES)} by the name, found `{path}`"
        )
    if not path.is_file():
        raise UserError(f"expected a file of scores, found none at `{path}`")
    whole = _parquet(path) if suffix == ".parquet" else _text(path, encoding, nrows=0)
    header = [str(column) for column in whole.columns]
    where = f"`{path}`, which has {', '.join(header) or 'no columns'}"
    keys = {field: NAMES[field] for field in FIELDS[:2]}
    given = {field: named[field] for field in keys if field in named}
    found = recognise(header, given, where=f"`{path}`", known=keys, required=())
    rest = [column for column in header if column not in found.values()]
    if "datetime" not in found:
        raise UserError(
            f"no column is known to be the day: name it with `--column datetime=NAME`; of {where}"
        )
    wide = "instrument" not in found and any(_is_code(column, codes) for column in rest)
    if "instrument" not in found and not wide:
        raise UserError(
            f"no column is known to be the stock's code: name it with `--column instrument=NAME`; of {where}"
        )
    if not wide:
        given = {SCORE: named[SCORE]} if SCORE in named else {}
        chosen = recognise(rest, given, where=f"`{path}`", known=SCORES, required=()).get(SCORE)
        if chosen is None and len(rest) != 1:
            raise UserError(
                f"no column is known to be the score: name it with `--column score=NAME`; of {where}"
            )
        found[SCORE] = chosen or rest[0]
    if suffix != ".parquet":
        texts = [found[field] for field in FIELDS[:2] if field in found]
        blank = {column: list(BLANK) for column in header if column not in texts}
        whole = _text(path, encoding, dtype=dict.fromkeys(texts, "category"), na_values=blank)
    whole.columns = pd.Index(header)
    if wide:
        return whole.rename(columns={found["datetime"]: "datetime"}).melt(
            "datetime", var_name="instrument", value_name=SCORE
        )
    return whole[[found[field] for field in FIELDS]].set_axis(FIELDS, axis=1).reset_index(drop=True)


def _parquet(path: Path) -> pd.DataFrame:
    """The table; its index is columns too, and a day where it has no name."""
    check_parquet(path)
    frame = pd.read_parquet(path)
    if isinstance(frame.index, pd.DatetimeIndex) and frame.index.name is None:
        frame = frame.rename_axis(index="datetime")
    return frame if frame.index.names == [None] else frame.reset_index()


def _text(path: Path, encoding: str, **how: Any) -> pd.DataFrame:
    """The table; `how` as pandas takes it."""
    codec = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    with open_table(path, encoding=encoding) as stream:
        return pd.read_csv(
            stream,
            sep=separator(path, encoding),
            encoding=codec,
            keep_default_na=False,
            low_memory=False,
            **how,
        )


def _spelled(column: pd.Series, store: QlibStore, path: Path) -> tuple[np.ndarray, list[str]]:
    """Codes as the store has them, '' where there is none, and what is said of those that it has not."""
    known = set(store.instruments())
    place, uniques = pd.factorize(column)
    number = pd.api.types.is_integer_dtype(column.dtype)  # 1 was 000001 before somebody took it for a number
    words = [f"{word:06d}" if number else str(word).strip() for word in uniques]
    codes = np.array([*(_code(word, known) for word in words), ""], dtype=object)
    unknown = sorted({*codes} - known - {""})
    if unknown and not known & {*codes}:
        raise UserError(
            f"none of the {counted(len(unknown), 'code')} of `{path}` has bars in the store, such as {unknown[0]}; codes are "
            f"written as in {min(known, default='none')}"
        )
    notes = []
    if unknown:
        notes.append(
            f"{counted(len(unknown), 'code')} of {path.name} without bars in the store, such as {unknown[0]}: left out"
        )
    return codes[place], notes  # a missing one is the last


def _code(word: str, known: set[str]) -> str:
    try:
        return code_in_store(word, known) if word else ""
    except UserError:  # what is no code at all has no bars either
        return word.upper()


def _is_code(word: str, known: set[str]) -> bool:
    return _code(word, known) in known
