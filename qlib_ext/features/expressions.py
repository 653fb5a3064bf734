"""Features that a workflow writes down: any list of expressions in Qlib's language."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlib_ext.checks import UserError, above, brief, instance, one_of, words
from qlib_ext.features.allocation import Allocate, forget_pages, in_memory
from qlib_ext.features.base import FeatureSet
from qlib_ext.features.engine.evaluation import Program, Values, reach_of
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.medians import column_medians, sample_size
from qlib_ext.features.side_data.concepts import SideConcepts
from qlib_ext.features.side_data.known_field import KnownField, check_field
from qlib_ext.market.side_data.problems import ENDS_EARLY_DAYS
from qlib_ext.market.side_data.side_data import SideData
from qlib_ext.market.store import QlibStore

NORMS = ("robust", "zscore", "day", "none")
MAD_TO_STD = 1.4826  # the standard deviation of a normal variable is 1.4826 median absolute deviations
EPSILON = np.float32(1e-12)  # Qlib's guard against division by zero
FILLED_AT_ONCE, FITTED_AT_ONCE = 1 << 9, 1 << 13  # rows that stay in the processor's cache
YEAR_DAYS = 250
LITTLE = 0.8  # of stocks and days; where less is known, a note says so


class Expressions(FeatureSet):
    """Windows of T days over features that are expressions in Qlib's language.

    Parameters
    ----------
    expressions
        Name -> expression, such as `{ROC5: "Ref($close, 5) / $close"}`; or a list, whose texts are the names.
    lookback_days
        T; 1 for models of tables.
    normalise
        `robust`: less the median, over 1.4826 median absolute deviations of the training rows, as Qlib's
        RobustZScoreNorm. `zscore`: by their mean and standard deviation. `day`: by mean and standard deviation of the
        stocks of each day. `none`: as they are.
    clip
        After normalising, to -clip and clip; None clips nothing, and an infinite value is missing then.
    optional_fields
        Fields that a store may lack; what is computed of them is missing then.

    Attributes
    ----------
    median, scale : ndarray `[T, F]` float32
        What is subtracted and what is divided by, alike at all lags.

    Raises
    ------
    UserError
        If an expression is none; the message says where, and what is nearest.

    Notes
    -----
    A missing value is 0 after normalising. `IsMissing(x)` is 1 or 0 and is not normalised: beside x, it tells a model
    which of its zeros are none. `side.NAME.FIELD` is side data as it was known at the close of the day. A window holds the
    days before a stock became a member too. Nothing is held of stocks and days that no window looks at.

    Departures
    ----------
    Members without a close of the day are no rows; with Qlib they are, of missing features.
    """

    def __init__(
        self,
        expressions: Mapping[str, str] | Sequence[str],
        lookback_days: int = 1,
        normalise: str = "robust",
        clip: float | None = 3.0,
        optional_fields: Sequence[str] = (),
    ) -> None:
        self.expressions = named_expressions(expressions)
        self.normalise = one_of("normalise", normalise, NORMS)
        self.clip = None if clip is None else float(above("clip", clip, 0))
        self.program = Program(list(self.expressions.values()))
        optional = words("optional_fields", optional_fields) if optional_fields else ()
        super().__init__(
            list(self.expressions), lookback_days, fields=self.program.fields, optional_fields=optional
        )
        self._indicators = [i for i, root in enumerate(self.program.roots) if root.operator == "IsMissing"]
        self._places: np.ndarray | None = None
        self._places_on: Tensor | None = None
        self._groups: dict[str, np.ndarray] = {}
        self._side: dict[tuple[str, str], KnownField] = {}
        self._side_facts: dict[str, str] = {}
        self._side_notes: list[str] = []

    def identity(self) -> dict[str, Any]:
        return {
            "class": type(self).__name__,
            "expressions": self.expressions,
            "lookback_days": self.lookback_days,
            "normalise": self.normalise,
            "clip": self.clip,
            **self._side_described(),
        }

    def describe(self) -> dict[str, Any]:
        """The formulas, how they are normalised, and the fingerprints of the side data that they read."""
        settings = {"expressions": self.expressions, "normalise": self.normalise, "clip": self.clip}
        return settings | self._side_described()

    def _side_described(self) -> dict[str, Any]:
        return {"side_data": self._side_facts} if self._side_facts else {}

    def notes(self, store: QlibStore) -> list[str]:
        """What looks ahead, and which side data are thin or old."""
        return [*super().notes(store), *self._side_notes]

    def look_ahead(self) -> list[str]:
        """The features that read later days."""
        found = []
        for name, root in zip(self.names, self.program.roots, strict=True):
            _, ahead = reach_of([root])
            if ahead:
                found.append(f"the feature `{name}` reads bars of up to {ahead:g} days later")
        return found

    @property
    def history_days(self) -> int:
        """The window, and what its formulas reach back; a year where they reach back for ever."""
        back, _ = self.program.reach
        return self.lookback_days + (int(back) if math.isfinite(back) else YEAR_DAYS)

    def column_names(self) -> list[str]:
        """The names of the features; with the lag where there are several days."""
        if self.lookback_days == 1:
            return list(self.names)
        lags = range(self.lookback_days - 1, -1, -1)
        return [f"{name}_LAG{lag}" for name in self.names for lag in lags]

    # -- what it needs beside bars -------------------------------------------------------------------------

    def check_store(self, store: QlibStore) -> None:
        """Raise a UserError if the store lacks a table or field of side data that an expression names."""
        side = SideData(store)
        for name, field in self.program.side_fields:
            check_field(side, name, field)
        for name in self.program.group_names:
            reason = SideConcepts(name).lacks(store)
            if reason is not None:
                raise UserError(
                    f"`CSNeutralize(..., {name})` does not fit the store {store.root}: {reason}; bring a table in "
                    "(`qlib-ext data side-data DIR NAME FILE`)"
                )
        # what is read now, whatever becomes of the files: a run tells of this, and another file is another cache entry
        names = {*self.program.group_names, *(name for name, _ in self.program.side_fields)}
        self._side_facts = {name: side.fingerprint([name]) for name in sorted(names)}

    def join(self, store: QlibStore, market: MarketPanel) -> None:
        """Find the rows that windows look at, and read the side data that expressions name."""
        self._places = window_rows(market, self.lookback_days)
        self._places_on = None
        self._groups = {
            name: SideConcepts(name).load(store, market).numbers(*market.members.shape)
            for name in self.program.group_names
        }
        side = SideData(store)
        self._side = {key: KnownField.read(side, *key, market) for key in self.program.side_fields}
        self._side_notes = [
            note
            for (name, field), known in self._side.items()
            for note in _notes(side, name, field, known, market)
        ]

    def side_fields(self) -> dict[str, KnownField]:
        return {f"side.{name}.{field}": known for (name, field), known in self._side.items()}

    # -- the windows ---------------------------------------------------------------------------------------

    def padded_shape(self, market: MarketPanel) -> tuple[int, ...]:
        """`[R + 1, F]`: a row for each stock and day that a window looks at, and one that is missing."""
        return int(self._joined(market).max()) + 1, len(self.names)

    def pad(self, market: MarketPanel, allocate: Allocate = in_memory) -> np.ndarray:
        """The features of all rows, day by day, before they are normalised by the training days."""
        self.program.check_fields(market, self.optional_fields)
        places = self._joined(market)[self.lookback_days - 1 :]
        padded = allocate(self.padded_shape(market))
        padded[-1] = np.nan
        evaluated = self.program.evaluate(
            market,
            self._groups.__getitem__,
            places < len(padded) - 1,
            {key: field.at for key, field in self._side.items()},
        )
        held = np.empty(0, np.float32)
        for (days, _), block in itertools.groupby(evaluated, key=lambda x: (x.days, int(x.stocks[0]))):
            held = _fill(padded, places[days], block, held)
            forget_pages(padded)
        if self.normalise == "day":
            _normalise_days(padded, places, market.present, self._indicators)
        return padded

    def statistics(
        self, market: MarketPanel, rows: np.ndarray, padded: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of the rows that `pad` made; they are read some at a time, since not all of them may be in memory."""
        shape = self.lookback_days, len(self.names)
        centre, scale = np.zeros(shape[1], np.float32), np.ones(shape[1], np.float32)
        statistic = {"robust": _robust, "zscore": _moments}.get(self.normalise)
        if statistic is not None:
            fitted = Rows(padded, self._joined(market)[self.lookback_days - 1 :][rows])
            centre, scale = statistic(fitted)
            centre[self._indicators], scale[self._indicators] = 0.0, 1.0
        return np.broadcast_to(centre, shape).copy(), np.broadcast_to(scale, shape).copy()

    def gather(self, padded: Tensor, day: int, columns: Tensor) -> Tensor:
        """Features of one day, `[N, T, F]` float32, finite; they use no value after `day` unless `look_ahead` says so."""
        rows = self._on(padded.device)[day : day + self.lookback_days].index_select(1, columns)  # [T, N]
        window = padded.index_select(0, rows.reshape(-1)).view(*rows.shape, -1)  # [T, N, F]
        return self.normalised(window, self.clip)

    def _joined(self, market: MarketPanel) -> np.ndarray:
        if self._places is None:
            if self.program.group_names or self.program.side_fields:
                raise RuntimeError("the features have no side data yet: call `join` first")
            self._places = window_rows(market, self.lookback_days)
        return self._places

    def _on(self, device: torch.device) -> Tensor:
        if self._places is None:
            raise RuntimeError("the features have no rows yet: call `join` or `pad` first")
        if self._places_on is None or self._places_on.device != device:
            self._places_on = torch.from_numpy(self._places).to(device)
        return self._places_on

    def __getstate__(self) -> dict[str, object]:
        # rows belong to a market: whoever loads one again joins them again
        gone: dict[str, object] = {
            "_places": None,
            "_places_on": None,
            "_groups": {},
            "_side": {},
            "_side_facts": {},
            "_side_notes": [],
        }
        return {**super().__getstate__(), **gone}


