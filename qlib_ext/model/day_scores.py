"""The scores of one day by any trained model, of the features that the market has or of changed ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from qlib_ext.checks import UserError, brief
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.panel import DailyPanel, DailyPanels
from qlib_ext.model.multi_task import MultiTaskModel

Scores = Callable[[Tensor], np.ndarray]

SEGMENT = "test"  # what Qlib's models predict where they are told no segment


class DayScores:
    """Asks a model for the scores of single days.

    Parameters
    ----------
    model
        A `MultiTaskModel`, or one of Qlib's that reads the features of a day as a table.
    dataset
        That the model was trained on.

    Notes
    -----
    A model of tables is handed the day as if it were the whole test segment, so one that looks at several days at once
    scores it in another way; who needs to know compares.
    """

    def __init__(self, model: Any, dataset: DailyPanelDataset) -> None:
        self.model = model
        self.dataset = dataset
        self._reads_panels = isinstance(model, MultiTaskModel)
        self._columns = pd.Index(dataset.handler.features.column_names())

    def panels(self, segment: str) -> DailyPanels:
        """The days of a segment, on the device of the model."""
        return self.dataset.panels(segment, self.model.device if self._reads_panels else "cpu")

    def of(self, panel: DailyPanel) -> Scores:
        """What scores the stocks of a day: features `[N, T, F]`, on the device of the panel, to scores `[N]`.

        A score is NaN where the model has none. A model that scores other stocks, or asks for more than the features of
        the day, is answered by a `UserError` there.
        """
        if self._reads_panels:
            return lambda features: self.model.score_day(replace(panel, features=features))
        codes = np.asarray(self.dataset.instruments, dtype=object)[panel.instruments.numpy()]
        index = pd.MultiIndex.from_product([[panel.date], codes], names=["datetime", "instrument"])
        return lambda features: self._of_table(self._table(features, index))

    def _table(self, features: Tensor, index: pd.MultiIndex) -> pd.DataFrame:
        """As Qlib tabulates them: `[N, F * T]`."""
        values = features.transpose(1, 2).flatten(1).numpy()
        return pd.DataFrame(values, index=index, columns=self._columns, copy=True)

    def _of_table(self, table: pd.DataFrame) -> np.ndarray:
        predicted = self.model.predict(_OneDay(self.dataset, table))
        scores = predicted if isinstance(predicted, pd.Series) else predicted.iloc[:, 0]
        if not scores.index.equals(table.index):
            if not scores.index.isin(table.index).all() or scores.index.has_duplicates:
                raise UserError(
                    f"{type(self.model).__name__} was given {len(table)} stocks of one day, and scored others: found "
                    f"{len(scores)} rows, the first {brief(scores.index[:1].tolist())}"
                )
            scores = scores.reindex(table.index)
        return scores.to_numpy()


class _OneDay:
    """A dataset whose test segment has one table of features and nothing else; all else is that of the other."""

    def __init__(self, dataset: DailyPanelDataset, table: pd.DataFrame) -> None:
        self._dataset = dataset
        self._table = table

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def prepare(self, segments: Any, col_set: Any = None, **kwargs: Any) -> Any:
        """The table, where the features of the test segment are asked for."""
        if segments != SEGMENT:
            return self._dataset.prepare(segments, col_set=col_set, **kwargs)
        if col_set != "feature":
            raise UserError(
                f"a model can be scored on changed features that asks for `col_set` feature, found {brief(col_set)}"
            )
        return self._table
