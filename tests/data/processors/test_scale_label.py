from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.data.labels.label_planes import works_per_day
from qlib_ext.data.processors.scale_label import ScaleLabel


def table() -> pd.DataFrame:
    index = pd.MultiIndex.from_product([pd.bdate_range("2020-01-01", periods=2), ["A", "B"]])
    columns = pd.MultiIndex.from_tuples([("label", "NEXT_RETURN"), ("label", "RISE")])
    return pd.DataFrame([[0.02, 1.0], [-0.05, 0.0], [np.nan, np.nan], [0.0, 0.0]], index, columns)


class TestScaleLabel:
    def test_it_divides_what_is_named_and_leaves_the_rest(self) -> None:
        scaled = ScaleLabel(unit=0.02)(table())
        np.testing.assert_allclose(scaled["label", "NEXT_RETURN"], [1.0, -2.5, np.nan, 0.0])
        pd.testing.assert_series_equal(scaled["label", "RISE"], table()["label", "RISE"])

    def test_it_can_be_turned_back(self) -> None:
        scaled = ScaleLabel(unit=0.013)(table())
        np.testing.assert_allclose(scaled["label", "NEXT_RETURN"] * 0.013, table()["label", "NEXT_RETURN"])

    def test_it_works_on_any_run_of_days_and_on_labels_of_training_alone(self) -> None:
        assert works_per_day(ScaleLabel())
        assert not ScaleLabel().is_for_infer()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"unit": 0}, "`unit` must be above 0, found 0"),
            ({"columns": "NEXT_RETURN"}, "`columns` must be a list of names, found 'NEXT_RETURN'"),
        ],
    )
    def test_what_is_wrong_is_said(self, arguments: dict, message: str) -> None:  # type: ignore[type-arg]
        with pytest.raises(UserError) as caught:
            ScaleLabel(**arguments)
        assert str(caught.value) == message

    def test_a_label_that_is_not_there(self) -> None:
        with pytest.raises(UserError, match=r"NEXT_RETURN, RISE.*found 'RETURN'"):
            ScaleLabel(columns=["RETURN"])(table())
