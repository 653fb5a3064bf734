"""A user's file of scores, of whatever model: its columns recognised, its codes written as the store has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, counted, one_of
from qlib_ext.config.security import PICKLES
from qlib_ext.market.codes import code_in_store
from qlib_ext.market.columns import Known, recognise
from qlib_ext.market.side_data.table import check_frame
from qlib_ext.market.side_data.user_table import NAMES, UserTable
from qlib_ext.market.store import QlibStore

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
    if path.suffix.lower() in PICKLES:
        raise UserError(
            f"scores must be CSV or Parquet, found `{path}`: a pickle runs what it holds when it is opened. Where you trust "
            f"it: python -c \"import pandas; pandas.read_pickle('{path}').to_frame().to_parquet('scores.parquet')\""
        )
    known = store.instruments()
    table = _table(path, named, encoding, set(known))
    frame = table.frame()
    found, faults = check_frame(SCORE, frame, f"`{path}`")
    if found is None or faults:
        more = f"; there are {len(faults) - 1} other kinds of fault" if len(faults) > 1 else ""
        raise UserError(f"{faults[0].message}{more}")
    notes = [*table.notes]
    blank = len(frame) - len(found.frame)
    if blank:
        notes.append(f"{blank:,} of {len(frame):,} rows of {path.name} have no score: left out")
    return ScoreFile(*_of_store(found.frame, known, path, notes))


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
                f"{name} has scores of {counted(len(days), 'day')} {what}, such as {days[0]:%Y-%m-%d}: left out"
            )
    return scores[day.isin(calendar)], tuple(notes)


def _table(path: Path, named: dict[str, str], encoding: str, codes: set[str]) -> UserTable:
    """The file with its columns told apart."""
    # Nothing else in it is a key, however it is called.
    keys = {field: "" for field in NAMES if field not in FIELDS} | {
        field: column for field, column in named.items() if field != SCORE
    }
    table = UserTable(path, SCORE, "values", keys, encoding, codes, lagged=False)
    where = f"`{path}`, which has {', '.join(table.header) or 'no columns'}"
    if "datetime" not in table.found:
        raise UserError(
            f"no column is known to be the day: name it with `--column datetime=NAME`; of {where}"
        )
    if "instrument" not in table.found:
        if any(_is_code(column, codes) for column in table.rest):
            return table  # a column a stock
        raise UserError(
            f"no column is known to be the stock's code: name it with `--column instrument=NAME`; of {where}"
        )
    rest = [*table.rest]
    given = {SCORE: named[SCORE]} if SCORE in named else {}
    chosen = recognise(rest, given, where=f"`{path}`", known=SCORES, required=()).get(SCORE)
    if chosen is None and len(rest) != 1:
        raise UserError(f"no column is known to be the score: name it with `--column score=NAME`; of {where}")
    keys[SCORE] = chosen or rest[0]
    return UserTable(path, SCORE, "values", keys, encoding, codes, lagged=False)


def _is_code(column: str, codes: set[str]) -> bool:
    try:
        return code_in_store(column, codes) in codes
    except UserError:
        return False


def _of_store(
    frame: pd.DataFrame, known: list[str], path: Path, notes: list[str]
) -> tuple[pd.Series, tuple[str, ...]]:
    codes = frame["instrument"].cat.remove_unused_categories()
    unknown = sorted(set(codes.cat.categories) - set(known))
    if len(unknown) == len(codes.cat.categories):
        raise UserError(
            f"none of the {counted(len(unknown), 'code')} of `{path}` has bars in the store, such as {unknown[0]}; codes are "
            f"written as in {min(known, default='none')}"
        )
    if unknown:
        notes.append(
            f"{counted(len(unknown), 'code')} of {path.name} without bars in the store, such as {unknown[0]}: left out"
        )
    there = ~codes.isin(unknown).to_numpy()
    index = pd.MultiIndex.from_arrays(
        [frame["datetime"].to_numpy()[there], np.asarray(codes.astype(object))[there]],
        names=["datetime", "instrument"],
    )
    return pd.Series(frame[SCORE].to_numpy()[there], index=index, name=SCORE).sort_index(), tuple(notes)
