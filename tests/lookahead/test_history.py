"""Features and scores that change with how much history is loaded are found and named, and others are not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qlib_ext.lookahead.changed_market import write_shortened
from qlib_ext.lookahead.findings import Result
from qlib_ext.lookahead.history import KIND, HistoryCut
from qlib_ext.market.store import QlibStore
from tests.lookahead.conftest import DAYS

ALPHA158 = "qlib_ext.features.alpha158.Alpha158"


def told(result: Result) -> list[str]:
    assert {finding.kind for finding in result.findings} <= {KIND}, result.to_json()["findings"]
    return [finding.message for finding in result.findings]


class TestPlan:
    def test_days_have_ever_more_history(self) -> None:
        cut = HistoryCut.plan(60, [np.arange(100, 1000), np.arange(1000, 2600)], 2599)
        assert cut is not None
        assert [*cut.lengths.values()] == [60, 75, 90, 120, 180, 240, 400]
        assert {day - length + 1 for day, length in cut.lengths.items()} == {cut.first} == {2200}

    def test_a_day_between_segments_gives_way_to_the_next_one(self) -> None:
        cut = HistoryCut.plan(10, [np.arange(50), np.arange(65, 100)], 99)
        assert cut is not None
        assert cut.first == 50
        assert [*cut.lengths] == [65, 69, 79, 89, 99]

    @pytest.mark.parametrize("needed", [51, 300])
    def test_half_of_the_days_are_cut_or_none(self, needed: int) -> None:
        assert HistoryCut.plan(needed, [np.arange(100)], 99) is None


def test_a_shortened_store_has_no_bar_before_its_first_day(store: QlibStore, tmp_path: Path) -> None:
    write_shortened(store, tmp_path / "short", 100)
    short = QlibStore(tmp_path / "short")
    codes = store.instruments()
    assert short.instruments() == codes
    before, after = (each.read(["close", "volume"], codes) for each in (store, short))
    assert np.isnan(after[:, :100]).all()
    np.testing.assert_array_equal(after[:, 100:], before[:, 100:])
    assert not np.isnan(before[:, :100]).all()
    write_shortened(store, tmp_path / "none", DAYS - 1)
    assert np.isnan(QlibStore(tmp_path / "none").read(["close"], codes)[:, : DAYS - 1]).all()


class TestFound:
    def test_a_feature_of_all_days_so_far(self, task: Any, audited: Any) -> None:
        result = audited(task(features="planted_leaks.SinceTheFirstBar"), dates=4, refits=1)
        (said,) = told(result)
        assert said.startswith("`CLOSE0`: with 5 days of history other features than with all of it")
        assert "do not settle within 129; the features say that 5 are enough" in said
        assert "14 of 14 stocks" in said

    def test_long_averages_among_others(self, table_task: Any, audited: Any) -> None:
        """Qlib's own handlers do not say what they need: what settles is a note."""
        features = {
            "CHANGE": "$close/Ref($close, 1)-1",
            "SLOW": "EMA($close, 100)/$close",
            "MIDDLE": "EMA($close, 20)/$close",
            "QUICK": "EMA($close, 10)/$close",
        }
        result = audited(table_task(features), dates=4, refits=1)
        (said,) = told(result)
        assert said.startswith("`SLOW`: with 60 days of history")
        assert "do not settle within 127" in said
        (note,) = [note for note in result.notes if "other features" in note]
        assert note.startswith("`MIDDLE`: with 60 days of history other features than with all of it")
        assert re.search(r"which settle from \d+ on$", note)

    def test_scores(self, task: Any, audited: Any) -> None:
        model = {"class": "planted_leaks.MeansOfAllDays", "kwargs": {}}
        (said,) = told(audited(task(model=model), dates=4, refits=1))
        assert said.startswith("scores: with 5 days of history other scores")


def test_alpha158_needs_what_it_says(task: Any, audited: Any) -> None:
    """To the last of its columns; tests of no false alarm hold Alpha360, daily bars, expressions and side data."""
    result = audited(task(features=ALPHA158, lookback_days=1), dates=2, refits=1)
    assert told(result) == []
    assert "history" in {check.name for check in result.checks}
    assert not any("other features" in note for note in result.notes)
