"""Splits of combinatorial cross-validation: laws of every plan, skfolio's splits and paths, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.data.combinatorial import CombinatorialPlan, Stretches

DAYS = pd.bdate_range("2012-01-02", periods=187)


def days_of(stretches: Stretches) -> set[int]:
    """Positions of all days of some stretches."""
    found: set[int] = set()
    for first, last in stretches:
        found |= {*range(DAYS.get_loc(first), DAYS.get_loc(last) + 1)}
    return found


@settings(max_examples=25, deadline=None)
@given(
    folds=st.integers(3, 7),
    test_folds=st.integers(2, 4),
    reach=st.integers(0, 3),
    embargo=st.integers(0, 3),
    valid=st.sampled_from([0.1, 0.25, 0.4]),
)
def test_the_laws(folds: int, test_folds: int, reach: int, embargo: int, valid: float) -> None:
    if test_folds >= folds:
        return
    plan = CombinatorialPlan(folds=folds, test_folds=test_folds, embargo=embargo, valid=valid)
    splits = plan.splits(DAYS, reach)
    assert len(splits) == math.comb(folds, test_folds)
    for split in splits:
        train, chosen, test = (days_of(part) for part in (split.train, split.valid, split.test))
        assert train
        assert chosen
        assert test == days_of(split.scores)
        reached = {name: {day + ahead for day in part for ahead in range(reach + 1)} for name, part in
                   (("train", train), ("valid", chosen), ("test", test))}  # fmt: skip
        # no label of what is learned, chosen by or scored reaches into another of them, whichever comes first
        assert not reached["train"] & reached["test"] & (train | test)
        assert not reached["train"] & test
        assert not reached["test"] & train
        assert not reached["valid"] & test
        assert not reached["test"] & chosen
        assert not reached["train"] & chosen
        assert not reached["valid"] & train
        for last in (DAYS.get_loc(b) for _, b in split.test):
            kept = {last + reach + ahead for ahead in range(1, embargo + 1)}
            assert not kept & (train | chosen), "the embargo after what is scored"
        assert max(chosen) > max(train), "chosen by the last of what could be learned"
    assert [split.in_order for split in splits] == [False] * (len(splits) - 1) + [True]
    # each path scores each fold once, by another split than any other path
    for path in range(1, plan.paths + 1):
        parts = [
            (fold, split.number)
            for split in splits
            for fold, of in zip(split.folds, split.paths, strict=True)
            if of == path
        ]
        assert sorted(fold for fold, _ in parts) == list(range(1, folds + 1))
    used = [(fold, split.number) for split in splits for fold in split.folds]
    assert len({*used}) == plan.paths * folds


@pytest.mark.parametrize(("folds", "test_folds", "reach", "embargo"), [(6, 2, 2, 3), (5, 3, 1, 0)])
def test_splits_and_paths_are_those_of_skfolio(folds: int, test_folds: int, reach: int, embargo: int) -> None:
    selection = pytest.importorskip("skfolio.model_selection")
    theirs = selection.CombinatorialPurgedCV(folds, test_folds, purged_size=reach, embargo_size=embargo)
    plan = CombinatorialPlan(folds=folds, test_folds=test_folds, embargo=embargo, valid=0.01)
    ours = plan.splits(DAYS, reach)
    assert len(ours) == theirs.n_splits
    assert plan.paths == theirs.n_test_paths
    assert [[path - 1 for path in split.paths] for split in ours] == theirs.get_path_ids().tolist()
    for split, (learned, tested) in zip(ours, theirs.split(np.zeros((len(DAYS), 1))), strict=True):
        assert [sorted(days_of((scored,))) for scored in split.scores] == [days.tolist() for days in tested]
        # what the validation and its purge leave of the days to learn by is what is trained on
        left = {*learned.tolist()}
        chosen = days_of(split.valid)
        assert chosen == {*sorted(left)[len(left) - len(chosen) :]}
        assert days_of(split.train) == {day for day in left if day + reach < min(chosen)}


def test_a_plan_by_hand() -> None:
    splits = CombinatorialPlan(folds=3, test_folds=2, valid=0.5, end="2012-01-31").splits(DAYS, 1)
    assert [split.folds for split in splits] == [(1, 2), (1, 3), (2, 3)]
    assert [split.paths for split in splits] == [(1, 1), (2, 1), (2, 2)]
    # 22 days in folds of 7, 7 and 8; the middle one is learned of, but for a day at either end, and one before the validation
    assert splits[1].segments == {
        "train": [["2012-01-12", "2012-01-13"]],
        "valid": [["2012-01-17", "2012-01-18"]],
        "test": [["2012-01-02", "2012-01-10"], ["2012-01-20", "2012-01-31"]],
    }
    assert not splits[1].in_order


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (6, "`segments.combinatorial` must be a mapping such as {folds: 6, test_folds: 2}, found 6"),
        ({"fold": 6}, "no place for `fold` .did you mean folds"),
        ({"folds": 2}, "`combinatorial.folds` must be"),
        ({"test_folds": 1}, "`combinatorial.test_folds` must be"),
        ({"folds": 4, "test_folds": 4}, "`combinatorial.test_folds` must be"),
        ({"valid": 1.0}, "`combinatorial.valid` must lie in"),
        ({"embargo": -1}, "`combinatorial.embargo` must be"),
        ({"folds": 20, "test_folds": 10}, "at most 500 splits.* make 184,756"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CombinatorialPlan.of(given)


@pytest.mark.parametrize(
    ("changes", "reach", "message"),
    [
        ({"end": "2012-01-05"}, 1, "at least a trading day for each of 6 folds, found 4"),
        ({"embargo": 200}, 1, "leaves split 1, which scores the folds 1, 2, no day of training"),
        ({"valid": 0.001}, 1, "no day of validation"),
    ],
)
def test_days_that_leave_no_room_are_told(changes: dict[str, Any], reach: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CombinatorialPlan.of(changes).splits(DAYS, reach)
