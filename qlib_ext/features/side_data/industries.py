"""Which industry each stock is in on each day, as far as the store knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from qlib_ext.market.side_data.side_data import SideData, SideDataError
from qlib_ext.market.side_data.table import INDUSTRY
from qlib_ext.market.spells import locate_spells, spell_labels
from qlib_ext.market.store import QlibStore


@dataclass(frozen=True)
class Industries:
    """Industries of S stocks on D days.

    Attributes
    ----------
    names
        The industries, sorted; those of none of the stocks on any of the days are left out.
    code
        int64 ``[D, S]``: the industry's place in `names`, -1 where the store has none.
    """

    names: tuple[str, ...]
    code: npt.NDArray[np.int64]


def industries_of(store: QlibStore) -> list[str]:
    """Names of the industries that the store knows, sorted; none where it has no table of them, or a faulty one."""
    try:
        table = SideData(store).read(INDUSTRY, "spells")
    except SideDataError:
        return []
    return sorted(map(str, table.frame[table.column].unique()))


def industries(
    store: QlibStore, days: pd.DatetimeIndex, instruments: Sequence[str]
) -> tuple[Industries | None, str]:
    """Industries from the store's side data, `side/industry.parquet` or `.csv`.

    Parameters
    ----------
    store
        The store that the run read.
    days
        D days, ascending.
    instruments
        N codes.

    Returns
    -------
    found : Industries or None
        None where the store has no industries of these stocks. A stock that has two at once is in the one that is
        written later in the table.
    reason : str
        Why there are none, and how to bring them in; empty where there are some.
    """
    try:
        side = SideData(store)
        if INDUSTRY not in side:
            return None, (
                f"the store has no side data `{INDUSTRY}`; bring a table of instrument, start, end and industry in with "
                f"`qlib-ext data side-data DIR {INDUSTRY} FILE`"
            )
        table = side.read(INDUSTRY, "spells")
    except SideDataError as error:  # the table has a fault: the run is whole without it, and says which
        return None, str(error)
    rows = table.frame
    stock, first, after = locate_spells(rows, days, instruments)
    used = (stock >= 0) & (first < after)
    if not used.any():
        return None, f"the side data `{INDUSTRY}` name none of the scored stocks on any of the days"
    names = rows[table.column][used].cat.remove_unused_categories().cat
    order = sorted(names.categories)
    place = np.array([order.index(name) for name in names.categories])[names.codes]
    shape = len(days), len(instruments)
    code = spell_labels(stock[used], first[used], after[used], place, shape)
    seen = np.unique(code[code >= 0])  # a spell may be wholly written over by later ones
    renumbered = np.full(len(order) + 1, -1, dtype=np.int64)
    renumbered[seen] = np.arange(len(seen))
    return Industries(tuple(str(order[k]) for k in seen), renumbered[code]), ""
