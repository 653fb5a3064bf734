"""Labels in another unit."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from qlib.data.dataset.processor import Processor

from qlib_ext.checks import UserError, above, brief, words


class ScaleLabel(Processor):
    """Divide named labels by a unit, so that a loss sees numbers of about 1 and forecasts can be turned back.

    A daily return is about 0.02, its squared error 0.0004: beside a cross-entropy of 0.69 a regression would teach the
    shared layers nothing. In units of 0.02 both are of one order. Unlike ranks or z-scores of a day, the label keeps its
    sign and its size, so a forecast times the unit is a return.

    Parameters
    ----------
    columns
        Columns of `fields_group`; the others are left as they are.
    unit
        Above 0, in the label's own unit: 0.02 makes a return of 2 % a 1.
    fields_group
        Column group of `columns`.

    Notes
    -----
    Missing values stay missing. Nothing is fitted: a unit that is stated is the same in every run.
    """

    per_day = True  # each row is made from itself

    def __init__(
        self, columns: Sequence[str] = ("NEXT_RETURN",), unit: float = 0.02, fields_group: str = "label"
    ) -> None:
        self.columns = words("columns", columns)
        self.unit = float(above("unit", unit, 0))
        self.fields_group = fields_group

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        """Divide the columns in `df`.

        Raises
        ------
        UserError
            If a column is missing.
        """
        for name in self.columns:
            column = (self.fields_group, name)
            if column not in df.columns:
                known = (
                    ", ".join(df[self.fields_group].columns) if self.fields_group in df.columns else "none"
                )
                raise UserError(f"`columns` must be labels of the handler ({known}), found {brief(name)}")
            df[column] = df[column] / self.unit
        return df

    def is_for_infer(self) -> bool:
        """What is reported stays in its own unit."""
        return False
