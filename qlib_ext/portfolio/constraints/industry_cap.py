"""The most of one industry."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qlib_ext.checks import UserError, brief, instance, nearest
from qlib_ext.features.side_data.industries import industries_of
from qlib_ext.market.side_data.table import INDUSTRY
from qlib_ext.market.store import QlibStore
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.constraints.centre import missing
from qlib_ext.portfolio.constraints.industry_band import UNKNOWN, industry_rows
from qlib_ext.portfolio.constraints.limits import Limit, Linear, percent
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk


class IndustryCap(Constraint):
    """No industry has a larger weight than this.

    Stocks whose industry is not known count as one industry where all have the same cap, and have none where industries
    are named; both are told.

    Parameters
    ----------
    most
        Largest weight of any industry, as a share of the account; or industry -> its largest weight, and no cap for others.
    name
        What it is called, where a portfolio has two of the kind.

    Raises
    ------
    UserError
        If one is below 0, or an industry is not one of the store's.
    """

    asks = (INDUSTRY,)

    def __init__(self, most: float | Mapping[str, float], name: str = "industry_cap") -> None:
        self.name = instance("name", name, str)
        caps = most.values() if isinstance(most, Mapping) else [most]
        if not caps or not all(
            isinstance(cap, int | float) and not isinstance(cap, bool) and cap >= 0 for cap in caps
        ):
            raise UserError(
                f"`most` must be a number of at least 0, or a mapping from industries to such, found {brief(most)}"
            )
        self.most = most

    def check_store(self, store: QlibStore, factors: set[str] | None) -> None:
        """Industries that are named are the store's."""
        known = industries_of(store)
        for name in self.most if isinstance(self.most, Mapping) else ():
            if name not in known:
                raise UserError(
                    f"`most` of an industry cap must name industries of the store {store.root}, {', '.join(known)}; found "
                    f"{name!r}{nearest(str(name), known)}"
                )

    def limits(self, known: KnownDay, risk: Risk) -> list[Limit]:
        """A sum an industry that has a cap."""
        members, names = industry_rows(known, "an industry cap")
        if isinstance(self.most, Mapping):
            for name in self.most:
                if name not in known.industry_names:
                    raise UserError(
                        f"`most` of an industry cap must name industries of the store, found {name!r}"
                        f"{nearest(str(name), known.industry_names)}"
                    )
            high = np.array([self.most.get(name, np.inf) for name in names])
            words = " and ".join(f"{name} of at most {percent(cap)}" for name, cap in self.most.items())
        else:
            high = np.full(len(names), self.most)
            words = f"each industry of at most {percent(self.most)}"
        some = np.isfinite(high)
        rows = tuple(np.array(names, dtype=object)[some])
        return [Linear(self.name, words, members[some], np.full(len(rows), -np.inf), high[some], rows)]

    def notes(self, known: KnownDay, risk: Risk) -> list[str]:
        """How many have no industry."""
        treated = "they have no cap" if isinstance(self.most, Mapping) else f"{UNKNOWN} have the cap together"
        return missing("the industry", known.require_industries("an industry cap") < 0, treated)
