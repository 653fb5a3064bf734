"""Which days a dataset trains on, chooses by and is judged on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, between, brief, instance
from qlib_ext.data.combinatorial import COMBINATORIAL, Stretches
from qlib_ext.data.days import as_day, check_range
from qlib_ext.data.folds import WALK_FORWARD
from qlib_ext.data.handlers.panel import PanelHandler
from qlib_ext.data.plan import Days
from qlib_ext.data.store_check import require
from qlib_ext.market.store import QlibStore

FAR = 10  # calendar days between what a segment asks for and what there is; more is no holiday, and is told
SPLIT = "split"
PARTS = ("train", "valid", "test")

Segments = dict[str, Days]
Spans = dict[str, Stretches]


def check_segments(segments: Any) -> Segments:
    """First and last day of each segment, checked as `check_spans` does it."""
    return whole(check_spans(segments))


def whole(spans: Spans) -> Segments:
    """First and last day of each segment, whatever it leaves out between them."""
    return {name: (stretches[0][0], stretches[-1][1]) for name, stretches in spans.items()}


def check_spans(segments: Any, *, judging: bool = False) -> Spans:
    """The stretches of days that each segment is made of, checked; most have one.

    Parameters
    ----------
    segments
        Name -> (first day, last day), both included; as dates, or as texts such as `2014-12-31`. Or a list of such pairs,
        in the order of time.
    judging
        Whether `train` and `valid` may lie after days of `test`.

    Raises
    ------
    UserError
        If there is none, or one is no pair of days, ends before it begins, or shares days with another; if days of `test`
        lie before `train` or `valid`, which would have seen what comes after them, unless `judging` says that they may.
    """
    if not isinstance(segments, Mapping) or not segments:
        raise UserError(
            f"`segments` must name at least one segment, found {segments or 'none'}: give a mapping such as "
            "`train: [2007-01-01, 2014-12-31]`"
        )
    for name in (WALK_FORWARD, COMBINATORIAL):
        if name in segments:
            raise UserError(
                f"`segments.{name}` makes many datasets, which a whole task does: run the workflow by `qrun`, or take "
                "`qlib_ext.workflow.walk_forward.walked(task)`"
            )
    checked = {name: _check_stretches(name, given) for name, given in segments.items()}
    named = [(name, days) for name, stretches in checked.items() for days in stretches]
    for k, (name, (start, end)) in enumerate(named):
        for other, (other_start, other_end) in named[:k]:
            if other != name and start <= other_end and other_start <= end:
                raise UserError(f"segments `{other}` and `{name}` overlap: give each its own days")
    for name in ("train", "valid"):
        if judging or name not in checked or "test" not in checked:
            continue
        first, last = checked["test"][0][0], checked[name][-1][0]
        if first < last:
            raise UserError(
                f"segment `test` must lie after `{name}`, or the model would be judged on a past of which it knows the "
                f"future; found `test` from {first:%Y-%m-%d} and `{name}` from {last:%Y-%m-%d}"
            )
    return checked


def _check_stretches(name: str, given: Any) -> Stretches:
    """A pair of days, or a list of pairs in the order of time."""
    pairs = given if isinstance(given, (list, tuple)) and given else [given]
    if not all(isinstance(pair, (list, tuple)) for pair in pairs):
        return (_check_pair(name, f"segments.{name}", given),)
    found = tuple(_check_pair(name, f"segments.{name}[{k}]", pair) for k, pair in enumerate(pairs))
    for (_, end), (start, _) in pairwise(found):
        if start <= end:
            raise UserError(
                f"the stretches of segment `{name}` must follow each other in time, found one from {start:%Y-%m-%d} after one "
                f"to {end:%Y-%m-%d}"
            )
    return found


def _check_pair(name: str, place: str, bounds: Any) -> Days:
    if not isinstance(bounds, (list, tuple)) or len(bounds) != 2:
        raise UserError(f"segment `{name}` must be a pair of dates, found {brief(bounds)}")
    if any(bound is None or bound is pd.NaT for bound in bounds):
        raise UserError(f"segment `{name}` must have a first and a last day, found {brief(bounds)}")
    start, end = (as_day(f"{place}[{k}]", bound) for k, bound in enumerate(bounds))
    if start > end:
        raise UserError(
            f"segment `{name}` must not end before it begins, found {start:%Y-%m-%d} to {end:%Y-%m-%d}"
        )
    return start, end


def check_shares(given: Any) -> tuple[float, ...]:
    """Shares of `train`, `valid` and `test`, checked to be three that make 1 together."""
    if not isinstance(given, (list, tuple)) or len(given) != len(PARTS):
        raise UserError(f"`segments.split` must be the shares of {', '.join(PARTS)}, found {brief(given)}")
    for share in given:
        between("segments.split", share, 0, 1, open_low=True, open_high=True)
    if abs(sum(given) - 1) > 1e-6:
        raise UserError(
            f"`segments.split` must make 1 together, found {brief(given)}, which make {sum(given):g}"
        )
    return tuple(given)


def universe_days(store: QlibStore, handler: Mapping[str, Any] | PanelHandler) -> pd.DatetimeIndex:
    """The trading days of a handler's range on which its universe may have members."""
    if isinstance(handler, Mapping):
        kwargs = handler.get("kwargs") or {}
        universe, start, end = (kwargs.get(name) for name in ("instruments", "start_time", "end_time"))
    else:
        universe, start, end = handler.instruments, handler.start_time, handler.end_time
    if universe is None:
        raise UserError("the handler must name its universe as `instruments`, found none")
    check_range(start, end)
    require(store, universe=instance("instruments", universe, str))
    spells = store.membership(universe)
    days = store.calendar[(store.calendar >= spells["start"].min()) & (store.calendar <= spells["end"].max())]
    if start is not None:
        days = days[days >= pd.Timestamp(start)]
    if end is not None:
        days = days[days <= pd.Timestamp(end)]
    if not len(days):
        raise UserError(
            f"the universe `{universe}` of the store {store.root} must have trading days from {start or 'its first'} to "
            f"{end or 'its last'}, found none"
        )
    return days


