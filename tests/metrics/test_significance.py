import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from qlib_ext.checks import UserError
from qlib_ext.metrics.bootstrap import stationary_days
from qlib_ext.metrics.significance import (
    benjamini_hochberg,
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_means,
    bootstrap_seeds,
    bootstrap_trainings,
    deflated_sharpe_ratio,
    expected_maximum_sharpe,
    holm,
    model_confidence_set,
    probabilistic_sharpe_ratio,
    sharpe_probability,
    superior_predictive_ability,
)


def persistent(days=300, memory=0.6, seed=0):
    rng = np.random.default_rng(seed)
    daily = rng.normal(size=days)
    for d in range(1, days):
        daily[d] += memory * daily[d - 1]
    return daily + 0.3


def variance_of_the_mean(daily, block):
    """In closed form over all resamples: Politis and Romano (1994), Lemma 1."""
    days, stay = len(daily), 1 - 1 / block
    deviation = daily - daily.mean()
    total = deviation @ deviation / days
    for i in range(1, days):
        weight = (1 - i / days) * stay**i + i / days * stay ** (days - i)
        total += 2 * weight * (deviation[i:] @ deviation[:-i]) / days
    return total / days


class TestBootstrapMean:
    @pytest.mark.parametrize("block", [1, 5, 20])
    def test_width_equals_the_closed_form(self, block):
        daily = persistent()
        low, high = bootstrap_mean(daily, 0.9, block_days=block, draws=20000)
        expected = 2 * stats.norm.ppf(0.95) * math.sqrt(variance_of_the_mean(daily, block))
        assert high - low == pytest.approx(expected, rel=0.04)
        assert (high + low) / 2 == pytest.approx(daily.mean(), abs=0.02 * expected)

    def test_days_drawn_one_by_one_equal_scipy(self):
        daily = persistent(memory=0)
        expected = stats.bootstrap((daily,), np.mean, method="percentile", n_resamples=9999, rng=0)
        found = bootstrap_mean(daily, block_days=1, draws=9999)
        width = expected.confidence_interval.high - expected.confidence_interval.low
        np.testing.assert_allclose(found, expected.confidence_interval, atol=0.05 * width)

    def test_golden(self):
        found = bootstrap_mean([0.02, -0.01, 0.05, 0.03, -0.02, 0.04, 0.01, 0.06, 0.00, -0.03], seed=3)
        np.testing.assert_allclose(found, [0, 0.029], atol=1e-12)

    def test_blocks_make_a_persistent_series_less_certain(self):
        daily = persistent()
        one_by_one, blocks = bootstrap_mean(daily, block_days=1), bootstrap_mean(daily, block_days=15)
        assert np.ptp(blocks) > 1.3 * np.ptp(one_by_one)

    def test_covers_the_mean_as_often_as_it_says(self):
        rng = np.random.default_rng(0)
        hits = 0
        for _ in range(200):
            low, high = bootstrap_mean(rng.normal(size=60), 0.8, draws=300)
            hits += low <= 0 <= high
        assert 0.68 <= hits / 200 <= 0.88

    def test_a_higher_level_is_wider(self):
        daily = persistent()
        inner, outer = bootstrap_mean(daily, 0.8), bootstrap_mean(daily, 0.99)
        assert outer.low < inner.low < daily.mean() < inner.high < outer.high

    def test_scales_and_shifts_with_the_series(self):
        daily = persistent()
        np.testing.assert_allclose(bootstrap_mean(2 * daily + 1), 2 * np.array(bootstrap_mean(daily)) + 1)

    def test_seed(self):
        daily = persistent()
        assert bootstrap_mean(daily, seed=1) == bootstrap_mean(daily, seed=1)
        assert bootstrap_mean(daily, seed=1) != bootstrap_mean(daily, seed=2)

    def test_default_block_is_the_cube_root_of_the_days(self):
        daily = persistent()
        assert bootstrap_mean(daily) == bootstrap_mean(daily, block_days=300 ** (1 / 3))

    def test_days_without_a_value_are_cut_out(self):
        daily = persistent()
        assert bootstrap_mean(np.insert(daily, [0, 100, 300], np.nan)) == bootstrap_mean(daily)

    def test_a_constant_series_is_certain(self):
        np.testing.assert_allclose(bootstrap_mean([0.1] * 9), [0.1, 0.1])

    @pytest.mark.parametrize("daily", [[], [np.nan], [0.1]])
    def test_undefined(self, daily):
        assert all(math.isnan(end) for end in bootstrap_mean(daily))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"level": 1}, r"`level` must lie in \(0, 1\), found 1"),
            ({"draws": 0}, "`draws` must be at least 1, found 0"),
            ({"seed": -1}, "`seed` must be at least 0, found -1"),
            ({"block_days": 0.5}, "`block_days` must be at least 1, found 0.5"),
        ],
    )
    def test_checks(self, options, message):
        # A wrong argument is one where nothing is drawn too: too few days, or a difference that is always the same.
        for daily in ([0.1, 0.2, 0.4], [0.1], []):
            with pytest.raises(UserError, match=message):
                bootstrap_mean(daily, **options)
            for other in (np.zeros(len(daily)), daily):
                with pytest.raises(UserError, match=message):
                    bootstrap_difference(daily, other, **options)


