import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from qlib_ext.checks import UserError
from qlib_ext.metrics.classification import (
    accuracy,
    class_scores,
    cohen_kappa,
    confusion_matrix,
    macro_f1,
    majority_accuracy,
    matthews_correlation,
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


class TestClassScores:
    @settings(max_examples=40, deadline=None)
    @given(labels)
    def test_equals_scikit_learn(self, pairs):
        actual, predicted = zip(*pairs, strict=True)
        found = class_scores(confusion_matrix(actual, predicted, 4))
        precision, recall, f1, support = metrics.precision_recall_fscore_support(
            actual, predicted, labels=range(4), zero_division=np.nan
        )
        np.testing.assert_allclose(found.precision, precision, atol=1e-12)
        np.testing.assert_allclose(found.recall, recall, atol=1e-12)
        np.testing.assert_allclose(found.f1, f1, atol=1e-12)
        np.testing.assert_array_equal(found.actual, support)
        np.testing.assert_array_equal(found.predicted, np.bincount(predicted, minlength=4))

    def test_their_mean_f1_is_the_macro_f1(self):
        counts = confusion_matrix(*market()[:2], 5)
        assert macro_f1(counts) == pytest.approx(np.nanmean(class_scores(counts).f1))


class TestKappa:
    @settings(max_examples=40, deadline=None)
    @given(labels)
    def test_equals_scikit_learn(self, pairs):
        actual, predicted = zip(*pairs, strict=True)
        found = cohen_kappa(confusion_matrix(actual, predicted, 4))
        if len({*actual, *predicted}) == 1:
            assert math.isnan(found)  # nothing to agree on beyond chance
        else:
            assert found == pytest.approx(metrics.cohen_kappa_score(actual, predicted), abs=1e-12)

    def test_golden(self):
        # Accuracy 0.7; by chance 0.5 x 0.6 + 0.5 x 0.4 = 0.5.
        assert cohen_kappa([[20, 5], [10, 15]]) == pytest.approx(0.4)
        assert math.isnan(cohen_kappa(np.zeros((2, 2))))


class TestMatthews:
    @pytest.mark.filterwarnings("ignore:A single label was found")
    @settings(max_examples=40, deadline=None)
    @given(labels)
    def test_equals_scikit_learn(self, pairs):
        actual, predicted = zip(*pairs, strict=True)
        found = matthews_correlation(confusion_matrix(actual, predicted, 4))
        expected = metrics.matthews_corrcoef(actual, predicted)
        if len({*actual}) == 1 or len({*predicted}) == 1:
            assert math.isnan(found)
            assert expected == 0  # where ours says that a constant has no correlation
        else:
            assert found == pytest.approx(expected, abs=1e-12)

    def test_of_two_classes_it_is_the_correlation(self):
        actual, predicted = [0, 1, 1, 0, 1, 0, 0], [0, 1, 0, 0, 1, 1, 0]
        expected = np.corrcoef(actual, predicted)[0, 1]
        assert matthews_correlation(confusion_matrix(actual, predicted, 2)) == pytest.approx(expected)

    def test_counts_of_a_large_run_do_not_overflow(self):
        counts = np.array([[2_000_000_000, 1_000_000_000], [500_000_000, 3_000_000_000]])
        assert matthews_correlation(counts) == pytest.approx(matthews_correlation(counts // 1_000_000))
