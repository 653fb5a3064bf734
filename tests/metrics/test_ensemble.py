"""Members of an ensemble beside each other, against pandas and a loop."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.metrics.cross_section import spearman
from qlib_ext.metrics.ensemble import leave_one_out, score_correlation


@pytest.fixture
def scores() -> np.ndarray:
    rng = np.random.default_rng(2)
    found = rng.normal(size=(3, 9, 15)) + rng.normal(size=(9, 15))
    found[rng.random(found.shape) < 0.1] = np.nan
    return found


def test_correlation_is_that_of_pandas(scores: np.ndarray) -> None:
    found = score_correlation(scores)
    for one in range(3):
        for other in range(3):
            daily = [
                pd.Series(a).corr(pd.Series(b), method="spearman")
                for a, b in zip(scores[one], scores[other], strict=True)
            ]
            assert found[one, other] == pytest.approx(np.mean(daily))


def test_members_without_a_shared_day_have_none(scores: np.ndarray) -> None:
    scores[0, :4], scores[1, 4:] = np.nan, np.nan
    found = score_correlation(scores)
    assert np.isnan(found[0, 1])
    assert found[0, 0] == 1


def test_what_a_member_adds_is_what_is_lost_without_it(scores: np.ndarray) -> None:
    truth = np.random.default_rng(3).normal(size=(9, 15))
    asked: list[list[int]] = []

    def mean(given: np.ndarray, who: list[int]) -> np.ndarray:
        asked.append(who)
        return np.nanmean(given, axis=0)

    found = leave_one_out(scores, truth, mean)
    assert asked == [[0, 1, 2], [1, 2], [0, 2], [0, 1]]
    for k in range(3):
        rest = np.delete(scores, k, axis=0)
        expected = spearman(np.nanmean(scores, axis=0), truth) - spearman(np.nanmean(rest, axis=0), truth)
        np.testing.assert_allclose(found[k], expected)


def test_the_only_member_has_no_gain(scores: np.ndarray) -> None:
    found = leave_one_out(scores[:1], scores[1], lambda given, who: given[0])
    assert found.shape == (1, 9)
    assert np.isnan(found).all()


def test_another_shape_is_told() -> None:
    with pytest.raises(UserError, match=r"must be \[members, days, stocks\], found the shape \(2, 2\)"):
        score_correlation(np.zeros((2, 2)))