def named_expressions(given: Any) -> dict[str, str]:
    """Name -> expression, of a mapping or a list."""
    if isinstance(given, Mapping):
        named = {str(name): text for name, text in given.items()}
    elif isinstance(given, (list, tuple)):
        named = {str(text): text for text in given}
        if len(named) < len(given):
            raise UserError("`expressions` must name each expression once, found one twice")
    else:
        raise UserError(
            f"`expressions` must be a list, or a mapping from names, of expressions, found {brief(given)}"
        )
    if not named:
        raise UserError("`expressions` must hold at least one expression, found none")
    for name, text in named.items():
        instance(f"expressions.{name}", text, str)
    return named


def window_rows(market: MarketPanel, lookback_days: int) -> np.ndarray:
    """Where the features of a stock and day lie, `[D + T - 1, S]` int32, day by day.

    Rows are those that the window of some stock of a day looks at; all others have the number of rows, R, and lie in
    the missing row at the end. T - 1 days without rows come first.
    """
    looked_at = market.present.copy()
    for lag in range(1, min(lookback_days, len(looked_at))):
        looked_at[:-lag] |= market.present[lag:]
    if lookback_days > 1:
        looked_at &= market.listed
    number = int(looked_at.sum())
    places = np.full((len(looked_at) + lookback_days - 1, looked_at.shape[1]), number, np.int32)
    places[lookback_days - 1 :][looked_at] = np.arange(number, dtype=np.int32)
    return places


