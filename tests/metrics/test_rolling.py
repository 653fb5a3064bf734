import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.metrics import relative, risk, rolling

DRAW = np.random.default_rng(0)
OWN, INDEX = DRAW.normal(0.0004, 0.01, 120), DRAW.normal(0.0003, 0.012, 120)
OWN[30:45] = 0.001  # a window without spread

PAIRS = [
    (
        lambda window: rolling.rolling_volatility(OWN, window, 243),
        lambda d: risk.annualised_volatility(OWN[d], 243),
    ),
    (lambda window: rolling.rolling_sharpe(OWN, window, 243), lambda d: risk.sharpe_ratio(OWN[d], 243)),
    (lambda window: rolling.rolling_beta(INDEX, OWN, window), lambda d: relative.beta(INDEX[d], OWN[d])),
]


@pytest.mark.parametrize(("rolled", "single"), PAIRS)
@settings(deadline=None, max_examples=20)
@given(window=st.integers(2, 119))
def test_each_day_is_the_figure_of_its_window(rolled, single, window):
    expected = [
        single(slice(day - window + 1, day + 1)) if day >= window - 1 else np.nan for day in range(120)
    ]
    np.testing.assert_allclose(rolled(window), expected, rtol=1e-9, atol=1e-12)


def test_a_window_looks_at_no_later_day():
    changed = OWN.copy()
    changed[60:] = -0.5
    np.testing.assert_array_equal(
        rolling.rolling_sharpe(changed, 20)[:60], rolling.rolling_sharpe(OWN, 20)[:60]
    )


@pytest.mark.parametrize("days", [0, 1, 3])
def test_fewer_days_than_a_window(days):
    for values in (
        rolling.rolling_volatility(OWN[:days], 4),
        rolling.rolling_sharpe(OWN[:days], 4),
        rolling.rolling_beta(OWN[:days], INDEX[:days], 4),
    ):
        assert len(values) == days
        assert np.isnan(values).all()


def test_checks():
    for function in (rolling.rolling_volatility, rolling.rolling_sharpe):
        with pytest.raises(UserError, match="`window_days` must be at least 2, found 1"):
            function(OWN, 1)
        with pytest.raises(UserError, match="finite return on every day"):
            function([0.1, np.nan], 2)
        with pytest.raises(UserError, match="`periods_per_year` must be above 0"):
            function(OWN, 5, 0)
    with pytest.raises(UserError, match="must cover the same days"):
        rolling.rolling_beta(OWN, INDEX[:-1], 5)


class TestTrailingBeta:
    def test_is_the_slope_of_a_regression_over_the_days_that_both_have(self):
        draw = np.random.default_rng(1)
        market = draw.normal(0, 0.01, 50)
        returns = market[:, None] * [0.5, 1.0, 2.0] + draw.normal(0, 0.01, (50, 3))
        market[7], returns[draw.random(returns.shape) < 0.2] = np.nan, np.nan
        found = rolling.trailing_beta(returns, market, 12, 8)
        for day in range(50):
            for stock in range(3):
                part = slice(max(0, day - 11), day + 1)
                both = ~np.isnan(returns[part, stock]) & ~np.isnan(market[part])
                if both.sum() < 8:
                    assert np.isnan(found[day, stock])
                else:
                    slope = np.polyfit(market[part][both], returns[part, stock][both], 1)[0]
                    assert found[day, stock] == pytest.approx(slope, rel=1e-10)

    def test_a_market_that_does_not_move_gives_none(self):
        assert np.isnan(rolling.trailing_beta(np.ones((9, 2)), np.full(9, 0.1), 4, 2)).all()

    def test_other_days(self):
        with pytest.raises(
            UserError, match=r"`market` must be \[days\] as `returns` \(4, 2\), found the shape \(3,\)"
        ):
            rolling.trailing_beta(np.ones((4, 2)), np.ones(3), 2, 2)
