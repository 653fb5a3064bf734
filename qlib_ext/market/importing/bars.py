"""Daily bars in memory: what a source gives and a store takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError
from qlib_ext.market.importing.import_settings import ImportSettings


@dataclass(frozen=True, eq=False)
class Bars:
    """Adjusted daily bars of S instruments over D days.

    Parameters
    ----------
    calendar
        D trading days, ascending, without time of day or time zone.
    instruments
        S codes, upper-case, sorted or not, none twice.
    fields
        Field to array `[D, S]`, float32 or float64, NaN where there is no value: adjusted prices, `factor`
        (adjusted = raw * factor), `volume` (adjusted: raw / factor, in shares), `amount` (currency), `vwap` (adjusted) and
        `change` (fraction of the close before). A field that the source does not give is left out.
    notes
        What was mended, changed or left out, in counted sentences.
    settings
        How the source was read, with every `auto` replaced by what was found; None where no source was read.

    Raises
    ------
    UserError
        If the calendar is not ascending, codes repeat or are not upper-case, or shapes do not fit.
    """

    calendar: pd.DatetimeIndex
    instruments: tuple[str, ...]
    fields: Mapping[str, np.ndarray]
    notes: tuple[str, ...] = ()
    settings: ImportSettings | None = None

    def __post_init__(self) -> None:
        days = self.calendar
        if len(days) == 0 or (np.diff(days.asi8) <= 0).any() or days.tz is not None:
            raise UserError("`calendar` must hold ascending days without a time zone")
        wrong = [
            code for code, count in Counter(self.instruments).items() if count > 1 or code != code.upper()
        ]
        if wrong:
            raise UserError(f"`instruments` must be different upper-case codes, found {', '.join(wrong[:5])}")
        shape = (len(days), len(self.instruments))
        for field, values in self.fields.items():
            if values.shape != shape or values.dtype not in (np.float32, np.float64):
                raise UserError(
                    f"`fields[{field!r}]` must be floats of shape {shape}, found {values.dtype} of {values.shape}"
                )

    def first_and_last(self) -> pd.DataFrame:
        """Spells from the first to the last day with a value in any field, for instruments with one.

        Returns
        -------
        DataFrame
            Columns `instrument`, `start` and `end` (both days included), in the order of `instruments`: a
            membership as `write_store` takes it.
        """
        present = np.zeros((len(self.calendar), len(self.instruments)), dtype=bool)
        for values in self.fields.values():
            present |= ~np.isnan(values)
        some = present.any(axis=0)
        first = present.argmax(axis=0)[some]
        last = len(self.calendar) - 1 - present[::-1].argmax(axis=0)[some]
        codes = np.array(self.instruments, dtype=object)[some]
        return pd.DataFrame({"instrument": codes, "start": self.calendar[first], "end": self.calendar[last]})
