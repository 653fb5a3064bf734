"""The probability of backtest overfitting: against plain loops, laws, and what is refused."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.metrics.overfitting import backtest_overfitting

RNG = np.random.default_rng(5)


def in_loops(daily: np.ndarray, blocks: int) -> tuple[list[float], list[float], list[float]]:
    """The paper's algorithm as it stands there: best on one half, its place on the other, for each half."""
    days = np.array_split(np.arange(len(daily)), blocks)
    logits, chosen, later = [], [], []
    for half in combinations(range(blocks), blocks // 2):
        inside = np.concatenate([days[k] for k in half])
        outside = np.concatenate([days[k] for k in range(blocks) if k not in half])
        first, second = (
            [column[part].mean() / column[part].std(ddof=1) for column in daily.T]
            for part in (inside, outside)
        )
        best = max(range(len(first)), key=lambda k: first[k])
        place = sum(each < second[best] for each in second) + 1
        share = place / (len(first) + 1)
        logits.append(math.log(share / (1 - share)))
        chosen.append(first[best])
        later.append(second[best])
    return logits, chosen, later


@pytest.mark.parametrize(("days", "configurations", "blocks"), [(61, 4, 6), (40, 7, 4), (33, 2, 8)])
def test_it_is_what_plain_loops_find(days: int, configurations: int, blocks: int) -> None:
    daily = RNG.normal(0.001, 0.02, (days, configurations))
    logits, chosen, later = in_loops(daily, blocks)
    found = backtest_overfitting(daily, blocks)
    np.testing.assert_allclose(found.logits, logits, atol=1e-12)
    np.testing.assert_allclose(found.chosen, chosen, rtol=1e-9)
    np.testing.assert_allclose(found.later, later, rtol=1e-9)
    below = [1.0 if each < -1e-9 else 0.5 if abs(each) < 1e-9 else 0.0 for each in logits]
    assert found.probability == pytest.approx(np.mean(below))
    assert found.loss == pytest.approx(np.mean(np.array(later) < 0))
    slope = np.cov(chosen, later)[0, 1] / np.var(chosen, ddof=1)
    assert found.slope == pytest.approx(slope)
    assert (found.configurations, found.blocks) == (configurations, blocks)


@pytest.mark.parametrize("configurations", [3, 10])
def test_without_skill_the_best_is_as_often_below_the_median_as_above(configurations: int) -> None:
    drawn = [
        backtest_overfitting(RNG.normal(0, 0.01, (160, configurations)), 8).probability for _ in range(300)
    ]
    assert np.mean(drawn) == pytest.approx(0.5, abs=4 * np.std(drawn) / np.sqrt(len(drawn)))


def test_one_that_is_better_in_each_block_is_chosen_for_good() -> None:
    daily = RNG.normal(0, 0.01, (200, 5))
    daily[:, 3] += 0.02
    found = backtest_overfitting(daily, 10)
    assert found.probability == 0.0
    assert found.loss == 0.0


def test_what_wins_one_half_by_losing_the_other_is_overfitted() -> None:
    """Each configuration earns in one block alone and loses in all others: who is best here is worst there."""
    blocks, days = 6, 20
    daily = np.repeat(-0.01 + 0.2 * np.eye(blocks), days, axis=0) + RNG.normal(
        0, 1e-3, (blocks * days, blocks)
    )
    found = backtest_overfitting(daily, blocks)
    assert found.probability == 1.0
    assert found.loss == 1.0


def test_equal_configurations_are_at_the_median() -> None:
    daily = np.tile(RNG.normal(0, 0.01, (64, 1)), 4)
    assert backtest_overfitting(daily, 8).probability == 0.5


def test_the_order_and_the_unit_of_configurations_do_not_matter() -> None:
    daily = RNG.normal(0.001, 0.02, (64, 5))
    found, other = backtest_overfitting(daily, 8), backtest_overfitting(100 * daily[:, ::-1], 8)
    np.testing.assert_allclose(found.logits, other.logits, atol=1e-12)


def test_days_on_which_nothing_is_held_have_the_ratio_zero() -> None:
    daily = np.stack([np.zeros(40), RNG.normal(-0.02, 0.001, 40)], axis=1)
    found = backtest_overfitting(daily, 4)
    assert (found.chosen == 0).all()
    assert math.isnan(found.slope)


@pytest.mark.parametrize(
    ("daily", "blocks", "message"),
    [
        (np.zeros((40, 1)), 4, "at least two configurations to choose from, found 1"),
        (np.zeros((40, 2)), 5, "`blocks` must be even"),
        (np.zeros((40, 2)), 22, "`blocks` must be"),
        (np.zeros((7, 2)), 4, "at least 8 days for 4 blocks, found 7"),
        (np.full((40, 2), np.nan), 4, "found 80 missing"),
        (np.zeros(40), 4, "must be a matrix"),
    ],
)
def test_what_cannot_be_is_told(daily: Any, blocks: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        backtest_overfitting(daily, blocks)
