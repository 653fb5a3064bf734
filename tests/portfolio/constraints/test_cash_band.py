from __future__ import annotations

import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.constraints.cash_band import CashBand


def test_is_the_rest_of_what_is_invested() -> None:
    assert CashBand(0.25, 0.5).invested() == (0.5, 0.75)


@pytest.mark.parametrize("given", [(-0.1, 0.5), (0.2, 0.1), (0.5, 1.1)])
def test_what_is_wrong_is_said(given: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="must lie in"):
        CashBand(*given)
