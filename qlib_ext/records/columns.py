"""Columns of what a run predicted, and of its labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from qlib_ext.checks import UserError
from qlib_ext.metrics.bootstrap import span_of
from qlib_ext.records.base import Record


def require_column(argument: str, column: str, table: pd.DataFrame) -> None:
    """Raise a UserError unless the table has the column that the argument names."""
    if column not in table.columns:
        raise UserError(
            f"`{argument}` names `{column}`, which is not among the run's columns {[*table.columns]}"
        )


def label_spans(record: Record, labels: Sequence[str]) -> dict[str, int]:
    """Label -> days of return that it holds, as the dataset says (`bootstrap.span_of`)."""
    described = record.load_json("data/summary.json") if record.has("data/summary.json") else {}
    return {label: span_of(label, described.get("label_days", {})) for label in labels}


def probability_columns(task: str, predictions: pd.DataFrame) -> list[str]:
    """The columns of the C probabilities of a classification task: `<task>_0`, `<task>_1`, ..."""
    columns: list[str] = []
    while f"{task}_{len(columns)}" in predictions:
        columns.append(f"{task}_{len(columns)}")
    if len(columns) < 2:
        raise UserError(
            f"`task` must name a classification task of the model: expected the columns {task}_0, {task}_1, ... among "
            f"the predictions, found {[*predictions.columns]}"
        )
    return columns


def matrices(index: pd.MultiIndex, *columns: pd.Series) -> tuple[pd.DatetimeIndex, pd.Index, list[Any]]:
    """Spread columns over days and stocks.

    Parameters
    ----------
    index
        (datetime, instrument) of M rows, without duplicates.
    columns
        Series of M values on that index.

    Returns
    -------
    days : DatetimeIndex [D]
    instruments : Index [N]
    matrices : list of float64 arrays [D, S]
        One a column; NaN where a stock has no row that day.
    """
    frame = pd.concat([column.reindex(index).rename(k) for k, column in enumerate(columns)], axis=1)
    wide = frame.astype("float64").unstack("instrument")
    days = pd.DatetimeIndex(wide.index, name="datetime")
    return days, wide[0].columns, [wide[k].to_numpy() for k in range(len(columns))]
