from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlib_ext.portfolio.optimisers.shares import candidates, holdable, in_shares
from qlib_ext.portfolio.problem import Infeasible
from tests.portfolio.problems import day_of, problem_of

KNOWN = day_of(6)


class TestInShares:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 10_000))
    def test_who_is_at_no_bound_has_its_share(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        shares = rng.choice([0.0, 1.0, 2.0, 5.0], 6)
        lower = rng.choice([0.0, 0.05, -0.1], 6)
        upper = np.maximum(lower, rng.choice([0.0, 0.1, 0.4, np.inf], 6))
        asked = problem_of(6, known=KNOWN, lower=lower, upper=upper, invested=float(rng.uniform(0, 1)))
        try:
            found = in_shares(asked, shares)
        except Infeasible:
            assert np.clip(0 * shares, lower, upper).sum() > asked.invested or (
                np.clip(np.where(shares > 0, 1e9, 0), lower, upper).sum() < asked.invested
            )
            return
        assert asked.broken(found) == []
        inside = (shares > 0) & (found > lower + 1e-9) & (found < upper - 1e-9)
        ratio = found[inside] / shares[inside]
        np.testing.assert_allclose(ratio, ratio[:1].repeat(len(ratio)), rtol=1e-9)

    def test_too_little_room_is_said(self) -> None:
        shares = np.array([1.0, 1, 0, 0, 0, 0])
        with pytest.raises(
            Infeasible, match=r"the best 2 may have 20.0% of the account at most, and 100.0% are"
        ):
            in_shares(problem_of(6, known=KNOWN, most=0.1), shares, of="the best 2")

    def test_too_much_that_stays_is_said(self) -> None:
        asked = problem_of(6, known=KNOWN, lower=np.full(6, 0.2), upper=np.full(6, 0.3))
        with pytest.raises(Infeasible, match=r"must have 120.0% of the account at least"):
            in_shares(asked, np.ones(6))


def test_candidates_are_of_the_universe_or_stuck() -> None:
    scores = np.ones((2, 4))
    scores[-1, 2:] = np.nan
    known, lower = day_of(4, scores=scores), np.array([0, 0, 0, 0.1])
    assert candidates(problem_of(4, known=known, lower=lower)).tolist() == [0, 1, 3]
    with pytest.raises(Infeasible, match="no stock of the universe may be held"):
        candidates(problem_of(4, known=known, upper=np.array([0.0, 0, 1, 0])))


def test_nobody_to_hold_is_said() -> None:
    with pytest.raises(Infeasible, match="no stock may be held"):
        holdable(problem_of(6, known=KNOWN, most=0.0))
