"""Side data: the faults that `qlib_ext.market.side_data.problems` finds, beside the calendar and the stocks of this store."""

from __future__ import annotations

import numpy as np
import pandas as pd

from qlib_ext.market.finding import Findings
from qlib_ext.market.quality.source import Source
from qlib_ext.market.side_data.faults import KINDS as KINDS
from qlib_ext.market.side_data.problems import problems


def check_side(source: Source, codes: list[str], found: Findings) -> None:
    """Every table below `side/`; `codes` have bars."""
    days = np.unique(source.days[~np.isnat(source.days)])
    known = days[(days >= np.datetime64("1700-01-01")) & (days <= np.datetime64("2261-12-31"))]
    calendar = pd.DatetimeIndex(known.astype("M8[ns]")) if known.size else None
    found.extend(problems(source.root, calendar=calendar, instruments=codes or None))
