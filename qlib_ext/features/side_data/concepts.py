"""Which stocks belong together: industries, concepts or clusters, day by day, for models that relate stocks.

A workflow names one class for its dataset; `FirstAvailable` takes the best that a store can give.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlib_ext.checks import UserError, at_least, brief, instance, integer
from qlib_ext.config.build import build
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.source import Chain, Source
from qlib_ext.market.side_data.side_data import SideData
from qlib_ext.market.side_data.table import INDUSTRY
from qlib_ext.market.spells import count_spells, locate_spells
from qlib_ext.market.store import QlibStore, StoreError

BLOCK_DAYS = 64  # a day's gathering looks at the spells of its block


@dataclass(frozen=True)
class ConceptSpells:
    """M spells in which a stock belongs to a concept.

    Attributes
    ----------
    names
        The G concepts.
    stock, concept
        int64 `[M]`: positions in the panel's instruments and in `names`.
    first, after
        int64 `[M]`: positions in the panel's calendar of the first day, and of the first day no longer.

    Notes
    -----
    A stock may have several concepts at once, or none. Spells of one stock and concept may overlap.
    """

    names: tuple[str, ...]
    stock: np.ndarray
    concept: np.ndarray
    first: np.ndarray
    after: np.ndarray

    def __post_init__(self) -> None:
        arrays = (self.stock, self.concept, self.first, self.after)
        if len({array.shape for array in arrays}) != 1 or self.stock.ndim != 1:
            raise UserError("`stock`, `concept`, `first` and `after` must have one number a spell")
        if len(self.concept) and not 0 <= self.concept.min() <= self.concept.max() < len(self.names):
            raise UserError(f"`concept` must hold positions in the {len(self.names)} names")

    def covered(self, days: int, stocks: int) -> np.ndarray:
        """Whether each stock has any concept, day by day: bool `[D, S]`."""
        first, after = np.clip(self.first, 0, days), np.clip(self.after, 0, days)
        return count_spells(self.stock, first, after, (days, stocks)) > 0

    def numbers(self, days: int, stocks: int) -> np.ndarray:
        """Number of each stock's concept on each day, the last one that is written: int32 `[D, S]`, -1 for none."""
        groups = np.full((days, stocks), -1, np.int32)
        for stock, group, first, after in zip(
            self.stock, self.concept, np.maximum(self.first, 0), self.after, strict=True
        ):
            groups[first:after, stock] = group
        return groups

    def matrix(self, day: int, columns: np.ndarray) -> np.ndarray:
        """Concepts `[N, G]` float32 of the stocks `columns` on one day: 1 where a stock belongs, else 0."""
        found = np.zeros((len(columns), len(self.names)), dtype=np.float32)
        now = (self.first <= day) & (day < self.after)
        position = {int(stock): row for row, stock in enumerate(columns)}
        for stock, concept in zip(self.stock[now], self.concept[now], strict=True):
            if int(stock) in position:
                found[position[int(stock)], concept] = 1.0
        return found


