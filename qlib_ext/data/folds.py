"""Walk-forward folds: which days each of them trains on, chooses by and scores. Arithmetic of dates alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from qlib_ext.checks import UserError, brief, instance, one_of
from qlib_ext.data.plan import Days, Plan

WALK_FORWARD = "walk_forward"
WINDOWS = ("rolling", "expanding")
UNITS = {"y": "years", "m": "months", "w": "weeks", "d": "days"}


@dataclass(frozen=True)
class Fold:
    """One model of many through time: first and last day of what it trains on, chooses by and scores.

    Attributes
    ----------
    number
        From 1.
    train, valid, test
        Trading days, both included.
    due
        From which day the next fold scores, whether the market has it or not.
    """

    number: int
    train: Days
    valid: Days
    test: Days
    due: pd.Timestamp

    @property
    def segments(self) -> dict[str, list[str]]:
        """As a workflow names them."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: [f"{day:%Y-%m-%d}" for day in days] for name, days in parts.items()}


@dataclass(frozen=True, kw_only=True)
class FoldPlan(Plan):
    """How a workflow walks forward, as `segments: {walk_forward: {...}}` says it.

    A length is a number and a unit, of the calendar: `5y`, `6m`, `2w`, `90d`.

    Parameters
    ----------
    train, valid, test
        How long each fold trains, chooses and scores.
    step
        How long after a fold the next one begins; by default as long as `test`, and no longer.
    window
        `rolling`: each fold trains on days of the same length; `expanding`: each trains from the first day there is.
    warm_start
        Each fold begins from the weights of the one before it, where the model can.
    start, end, embargo, resume, workers, ray
        As `Plan` has them. The first day that is scored is by default the first that leaves room for `train` and `valid`.

    Raises
    ------
    UserError
        If an argument is of another kind, `step` is longer than `test`, or folds that begin from each other are to be trained
        side by side.
    """

    name: ClassVar[str] = WALK_FORWARD
    example: ClassVar[str] = "{train: 5y, valid: 1y, test: 6m}"

    train: str
    valid: str
    test: str
    step: str | None = None
    window: str = "rolling"
    warm_start: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train", "valid", "test", "step"):
            if getattr(self, name) is not None:
                _length(name, getattr(self, name))
        one_of(f"{WALK_FORWARD}.window", self.window, WINDOWS)
        instance(f"{WALK_FORWARD}.warm_start", self.warm_start, bool)
        origin = pd.Timestamp("2001-01-01")
        if self.step is not None and origin + _length("step", self.step) > origin + _length(
            "test", self.test
        ):
            raise UserError(
                f"`{WALK_FORWARD}.step` must not be longer than `test`, or days between two folds would have no score; "
                f"found {self.step} and {self.test}"
            )
        if self.warm_start and self.workers > 1:
            raise UserError(
                f"`{WALK_FORWARD}.workers` must be 1 where each fold begins from the weights of the one before "
                f"(`warm_start`), found {self.workers}"
            )

    def __str__(self) -> str:
        after = "" if self.step in (None, self.test) else f", every {self.step}"
        warm = ", warm start" if self.warm_start else ""
        return f"{self.window}, train {self.train}, valid {self.valid}, test {self.test}{after}{warm}"

    def folds(self, days: pd.DatetimeIndex, reach_days: int) -> tuple[Fold, ...]:
        """The folds of a market.

        Between `train`, `valid` and `test` lie as many trading days as a label reaches ahead, and the embargo, so that what
        is learned of a segment holds no price of the next one. The days that the folds score follow each other without a
        gap; where `step` is shorter than `test`, the newest fold's score of a day counts (`newest_only`).

        Parameters
        ----------
        days
            Trading days on which there is something to learn or to score, ascending.
        reach_days
            How many trading days after t a label of t reaches.

        Raises
        ------
        UserError
            If the days leave no room for a fold, or a segment of a fold has none.
        """
        lengths = {name: _length(name, getattr(self, name)) for name in ("train", "valid", "test")}
        earliest = days[0] + lengths["train"] + lengths["valid"]
        begin, last = self.start or earliest, days[-1] if self.end is None else min(self.end, days[-1])
        if begin < earliest:
            raise UserError(
                f"`{WALK_FORWARD}.start` must be {earliest:%Y-%m-%d} or later: days begin on {days[0]:%Y-%m-%d}, and `train` "
                f"and `valid` take {self.train} and {self.valid}; found {begin:%Y-%m-%d}"
            )
        if begin > last:
            raise UserError(
                f"`{WALK_FORWARD}` needs days after {begin:%Y-%m-%d} to score, found {days[0]:%Y-%m-%d} to {last:%Y-%m-%d}: "
                "make `train` or `valid` shorter"
            )
        folds: list[Fold] = []
        gap, following, k = reach_days + self.embargo, begin, 0
        while (test := following) <= last:
            k += 1
            following = begin + _length("step", self.step or self.test, k)
            valid = test - lengths["valid"]
            train = days[0] if self.window == "expanding" else valid - lengths["train"]
            a, b, c = (int(days.searchsorted(day)) for day in (train, valid, test))
            until = max(test + lengths["test"], following)  # months differ in length: no day may fall between
            end = min(int(days.searchsorted(until)), int(days.searchsorted(last, side="right")))
            if c == end:  # a test of a few calendar days may hold no trading day
                continue
            parts = {"train": days[a : max(a, b - gap)], "valid": days[b : max(b, c - gap)]}
            for name, part in parts.items():
                if not len(part):
                    raise UserError(
                        f"`{WALK_FORWARD}.{name}` ({getattr(self, name)}) leaves no day before {test:%Y-%m-%d}: the last "
                        f"{gap} trading days of it are kept apart from what follows (labels reach {reach_days} days "
                        f"ahead, the embargo is {self.embargo}): make it longer"
                    )
            bounds = {name: (part[0], part[-1]) for name, part in parts.items()}
            folds.append(Fold(len(folds) + 1, **bounds, test=(days[c], days[end - 1]), due=following))
        return tuple(folds)


def newest_only(folds: tuple[Fold, ...]) -> tuple[Days, ...]:
    """The days of which each fold's scores count: up to the first day that the next fold scores."""
    following = [fold.test[0] - pd.Timedelta(days=1) for fold in folds[1:]]
    ends = [min(fold.test[1], end) for fold, end in zip(folds, [*following, folds[-1].test[1]], strict=True)]
    return tuple((fold.test[0], end) for fold, end in zip(folds, ends, strict=True))


def _length(name: str, text: Any, times: int = 1) -> pd.DateOffset:
    """So many times a length such as `6m`."""
    found = re.fullmatch(r"([1-9][0-9]{0,4})([ymwd])", text) if isinstance(text, str) else None
    if found is None:
        raise UserError(
            f"`{WALK_FORWARD}.{name}` must be a number and one of y, m, w, d, such as 5y or 6m, found {brief(text)}"
        )
    return pd.DateOffset(**{UNITS[found[2]]: int(found[1]) * times})
