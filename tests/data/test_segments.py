"""Which days a segment has, without a dataset."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.data.segments import check_segments, check_shares, check_spans, purged


class TestPurged:
    def test_days_whose_labels_reach_into_the_next_segment_are_left_out(self) -> None:
        days = {"test": np.arange(20, 30), "train": np.arange(10), "valid": np.arange(11, 20)}
        kept = purged(days, horizon_days=3)
        assert kept["train"].tolist() == list(range(8))  # of day 8 the label reaches day 11
        assert kept["valid"].tolist() == list(range(11, 17))
        assert kept["test"].tolist() == list(range(20, 30))
        assert list(kept) == list(days)
        assert len(days["train"]) == 10

    def test_labels_of_today_reach_nowhere(self) -> None:
        days = {"train": np.arange(5), "test": np.arange(5, 9)}
        assert purged(days, horizon_days=0)["train"].tolist() == list(range(5))

    def test_a_segment_without_a_day_left_is_told(self) -> None:
        with pytest.raises(UserError, match="`valid` has 2 days, and the labels of all of them reach"):
            purged({"valid": np.array([3, 4]), "test": np.array([5, 6])}, horizon_days=2)

    def test_segments_with_holes_are_purged_on_both_sides(self) -> None:
        days = {"train": np.array([0, 1, 2, 3, 8, 9]), "test": np.array([4, 5, 12, 13])}
        kept = purged(days, horizon_days=3)
        assert kept["train"].tolist() == [0, 8]  # of day 1 the label reaches day 4, of day 9 day 12
        assert kept["test"].tolist() == [4, 12, 13]  # of day 5 it reaches day 8


SPANS = {
    "train": [["2010-01-04", "2010-06-30"], ["2011-01-03", "2011-06-30"]],
    "test": ["2010-07-01", "2010-12-31"],
}


class TestStretches:
    def test_a_segment_is_a_pair_or_a_list_of_pairs(self) -> None:
        found = check_spans(SPANS, judging=True)
        assert [len(found[name]) for name in ("train", "test")] == [2, 1]
        assert check_segments({"train": SPANS["train"]})["train"] == (
            pd.Timestamp("2010-01-04"),
            pd.Timestamp("2011-06-30"),
        )

    def test_training_after_the_test_is_for_judging_alone(self) -> None:
        with pytest.raises(
            UserError, match=r"segment `test` must lie after `train`.*found `test` from 2010-07-01"
        ):
            check_spans(SPANS)

    @pytest.mark.parametrize(
        ("train", "message"),
        [
            ([], "segment `train` must be a pair of dates"),
            ([["2010-01-04"]], "segment `train` must be a pair of dates"),
            ([["2010-02-01", "2010-03-01"], ["2010-01-04", "2010-01-31"]], "must follow each other in time"),
            ([["2010-01-04", "2010-03-01"], ["2010-07-05", "2010-07-31"]], "`train` and `test` overlap"),
        ],
    )
    def test_what_no_segment_can_be(self, train: object, message: str) -> None:
        with pytest.raises(UserError, match=message):
            check_spans({"train": train, "test": SPANS["test"]}, judging=True)


def test_shares_may_miss_one_by_what_floats_miss() -> None:
    assert check_shares([0.7, 0.2, 0.1]) == (0.7, 0.2, 0.1)