class TestBootstrapSeeds:
    def test_one_training_is_the_bootstrap_of_its_days(self):
        daily = persistent(120)
        np.testing.assert_allclose(
            bootstrap_seeds([daily], seed=4), bootstrap_mean(daily, seed=4), atol=1e-12
        )

    def test_width_equals_the_closed_form_of_both_sources(self):
        """Trainings that differ by a constant each: the variances of the two means add up."""
        daily, offsets = persistent(300), np.linspace(-0.5, 0.5, 12)
        low, high = bootstrap_seeds(daily + offsets[:, None], 0.9, block_days=5, draws=20000)
        variance = variance_of_the_mean(daily, 5) + offsets.var() / len(offsets)
        assert high - low == pytest.approx(2 * stats.norm.ppf(0.95) * math.sqrt(variance), rel=0.04)

    def test_a_day_without_any_value_does_not_count(self):
        differences = np.array([[0.1, np.nan, 0.3, 0.2], [0.2, np.nan, 0.1, 0.2]])
        whole = bootstrap_seeds(np.delete(differences, 1, axis=1), seed=2)
        assert bootstrap_seeds(differences, seed=2) == whole
        assert np.isnan(bootstrap_seeds(differences[:, :2])).all()


class TestBootstrapTrainings:
    def test_one_training_of_each_is_the_bootstrap_of_their_difference(self):
        a, b = persistent(120, seed=1), persistent(120, seed=2)
        np.testing.assert_allclose(
            bootstrap_trainings([a], [b], seed=4), bootstrap_difference(a, b, seed=4)[1:3], atol=1e-12
        )

    def test_width_equals_the_closed_form_of_all_sources(self):
        """Constants set trainings of either method apart: their variances add up with that of the days."""
        daily, offsets = persistent(300), np.linspace(-0.5, 0.5, 12)
        first, second = 2 * daily + offsets[:, None], daily + 2 * offsets[:8, None]
        low, high = bootstrap_trainings(first, second, 0.9, block_days=5, draws=20000)
        variance = variance_of_the_mean(daily, 5) + offsets.var() / 12 + 4 * offsets[:8].var() / 8
        assert high - low == pytest.approx(2 * stats.norm.ppf(0.95) * math.sqrt(variance), rel=0.04)

    def test_days_that_a_method_lacks_are_left_out(self):
        first, second = np.array([[0.1, 0.2, 0.4], [0.2, 0.3, 0.1]]), np.array([[0.1, np.nan, 0.3]])
        whole = bootstrap_trainings(first[:, [0, 2]], second[:, [0, 2]], seed=2)
        assert bootstrap_trainings(first, second, seed=2) == whole
        assert np.isnan(bootstrap_trainings(first[:, :2], second[:, :2])).all()
        with pytest.raises(UserError, match="same days"):
            bootstrap_trainings(first, second[:, :2])


