import math

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from qlib_ext.checks import UserError
from qlib_ext.metrics.calibration import brier_score, expected_calibration_error, log_loss, reliability


def classified(rows=500, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), rows)
    y = np.array([rng.choice(classes, p=row) for row in p]).astype(float)
    return p, y


class TestReliability:
    @pytest.mark.parametrize("bins", [1, 5, 10])
    def test_equals_scikit_learn(self, bins):
        p, y = classified()
        found = reliability(p[:, 0], y == 0, bins)
        observed, predicted = calibration_curve(y == 0, p[:, 0], n_bins=bins)
        used = found.predictions > 0
        np.testing.assert_allclose(found.predicted[used], predicted, atol=1e-12)
        np.testing.assert_allclose(found.observed[used], observed, atol=1e-12)
        assert found.predictions.sum() == len(y)

    def test_golden(self):
        found = reliability([0.0, 0.1, 0.5, 0.6, 1.0, np.nan, 0.2], [0, 1, 1, 0, 1, 1, np.nan], 2)
        assert found.edges.tolist() == [0, 0.5, 1]
        assert found.predictions.tolist() == [3, 2]
        np.testing.assert_allclose(found.predicted, [0.2, 0.8])
        np.testing.assert_allclose(found.observed, [2 / 3, 0.5])
        expected = (3 * abs(2 / 3 - 0.2) + 2 * abs(0.5 - 0.8)) / 5
        assert expected_calibration_error(found) == pytest.approx(expected, abs=1e-12)

    def test_an_empty_bin_has_no_share(self):
        found = reliability([0.9], [1], 3)
        np.testing.assert_array_equal(found.observed, [np.nan, np.nan, 1])
        assert expected_calibration_error(found) == pytest.approx(0.1)
        assert math.isnan(expected_calibration_error(reliability([], [])))

    def test_true_probabilities_are_calibrated(self):
        rng = np.random.default_rng(3)
        p = rng.random(200_000)
        found = reliability(p, rng.random(len(p)) < p)
        assert expected_calibration_error(found) < 0.005

    @pytest.mark.parametrize(
        ("p", "y", "message"),
        [
            ([0.5, 1.2], [0, 1], r"`probability` must lie in \[0, 1\], found 1.2"),
            ([0.5], [2], "`outcome` must hold 0, 1 or NaN, found 2"),
            ([0.5], [1, 0], "one length, found 1 and 2"),
            ([[0.5]], [1], "must be a series"),
        ],
    )
    def test_arguments(self, p, y, message):
        with pytest.raises(UserError, match=message):
            reliability(p, y)


class TestBrierScore:
    def test_equals_scikit_learn(self):
        p, y = classified()
        expected = metrics.brier_score_loss(y, p, labels=range(5), scale_by_half=False)
        assert brier_score(p, y) == pytest.approx(expected, abs=1e-12)

    def test_ends(self):
        assert brier_score([[1.0, 0.0]], [0]) == 0
        assert brier_score([[1.0, 0.0]], [1]) == 2
        assert math.isnan(brier_score(np.empty((0, 2)), []))


class TestLogLoss:
    def test_equals_scikit_learn(self):
        p, y = classified()
        assert log_loss(p, y) == pytest.approx(metrics.log_loss(y, p, labels=range(5)), abs=1e-12)

    @pytest.mark.parametrize("kind", [np.float32, np.float64])
    def test_a_certain_mistake_counts_as_in_scikit_learn(self, kind):
        p, y = np.array([[1, 0], [0.5, 0.5]], dtype=kind), np.array([1, 0])
        assert log_loss(p, y) == pytest.approx(metrics.log_loss(y, p, labels=[0, 1]), rel=1e-6)

    def test_equal_probabilities(self):
        assert log_loss(np.full((3, 4), 0.25), [0, 1, 3]) == pytest.approx(math.log(4))


@pytest.mark.parametrize("score", [brier_score, log_loss])
class TestBoth:
    def test_rows_without_a_pair_do_not_count(self, score):
        p, y = classified(20)
        more = np.vstack([p, [[np.nan] * 5], p[:1]])
        assert score(more, np.append(y, [1, np.nan])) == pytest.approx(score(p, y))

    @pytest.mark.parametrize(
        ("p", "y", "message"),
        [
            ([[0.5, 0.6]], [0], "sum to 1 in each row, found a sum of 1.1"),
            ([[0.5, 0.5]], [2], "`actual` must hold the classes 0 to 1, or NaN, found 2"),
            ([[1.5, -0.5]], [0], r"must lie in \[0, 1\], found"),
            ([[0.5, 0.5]], [0, 1], r"a row for each of the 2 of `actual`"),
            ([[1.0]], [0], "at least two classes"),
        ],
    )
    def test_arguments(self, score, p, y, message):
        with pytest.raises(UserError, match=message):
            score(p, y)
