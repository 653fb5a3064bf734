"""Several feature sets as one."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlib_ext.checks import UserError, brief
from qlib_ext.config.build import build
from qlib_ext.features.allocation import Allocate, in_memory
from qlib_ext.features.base import FeatureSet
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.known_field import KnownField
from qlib_ext.market.store import QlibStore


class Union(FeatureSet):
    """The features of several sets beside each other.

    Parameters
    ----------
    members
        Feature sets, or `{class, kwargs}` of them. Where all have windows of T days, so has the union. Where they differ,
        every lag of a feature becomes a feature of its own, and T is 1: what a model of tables wants.

    Raises
    ------
    UserError
        If there is no member, or two have a feature of the same name.
    """

    def __init__(self, members: Sequence[Mapping[str, Any] | FeatureSet]) -> None:
        if not isinstance(members, (list, tuple)) or not members:
            raise UserError(f"`members` must be a list of feature sets, found {brief(members)}")
        self.members = [build(each, FeatureSet, name=f"members[{i}]") for i, each in enumerate(members)]
        lengths = {each.lookback_days for each in self.members}
        self.flat = len(lengths) > 1
        names = [name for each in self.members for name in (each.column_names() if self.flat else each.names)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(
                f"the members of a union must have features of different names, found twice: {', '.join(twice)}"
            )
        required = {field for each in self.members for field in each.required_fields}
        fields = dict.fromkeys(field for each in self.members for field in each.fields)
        super().__init__(
            names,
            1 if self.flat else lengths.pop(),
            fields=tuple(fields),
            optional_fields=[field for field in fields if field not in required],
        )
        self._shapes: list[tuple[int, ...]] = []

    def unnormalised(self) -> Union:
        """A copy whose members give their features as they are."""
        twin = copy.copy(self)
        twin.members = [each.unnormalised() for each in self.members]
        return twin

    def identity(self) -> dict[str, Any]:
        return {"class": type(self).__name__, "members": [each.identity() for each in self.members]}

    def describe(self) -> dict[str, Any]:
        """What each member says of itself."""
        return {"members": [{"class": type(each).__name__, **each.describe()} for each in self.members]}

    def look_ahead(self) -> list[str]:
        return [sentence for each in self.members for sentence in each.look_ahead()]

    def notes(self, store: QlibStore) -> list[str]:
        return [sentence for each in self.members for sentence in each.notes(store)]

    @property
    def history_days(self) -> int:
        return max(each.history_days for each in self.members)

    def column_names(self) -> list[str]:
        if self.flat:
            return list(self.names)
        return [name for each in self.members for name in each.column_names()]

    def feature_places(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        first = 0
        for each, names in zip(self.members, self._features, strict=True):
            lags = each.lookback_days if self.flat else 1
            for name, places in zip(names, each.feature_places().values(), strict=True):
                found[name] = tuple(first + place * lags + lag for place in places for lag in range(lags))
            first += len(each.names) * lags
        return found

    def families(self) -> dict[str, tuple[str, ...]]:
        """The features of each member, by its class."""
        classes = _told_apart([type(each).__name__ for each in self.members])
        return dict(zip(classes, self._features, strict=True))

    @property
    def _features(self) -> list[tuple[str, ...]]:
        """Names of each member's features; where lags are names of their own, two members may share a feature's."""
        given = [[*each.feature_places()] for each in self.members]
        rest = iter(_told_apart([name for names in given for name in names]))
        return [tuple(itertools.islice(rest, len(names))) for names in given]

    def check_store(self, store: QlibStore) -> None:
        """Raise a UserError if the store lacks what a member needs beside bars."""
        for each in self.members:
            each.check_store(store)

    def join(self, store: QlibStore, market: MarketPanel) -> None:
        """Load what the members need beside bars."""
        for each in self.members:
            each.join(store, market)
        self._shapes = [each.padded_shape(market) for each in self.members]

    def side_fields(self) -> dict[str, KnownField]:
        return {name: known for each in self.members for name, known in each.side_fields().items()}

    def padded_shape(self, market: MarketPanel) -> tuple[int, ...]:
        """One dimension: the members' arrays, one after the other."""
        return (sum(int(np.prod(each.padded_shape(market))) for each in self.members),)

    def pad(self, market: MarketPanel, allocate: Allocate = in_memory) -> np.ndarray:
        self._shapes = [each.padded_shape(market) for each in self.members]
        padded = allocate(self.padded_shape(market))
        for each, part in zip(self.members, self._parts(padded), strict=True):
            made = each.pad(market, lambda shape, part=part: part)
            if made is not part:  # it had one already
                part[...] = made
        return padded

    def statistics(
        self, market: MarketPanel, rows: np.ndarray, padded: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The members', side by side."""
        found = [
            each.statistics(market, rows, part)
            for each, part in zip(self.members, self._parts(padded), strict=True)
        ]
        median, scale = zip(*found, strict=True)
        return self._joined(median), self._joined(scale)

    def restore(self, median: np.ndarray, scale: np.ndarray) -> None:
        """Take statistics `[T, F]` that were fitted before, and give the members theirs."""
        super().restore(median, scale)
        first = 0
        for each in self.members:
            days, number = each.lookback_days, len(each.names)
            stop = first + (days * number if self.flat else number)
            own = [values[:, first:stop] for values in (median, scale)]
            if self.flat:
                own = [values.reshape(number, days).T for values in own]
            each.restore(*(np.ascontiguousarray(values) for values in own))
            first = stop

    def gather(self, padded: Tensor, day: int, columns: Tensor) -> Tensor:
        """Features of one day, `[N, T, F]` float32, finite."""
        found = [
            each.gather(part, day, columns)
            for each, part in zip(self.members, self._parts(padded), strict=True)
        ]
        if self.flat:
            found = [each.transpose(1, 2).reshape(len(columns), 1, -1) for each in found]
        return torch.cat(found, dim=2)

    def _joined(self, statistics: Sequence[np.ndarray]) -> np.ndarray:
        if self.flat:
            statistics = [values.T.reshape(1, -1) for values in statistics]
        return np.concatenate(statistics, axis=1)

    def _parts(self, padded: Any) -> list[Any]:
        """The members' arrays, without a copy."""
        if not self._shapes:
            raise RuntimeError("the members have no arrays yet: call `join` or `pad` first")
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        stops = np.cumsum(sizes).tolist()
        return [
            padded[stop - size : stop].reshape(shape)
            for stop, size, shape in zip(stops, sizes, self._shapes, strict=True)
        ]


def _told_apart(names: Sequence[str]) -> list[str]:
    """The names, the second of a kind as `name 2`."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return found