class TestBootstrapDifference:
    def test_interval_is_that_of_the_mean_of_the_differences(self):
        a, b = persistent(seed=1), persistent(seed=2)
        found = bootstrap_difference(a, b, 0.9, seed=4)
        assert found.mean == pytest.approx((a - b).mean(), abs=1e-15)
        np.testing.assert_allclose(found[1:3], bootstrap_mean(a - b, 0.9, seed=4), atol=1e-12)

    def test_p_equals_a_naive_count(self):
        a, b = persistent(80, seed=1), persistent(80, seed=2) - 0.2
        difference = a - b
        days = stationary_days(80, draws=300, seed=5)
        far = 0
        for drawn in days:
            mean = sum(difference[day] for day in drawn) / 80
            far += abs(mean - difference.mean()) >= abs(difference.mean())
        assert bootstrap_difference(a, b, draws=300, seed=5).p == pytest.approx((1 + far) / 301, abs=1e-12)

    def test_p_of_independent_days_is_near_that_of_the_paired_t_test(self):
        rng = np.random.default_rng(3)
        a, b = rng.normal(0.1, 1, 400), rng.normal(0, 1, 400)
        found = bootstrap_difference(a, b, block_days=1, draws=5000)
        assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.02)

    def test_rejects_a_true_null_as_often_as_it_says(self):
        rng = np.random.default_rng(0)
        p = [bootstrap_difference(*rng.normal(size=(2, 80)), draws=200).p for _ in range(250)]
        assert 0.05 < np.mean(np.array(p) <= 0.1) < 0.17  # blocks of few days are a little too sure

    def test_what_moves_both_on_a_day_cancels(self):
        rng = np.random.default_rng(1)
        market, a = rng.normal(0, 10, 200), rng.normal(0.3, 1, 200)
        assert bootstrap_difference(market + a, market).p < 0.01
        assert bootstrap_difference(market + a, np.zeros(200)).p > 0.1

    def test_the_other_way_round_it_is_the_negative(self):
        a, b = persistent(seed=1), persistent(seed=2)
        one, other = bootstrap_difference(a, b), bootstrap_difference(b, a)
        np.testing.assert_allclose(one[:3], [-other.mean, -other.high, -other.low], atol=1e-12)
        assert one.p == other.p

    def test_days_that_one_of_them_lacks_are_cut_out(self):
        a, b = persistent(60, seed=1), persistent(60, seed=2)
        with_holes = a.copy()
        with_holes[[3, 50]] = np.nan
        keep = ~np.isnan(with_holes)
        assert bootstrap_difference(with_holes, b) == bootstrap_difference(a[keep], b[keep])

    def test_equal_series_do_not_differ(self):
        a = persistent()
        assert bootstrap_difference(a, a) == (0, 0, 0, 1)

    def test_one_that_is_always_better_by_the_same(self):
        assert bootstrap_difference([0.5, 1.5, 1.0], [0.25, 1.25, 0.75], draws=99) == (0.25, 0.25, 0.25, 0.01)

    def test_too_few_days(self):
        assert bootstrap_difference([1.0, np.nan], [0.5, 2.0])[0] == 0.5
        np.testing.assert_equal(bootstrap_difference([1.0], [0.5])[1:], [np.nan] * 3)
        np.testing.assert_equal(tuple(bootstrap_difference([], [])), [np.nan] * 4)

    def test_golden(self):
        found = bootstrap_difference(
            [0.02, -0.01, 0.05, 0.03, 0.04, 0.01], [0.01, -0.02, 0.05, 0.04, 0.01, 0.0], seed=3
        )
        np.testing.assert_allclose(found, [1 / 120, 0, 1 / 60, 169 / 2001], atol=1e-12)

    def test_lengths_must_agree(self):
        with pytest.raises(UserError, match=r"of one length, found \(2,\) and \(3,\)"):
            bootstrap_difference([1, 2], [1, 2, 3])


class TestHolm:
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
    def test_equals_closed_testing_with_bonferroni(self, p):
        """Holm's method is the closure of Bonferroni's: the worst of all sets of nulls that hold this one."""
        expected = []
        for k in range(len(p)):
            sets = [
                s
                for size in range(1, len(p) + 1)
                for s in itertools.combinations(range(len(p)), size)
                if k in s
            ]
            expected.append(max(min(1, len(s) * min(p[i] for i in s)) for s in sets))
        np.testing.assert_allclose(holm(p), expected, atol=1e-12)

    def test_equals_statsmodels(self):
        p = np.random.default_rng(0).random(12) ** 3
        np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-15)

    def test_nan_is_no_comparison(self):
        np.testing.assert_equal(holm([0.02, np.nan, 0.03]), [0.04, np.nan, 0.04])
        assert holm([]).shape == (0,)

    def test_no_probability(self):
        with pytest.raises(UserError, match=r"must lie in \[0, 1\], found -0.1 to 0.5"):
            holm([0.5, -0.1])


