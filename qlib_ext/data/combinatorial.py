"""Combinatorial purged cross-validation: which days each split trains on, chooses by and scores. Arithmetic of days alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, between, integer
from qlib_ext.data.plan import Days, Plan

COMBINATORIAL = "combinatorial"
MOST_FOLDS, MOST_SPLITS = 50, 500  # each split is a training

Stretches = tuple[Days, ...]


@dataclass(frozen=True)
class Split:
    """One training of many: some folds are scored, and it learns of the others, before and after them.

    Attributes
    ----------
    number
        From 1.
    train, valid, test
        Stretches of trading days, first and last included, in the order of time.
    folds
        Numbers of the folds that it scores, from 1.
    scores
        First and last day of each of them.
    paths
        The path, from 1, that each of them is a part of.
    """

    number: int
    train: Stretches
    valid: Stretches
    test: Stretches
    folds: tuple[int, ...]
    scores: Stretches
    paths: tuple[int, ...]

    @property
    def in_order(self) -> bool:
        """Whether it learns of nothing that comes after what it scores: an ordinary training."""
        return self.train[-1][1] < self.valid[0][0] and self.valid[-1][1] < self.test[0][0]

    @property
    def segments(self) -> dict[str, list[list[str]]]:
        """As a workflow names them, each a list of stretches."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: as_texts(stretches) for name, stretches in parts.items()}


@dataclass(frozen=True, kw_only=True)
class CombinatorialPlan(Plan):
    r"""How a workflow is cross-validated, as `segments: {combinatorial: {...}}` says it.

    Source: López de Prado (2018), "Advances in Financial Machine Learning", chapter 12. The days are cut into n folds of one
    length. For each choice of k of them one model is trained on the others and scores these. A fold is scored by
    :math:`\binom{n-1}{k-1}` models, so that the scores make as many paths, each of all days:

    .. math:: \varphi = \binom{n}{k} \frac{k}{n}

    Parameters
    ----------
    folds
        n, at least 3.
    test_folds
        k, at least 2 and below n.
    valid
        Share of the days of training, the last of them, by which each model is chosen.
    start, end, embargo, resume, workers, ray
        As `Plan` has them. The embargo is of days of training after a fold that is scored.

    Raises
    ------
    UserError
        If an argument is of another kind, or there would be too many splits to train.

    Departures
    ----------
    The source has no validation. Here it is cut out of the days of training, and purged from what stays of them as the test
    is.
    """

    name: ClassVar[str] = COMBINATORIAL
    example: ClassVar[str] = "{folds: 6, test_folds: 2}"
    warm_start: ClassVar[bool] = False

    folds: int = 6
    test_folds: int = 2
    valid: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        integer(f"{COMBINATORIAL}.folds", self.folds, 3, MOST_FOLDS)
        integer(f"{COMBINATORIAL}.test_folds", self.test_folds, 2, self.folds - 1)
        between(f"{COMBINATORIAL}.valid", self.valid, 0, 1, open_low=True, open_high=True)
        if (count := math.comb(self.folds, self.test_folds)) > MOST_SPLITS:
            raise UserError(
                f"`{COMBINATORIAL}` must make at most {MOST_SPLITS} splits, each of which is a training; {self.folds} folds, of "
                f"which {self.test_folds} are scored, make {count:,}: take fewer folds"
            )

    def __str__(self) -> str:
        embargo = f", embargo {self.embargo} days" if self.embargo else ""
        return f"{self.folds} folds, {self.test_folds} of them scored at a time{embargo}"

    @property
    def paths(self) -> int:
        """How many series of all days the splits make."""
        return math.comb(self.folds, self.test_folds) * self.test_folds // self.folds

    def splits(self, days: pd.DatetimeIndex, reach_days: int) -> tuple[Split, ...]:
        """The splits of a market, by the folds that they score in the order of `itertools.combinations`.

        A day is no day of training where its label, or that of a day that is scored, would reach from the one to the other:
        as many trading days as a label reaches ahead are left out before a fold that is scored, and after it as many and the
        embargo. The validation is kept apart from what stays in the same way. The last split trains on what comes before its
        folds alone.

        Parameters
        ----------
        days
            Trading days on which there is something to learn or to score, ascending.
        reach_days
            How many trading days after t a label of t reaches.

        Raises
        ------
        UserError
            If the days leave a split without training or validation.
        """
        inside = (days >= (self.start or days[0])) & (days <= (self.end or days[-1]))
        days = days[inside]
        if len(days) < self.folds:
            raise UserError(
                f"`{COMBINATORIAL}` needs at least a trading day for each of {self.folds} folds, found {len(days)}: take a "
                "longer range, or fewer folds"
            )
        fold_of = np.minimum(np.arange(len(days)) // (len(days) // self.folds), self.folds - 1)
        bounds = [(days[fold_of == k][0], days[fold_of == k][-1]) for k in range(self.folds)]
        scored_before = [0] * self.folds
        found = []
        for number, chosen in enumerate(combinations(range(self.folds), self.test_folds), start=1):
            test = np.isin(fold_of, chosen)
            left = ~_near(test, reach_days, reach_days + self.embargo)
            learned = np.flatnonzero(left)
            valid = np.zeros_like(test)
            valid[learned[len(learned) - round(self.valid * len(learned)) :]] = True
            train = left & ~_near(valid, reach_days, reach_days + self.embargo)
            self._check_room(number, chosen, train, valid, reach_days)
            for k in chosen:
                scored_before[k] += 1
            found.append(
                Split(
                    number,
                    train=_stretches(days, train),
                    valid=_stretches(days, valid),
                    test=_stretches(days, test),
                    folds=tuple(k + 1 for k in chosen),
                    scores=tuple(bounds[k] for k in chosen),
                    paths=tuple(scored_before[k] for k in chosen),
                )
            )
        return tuple(found)

    def _check_room(
        self, number: int, chosen: tuple[int, ...], train: np.ndarray, valid: np.ndarray, reach_days: int
    ) -> None:
        for name, part in {"training": train, "validation": valid}.items():
            if not part.any():
                told = ", ".join(str(k + 1) for k in chosen)
                raise UserError(
                    f"`{COMBINATORIAL}` leaves split {number}, which scores the folds {told}, no day of {name}: folds have "
                    f"{len(train) // self.folds} trading days, labels reach {reach_days} days ahead, the embargo is "
                    f"{self.embargo}: take fewer folds or a longer range"
                )


def as_texts(stretches: Stretches) -> list[list[str]]:
    """Stretches of days as a configuration has them."""
    return [[f"{day:%Y-%m-%d}" for day in days] for days in stretches]


def _near(days: np.ndarray, before: int, after: int) -> np.ndarray:
    """The days of a mask `[D]`, those up to `before` days before one of them, and up to `after` days after."""
    counts = np.convolve(days, np.ones(before + after + 1))
    return counts[before : before + len(days)] > 0.5


def _stretches(days: pd.DatetimeIndex, mask: np.ndarray) -> Stretches:
    """First and last day of each run of days in a mask `[D]`."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    return tuple((days[a], days[b - 1]) for a, b in edges.reshape(-1, 2))