def split_days(
    store: QlibStore, handler: Mapping[str, Any] | PanelHandler, shares: Sequence[float]
) -> Segments:
    """The trading days of the handler's range, cut at the shares: first and last day of each part."""
    days = universe_days(store, handler)
    cuts = [round(float(share) * len(days)) for share in np.cumsum([0.0, *shares])]
    parts = {name: days[a:b] for name, a, b in zip(PARTS, cuts[:-1], cuts[1:], strict=True)}
    for name, part in parts.items():
        if not len(part):
            raise UserError(
                f"`segments.split` gives `{name}` none of the {len(days)} trading days of the universe in the store "
                f"{store.root} from {days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}: take a longer range"
            )
    return {name: (part[0], part[-1]) for name, part in parts.items()}


def find_days(handler: PanelHandler, spans: Spans) -> tuple[dict[str, np.ndarray], list[str]]:
    """The days that the market has of each segment, and what there is to say of them.

    Returns
    -------
    days
        Name -> positions in the calendar of the market, ascending.
    notes
        Where a segment asks for more than there is, or its days were used to fit the features.

    Raises
    ------
    UserError
        If the universe has no member on any day of a segment.
    """
    panel = handler.panel
    calendar = panel.calendar
    usable = panel.present.any(axis=1)
    if handler.start_time is not None:
        usable &= calendar >= pd.Timestamp(handler.start_time)
    if handler.end_time is not None:
        usable &= calendar <= pd.Timestamp(handler.end_time)
    notes = _fit_notes(handler, spans)
    days: dict[str, np.ndarray] = {}
    for name, (start, end) in whole(spans).items():
        inside = np.flatnonzero(in_stretches(calendar, spans[name]) & usable)
        if not len(inside):
            there = calendar[usable]
            found = f"{there[0]:%Y-%m-%d} to {there[-1]:%Y-%m-%d}" if len(there) else "none at all"
            raise UserError(
                f"segment `{name}` ({start:%Y-%m-%d} to {end:%Y-%m-%d}) holds no day of the universe "
                f"`{handler.instruments}` in the store {handler.store.root} ({found}): "
                "change the segments, or take another store"
            )
        first, last = calendar[inside[0]], calendar[inside[-1]]
        if (first - start).days > FAR or (end - last).days > FAR:
            notes.append(
                f"segment `{name}` asks for {start:%Y-%m-%d} to {end:%Y-%m-%d}; "
                f"the store gives {first:%Y-%m-%d} to {last:%Y-%m-%d} ({len(inside)} days)"
            )
        days[name] = inside
    return days, notes


def in_stretches(days: pd.DatetimeIndex, stretches: Stretches) -> np.ndarray:
    """`[D]` bool: the days that lie in one of the stretches."""
    return np.logical_or.reduce([(days >= first) & (days <= last) for first, last in stretches])


def purged(days: Mapping[str, np.ndarray], horizon_days: int) -> dict[str, np.ndarray]:
    """The days of each segment without those whose labels reach into another segment.

    Parameters
    ----------
    days
        Name -> positions in the calendar, ascending.
    horizon_days
        How many days after t a label of t reaches.

    Raises
    ------
    UserError
        If a segment has no day left.
    """
    kept: dict[str, np.ndarray] = dict(days)
    for name, inside in days.items():
        others = np.sort(
            np.concatenate([other for key, other in days.items() if key != name] or [inside[:0]])
        )
        following = np.append(others, np.iinfo(others.dtype).max)[
            np.searchsorted(others, inside, side="right")
        ]
        kept[name] = inside[horizon_days < following - inside]
        if not len(kept[name]):
            raise UserError(
                f"segment `{name}` has {len(inside)} days, and the labels of all of them reach into the "
                f"next segment ({horizon_days} days ahead): make it longer, or set `purge` to false"
            )
    return kept


def _fit_notes(handler: PanelHandler, spans: Spans) -> list[str]:
    first, last = handler.fit_start_time, handler.fit_end_time
    if first is None or "train" not in spans:
        return []  # nothing was fitted here (the statistics are those of another dataset), or nothing is trained
    return [
        f"features are normalised by statistics of {first:%Y-%m-%d} to {last:%Y-%m-%d}, "
        f"which has days of segment `{name}`: `fit_start_time` and `fit_end_time` belong to `train`"
        for name, stretches in spans.items()
        if name != "train"
        and any(
            start <= until and since <= end for start, end in stretches for since, until in handler.fit_spans
        )
    ]