class TestBenjaminiHochberg:
    def test_equals_statsmodels(self):
        p = np.random.default_rng(0).random(15) ** 3
        np.testing.assert_allclose(benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1], atol=1e-15)

    def test_nan_is_no_finding(self):
        np.testing.assert_allclose(benjamini_hochberg([0.02, np.nan, 0.03]), [0.03, np.nan, 0.03])
        assert benjamini_hochberg([]).shape == (0,)

    def test_no_probability(self):
        with pytest.raises(UserError, match=r"must lie in \[0, 1\], found 0.5 to 1.5"):
            benjamini_hochberg([0.5, 1.5])


class TestBootstrapMeans:
    def test_each_is_that_of_the_series_alone(self):
        table = np.stack([persistent(seed=seed) for seed in range(3)], axis=1)
        found = bootstrap_means(table, 0.9, block_days=5, draws=200, seed=4)
        for series, low, high in zip(table.T, *found, strict=True):
            assert (low, high) == pytest.approx(
                bootstrap_mean(series, 0.9, block_days=5, draws=200, seed=4), abs=1e-12
            )

    def test_a_day_without_a_value_counts_for_nothing(self):
        table = np.stack([persistent(), persistent()], axis=1)
        table[::7, 1] = np.nan
        low, high = bootstrap_means(table, block_days=4, draws=50)
        drawn = stationary_days(300, block_days=4, draws=50)
        means = [np.nanmean(table[days, 1]) for days in drawn]
        assert (low[1], high[1]) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))

    def test_a_series_without_days_has_none(self):
        found = bootstrap_means([[1.0, np.nan], [2.0, 1.0], [1.0, np.nan]], draws=20)
        assert [np.isnan(end).tolist() for end in found] == [[False, True], [False, True]]
        assert np.isnan(bootstrap_means([[1.0]])[0]).all()


def spa_by_hand(benchmark, rivals, draws=3000):
    """Hansen (2005), his steps in order, with days drawn one by one in blocks of their own."""
    d = rivals - benchmark[:, None]
    days = len(d)
    root = math.sqrt(days)
    block = max(1, round(days ** (1 / 3)))
    drawn = stationary_days(days, block_days=block, draws=draws, seed=99)
    means = np.array([d[day].mean(axis=0) for day in drawn])
    omega = (root * means).std(axis=0)
    statistic = max(0.0, (root * d.mean(axis=0) / omega).max())
    poor = root * d.mean(axis=0) / omega <= -math.sqrt(2 * math.log(math.log(days)))
    centre = np.where(poor, 0.0, d.mean(axis=0))
    resampled = np.maximum(0.0, (root * (means - centre) / omega).max(axis=1))
    return (resampled >= statistic).mean()


def draw_models(days=250, better=0.0, count=4, seed=0):
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(days, count))
    table[:, -1] += better
    return table


class TestSuperiorPredictiveAbility:
    @pytest.mark.parametrize(("better", "seed"), [(0.0, 1), (0.15, 2), (-0.5, 3)])
    def test_equals_hansens_steps(self, better, seed):
        table = draw_models(better=better, seed=seed)
        found = superior_predictive_ability(table[:, 0], table[:, 1:])
        assert found == pytest.approx(spa_by_hand(table[:, 0], table[:, 1:]), abs=0.05)

    def test_a_better_rival_is_seen_and_a_worse_one_is_not(self):
        table = draw_models(better=0.4)
        assert superior_predictive_ability(table[:, 0], table[:, 1:]) < 0.02
        assert superior_predictive_ability(table[:, 3], table[:, :3]) > 0.5

    def test_rejects_a_true_null_as_often_as_it_says(self):
        p = []
        for seed in range(60):
            table = draw_models(days=100, seed=seed)
            p.append(superior_predictive_ability(table[:, 0], table[:, 1:], draws=200, seed=seed))
        assert 0.02 < np.mean(np.array(p) <= 0.2) < 0.36

    def test_days_with_a_hole_are_cut_out(self):
        table = draw_models(better=0.2)
        holes = table.copy()
        holes[[4, 70], [0, 2]] = np.nan
        keep = ~np.isnan(holes).any(axis=1)
        assert superior_predictive_ability(holes[:, 0], holes[:, 1:]) == superior_predictive_ability(
            table[keep, 0], table[keep, 1:]
        )

    def test_the_benchmark_as_its_own_rival_says_nothing(self):
        table = draw_models(better=0.2)
        itself = np.column_stack([table[:, 1:], table[:, 0]])
        assert superior_predictive_ability(table[:, 0], itself) == superior_predictive_ability(
            table[:, 0], table[:, 1:]
        )
        assert superior_predictive_ability(table[:, 0], table[:, [0]]) == 1

    def test_better_by_the_same_on_every_day(self):
        assert superior_predictive_ability(np.zeros(20), np.ones((20, 1))) == 0

    def test_nothing_to_compare(self):
        assert math.isnan(superior_predictive_ability(np.zeros(20), np.empty((20, 0))))
        assert math.isnan(superior_predictive_ability(np.arange(9), np.arange(9)[:, None] * 2))
        with pytest.raises(UserError, match=r"found \(3,\) and \(4, 1\)"):
            superior_predictive_ability(np.zeros(3), np.zeros((4, 1)))