@dataclass(frozen=True)
class Rows:
    """Some rows of an array that may be a mapped file, read some at a time.

    Attributes
    ----------
    padded
        `[R + 1, F]`.
    places
        `[n]`: which rows, ascending.
    """

    padded: np.ndarray
    places: np.ndarray

    def blocks(self) -> Iterator[np.ndarray]:
        """All of them, in order."""
        for first in range(0, len(self.places), FITTED_AT_ONCE):
            yield self.padded[_run(self.places[first : first + FITTED_AT_ONCE])]
            forget_pages(self.padded)  # which may be many more than were read

    def sample(self) -> np.ndarray | None:
        """Random ones, to bracket medians; None where there are few."""
        size = sample_size(len(self.places))
        if size is None:
            return None
        drawn = np.sort(np.random.default_rng(0).integers(0, len(self.places), size))
        return np.concatenate(list(Rows(self.padded, self.places[drawn]).blocks()))


def _fill(padded: np.ndarray, places: np.ndarray, block: Iterable[Values], room: np.ndarray) -> np.ndarray:
    """Write the values of one block to their rows; `places` are those of the block's days.

    They are put together in `room`, or in a larger one; that is given back, to serve again.
    """
    block = iter(block)
    first = next(block)
    rows = places[:, first.stocks].reshape(-1)
    if len(room) < padded.shape[1] * len(rows):
        room = np.empty(padded.shape[1] * len(rows), np.float32)
    held = room[: padded.shape[1] * len(rows)].reshape(padded.shape[1], len(rows))
    for values in itertools.chain([first], block):
        held[values.expression] = values.plane.reshape(-1)
    for part in range(0, len(rows), FILLED_AT_ONCE):
        chosen = slice(part, part + FILLED_AT_ONCE)
        wanted = rows[chosen] < len(padded) - 1
        if wanted.any():
            beside = np.ascontiguousarray(held[:, chosen].T)
            padded[_run(rows[chosen][wanted])] = beside if wanted.all() else beside[wanted]
    return room


