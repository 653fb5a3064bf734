"""Audits of folds put together, and a fold that learned of days that it scores."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from qlib_ext.lookahead.findings import KINDS, Check, Finding, Result
from qlib_ext.lookahead.folds import across_border, inside_split, together

CALENDAR = pd.bdate_range("2020-01-01", periods=60)
BORDER = CALENDAR[40]


def summary(train: int, valid: int, reach: int = 2) -> dict[str, Any]:
    """Of a run whose segments end on these days of the calendar."""
    ends = {"train": train, "valid": valid}
    segments = {name: {"end": f"{CALENDAR[day]:%Y-%m-%d}"} for name, day in ends.items()}
    return {"segments": segments, "label_horizon_days": reach}


@pytest.mark.parametrize(
    ("train", "valid", "leaks"),
    [
        (20, 37, []),  # the label of day 37 reaches day 39
        (20, 38, ["`valid` reach 0 days beyond"]),
        (20, 45, ["`valid` reach 7 days beyond"]),
        (39, 30, ["`train` reach 1 days beyond"]),
    ],
)
def test_a_border_is_crossed_by_a_day_or_by_its_label(train: int, valid: int, leaks: list[str]) -> None:
    scores = [f"{BORDER:%Y-%m-%d}", f"{CALENDAR[-1]:%Y-%m-%d}"]
    found = across_border(3, scores, summary(train, valid), CALENDAR)
    assert [finding.kind for finding in found] == ["fold-learns-of-its-test"] * len(leaks)
    for finding, said in zip(found, leaks, strict=True):
        assert finding.what.startswith("fold 3 scores 2020-02-26")
        assert said in finding.what
        assert KINDS[finding.kind].way_out in finding.message


def audit(first: str, dates: int, *findings: Finding) -> Result:
    facts = {"store": "cn", "first": first, "last": "2021-01-01", "changed_markets": 3, "changed": ["bars"]}
    return Result(facts, dates, findings, (Check("dates", "days", dates),), ("a note",))


def test_audits_are_one_that_says_of_which_fold_a_finding_is() -> None:
    leak = Finding("scores-too-good", "scores rank", "2020-01-01")
    found = together({1: audit("2019-01-01", 4), 3: audit("2018-01-01", 6, leak)}, 3, "fold")
    assert found.dates == 10
    assert (found.facts["first"], found.facts["changed_markets"], found.facts["folds"]) == (
        "2018-01-01",
        6,
        [1, 3],
    )
    assert [finding.what for finding in found.findings] == ["fold 3: scores rank"]
    assert found.checks == (Check("dates", "days", 10),)
    assert found.notes[0].startswith("folds 1, 3 of 3 were looked at")
    assert "fold 3: a note" in found.notes


def test_without_an_audit_of_a_fold_it_says_so() -> None:
    found = together({}, 2, "fold")
    assert found.dates == 0
    assert "LookaheadRecord" in found.notes[0]


def days(*bounds: tuple[int, int]) -> dict[str, Any]:
    """A segment of these stretches of the calendar."""
    stretches = [[f"{CALENDAR[day]:%Y-%m-%d}" for day in pair] for pair in bounds]
    only = {"start": stretches[0][0], "end": stretches[-1][1]}
    return only if len(stretches) == 1 else {**only, "stretches": stretches}


@pytest.mark.parametrize(
    ("train", "valid", "leaks"),
    [
        ([(0, 17), (32, 40)], [(43, 50)], []),  # the label of day 17 reaches day 19, that of day 29 day 31
        ([(0, 18), (32, 40)], [(43, 50)], ["`train` reach 1 days of `test`"]),
        ([(0, 17), (30, 40)], [(43, 50)], ["`test` reach 2 days of `train`"]),
        ([(0, 10)], [(13, 19)], ["`valid` reach 2 days of `test`"]),
    ],
)
def test_a_split_is_crossed_from_either_side(
    train: list[tuple[int, int]], valid: list[tuple[int, int]], leaks: list[str]
) -> None:
    segments = {"train": days(*train), "valid": days(*valid), "test": days((20, 29))}
    found = inside_split(4, {"segments": segments, "label_horizon_days": 2}, CALENDAR)
    assert [finding.kind for finding in found] == ["fold-learns-of-its-test"] * len(leaks)
    for finding, said in zip(found, leaks, strict=True):
        assert finding.what.startswith("split 4: ")
        assert said in finding.what