class TestModelConfidenceSet:
    def test_the_best_stays_and_the_worst_goes(self):
        p = model_confidence_set(draw_models(better=0.6))
        assert p[3] == 1
        assert (p[:3] < 0.1).all()

    def test_keeps_the_best_as_often_as_it_says(self):
        kept = []
        for seed in range(40):
            table = draw_models(days=80, better=0.0, count=3, seed=seed)
            kept.append(model_confidence_set(table, draws=200, seed=seed) > 0.2)
        assert np.mean(np.all(kept, axis=1)) > 0.65  # all are best: 0.8 of the sets hold all of them

    def test_two_models_equal_a_two_sided_test(self):
        table = draw_models(better=0.15, count=2, seed=4)
        two_sided = bootstrap_difference(table[:, 1], table[:, 0], block_days=6).p
        assert model_confidence_set(table).min() == pytest.approx(two_sided, abs=0.03)

    def test_the_order_of_models_does_not_matter(self):
        table = draw_models(better=0.1)
        order = [2, 0, 3, 1]
        np.testing.assert_array_equal(
            model_confidence_set(table)[order], model_confidence_set(table[:, order])
        )

    def test_equal_models_share_their_value(self):
        table = draw_models(better=0.1)
        p = model_confidence_set(np.column_stack([table, table[:, 1]]))
        np.testing.assert_array_equal(p[:4], model_confidence_set(table))
        assert p[4] == p[1]

    def test_alone_or_all_the_same(self):
        assert model_confidence_set(np.arange(20.0)[:, None]).tolist() == [1]
        assert model_confidence_set(np.ones((20, 3))).tolist() == [1, 1, 1]

    def test_too_few_days(self):
        assert np.isnan(model_confidence_set(draw_models(days=9))).all()
        with pytest.raises(UserError, match="at least one model"):
            model_confidence_set(np.empty((20, 0)))


class TestSharpeProbability:
    def test_moments_of_zero_and_a_threshold_of_the_ratio_are_a_coin(self):
        assert sharpe_probability(0.1, 100, threshold=0.1) == 0.5

    def test_says_how_often_the_ratio_found_is_so_far_off(self):
        """Of normal returns with a true ratio of 0.3, the probability above 0.3 is uniform."""
        rng = np.random.default_rng(0)
        found = [probabilistic_sharpe_ratio(rng.normal(0.3, 1, 200), 0.3) for _ in range(1500)]
        assert stats.kstest(found, "uniform").statistic < 0.06

    def test_fat_tails_on_the_left_cost_certainty(self):
        plain = sharpe_probability(0.1, 250)
        assert sharpe_probability(0.1, 250, skewness=-2) < plain
        assert sharpe_probability(0.1, 250, kurtosis=8) < plain

    def test_returns_are_judged_by_their_own_moments(self):
        returns = stats.skewnorm(-5).rvs(300, random_state=0) + 1
        z = returns.mean() / returns.std(ddof=1)
        skew, kurtosis = stats.skew(returns), stats.kurtosis(returns, fisher=False)
        error = math.sqrt((1 - skew * z + (kurtosis - 1) / 4 * z**2) / 299)
        assert probabilistic_sharpe_ratio(returns, 0.6) == pytest.approx(
            stats.norm.cdf((z - 0.6) / error), abs=1e-10
        )

    def test_no_spread_or_no_day(self):
        assert math.isnan(probabilistic_sharpe_ratio([0.1, 0.1, 0.1]))
        assert math.isnan(probabilistic_sharpe_ratio([0.1]))
        assert math.isnan(probabilistic_sharpe_ratio([np.nan, np.nan]))
        assert math.isnan(sharpe_probability(math.nan, 10))
        assert math.isnan(sharpe_probability(2.0, 10, skewness=3.0))