class ConceptGather:
    """Spells on the device that trains, from which the matrix of a day is scattered without a loop or a wait.

    Days come in blocks, and each block has its own list of the spells that touch it, so that a day costs the spells
    of its time and not those of all years.

    Parameters
    ----------
    spells
        Of the market.
    days, stocks
        D and S of the market.
    device
        Where the matrices are wanted.
    """

    def __init__(self, spells: ConceptSpells, days: int, stocks: int, device: torch.device | str) -> None:
        first, after = np.maximum(spells.first, 0), np.minimum(spells.after, days)
        used = np.flatnonzero(first < after)
        begin, end = first[used] // BLOCK_DAYS, (after[used] - 1) // BLOCK_DAYS
        counts = end - begin + 1
        spell = np.repeat(used, counts)
        step = np.arange(len(spell)) - np.repeat(np.cumsum(counts) - counts, counts)
        block = np.repeat(begin, counts) + step
        order = np.argsort(block, kind="stable")
        spell = spell[order]
        blocks = -(-days // BLOCK_DAYS)
        self._bounds = np.searchsorted(block[order], np.arange(blocks + 1)).tolist()
        columns = np.stack([spells.stock, spells.concept, first, after])[:, spell].astype(np.int32)
        self._spells = torch.from_numpy(columns).to(device)  # [4, spells of block 0, of block 1, ...]
        self._stocks = stocks
        self._concepts = len(spells.names)

    def __call__(self, day: int, columns: Tensor) -> Tensor:
        """Concepts `[N, G]` float32 of the stocks `columns` `[N]` on the day at position `day`."""
        n = len(columns)
        block = day // BLOCK_DAYS
        part = self._spells[:, self._bounds[block] : self._bounds[block + 1]]
        stock, concept, first, after = part.unbind()
        # Row N takes what belongs to nobody of this day; it is cut off. A mask would wait for the device.
        row_of = columns.new_full((self._stocks,), n)  # [S]
        row_of[columns] = torch.arange(n, device=columns.device)
        now = (first <= day) & (after > day)
        row = torch.where(now, row_of[stock.long()], n)
        matrix = torch.zeros(n + 1, self._concepts, device=columns.device)
        matrix[row, concept.long()] = 1.0
        return matrix[:n]


class Concepts(Source):
    """Where the concepts of a dataset come from."""

    @abstractmethod
    def load(self, store: QlibStore, panel: MarketPanel) -> ConceptSpells | None:
        """The spells of the panel's stocks on the panel's days; None where there are no concepts at all.

        Who belongs where on day t follows from what was known at the close of t.
        """


class SideConcepts(Concepts):
    """Industries or concepts from the store's side data, such as `side/industry.parquet`.

    Parameters
    ----------
    name
        The table, of the shape `spells`. A spell counts from its `start` on, its `end` included.

    Raises
    ------
    SideDataError
        When it is loaded: the table is not there or has a fault.
    StoreError
        When it is loaded, if none of its spells is of a stock of the universe within the calendar.
    """

    def __init__(self, name: str = INDUSTRY) -> None:
        self.name = instance("name", name, str)

    def lacks(self, store: QlibStore) -> str | None:
        return None if self.name in SideData(store) else f"there is no side/{self.name}.parquet or .csv"

    def load(self, store: QlibStore, panel: MarketPanel) -> ConceptSpells:
        table = SideData(store).read(self.name, "spells")
        rows, days = table.frame, panel.calendar
        stock, first, after = locate_spells(rows, days, panel.instruments)
        used = (stock >= 0) & (first < after)
        if not used.any():
            raise StoreError(
                f"the side data {brief(self.name)} of `{store.root}` name none of the {len(panel.instruments)} stocks of the "
                "universe within the calendar: `qlib-ext data check` says more"
            )
        names = rows[table.column][used].cat.remove_unused_categories().cat
        return ConceptSpells(
            names=tuple(names.categories),
            stock=stock[used],
            concept=names.codes.to_numpy().astype(np.int64),
            first=first[used],
            after=after[used],
        )

    def describe(self, store: QlibStore) -> dict[str, Any]:
        side = SideData(store)
        return {"source": f"side/{side.path(self.name).name}", "fingerprint": side.fingerprint([self.name])}


class CorrelationClusters(Concepts):
    """Clusters of stocks whose returns moved together, refitted on past days only.

    On every refit day t, daily returns of the last `window_days` up to t, less the members' mean return of each day,
    are made unit vectors, one a stock. The distance of two stocks is that of their vectors, sqrt(2 - 2 x
    correlation), and Ward's method joins the members of the universe to a tree that is cut into `n_clusters`. Stocks
    that are no members yet join the cluster whose mean vector is nearest, and change nothing for the others. Labels
    hold from t to the next refit day; a new cluster takes over the label of the old one with which it shares most
    members (the assignment that maximises the shared members in total).

    Parameters
    ----------
    n_clusters
        C; fewer where a day has fewer members.
    window_days
        Trading days whose returns are compared.
    min_days
        Returns that a stock must have in the window; with fewer it has no cluster.
    refit_every_days
        Trading days between refits; the first is the day after `min_days` days.
    fit_stocks
        Of more members than these, evenly spaced ones make the tree and the rest join the nearest cluster: a tree of
        N stocks costs N x N distances in memory and time.

    Raises
    ------
    UserError
        For arguments out of range.

    Notes
    -----
    A missing return counts as the stock's mean. Deterministic; nothing after t is looked at. Cost: see
    docs/data/side-data.md.
    """

    def __init__(
        self,
        n_clusters: int = 30,
        window_days: int = 250,
        min_days: int = 120,
        refit_every_days: int = 60,
        fit_stocks: int = 1000,
    ) -> None:
        self.n_clusters = integer("n_clusters", n_clusters, 2)
        self.window_days = integer("window_days", window_days, 2)
        self.min_days = integer("min_days", min_days, 2)
        at_least("window_days", window_days, min_days)
        self.refit_every_days = integer("refit_every_days", refit_every_days, 1)
        self.fit_stocks = integer("fit_stocks", fit_stocks, 2)
        at_least("fit_stocks", fit_stocks, n_clusters)

    def lacks(self, store: QlibStore) -> str | None:
        days = len(store.calendar)
        if days > self.min_days:
            return None
        return f"{days} days are too few for clusters of {self.min_days} returns"

    def load(self, store: QlibStore, panel: MarketPanel) -> ConceptSpells:
        refits, labels = self.labels(panel.field("close"), panel.members)
        # Runs of one label over refits, stock by stock; the border makes every run begin and end.
        bordered = np.pad(labels, ((1, 1), (0, 0)), constant_values=-1)
        changes = bordered[1:] != bordered[:-1]  # [R + 1, S]
        stock, begin = np.nonzero((changes[:-1] & (labels >= 0)).T)
        ended, end = np.nonzero((changes[1:] & (labels >= 0)).T)
        assert np.array_equal(stock, ended)
        days = np.append(refits, len(panel.calendar))
        return ConceptSpells(
            names=tuple(f"cluster {i}" for i in range(self.n_clusters)),
            stock=stock,
            concept=labels[begin, stock],
            first=days[begin],
            after=days[end + 1],
        )

    def labels(self, close: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cluster of each stock after each refit.

        Parameters
        ----------
        close
            Adjusted close `[D, S]`, NaN where there is none.
        members
            `[D, S]` bool: the universe's members of each day.

        Returns
        -------
        refits : int64 `[R]`
            Positions of the refit days.
        labels : int64 `[R, S]`
            0 ... n_clusters - 1, -1 for none.
        """
        refits = np.arange(self.min_days, len(close), self.refit_every_days)
        labels = np.full((len(refits), close.shape[1]), -1, dtype=np.int64)
        before = np.full(close.shape[1], -1, dtype=np.int64)
        for i, day in enumerate(refits):
            window = close[max(0, day - self.window_days) : day + 1].astype(np.float64)
            with np.errstate(invalid="ignore", divide="ignore"):
                returns = window[1:] / window[:-1] - 1
            labels[i] = before = self._relabel(self._fit(returns, members[day]), before, members[day])
        return refits, labels

    def _fit(self, returns: np.ndarray, members: np.ndarray) -> np.ndarray:
        """Clusters `[S]` from the returns `[T, S]` of a window; -1 for none, in no particular order."""
        from scipy.cluster.hierarchy import fcluster, linkage  # here: half a second that only clusters need

        labels = np.full(returns.shape[1], -1, dtype=np.int64)
        usable = np.isfinite(returns)
        enough = usable.sum(axis=0) >= self.min_days
        inside = np.flatnonzero(enough & members)
        if len(inside) < 2:
            return labels
        market = _mean(returns[:, inside], usable[:, inside], axis=1)
        everyone = np.flatnonzero(enough)
        vectors, moves = _unit(returns[:, everyone] - market[:, None], usable[:, everyone])
        vectors, everyone = vectors[:, moves], everyone[moves]
        fitted = everyone[members[everyone]]
        if len(fitted) < 2:
            return labels
        if len(fitted) > self.fit_stocks:
            fitted = fitted[np.linspace(0, len(fitted) - 1, self.fit_stocks).round().astype(np.int64)]
        position = np.searchsorted(everyone, fitted)
        tree = linkage(_distances(np.ascontiguousarray(vectors[:, position])), method="ward")
        cut = fcluster(tree, min(self.n_clusters, len(fitted)), criterion="maxclust") - 1  # [fitted]
        centres = np.stack(
            [vectors[:, position[cut == c]].mean(axis=1) for c in range(cut.max() + 1)], axis=1
        )
        centres /= np.maximum(np.linalg.norm(centres, axis=0), np.finfo(float).tiny)
        labels[everyone] = np.argmax(vectors.T @ centres, axis=1)
        labels[fitted] = cut
        return labels

    def _relabel(self, labels: np.ndarray, before: np.ndarray, members: np.ndarray) -> np.ndarray:
        """New labels under the names of the old ones, by the most members in common."""
        from scipy.optimize import linear_sum_assignment

        shared = np.zeros((self.n_clusters, self.n_clusters), dtype=np.int64)
        both = members & (labels >= 0) & (before >= 0)
        np.add.at(shared, (labels[both], before[both]), 1)
        new, old = linear_sum_assignment(shared, maximize=True)
        renamed = np.empty(self.n_clusters, dtype=np.int64)
        renamed[new] = old
        return np.where(labels >= 0, renamed[labels], -1)

    def describe(self, store: QlibStore) -> dict[str, Any]:
        return {"source": "clusters of trailing return correlations", **vars(self)}


class NoConcepts(Concepts):
    """No concepts: a model falls back on what it finds in the features alone."""

    def load(self, store: QlibStore, panel: MarketPanel) -> None:
        return None

    def describe(self, store: QlibStore) -> dict[str, Any]:
        return {"source": "none"}


class FirstAvailable(Chain[Concepts], Concepts):
    """The first of several sources that the store has what it takes for.

    By default concepts from side data (`side/concepts.*`), else industries (`side/industry.*`), else clusters of
    trailing correlations, else none. A source whose data are there but faulty is an error, never passed over.

    Parameters
    ----------
    sources
        Sources in order, each `{class, kwargs}` or an object.

    Raises
    ------
    UserError
        If there is no source; when it is loaded, if the store lacks what each of them needs.
    """

    def __init__(self, sources: Sequence[Mapping[str, Any] | Concepts] | None = None) -> None:
        if sources is None:
            sources = [SideConcepts("concepts"), SideConcepts(), CorrelationClusters(), NoConcepts()]
        built = [build(source, Concepts, name=f"sources[{i}]") for i, source in enumerate(sources)]
        super().__init__("concepts", built)

    def load(self, store: QlibStore, panel: MarketPanel) -> ConceptSpells | None:
        return self.chosen(store).load(store, panel)


def _mean(values: np.ndarray, usable: np.ndarray, axis: int) -> np.ndarray:
    """Mean of the usable values, 0 where there is none."""
    return np.where(usable, values, 0.0).sum(axis=axis) / np.maximum(usable.sum(axis=axis), 1)


def _unit(values: np.ndarray, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns less their mean, of length 1 and 0 where not usable; and which columns move at all."""
    centred = np.where(usable, values - _mean(values, usable, axis=0), 0.0)
    length = np.linalg.norm(centred, axis=0)
    moves = length > 1e-8  # rounding of a price that never moves, beside any real one
    return centred / np.where(moves, length, 1.0), moves


def _distances(vectors: np.ndarray) -> np.ndarray:
    """Distances of unit vectors `[T, N]`, in the condensed form of scipy."""
    squared = 2.0 - 2.0 * (vectors.T @ vectors)
    n = len(squared)
    rows = [squared[i, i + 1 :] for i in range(n - 1)]
    return np.sqrt(np.maximum(np.concatenate(rows), 0.0))
