from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.records.columns import matrices, probability_columns


class TestMatrices:
    def test_rows_find_their_place(self) -> None:
        days = pd.to_datetime(["2020-01-03", "2020-01-02", "2020-01-02"])
        index = pd.MultiIndex.from_arrays([days, ["B", "B", "A"]], names=["datetime", "instrument"])
        x = pd.Series([1.0, 2.0, 3.0], index=index)
        found, stocks, (a, b) = matrices(index, x, x[::-1] * 10)
        assert [*found] == [pd.Timestamp("2020-01-02"), pd.Timestamp("2020-01-03")]
        assert [*stocks] == ["A", "B"]
        np.testing.assert_array_equal(a, [[3, 2], [np.nan, 1]])
        np.testing.assert_array_equal(b, 10 * a)


def test_the_probabilities_of_a_task() -> None:
    predictions = pd.DataFrame(columns=["score", "rise_0", "rise_1", "rise_3", "momentum_0"])
    assert probability_columns("rise", predictions) == ["rise_0", "rise_1"]
    with pytest.raises(UserError, match="expected the columns momentum_0, momentum_1"):
        probability_columns("momentum", predictions)