class TestExpectedMaximumSharpe:
    @pytest.mark.parametrize("trials", [5, 30, 200])
    def test_is_what_luck_brings(self, trials):
        best = np.random.default_rng(0).normal(0, 0.1, (20000, trials)).max(axis=1).mean()
        assert expected_maximum_sharpe(0.01, trials) == pytest.approx(best, rel=0.03)

    def test_one_trial_was_not_picked(self):
        assert expected_maximum_sharpe(0.5, 1) == 0

    def test_trials_that_agree_leave_no_choice(self):
        assert expected_maximum_sharpe(0.0, 50) == 0

    def test_out_of_range(self):
        with pytest.raises(UserError, match="`trials` must be at least 1"):
            expected_maximum_sharpe(0.1, 0)
        with pytest.raises(UserError, match="`variance` must be at least 0"):
            expected_maximum_sharpe(-0.1, 3)


class TestDeflatedSharpeRatio:
    """Numbers of the paper's own example: five years of 250 days, an annual ratio of 2.5, a variance of 1/2."""

    @pytest.mark.parametrize(
        ("trials", "skewness", "kurtosis", "printed"),
        [(100, -3, 10, 0.9004), (46, -3, 10, 0.9505), (88, 0, 3, 0.9505)],
    )
    def test_the_example_of_bailey_and_lopez_de_prado(self, trials, skewness, kurtosis, printed):
        luck = expected_maximum_sharpe(0.5 / 250, trials)
        if trials == 100:
            assert luck == pytest.approx(0.1132, abs=5e-5)
        found = sharpe_probability(
            2.5 / math.sqrt(250), 1250, skewness=skewness, kurtosis=kurtosis - 3, threshold=luck
        )
        assert found == pytest.approx(printed, abs=6e-5)

    def test_equals_the_formula_of_scipys_moments(self):
        rng = np.random.default_rng(2)
        runs = rng.normal(0.0005, 0.01, (8, 400))
        sharpes = runs.mean(axis=1) / runs.std(axis=1, ddof=1)
        best = int(sharpes.argmax())
        e = np.euler_gamma
        luck = np.std(sharpes, ddof=1) * (
            (1 - e) * stats.norm.ppf(1 - 1 / 8) + e * stats.norm.ppf(1 - 1 / (8 * math.e))
        )
        skew, kurtosis = stats.skew(runs[best]), stats.kurtosis(runs[best], fisher=False)
        error = math.sqrt((1 - skew * sharpes[best] + (kurtosis - 1) / 4 * sharpes[best] ** 2) / 399)
        expected = stats.norm.cdf((sharpes[best] - luck) / error)
        assert deflated_sharpe_ratio(runs[best], sharpes) == pytest.approx(expected, abs=1e-10)

    def test_the_best_of_lucky_runs_is_no_longer_sure(self):
        runs = np.random.default_rng(5).normal(0, 0.01, (40, 500))
        sharpes = runs.mean(axis=1) / runs.std(axis=1, ddof=1)
        best = runs[sharpes.argmax()]
        assert probabilistic_sharpe_ratio(best) > 0.95
        assert deflated_sharpe_ratio(best, sharpes) < 0.8

    def test_one_trial_is_the_probabilistic_ratio(self):
        returns = np.random.default_rng(1).normal(0.001, 0.01, 300)
        assert deflated_sharpe_ratio(returns, [0.1]) == probabilistic_sharpe_ratio(returns)

    def test_a_trial_without_a_ratio_is_none(self):
        returns = np.random.default_rng(1).normal(0.001, 0.01, 300)
        assert deflated_sharpe_ratio(returns, [0.1, np.nan, 0.2]) == deflated_sharpe_ratio(
            returns, [0.1, 0.2]
        )
        assert math.isnan(deflated_sharpe_ratio(returns, []))
