"""Walk-forward folds: laws that hold for every plan and calendar, and the days of a few by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.data.folds import FoldPlan, newest_only

DAYS = pd.bdate_range("2007-01-03", "2014-06-30")


@st.composite
def plans(draw: st.DrawFn) -> FoldPlan:
    """Plans whose segments are longer than the gap of at most 4 trading days."""
    test = draw(st.sampled_from(["3w", "2m", "6m"]))
    return FoldPlan(
        train=draw(st.sampled_from(["6m", "1y", "2y"])),
        valid=draw(st.sampled_from(["2w", "3m"])),
        test=test,
        step=draw(st.sampled_from([None, "3w", test])),
        window=draw(st.sampled_from(["rolling", "expanding"])),
        start=draw(st.sampled_from([None, "2010-01-01", "2011-05-31"])),
        end=draw(st.sampled_from([None, "2013-12-31", "2020-01-01"])),
        embargo=draw(st.integers(0, 2)),
    )


@st.composite
def calendars(draw: st.DrawFn) -> pd.DatetimeIndex:
    """Working days without some of them."""
    holidays = draw(st.sets(st.integers(1, len(DAYS) - 1), max_size=40))
    return DAYS.delete(sorted(holidays))


@settings(max_examples=15)
@given(plans(), calendars(), st.integers(0, 2))
def test_the_laws(plan: FoldPlan, days: pd.DatetimeIndex, reach: int) -> None:
    folds = plan.folds(days, reach)
    assert [fold.number for fold in folds] == list(range(1, len(folds) + 1))
    for fold in folds:
        (a, b), (c, d), (e, f) = (days.get_indexer(part) for part in (fold.train, fold.valid, fold.test))
        assert min(a, b, c, d, e, f) >= 0, "a segment begins and ends on trading days"
        assert a <= b < c <= d < e <= f, "segments follow each other"
        # what a label of the last day reaches is before the next segment, and no day more is given up
        gap = reach + plan.embargo
        assert (c - b, e - d) == (gap + 1, gap + 1)
        if plan.window == "expanding":
            assert a == 0
    # the days that are scored are all there are, once each, in order
    scored = [days[(days >= first) & (days <= last)] for first, last in newest_only(folds)]
    first = folds[0].test[0]
    last = days[-1] if plan.end is None else plan.end
    assert scored[0].append(scored[1:]).equals(days[(days >= first) & (days <= last)])
    for earlier, later in pairwise(folds):
        assert earlier.test[0] < later.test[0]


def test_a_rolling_plan_by_hand() -> None:
    plan = FoldPlan(train="2y", valid="6m", test="6m", start="2010-01-01", end="2011-03-31")
    first, second, third = plan.folds(DAYS, reach_days=2)
    assert first.segments == {
        "train": ["2007-07-02", "2009-06-26"],  # the 29th and 30th of June reach into July
        "valid": ["2009-07-01", "2009-12-29"],
        "test": ["2010-01-01", "2010-06-30"],
    }
    assert second.segments["train"] == ["2008-01-01", "2009-12-29"]
    assert third.segments["test"] == ["2011-01-03", "2011-03-31"]


def test_an_expanding_plan_begins_where_the_days_begin() -> None:
    folds = FoldPlan(train="2y", valid="6m", test="1y", window="expanding").folds(DAYS, 0)
    assert {fold.train[0] for fold in folds} == {DAYS[0]}
    assert folds[0].test[0] == pd.Timestamp("2009-07-03")


def test_the_newest_fold_scores_a_day_that_two_score() -> None:
    folds = FoldPlan(train="1y", valid="3m", test="6m", step="3m", start="2012-01-02").folds(DAYS, 1)
    assert folds[0].test[1] > folds[1].test[0]
    assert newest_only(folds)[0] == (folds[0].test[0], folds[1].test[0] - pd.Timedelta(days=1))


BASE = {"train": "1y", "valid": "3m", "test": "6m"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("5y", "`segments.walk_forward` must be a mapping such as"),
        ({"train": "5y", "valid": "1y"}, "must have `test`"),
        ({**BASE, "purge": 1}, "no place for `purge`"),
        ({**BASE, "train": "5 years"}, "`walk_forward.train` must be a number and one of y, m, w, d"),
        ({**BASE, "train": 5}, "`walk_forward.train` must be a number and one of y, m, w, d"),
        ({**BASE, "step": "0m"}, "`walk_forward.step` must be a number"),
        ({**BASE, "step": "7m"}, "`walk_forward.step` must not be longer than `test`"),
        ({**BASE, "window": "sliding"}, "`walk_forward.window` must be one of expanding, rolling"),
        ({**BASE, "embargo": -1}, "`walk_forward.embargo` must be"),
        ({**BASE, "workers": 0}, "`walk_forward.workers` must be"),
        ({**BASE, "warm_start": True, "workers": 2}, "`walk_forward.workers` must be 1"),
        ({**BASE, "start": "2012-01-01", "end": "2011-01-01"}, "`walk_forward.start` must not lie after"),
        ({**BASE, "start": "soon"}, "`walk_forward.start` must be a day"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        FoldPlan.of(given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "2007-06-01"}, "`walk_forward.start` must be 2008-04-03 or later"),
        ({"train": "9y"}, "needs days after 2016-04-03 to score, found 2007-01-03 to 2014-06-30"),
        ({"valid": "3d"}, r"`walk_forward.valid` \(3d\) leaves no day before"),
    ],
)
def test_days_that_leave_no_room_are_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FoldPlan.of({**BASE, **changes}).folds(DAYS, reach_days=5)
