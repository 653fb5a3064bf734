from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.metrics.capacity import capacity, participation, share_above

ORDERS = st.lists(
    st.tuples(st.floats(1e-6, 1), st.floats(1e3, 1e12) | st.just(np.nan) | st.just(0.0)), max_size=40
)
LIMITS = st.floats(0.001, 1)


def naive_share(weight: list[float], traded: list[float], limit: float, account: float) -> float:
    known = [(w, m) for w, m in zip(weight, traded, strict=True) if m > 0]
    above = sum(w for w, m in known if account > limit * m / w)
    return above / sum(w for w, _ in known)


class TestParticipation:
    def test_by_hand(self) -> None:
        found = participation([5.0, 5.0, np.nan, 5.0], [100.0, 0.0, 100.0, np.nan])
        np.testing.assert_array_equal(found, [0.05, np.nan, np.nan, np.nan])

    def test_lengths(self) -> None:
        with pytest.raises(UserError, match="`value` and `traded` must be two lists of one length"):
            participation([1.0], [1.0, 2.0])


class TestShareAbove:
    @given(ORDERS, LIMITS, st.lists(st.floats(1e3, 1e13), min_size=1, max_size=5))
    def test_against_a_loop(self, orders: list, limit: float, accounts: list[float]) -> None:
        weight, traded = [w for w, _ in orders], [m for _, m in orders]
        found = share_above(weight, traded, limit, accounts)
        if not any(m > 0 for m in traded):
            assert np.isnan(found).all()
            return
        expected = [naive_share(weight, traded, limit, account) for account in accounts]
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)

    def test_it_rises_with_the_account(self) -> None:
        draw = np.random.default_rng(0)
        found = share_above(draw.random(50), draw.random(50) * 1e8, 0.05, np.geomspace(1e4, 1e10, 30))
        assert (np.diff(found) >= 0).all()
        assert (found[0], found[-1]) == (0, pytest.approx(1))


class TestCapacity:
    def test_by_hand(self) -> None:
        # limits of 5%: accounts of 100, 50 and 25; the shares of the value are 1/4, 1/4, 1/2
        weight, traded = [0.01, 0.01, 0.02], [20.0, 10.0, 10.0]
        assert capacity(weight, traded, 0.05, 0.0) == pytest.approx(25)
        assert capacity(weight, traded, 0.05, 0.4) == pytest.approx(25)
        assert capacity(weight, traded, 0.05, 0.6) == pytest.approx(50)
        assert capacity(weight, traded, 0.05, 0.9) == pytest.approx(100)

    @given(ORDERS, LIMITS, st.floats(0, 0.99))
    def test_beyond_it_more_than_the_share_is_above_the_limit(
        self, orders: list, limit: float, share: float
    ) -> None:
        weight, traded = [w for w, _ in orders], [m for _, m in orders]
        size = capacity(weight, traded, limit, share)
        if not any(m > 0 for m in traded):
            assert np.isnan(size)
            return
        at, beyond = share_above(weight, traded, limit, [size, np.nextafter(size, np.inf)])
        assert beyond >= share - 1e-12
        assert at <= share + 1e-12

    def test_twice_the_market_bears_twice_the_account(self) -> None:
        draw = np.random.default_rng(1)
        weight, traded = draw.random(30), draw.random(30) * 1e8
        assert capacity(weight, 2 * traded, 0.1, 0.05) == pytest.approx(
            2 * capacity(weight, traded, 0.1, 0.05)
        )
        assert capacity(weight, traded, 0.1, 0.05) == pytest.approx(2 * capacity(weight, traded, 0.05, 0.05))

    def test_no_order(self) -> None:
        assert np.isnan(capacity([], [], 0.05, 0.01))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([-0.1], [1.0], 0.05, 0.1), "`weight` must be at least 0, found -0.1"),
            (([0.1], [1.0], 0.0, 0.1), "`limit` must be above 0, found 0.0"),
            (([0.1], [1.0], 0.05, 1.0), r"`share` must lie in \[0, 1\), found 1.0"),
        ],
    )
    def test_wrong_arguments(self, arguments: tuple, message: str) -> None:
        with pytest.raises(UserError, match=f"^{message}"):
            capacity(*arguments)
