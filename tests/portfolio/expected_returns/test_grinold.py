"""Skill times risk times place."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm, rankdata, spearmanr

from qlib_ext.checks import UserError
from qlib_ext.portfolio.expected_returns.grinold import GrinoldAlpha
from qlib_ext.portfolio.risk import Risk
from tests.portfolio.markets import day_of, history_of

HISTORY = replace(history_of(stocks=40, days=200, skill=0.05), planes={})
RISK = Risk(np.linspace(0.01, 0.03, 40)[:, None], np.zeros(40))


@pytest.mark.parametrize("days", [1, 5])
def test_it_is_the_rule(days) -> None:
    known = day_of(replace(HISTORY, returns=np.nan_to_num(HISTORY.returns), horizon=(1, days)))
    z = norm.ppf((rankdata(known.score) - 0.5) / 40)
    daily = [spearmanr(*pair).statistic for pair in zip(*known.forecastable(), strict=True)]
    model = GrinoldAlpha(window=1000, floor=-1, ceiling=1)
    skill = np.mean(daily)
    assert model.skill(known) == pytest.approx(skill)
    # A portfolio that holds z for the whole horizon is promised IC times the volatility of that horizon.
    np.testing.assert_allclose(
        model.estimate(known, RISK) * days, skill * RISK.components[:, 0] * np.sqrt(days) * z
    )


def test_before_there_are_enough_days_the_initial_skill_counts() -> None:
    known = day_of(HISTORY, length=40)
    assert GrinoldAlpha(min_days=60, initial=0.03).skill(known) == 0.03
    assert GrinoldAlpha(min_days=38, initial=0.03).skill(known) != 0.03
    assert GrinoldAlpha(min_days=39, initial=0.03).skill(known) == 0.03  # of 40 days, 38 have come true


def test_skill_stays_within_its_bounds() -> None:
    good, bad = (day_of(replace(HISTORY, scores=sign * HISTORY.scores)) for sign in (1, -1))
    assert GrinoldAlpha().skill(good) > 0.01
    assert GrinoldAlpha(ceiling=0.02, initial=0.01).skill(day_of(history_of(skill=2))) == 0.02
    assert GrinoldAlpha().skill(bad) == 0.0
    assert GrinoldAlpha(floor=-1).skill(bad) == pytest.approx(-GrinoldAlpha(ceiling=1).skill(good))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"window": 0}, "`window` must be at least 1"),
        ({"window": 59}, "`window` must be at least 60"),
        ({"floor": 0.2}, "`floor` must not be above `ceiling`"),
        ({"ceiling": 2}, r"`ceiling` must lie in \[-1, 1\]"),
        ({"initial": 0.5}, r"`initial` must lie in \[0, 0.1\]"),
    ],
)
def test_faults_are_named(kwargs, message) -> None:
    with pytest.raises(UserError, match=message):
        GrinoldAlpha(**kwargs)
