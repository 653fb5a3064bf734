from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.constraints.centre import centre, missing
from tests.portfolio.problems import day_of


class TestCentre:
    def test_what_is_missing_of_the_benchmark_is_spread(self) -> None:
        known = day_of(3, benchmark=np.array([0.3, 0.1, 0.0]))
        np.testing.assert_allclose(centre(known, "benchmark", "it"), [0.75, 0.25, 0])

    def test_equal_weight_is_of_stocks_with_a_score(self) -> None:
        known = day_of(4)
        known.scores[-1, 2] = np.nan
        np.testing.assert_allclose(centre(known, "equal", "it"), [1 / 3, 1 / 3, 0, 1 / 3])

    def test_no_benchmark_is_an_error(self) -> None:
        with pytest.raises(
            UserError,
            match=r"it is measured from the benchmark, and no stock has a weight .* set `against` to equal",
        ):
            centre(day_of(2, benchmark=np.full(2, np.nan)), "benchmark", "it")


def test_a_sentence_only_where_something_is_missing() -> None:
    assert missing("the beta", np.zeros(3, bool), "so") == []
    assert missing("the beta", np.array([True, False, True]), "1 is taken") == [
        "the beta of 2 stocks is not known: 1 is taken"
    ]
