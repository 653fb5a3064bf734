import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qlib_ext.checks import UserError
from qlib_ext.metrics.precision import base_rate, lift, precision_at

days = st.tuples(st.integers(1, 4), st.integers(0, 9))
scores = arrays(np.float64, days, elements=st.sampled_from([np.nan, -np.inf, -1.0, 0.0, 0.5, 2.0]))


def naive(score, ret, n):
    out = []
    for s, r in zip(score, ret, strict=True):
        stocks = [i for i in range(len(s)) if not np.isnan(s[i]) and not np.isnan(r[i])]
        best = sorted(stocks, key=lambda i: (-s[i], i))[:n]
        out.append(sum(r[i] > 0 for i in best) / len(best) if best else np.nan)
    return np.array(out)


class TestPrecisionAt:
    @settings(deadline=None)
    @given(score=scores, n=st.integers(1, 12), data=st.data())
    def test_equals_a_loop(self, score, n, data):
        ret = data.draw(arrays(np.float64, score.shape, elements=st.sampled_from([np.nan, -0.01, 0.0, 0.02])))
        np.testing.assert_allclose(precision_at(score, ret, n), naive(score, ret, n))

    def test_golden(self):
        score = [[0.9, 0.7, 0.5, 0.3], [np.nan, 0.1, 0.2, 0.3]]
        ret = [[0.01, -0.01, 0.02, 0.03], [0.5, 0.0, np.nan, 0.01]]
        np.testing.assert_allclose(precision_at(score, ret, 3), [2 / 3, 1 / 2])

    def test_perfect_and_inverted_foresight(self):
        ret = np.random.default_rng(0).normal(size=(10, 50))
        assert (precision_at(ret, ret, 5) == 1).all()
        assert (precision_at(-ret, ret, 5) == 0).all()

    def test_all_of_them_is_the_base_rate(self):
        rng = np.random.default_rng(0)
        ret = np.where(rng.random((10, 50)) < 0.2, np.nan, rng.normal(size=(10, 50)))
        np.testing.assert_array_equal(precision_at(rng.normal(size=(10, 50)), ret, 50), base_rate(ret))

    def test_equal_scores_go_by_column(self):
        assert precision_at([[1, 1, 1]], [[0.1, -0.1, -0.1]], 1) == 1

    def test_a_day_without_stocks(self):
        assert np.isnan(precision_at([[1.0, np.nan]], [[np.nan, 1.0]], 1)).all()

    @pytest.mark.parametrize(
        ("n", "message"), [(0, "`n` must be at least 1, found 0"), (1.5, "`n` must be an integer, found 1.5")]
    )
    def test_n_is_checked(self, n, message):
        with pytest.raises(UserError, match=message):
            precision_at([[1.0]], [[1.0]], n)

    def test_shapes_are_checked(self):
        with pytest.raises(UserError, match=r"`score` and `ret` must have one shape"):
            precision_at([[1.0, 2.0]], [[1.0]], 1)


class TestBaseRate:
    def test_golden(self):
        np.testing.assert_allclose(base_rate([[0.1, 0.0, np.nan, -0.1], [np.nan] * 4]), [1 / 3, np.nan])


class TestLift:
    def test_golden(self):
        assert lift([0.6, np.nan, 0.4, 1.0], [0.5, 0.1, 0.3, np.nan]) == pytest.approx(1.25)

    def test_nothing_to_compare_with(self):
        assert np.isnan(lift([0.0], [0.0]))
        assert np.isnan(lift([], []))

    def test_lengths(self):
        with pytest.raises(UserError, match="of one length"):
            lift([0.1], [0.1, 0.2])
