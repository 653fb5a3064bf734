"""The mean of past returns."""

from dataclasses import replace

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.expected_returns.past_mean import PastMean
from tests.portfolio.markets import LATE, day_of, history_of
from tests.portfolio.problems import risk_of

KNOWN = day_of(history_of())
RISK = risk_of(len(KNOWN.codes))  # of no matter


def test_it_is_the_mean_of_the_last_days() -> None:
    found = PastMean(window=100).estimate(KNOWN, RISK)
    some = [k for k in range(len(found)) if k != LATE]
    np.testing.assert_allclose(found[some], KNOWN.returns[-100:, some].mean(axis=0), rtol=1e-12)


def test_days_without_a_return_do_not_count() -> None:
    returns = KNOWN.returns.copy()
    returns[-50:, 3] = np.nan
    found = PastMean(window=100, min_days=50).estimate(replace(KNOWN, returns=returns), RISK)
    assert found[3] == pytest.approx(returns[-100:-50, 3].mean())
    assert np.isnan(PastMean(window=100, min_days=51).estimate(replace(KNOWN, returns=returns), RISK)[3])


def test_scores_do_not_matter() -> None:
    other = replace(KNOWN, scores=-KNOWN.scores)
    np.testing.assert_array_equal(PastMean().estimate(other, RISK), PastMean().estimate(KNOWN, RISK))


def test_more_days_than_there_are_to_be_looked_at_are_refused() -> None:
    with pytest.raises(UserError, match="window"):
        PastMean(window=20, min_days=60)
