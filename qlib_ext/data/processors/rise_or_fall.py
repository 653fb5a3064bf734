"""Rise-or-fall labels (MiM-StocR, section 4.3)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from qlib.data.dataset.processor import Processor

from qlib_ext.checks import UserError, brief, instance

FALL, RISE = range(2)
CLASS_NAMES = ("Fall", "Rise")


def rise_class(returns: np.ndarray) -> np.ndarray:
    """1 where a return is positive, 0 where it is not, NaN where it is missing.

    Parameters
    ----------
    returns
        Any shape.

    Returns
    -------
    ndarray
        float32 of the same shape.
    """
    returns = np.asarray(returns)
    return np.where(np.isnan(returns), np.nan, returns > 0).astype(np.float32)


class RiseOrFall(Processor):
    """Add the sign of a return label as a class: 1 if it is positive, else 0.

    The conventional task that MiM-StocR's momentum line is compared with. Source: MiM-StocR, section 4.3 and Table 2,
    after Chong, Han and Park (2017).

    The loader must deliver the return of the last day that is known at t as a label column: `expressions()` gives its
    name and Qlib expression. The processor leaves `source` as it is, replaces that column and gives two: `name`, the
    class of `source`, and `name`_PERSISTENCE, the class of the last known return - the baseline that a forecast has
    to beat.

    Parameters
    ----------
    source
        The return label, raw: put this processor before any that normalises it (among the `infer_processors`), since
        the sign of a rank only says which half of the day a stock is in.
    name
        Name of the label column.
    fields_group
        Column group that holds `source`, and that gets the class.

    Notes
    -----
    A missing return has no class (NaN); the row stays. A return of exactly 0 is no rise. Nothing is fitted.

    Examples
    --------
    ::

        infer_processors:
          - class: qlib_ext.data.processors.rise_or_fall.RiseOrFall
    """

    per_day = True  # each row is made from itself

    def __init__(self, source: str = "RETURN", name: str = "RISE", fields_group: str = "label") -> None:
        self.source = instance("source", source, str)
        self.name = instance("name", name, str)
        self.fields_group = fields_group

    def expressions(self) -> tuple[list[str], list[str]]:
        """The last known return as a Qlib expression, and the name of its column."""
        return ["$close/Ref($close, 1)-1"], [f"{self.name}_LAST"]

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        """Add the class of `source` and its persistence class.

        Raises
        ------
        UserError
            If a column is missing.
        """
        last = (self.fields_group, self.expressions()[1][0])
        source = (self.fields_group, self.source)
        if source not in df.columns:
            known = ", ".join(df[self.fields_group].columns) if self.fields_group in df.columns else "none"
            raise UserError(f"`source` must be a label of the handler ({known}), found {brief(self.source)}")
        if last not in df.columns:
            raise UserError(
                f"RiseOrFall needs the label column {last[1]} in group `{self.fields_group}`, found none: add "
                "`RiseOrFall.expressions()` to the labels"
            )
        classes = {
            (self.fields_group, self.name): rise_class(df[source].to_numpy()),
            (self.fields_group, f"{self.name}_PERSISTENCE"): rise_class(df[last].to_numpy()),
        }
        return pd.concat([df.drop(columns=[last]), pd.DataFrame(classes, index=df.index)], axis=1)

    def readonly(self) -> bool:
        """The input frame is not written to."""
        return True
