from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.portfolio.optimisers.top_k import TopK
from qlib_ext.portfolio.problem import Infeasible
from tests.portfolio.problems import day_of, problem_of


def scored(*scores: float, **changes):
    known = day_of(len(scores), scores=np.array([scores, scores], float)[::-1])
    return problem_of(len(scores), known=known, **changes)


def test_the_best_are_held() -> None:
    np.testing.assert_allclose(TopK(k=2).solve(scored(1, 3, 2, np.nan)), [0, 0.5, 0.5, 0])


def test_equal_scores_go_by_code() -> None:
    np.testing.assert_allclose(TopK(k=2).solve(scored(1, 3, 1, 1)), [0.5, 0.5, 0, 0])


def test_who_cannot_be_bought_gives_its_place_to_the_next() -> None:
    np.testing.assert_allclose(
        TopK(k=2).solve(scored(1, 3, 2, 0, upper=np.array([1.0, 0, 1, 1]))), [0.5, 0, 0.5, 0]
    )


def test_the_next_come_in_where_the_best_may_not_have_all() -> None:
    asked = scored(1, 3, 2, 0, 4, upper=np.array([1.0, 0.3, 0.2, 1, 0.3]))
    np.testing.assert_allclose(TopK(k=2).solve(asked), [0.8 / 3, 0.8 / 3, 0.2, 0, 0.8 / 3])
    np.testing.assert_allclose(
        TopK(k=3).solve(scored(1, 3, 2, 0, upper=np.full(4, 0.2), invested=0.8)), [0.2] * 4
    )


def test_who_cannot_be_sold_stays() -> None:
    asked = scored(1, 3, 2, 0, lower=np.array([0, 0, 0, 0.2]), upper=np.array([1.0, 1, 1, 0.2]))
    np.testing.assert_allclose(TopK(k=2).solve(asked), [0, 0.4, 0.4, 0.2])


def test_fewer_than_k_are_all() -> None:
    np.testing.assert_allclose(TopK(k=5).solve(scored(1, np.nan, 2)), [0.5, 0, 0.5])


def test_nobody_with_a_score_is_said() -> None:
    with pytest.raises(Infeasible, match="no stock that may be held has a score"):
        TopK(k=5).solve(scored(np.nan, np.nan))
