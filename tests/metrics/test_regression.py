from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error as sk_mae
from sklearn.metrics import mean_squared_error as sk_mse

from qlib_ext.checks import UserError
from qlib_ext.metrics.regression import mean_absolute_error, root_mean_square_error


def planes(seed: int, missing: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    actual, predicted = draw.normal(0, 0.02, (2, 7, 11))
    actual[draw.random(actual.shape) < missing] = np.nan
    predicted[draw.random(actual.shape) < missing] = np.nan
    return actual, predicted


class TestByDay:
    @pytest.mark.parametrize("seed", range(3))
    def test_against_scikit_learn(self, seed: int) -> None:
        actual, predicted = planes(seed)
        mae, rmse = mean_absolute_error(actual, predicted), root_mean_square_error(actual, predicted)
        for day in range(len(actual)):
            both = np.isfinite(actual[day]) & np.isfinite(predicted[day])
            assert mae[day] == pytest.approx(sk_mae(actual[day, both], predicted[day, both]))
            assert rmse[day] == pytest.approx(sk_mse(actual[day, both], predicted[day, both]) ** 0.5)

    def test_a_day_without_pairs(self) -> None:
        actual, predicted = planes(0)
        actual[2], predicted[3] = np.nan, np.nan
        for metric in (mean_absolute_error, root_mean_square_error):
            assert np.isnan(metric(actual, predicted)[[2, 3]]).all()

    def test_golden(self) -> None:
        actual, predicted = [[0.01, -0.03, np.nan]], [[0.00, 0.01, 0.5]]
        np.testing.assert_allclose(mean_absolute_error(actual, predicted), [0.025])
        np.testing.assert_allclose(root_mean_square_error(actual, predicted), [np.sqrt(0.00085)])

    def test_shapes_must_agree(self) -> None:
        with pytest.raises(UserError):
            mean_absolute_error(np.zeros((2, 3)), np.zeros((3, 2)))
