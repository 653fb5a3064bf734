import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qlib_ext.checks import UserError
from qlib_ext.metrics.holdings import contributions, effective_number, herfindahl, top_weight


class TestConcentration:
    def test_golden(self):
        weights = [[0.2, 0.2, 0.0, 0.0], [0.6, 0.2, 0.1, 0.1], [0.0, 0.5, 0.0, 0.0]]
        np.testing.assert_allclose(herfindahl(weights), [0.5, 0.42, 1])
        np.testing.assert_allclose(effective_number(weights), [2, 1 / 0.42, 1])
        np.testing.assert_allclose(top_weight(weights, 2), [1, 0.8, 1])
        np.testing.assert_allclose(top_weight(weights, 9), [1, 1, 1])

    @settings(deadline=None)
    @given(weights=arrays(float, (3, 7), elements=st.floats(0.001, 1)))
    def test_cash_does_not_count_and_the_number_lies_between(self, weights):
        np.testing.assert_allclose(herfindahl(0.3 * weights), herfindahl(weights))
        assert (effective_number(weights) >= 1 - 1e-12).all()
        assert (effective_number(weights) <= 7 + 1e-9).all()
        ordered = np.sort(weights, axis=1)[:, ::-1] / weights.sum(axis=1, keepdims=True)
        for n in range(1, 8):
            np.testing.assert_allclose(top_weight(weights, n), ordered[:, :n].sum(axis=1))

    def test_a_day_without_a_stock(self):
        for figure in (herfindahl, effective_number, lambda weights: top_weight(weights, 1)):
            np.testing.assert_allclose(figure([[0.0, 0.0], [0.0, 1.0]]), [np.nan, 1])
        for figure in (herfindahl, effective_number, lambda weights: top_weight(weights, 1)):
            assert len(figure(np.empty((0, 3)))) == 0
            np.testing.assert_array_equal(figure(np.empty((2, 0))), [np.nan, np.nan])

    def test_checks(self):
        for figure in (herfindahl, lambda weights: top_weight(weights, 1)):
            with pytest.raises(UserError, match="`weights` must be there for each day and stock"):
                figure([[np.nan, 1.0]])
        with pytest.raises(UserError, match="`n` must be at least 1, found 0"):
            top_weight([[1.0]], 0)


class TestContributions:
    def test_golden(self):
        # Half in each; the first doubles and then halves, the second stands still and then doubles.
        weights = [[0.5, 0.5], [2 / 3, 1 / 3]]
        returns = [[1.0, 0.0], [-0.5, 1.0]]
        stocks, rest = contributions(weights, returns, [0.5, 0.0])
        np.testing.assert_allclose(stocks, [[0.5, 0.0], [-0.5, 0.5]], atol=1e-15)
        np.testing.assert_allclose(rest, 0, atol=1e-15)

    @settings(deadline=None)
    @given(seed=st.integers(0, 10_000))
    def test_the_parts_add_up_to_the_whole(self, seed):
        draw = np.random.default_rng(seed)
        weights = draw.dirichlet(np.ones(6), 30)[:, :5]  # the sixth is cash
        returns = draw.normal(0, 0.05, (30, 5)).clip(-0.9)
        whole = (weights * returns).sum(axis=1) + draw.normal(0, 0.001, 30)
        stocks, rest = contributions(weights, returns, whole)
        assert stocks.sum() + rest.sum() == pytest.approx(np.prod(1 + whole) - 1, abs=1e-12)
        wealth = np.cumprod(1 + whole)
        np.testing.assert_allclose(np.cumsum(stocks.sum(axis=1) + rest), wealth - 1, atol=1e-12)

    def test_what_is_not_held_needs_no_return(self):
        stocks, rest = contributions([[0.0, 1.0]], [[np.nan, 0.1]], [0.1])
        np.testing.assert_allclose(stocks, [[0.0, 0.1]])
        np.testing.assert_allclose(rest, 0, atol=1e-15)

    def test_without_days(self):
        stocks, rest = contributions(np.empty((0, 2)), np.empty((0, 2)), [])
        assert stocks.shape == (0, 2)
        assert rest.shape == (0,)

    @pytest.mark.parametrize(
        ("weights", "returns", "portfolio"),
        [
            ([[1.0]], [[0.1, 0.1]], [0.1]),
            ([[0.5, 0.5]], [[0.1]], [0.1]),
            ([[1.0]], [[0.1]], [0.1, 0.1]),
            ([[1.0], [1.0]], [[0.1], [0.1]], [0.1]),
        ],
    )
    def test_what_does_not_fit(self, weights, returns, portfolio):
        with pytest.raises(UserError, match=r"must have one shape \[days, stocks\], and `portfolio` as many"):
            contributions(weights, returns, portfolio)

    def test_checks(self):
        with pytest.raises(UserError, match="a stock with a weight needs a return, found 1 without"):
            contributions([[1.0]], [[np.nan]], [0.1])
        with pytest.raises(
            UserError, match="`weights` must be there for each day and stock, found 1 missing"
        ):
            contributions([[np.nan]], [[0.1]], [0.1])
