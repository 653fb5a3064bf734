import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from qlib_ext.checks import UserError
from qlib_ext.metrics.classification import (
    accuracy,
    confusion_matrix,
    macro_f1,
    majority_accuracy,
    pooled_accuracy,
)


def market(seed=0, missing=0.1):
    rng = np.random.default_rng(seed)
    actual = rng.choice(5, p=[0.2, 0.1, 0.4, 0.1, 0.2], size=(20, 30)).astype(float)
    predicted = np.where(rng.random(actual.shape) < 0.6, actual, rng.integers(0, 5, actual.shape))
    actual[rng.random(actual.shape) < missing] = np.nan
    predicted[rng.random(actual.shape) < missing] = np.nan
    pairs = ~np.isnan(actual) & ~np.isnan(predicted)
    return actual, predicted, pairs


labels = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)


class TestConfusionMatrix:
    def test_equals_scikit_learn(self):
        actual, predicted, pairs = market()
        expected = metrics.confusion_matrix(actual[pairs], predicted[pairs], labels=range(6))
        np.testing.assert_array_equal(confusion_matrix(actual, predicted, 6), expected)

    def test_golden(self):
        found = confusion_matrix([0, 0, 1, np.nan, 1], [0, 1, 1, 1, np.nan], 2)
        assert found.tolist() == [[1, 1], [0, 1]]

    def test_nothing_to_count(self):
        assert confusion_matrix([np.nan], [1], 2).tolist() == [[0, 0], [0, 0]]

    @pytest.mark.parametrize("value", [-1, 3, 1.5, np.inf])
    def test_a_value_that_is_no_class(self, value):
        with pytest.raises(UserError, match=f"`predicted` must hold the classes 0 to 2, .* found {value:g}"):
            confusion_matrix([1.0], [value], 3)

    def test_shapes_are_checked(self):
        with pytest.raises(UserError, match=r"one shape, found \(2,\) and \(3,\)"):
            confusion_matrix([1, 2], [1, 2, 0], 3)


class TestAccuracy:
    def test_equals_scikit_learn_on_each_day(self):
        actual, predicted, pairs = market()
        expected = [
            metrics.accuracy_score(a[m], p[m]) for a, p, m in zip(actual, predicted, pairs, strict=True)
        ]
        np.testing.assert_allclose(accuracy(actual, predicted), expected)

    def test_pooled_equals_scikit_learn(self):
        actual, predicted, pairs = market()
        expected = metrics.accuracy_score(actual[pairs], predicted[pairs])
        assert pooled_accuracy(confusion_matrix(actual, predicted, 5)) == pytest.approx(expected)

    def test_undefined(self):
        assert np.isnan(accuracy([[np.nan, 1.0]], [[1.0, np.nan]])).all()
        assert math.isnan(pooled_accuracy(np.zeros((2, 2), dtype=int)))


class TestMajorityAccuracy:
    def test_the_most_common_class_of_all_days(self):
        np.testing.assert_allclose(majority_accuracy([[1, 1, 0], [2, 1, np.nan]]), [2 / 3, 1 / 2])

    def test_a_given_class(self):
        np.testing.assert_allclose(majority_accuracy([[1, 1, 0], [2, 1, np.nan]], 2), [0, 1 / 2])

    def test_no_constant_rule_is_better_over_all_days(self):
        actual, _, _ = market(missing=0)
        best = majority_accuracy(actual).mean()
        assert best == max(majority_accuracy(actual, c).mean() for c in range(5))

    def test_without_any_class(self):
        assert np.isnan(majority_accuracy([[np.nan, np.nan]])).all()


class TestMacroF1:
    @settings(deadline=None)
    @given(pairs=labels)
    def test_equals_scikit_learn(self, pairs):
        actual, predicted = np.array(pairs).T
        expected = metrics.f1_score(actual, predicted, average="macro", zero_division=0)
        assert macro_f1(confusion_matrix(actual, predicted, 5)) == pytest.approx(expected)

    def test_golden(self):
        assert macro_f1([[3, 1], [2, 4]]) == pytest.approx((6 / 9 + 8 / 11) / 2)

    def test_undefined(self):
        assert math.isnan(macro_f1(np.zeros((3, 3), dtype=int)))

    def test_shape_is_checked(self):
        with pytest.raises(UserError, match=r"square matrix \[C, C\], found the shape \(2, 3\)"):
            macro_f1(np.zeros((2, 3)))
