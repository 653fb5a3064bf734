"""What members said becomes one table; weights follow from the validation, whatever the test segment holds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.model.combiners.ic_weights import ICWeights
from qlib_ext.model.combiners.mean_rank import MeanRank
from qlib_ext.model.combiners.mean_z_score import MeanZScore
from qlib_ext.model.combiners.stacking import Stacking
from qlib_ext.model.ensemble.member_scores import MemberScores, combine_tables

NAMES = ("trees", "network", "noise")


def rows(first: str, days: int = 20, stocks: int = 12) -> pd.MultiIndex:
    return pd.MultiIndex.from_product(
        [pd.bdate_range(first, periods=days), [f"SH60000{k:02}" for k in range(stocks)]],
        names=["datetime", "instrument"],
    )


def tables(first: str, seed: int, *, labels: bool) -> tuple[pd.DataFrame, ...]:
    index = rows(first)
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=len(index))
    found = []
    for skill in (0.8, 0.4, 0.0):
        table = pd.DataFrame({"score": skill * truth + rng.normal(size=len(index))}, index=index)
        found.append(table.assign(RETURN=truth) if labels else table)
    return tuple(found)


@pytest.fixture
def scores() -> MemberScores:
    return MemberScores(NAMES, tables("2020-07-01", 1, labels=False), tables("2020-01-01", 2, labels=True))


@pytest.mark.parametrize("kind", [ICWeights, Stacking])
def test_what_the_test_segment_holds_changes_no_weight(kind: type, scores: MemberScores) -> None:
    """Labels of the test segment that are scrambled, or there at all, change nothing of what is learned."""
    learned = []
    rng = np.random.default_rng(3)
    for scramble in (False, True):
        predictions = scores.predictions
        if scramble:
            predictions = tuple(
                table.assign(RETURN=rng.normal(size=len(table)), score=rng.permutation(table["score"]))
                for table in predictions
            )
        combiner = kind()
        dataclasses.replace(scores, predictions=predictions).fit(combiner, "RETURN")
        learned.append(combiner.weights_of(3))
    np.testing.assert_array_equal(learned[0], learned[1])
    assert learned[0][0] > learned[0][2]


@pytest.mark.parametrize("kind", [ICWeights, Stacking])
def test_what_the_validation_holds_does(kind: type, scores: MemberScores) -> None:
    other = tuple(table.assign(RETURN=-table["RETURN"]) for table in scores.validation)
    weights = []
    for validation in (scores.validation, other):
        combiner = kind()
        dataclasses.replace(scores, validation=validation).fit(combiner, "RETURN")
        weights.append(combiner.weights_of(3))
    assert not np.allclose(*weights)


def test_a_combiner_that_learns_nothing_asks_for_no_validation(scores: MemberScores) -> None:
    combiner = MeanRank()
    dataclasses.replace(scores, validation=()).fit(combiner, "RETURN")
    assert combiner.weights is None


def test_a_label_that_a_member_lacks_is_named(scores: MemberScores) -> None:
    with pytest.raises(UserError, match=r"found no .PRICE. in trees, network, noise, which has RETURN"):
        scores.fit(ICWeights(), "PRICE")


def test_members_that_share_no_day_of_validation_are_told(scores: MemberScores) -> None:
    later = tables("2021-01-01", 2, labels=True)
    apart = dataclasses.replace(scores, validation=(*scores.validation[:2], later[2]))
    with pytest.raises(UserError, match="must share days of validation to be weighted by, found none"):
        apart.fit(ICWeights(), "RETURN")


def test_probabilities_are_averaged_and_stay_some() -> None:
    index = rows("2020-01-01", days=2, stocks=3)
    parts = []
    for seed in (0, 1):
        drawn = np.random.default_rng(seed).dirichlet([1, 1, 1], len(index))
        parts.append(pd.DataFrame(drawn, index, [f"rise_{k}" for k in range(3)]))
        parts[-1].insert(0, "score", drawn[:, 0])
    combiner = MeanZScore()
    combiner.weights = np.array([0.25, 0.75])
    found = combine_tables(parts, combiner)
    assert [*found] == ["score", "rise_0", "rise_1", "rise_2"]
    np.testing.assert_allclose(found["rise_1"], 0.25 * parts[0]["rise_1"] + 0.75 * parts[1]["rise_1"])
    np.testing.assert_allclose(found.iloc[:, 1:].sum(axis=1), 1)


def test_what_only_some_predict_is_left_out_and_who_lacks_a_stock_does_not_count() -> None:
    index = rows("2020-01-01", days=1, stocks=4)
    first = pd.DataFrame({"score": range(4), "rise_0": 0.2, "rise_1": 0.8, "own": 1.0}, index)
    second = pd.DataFrame({"score": range(3), "rise_0": 0.6, "rise_1": 0.4}, index[:3])
    found = combine_tables([first, second], MeanZScore())
    assert [*found] == ["score", "rise_0", "rise_1"]
    assert found["rise_0"].tolist() == pytest.approx([0.4, 0.4, 0.4, 0.2])
    assert found.index.equals(index)
