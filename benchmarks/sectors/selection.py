"""Which stocks a sector is studied on: its largest ones, as they were known at the end of the years of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from qlib_ext.checks import UserError, counted
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.concepts import CorrelationClusters
from qlib_ext.features.side_data.industries import industries
from qlib_ext.features.side_data.market_value import FirstAvailable, SideMarketValue, TrailingTradedValue
from qlib_ext.market.store import QlibStore

YEAR = 250  # trading days over which traded values are looked at, where no market value is known
TRADED = 0.8  # share of the days of training on which a stock must have been traded
EDGE = 5  # days within which a stock must have its first and its last close


@dataclass(frozen=True)
class Window:
    """Years of training and the year that is held after them.

    Attributes
    ----------
    year
        The year held.
    first, last
        Places in the calendar of the first and the last day of training.
    begin, end
        Places of the first and the last day of the year held.
    """

    year: int
    first: int
    last: int
    begin: int
    end: int

    @property
    def days(self) -> int:
        """Days of training."""
        return self.last - self.first + 1

    @property
    def span(self) -> slice:
        """The days of training."""
        return slice(self.first, self.last + 1)


def windows(calendar: pd.DatetimeIndex, train: int, years: Sequence[int]) -> list[Window]:
    """A window for each year held, with so many whole years of training before it.

    Raises
    ------
    UserError
        If the store does not have the years.
    """
    found = []
    for year in years:
        trained = np.flatnonzero((calendar.year >= year - train) & (calendar.year < year))
        held = np.flatnonzero(calendar.year == year)
        # A calendar of whole years begins in the first half of January.
        whole = len(trained) and calendar[trained[0]] < pd.Timestamp(year - train, 1, 16)
        if not whole or not len(held):
            raise UserError(
                f"holding {year} needs bars from {year - train} to {year}, and the store has {calendar[0]:%Y-%m-%d} to "
                f"{calendar[-1]:%Y-%m-%d}: choose other years, or fewer of training"
            )
        end = min(int(held[-1]), len(calendar) - 2)  # on the last day of its calendar Qlib does not trade
        found.append(Window(year, int(trained[0]), int(trained[-1]), int(held[0]), end))
    return found


@dataclass(frozen=True)
class Sectors:
    """A market's stocks by sector and size.

    Attributes
    ----------
    store, universe, codes
        The store, the name of the universe, and the S stocks that have ever been in it and have bars.
    names
        Of the sectors.
    sector
        `[D, S]` place in `names`, -1 where none is known, as known on each day.
    size
        `[D, S]` what the largest are found by, as known on each day; NaN where it is not known.
    members, traded
        `[D, S]` bool: who is in the universe, and whose volume is above 0.
    close
        `[D, S]` adjusted.
    notes
        What stands for sectors and sizes, as sentences.
    """

    store: QlibStore
    universe: str
    codes: tuple[str, ...]
    names: tuple[str, ...]
    sector: npt.NDArray[np.int64]
    size: npt.NDArray[np.float32]
    members: npt.NDArray[np.bool_]
    traded: npt.NDArray[np.bool_]
    close: npt.NDArray[np.float32]
    notes: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        store: QlibStore,
        universe: str,
        *,
        digits: int | None = None,
        called: Mapping[str, str] | None = None,
        clusters: int | None = None,
    ) -> Sectors:
        """Read a market.

        Parameters
        ----------
        store
            Where the bars lie.
        universe
            Of whose members the largest are chosen.
        digits
            Of the industries' codes, which first ones make a sector; None for all of them.
        called
            Code of a sector -> its name.
        clusters
            Number of clusters of stocks whose returns moved together in the last year, in the place of industries.

        Raises
        ------
        UserError
            If the store has no industries and no clusters are asked for.
        """
        market = MarketPanel.load(store, universe, ["close", "volume"])
        codes = market.instruments
        if clusters is not None:
            spells = CorrelationClusters(n_clusters=clusters, window_days=YEAR).load(store, market)
            names = tuple(name.replace("cluster", "Cluster") for name in spells.names)
            sector = spells.numbers(*market.members.shape).astype(np.int64)
            said = (
                f"Sectors are {clusters} clusters of stocks whose returns, less the mean of the universe, moved together over the "
                f"{YEAR} days before (Ward's method, refitted every 60 days on past days only): the store has no industries."
            )
        else:
            found, reason = industries(store, store.calendar, codes)
            if found is None:
                raise UserError(f"sectors need industries: {reason}; or take `--clusters N`")
            short = [name[:digits] for name in found.names]
            distinct = sorted({*short})
            place = np.array([distinct.index(name) for name in short] + [-1])
            names = tuple((called or {}).get(name, name) for name in distinct)
            sector = place[found.code]
            level = "" if digits is None else f", the first {counted(digits, 'digit')} of their codes"
            said = f"Sectors are the store's industries{level}, as they stood on the last day of training."
        source = FirstAvailable([SideMarketValue(), TrailingTradedValue(YEAR, YEAR // 2)])
        by_value = isinstance(source.chosen(store), SideMarketValue)
        size = (
            "The largest are those of the highest market value on the last day of training."
            if by_value
            else "The store has no market values: the largest are those with the highest median of the money traded a day over "
            f"the last {YEAR} days of training."
        )
        with np.errstate(invalid="ignore"):
            traded = market.field("volume") > 0
        return cls(
            store,
            universe,
            codes,
            names,
            sector,
            source.load(store, codes),
            market.members,
            traded,
            market.field("close"),
            (said, size),
        )

    def chosen(self, window: Window, stocks: int, least: int) -> Chosen:
        """The largest stocks of each sector, by what was known at the close of the last day of training.

        Parameters
        ----------
        window
            The years.
        stocks
            Of a sector, at most.
        least
            A sector with fewer is left out.
        """
        edge = min(EDGE, window.days)
        there = np.isfinite(self.close)
        member = self.members[window.last]
        rules = {
            "not listed throughout the training": there[window.first : window.first + edge].any(axis=0)
            & there[window.last + 1 - edge : window.last + 1].any(axis=0),
            f"traded on fewer than {TRADED:.0%} of its days": self.traded[window.span].mean(axis=0) >= TRADED,
            "without a size": np.isfinite(self.size[window.last]),
            "without a sector": self.sector[window.last] >= 0,
        }
        left, out = member.copy(), {}
        for name, keeps in rules.items():
            out[name] = int((left & ~keeps).sum())
            left &= keeps
        found, small = {}, {}
        for place, name in enumerate(self.names):
            own = np.flatnonzero(left & (self.sector[window.last] == place))
            own = own[np.argsort(-self.size[window.last, own], kind="stable")][:stocks]
            if len(own) >= least:
                found[name] = tuple(self.codes[k] for k in own)
            elif len(own):
                small[name] = len(own)
        return Chosen(int(member.sum()), found, out, small)

    def places(self, codes: Sequence[str]) -> npt.NDArray[np.int64]:
        """Columns of some stocks."""
        return np.array([self.codes.index(code) for code in codes], dtype=np.int64)


@dataclass(frozen=True)
class Chosen:
    """The stocks of a year.

    Attributes
    ----------
    members
        Members of the universe with bars.
    sectors
        Name -> codes, the largest first.
    out
        Why members were left out -> how many.
    small
        Sectors with too few stocks -> how many they have.
    """

    members: int
    sectors: Mapping[str, tuple[str, ...]]
    out: Mapping[str, int] = field(default_factory=dict)
    small: Mapping[str, int] = field(default_factory=dict)