def _run(rows: np.ndarray) -> np.ndarray | slice:
    """Ascending positions, as a slice where none is left out: that needs no copy."""
    return slice(int(rows[0]), int(rows[-1]) + 1) if rows[-1] - rows[0] + 1 == len(rows) else rows


def _notes(side: SideData, name: str, field: str, known: KnownField, market: MarketPanel) -> list[str]:
    """Whether a number of side data is known of few stocks and days, or ends before the bars."""
    notes = []
    share = known.coverage(market)
    if share < LITTLE:
        notes.append(
            f"`side.{name}.{field}` is known for about {share:.0%} of the stocks and days; it is missing elsewhere"
        )
    behind = (market.calendar[-1] - known.newest).days
    if behind > ENDS_EARLY_DAYS[side.shape(name)]:
        notes.append(
            f"`side.{name}.{field}` ends on {known.newest:%Y-%m-%d}, {behind} days before the bars: its last values are "
            "carried forward"
        )
    return notes


def _normalise_days(padded: np.ndarray, places: np.ndarray, present: np.ndarray, kept: Sequence[int]) -> None:
    """Every day's rows less the mean of its present stocks, over their standard deviation, but the columns `kept`."""
    for day in range(len(places)):
        rows = places[day][places[day] < len(padded) - 1]
        if not len(rows):
            continue
        inside = padded[int(rows[0]) : int(rows[-1]) + 1]  # the rows of a day follow each other
        inside[~np.isfinite(inside)] = np.nan
        there = padded[places[day][present[day]]].astype(np.float64)
        number = np.maximum((~np.isnan(there)).sum(axis=0), 1)
        mean = np.nansum(there, axis=0) / number
        deviation = np.sqrt(np.nansum((there - mean) ** 2, axis=0) / np.maximum(number - 1, 1))
        mean[kept], deviation[kept] = 0.0, 1.0
        inside[...] = (inside - mean) / np.where(deviation > 0, deviation, 1.0)
        forget_pages(padded)


def _robust(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Median, and what a median absolute deviation makes of the standard deviation, of each column."""
    sample, columns = rows.sample(), rows.padded.shape[1]
    centre = column_medians(rows.blocks, columns, sample)
    deviation = column_medians(rows.blocks, columns, sample, centre)
    return centre, (deviation + EPSILON) * np.float32(MAD_TO_STD)


def _moments(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the finite values of each column; a deviation of 0 counts as 1."""
    number, total, squares = (np.zeros(rows.padded.shape[1]) for _ in range(3))
    for block in rows.blocks():
        there = np.isfinite(block)
        number += there.sum(axis=0)
        total += np.where(there, block, 0).sum(axis=0, dtype=np.float64)
    number[number == 0] = np.nan
    mean = total / number
    for block in rows.blocks():
        squares += (np.where(np.isfinite(block), block - mean, 0.0) ** 2).sum(axis=0)
    deviation = np.sqrt(squares / number)
    deviation[deviation == 0] = 1.0
    return mean.astype(np.float32), deviation.astype(np.float32)
