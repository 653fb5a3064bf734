"""Momentum-line labels (MiM-StocR, section 3.1)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from qlib.data.dataset.processor import Processor

from qlib_ext.checks import UserError, integer

SINK, NEGATIVE, VOLATILE, POSITIVE, BOUNCE = range(5)
CLASS_NAMES = ("Sink", "Negative", "Volatile", "Positive", "Bounce")


def momentum_class(line: np.ndarray) -> np.ndarray:
    """Class of each momentum line, by the signs of its values.

    All positive is 3 (Positive), all negative 1 (Negative); exactly one change of sign is 4 (Bounce) from negative
    to positive and 0 (Sink) from positive to negative; anything else is 2 (Volatile). A zero takes the sign before
    it, leading zeros the first sign after them; a line of zeros is Volatile.

    Parameters
    ----------
    line
        `[R, P]`: R lines of P values, oldest first.

    Returns
    -------
    ndarray
        `[R]` float32 in 0..4, NaN where any value of the line is NaN.
    """
    values = np.ascontiguousarray(np.asarray(line).T)  # [P, R]: a step of the lines is one run of memory
    sign = (values > 0).astype(np.int8) - (values < 0)
    for i in range(1, len(sign)):
        np.copyto(sign[i], sign[i - 1], where=sign[i] == 0)
    for i in range(len(sign) - 2, -1, -1):
        np.copyto(sign[i], sign[i + 1], where=sign[i] == 0)
    changes = (sign[1:] != sign[:-1]).sum(axis=0)
    first = sign[0]
    result = np.full(values.shape[1], VOLATILE, dtype=np.float32)
    result[(changes == 0) & (first > 0)] = POSITIVE
    result[(changes == 0) & (first < 0)] = NEGATIVE
    result[(changes == 1) & (first < 0)] = BOUNCE
    result[(changes == 1) & (first > 0)] = SINK
    result[np.isnan(values).any(axis=0)] = np.nan
    return result


class MomentumLine(Processor):
    """Turn the values of a momentum line into its class, beside the other labels.

    The line of day t is m[T - s], ..., m[T] with T = t + `horizon_days` and m[τ] = p[τ] - p[τ - l], where p is the
    adjusted close, l = `lookback_days` and s = `length_days`. Source: MiM-StocR, Equation 2 and section 3.1.

    The loader must deliver the line's values as label columns: `expressions()` gives their names and Qlib
    expressions. The processor replaces them by two columns: `name`, the class, and `name`_PERSISTENCE, the class
    if the last sign that is known at t persisted - the baseline that a forecast has to beat, since all but
    `horizon_days` of the line's values are known at t.

    Parameters
    ----------
    lookback_days
        l, the gap of a momentum value, in trading days.
    length_days
        s, the length of the line, in trading days.
    points
        How many values the line has: s + 1 by default, since m[T - s] to m[T] are s + 1 values; s is the option.
    horizon_days
        T - t: how many days after t the line ends.
    name
        Name of the label column.
    fields_group
        Column group that holds the values, and that gets the class.

    Notes
    -----
    A line with a missing price has no class (NaN); the row stays. Nothing is fitted.

    Examples
    --------
    Under Qlib's own handler, with `line = MomentumLine()` and `fields, names = line.expressions()`::

        Alpha360(instruments="csi300", label=(fields, names), learn_processors=[line])
    """

    per_day = True  # each row is made from itself

    def __init__(
        self,
        lookback_days: int = 4,
        length_days: int = 6,
        points: int | None = None,
        horizon_days: int = 2,
        name: str = "MOMENTUM",
        fields_group: str = "label",
    ) -> None:
        self.lookback_days = integer("lookback_days", lookback_days, 1)
        self.length_days = integer("length_days", length_days, 1)
        self.points = self.length_days + 1 if points is None else integer("points", points, 2)
        self.horizon_days = integer("horizon_days", horizon_days, 0)
        if self.points <= self.horizon_days:
            raise UserError(
                f"`points` must be above `horizon_days` ({self.horizon_days}), so that a value of the line is known "
                f"at t; found {self.points}"
            )
        self.name = name
        self.fields_group = fields_group

    def expressions(self) -> tuple[list[str], list[str]]:
        """The line's values as Qlib expressions, oldest first, and the names of their columns."""
        ends = range(self.horizon_days - self.points + 1, self.horizon_days + 1)  # days after t
        fields = [f"{_close(end)}-{_close(end - self.lookback_days)}" for end in ends]
        return fields, [f"{self.name}_LINE{i}" for i in range(self.points)]

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        """Replace the columns of the line by its class and its persistence class.

        Raises
        ------
        UserError
            If a column of the line is missing.
        """
        columns = [(self.fields_group, name) for name in self.expressions()[1]]
        missing = [column for column in columns if column not in df.columns]
        if missing:
            raise UserError(
                f"MomentumLine needs the label columns {columns[0][1]} to {columns[-1][1]} in group "
                f"`{self.fields_group}`, found no {', '.join(name for _, name in missing)}: "
                "add `MomentumLine.expressions()` to the labels"
            )
        line = df[columns].to_numpy(dtype=np.float32, copy=True)
        classes = {(self.fields_group, self.name): momentum_class(line)}
        if self.horizon_days:
            line[:, -self.horizon_days :] = line[:, [-self.horizon_days - 1]]
        classes[self.fields_group, f"{self.name}_PERSISTENCE"] = momentum_class(line)
        # at once: Qlib's own table comes in a hundred blocks, to which pandas would not add two more without a warning
        return pd.concat([df.drop(columns=columns), pd.DataFrame(classes, index=df.index)], axis=1)

    def readonly(self) -> bool:
        """The input frame is not written to."""
        return True


def _close(days_after: int) -> str:
    # Qlib's `Ref(x, 0)` is the first value of x, so today needs its own spelling
    return "$close" if days_after == 0 else f"Ref($close, {-days_after})"
