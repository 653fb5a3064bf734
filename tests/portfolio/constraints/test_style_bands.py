from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.constraints.limits import Linear
from qlib_ext.portfolio.constraints.style_bands import StyleBands
from tests.portfolio.problems import day_of, risk_of


def test_the_risk_model_s_exposures_go_first() -> None:
    known, risk = day_of(3), risk_of(3)
    assert risk.loadings is not None
    (limit,) = StyleBands({"factor_2": [-0.5, 0.25]}, against="nothing").limits(known, risk)
    assert isinstance(limit, Linear)
    np.testing.assert_array_equal(limit.matrix[0], risk.loadings[:, 2])
    assert limit.words == "exposures in their bands (factor_2 between -0.5 and 0.25)"


def test_around_the_benchmark_it_is_said_with_the_benchmark_in_it() -> None:
    known, risk = day_of(3), risk_of(3)
    assert risk.loadings is not None
    (limit,) = StyleBands({"factor_2": [-0.5, 0.25]}).limits(known, risk)
    middle = risk.loadings[:, 2].mean()
    assert (
        limit.parts()[0].words == f"exposure to factor_2 between {middle - 0.5:.4g} and {middle + 0.25:.4g}"
    )
    assert limit.excess(known.benchmark) == pytest.approx(-0.25)


def test_a_stock_without_an_exposure_counts_as_the_mean() -> None:
    close = 10 * np.cumprod(1 + day_of(4).returns, axis=0)
    close[:50, 1] = np.nan
    known = day_of(4, planes={"close": close})
    bands = StyleBands({"reversal": [-0.1, 0.1]})
    (limit,) = bands.limits(known, risk_of(4))
    assert isinstance(limit, Linear)
    of_benchmark = limit.offset
    assert limit.matrix[0, 1] == pytest.approx(-of_benchmark[0])  # type: ignore[index]
    assert bands.notes(known, risk_of(4)) == [
        "the exposure to reversal of 1 stock is not known: the mean's is taken"
    ]


@pytest.mark.parametrize(
    ("bands", "said"),
    [
        ({}, "`bands` must be a mapping"),
        ({"size": [1]}, r"`bands.size` must be \[low, high\], found \[1\]"),
        ({"size": [1, 0]}, r"`bands.size\[1\]` must be at least 1, found 0"),
    ],
)
def test_what_is_wrong_is_said(bands: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        StyleBands(bands)


def test_a_style_that_nothing_says_is_an_error() -> None:
    known = day_of(3, planes={"close": np.ones((60, 3))})
    with pytest.raises(
        UserError, match=r"styles that the store has, beta, .*; found 'sise' \(did you mean size\?\)"
    ):
        StyleBands({"sise": [0, 1]}).limits(known, risk_of(3))
