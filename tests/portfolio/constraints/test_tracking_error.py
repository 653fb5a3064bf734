from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.constraints.tracking_error import TrackingError
from qlib_ext.portfolio.risk import Risk
from tests.portfolio.problems import day_of


def test_is_by_the_year() -> None:
    """Two stocks of 1% a day each, uncorrelated: 0.1 more of one and less of the other is 0.1414% a day, 2.245% a year."""
    risk = Risk.of_covariance(np.eye(2) * 1e-4)
    (limit,) = TrackingError(0.02245).limits(day_of(2), risk)
    assert limit.excess(np.array([0.6, 0.4])) == pytest.approx(0, abs=1e-7)
    assert limit.words == "tracking error against the benchmark of at most 2.245% a year"


@pytest.mark.parametrize(
    ("given", "said"), [((0,), "`most` must be above 0"), ((0.1, "index"), "`against` must be one of")]
)
def test_what_is_wrong_is_said(given: tuple[float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        TrackingError(*given)
