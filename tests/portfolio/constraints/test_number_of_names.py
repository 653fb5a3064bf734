from __future__ import annotations

import itertools

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.constraints.number_of_names import NumberOfNames
from qlib_ext.portfolio.nearest import nearest
from tests.portfolio.problems import day_of, problem_of


class TestNumberOfNames:
    def test_the_largest_are_kept_and_ties_go_by_code(self) -> None:
        kept = NumberOfNames(most=2).kept(np.array([0.1, 0.4, 0.25, 0.25]), day_of(4))
        assert kept is not None
        assert kept.tolist() == [False, True, True, False]

    def test_fewer_are_left_as_they_are(self) -> None:
        kept = NumberOfNames(most=3).kept(np.array([0.0, 1.0, 0.0]), day_of(3))
        assert kept is not None
        assert kept.tolist() == [False, True, False]

    def test_what_cannot_be_sold_counts_first(self) -> None:
        known = day_of(4, held=[0.1, 0, 0.1, 0], sellable=np.array([False, True, False, True]))
        for most, expected in ((1, [True, False, True, False]), (3, [True, True, True, False])):
            kept = NumberOfNames(most=most).kept(np.array([0.0, 0.5, 0.1, 0.4]), known)
            assert kept is not None
            assert kept.tolist() == expected

    def test_comes_near_the_best_choice_of_so_many(self) -> None:
        """Against every choice of 2 of 5: on 6 made problems the best deviates less by a fifth on average, at most."""
        ratios = []
        for seed in range(6):
            problem = problem_of(5, seed=seed)
            wanted = np.random.default_rng(seed).dirichlet(np.ones(5))
            kept = NumberOfNames(most=2).kept(wanted, problem.known)
            assert kept is not None
            every = [
                problem.risk.volatility(nearest(problem.only(np.isin(np.arange(5), two)), wanted) - wanted)
                for two in itertools.combinations(range(5), 2)
            ]
            own = problem.risk.volatility(nearest(problem.only(kept), wanted) - wanted)
            ratios.append(own / min(every))
        assert min(ratios) > 1 - 1e-4
        assert np.mean(ratios) < 1.2

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({}, "found neither"),
            ({"most": 0}, "`most` must be at least 1"),
            ({"most": 2, "least": 3}, "`most` must be at least 3"),
        ],
    )
    def test_what_is_wrong_is_said(self, given: dict[str, int], said: str) -> None:
        with pytest.raises(UserError, match=said):
            NumberOfNames(**given)
