"""Which days a segment has, without a dataset."""

from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.data.segments import check_shares, purged


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


def test_shares_may_miss_one_by_what_floats_miss() -> None:
    assert check_shares([0.7, 0.2, 0.1]) == (0.7, 0.2, 0.1)
