"""Rules of combination: their laws, their bounds on markets of chance and of malice, and oracles in plain loops."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlib_ext.config.build import classes_in
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio import online
from qlib_ext.portfolio.online.base import MixingRule, best_mix
from qlib_ext.portfolio.online.buy_and_hold import BuyAndHold
from qlib_ext.portfolio.online.exponentiated_gradient import ExponentiatedGradient
from qlib_ext.portfolio.online.universal import Universal

EVERY = [
    ExponentiatedGradient(),
    ExponentiatedGradient(patience=1),
    ExponentiatedGradient(rate=0.05),
    Universal(mixes=500),
    BuyAndHold(),
]
every = pytest.mark.parametrize("rule", EVERY, ids=repr)


def relatives(seed: int, days: int = 60, members: int = 3, size: float = 0.02) -> Floats:
    return np.exp(np.random.default_rng(seed).normal(0, size, (days, members)))


def worst_for(rule: MixingRule, days: int, low: float) -> Floats:
    """Each day the member with the largest share does worst."""
    found = np.empty((0, 3))
    for _ in range(days):
        row = np.ones(3)
        row[np.argmax(rule.shares(found)[-1])] = low
        found = np.vstack([found, row])
    return found


class TestLaws:
    def test_every_rule_is_here(self) -> None:
        found = {each for each in classes_in(online, MixingRule) if not inspect.isabstract(each)}
        assert {type(each) for each in EVERY} == found

    @every
    def test_shares_begin_even_and_sum_to_one(self, rule: MixingRule) -> None:
        found = rule.shares(relatives(0))
        assert found.shape == (61, 3)
        np.testing.assert_allclose(found[0], 1 / 3, atol=0.03)  # of 500 mixes drawn
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
        assert (found > 0).all()

    @every
    def test_shares_follow_from_the_days_before(self, rule: MixingRule) -> None:
        known = relatives(0)
        scrambled = known.copy()
        scrambled[30:] = relatives(9)[30:]
        np.testing.assert_array_equal(rule.shares(known)[:31], rule.shares(scrambled)[:31])
        assert not np.allclose(rule.shares(known)[32:], rule.shares(scrambled)[32:])
        np.testing.assert_allclose(rule.shares(known)[:31], rule.shares(known[:30]), rtol=1e-12)

    @every
    def test_what_all_members_earn_alike_does_not_matter(self, rule: MixingRule) -> None:
        market = np.exp(np.random.default_rng(4).normal(0, 0.03, (60, 1)))
        np.testing.assert_allclose(rule.shares(relatives(0) * market), rule.shares(relatives(0)), rtol=1e-9)

    @every
    def test_who_always_does_better_has_more_every_day(self, rule: MixingRule) -> None:
        found = rule.shares(np.tile([1.0, 1.01], (50, 1)))[:, 1]
        assert (np.diff(found) > 0).all()

    @every
    def test_one_member_has_all(self, rule: MixingRule) -> None:
        np.testing.assert_array_equal(rule.shares(relatives(0, members=1)), np.ones((61, 1)))

    @every
    def test_no_day_has_no_regret(self, rule: MixingRule) -> None:
        assert rule.regret(np.empty((0, 3))) == 0.0
        assert rule.shares(np.empty((0, 3))).shape == (1, 3)

    @every
    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10_000), st.sampled_from([0.001, 0.02, 0.5]), st.integers(2, 4))
    def test_the_regret_keeps_to_its_bound(
        self, rule: MixingRule, seed: int, size: float, members: int
    ) -> None:
        known = relatives(seed, days=40, members=members, size=size)
        known += np.random.default_rng(seed).uniform(0, size, members)  # some are better throughout
        assert rule.regret(known) <= rule.bound(known) * 1.001 + 1e-6

    @every
    @pytest.mark.parametrize("low", [0.5, 0.98])
    def test_it_does_so_against_an_adversary(self, rule: MixingRule, low: float) -> None:
        known = worst_for(rule, 40, low)
        assert rule.regret(known) <= rule.bound(known) + 1e-6


class TestExponentiatedGradient:
    def test_it_is_the_multiplicative_update(self) -> None:
        known, shares = relatives(1), np.full(3, 1 / 3)
        found = ExponentiatedGradient(rate=0.7).shares(known)
        for day, row in enumerate(known):
            np.testing.assert_allclose(found[day], shares, rtol=1e-9)
            shares = shares * np.exp(0.7 * row / (shares @ row))
            shares /= shares.sum()

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 10_000), st.floats(0.3, 0.95))
    def test_the_regret_keeps_to_the_theorem_of_the_authors(self, seed: int, lowest: float) -> None:
        """Of relatives between r and 1: sqrt(2 D ln M) / (2 r), at the rate that they take for D days."""
        days, members = 50, 3
        known = np.random.default_rng(seed).uniform(lowest, 1, (days, members))
        known /= known.max(axis=1, keepdims=True)
        rate = 2 * known.min() * np.sqrt(2 * np.log(members) / days)
        regret = ExponentiatedGradient(rate=float(rate)).regret(known)
        assert regret <= np.sqrt(2 * days * np.log(members)) / (2 * known.min())

    def test_members_that_are_further_apart_move_it_less(self) -> None:
        near, far = ExponentiatedGradient(apart=0.001), ExponentiatedGradient(apart=0.1)
        patient = ExponentiatedGradient(apart=0.1, patience=1_000)
        known = np.tile([1.0, 1.005], (5, 1))
        last = [rule.shares(known)[-1, 1] for rule in (near, far, patient)]
        assert last[0] > last[1] > last[2] > 0.5

    def test_the_rate_falls_by_how_far_members_were_apart(self) -> None:
        rule = ExponentiatedGradient(apart=0.02, patience=3)
        _, rates, apart = rule._run(relatives(1, days=5))
        for day in range(6):
            known = 3 * 0.02**2 + sum(apart[:day] ** 2)
            assert rates[day] == pytest.approx(np.sqrt(8 * np.log(3) / known))


class TestUniversal:
    def test_its_wealth_is_the_mean_of_all_mixes(self) -> None:
        """Of two members the integral is one of a line."""
        known = relatives(2, members=2, size=0.1)
        rule = Universal(mixes=20_000)
        own = np.prod(np.einsum("dm,dm->d", rule.shares(known)[:-1], known))
        line = np.linspace(0, 1, 20_001)
        each = np.prod(known[:, :1] * line + known[:, 1:] * (1 - line), axis=0)
        assert own == pytest.approx(np.trapezoid(each, line), rel=2e-3)


class TestBuyAndHold:
    def test_its_wealth_is_the_mean_of_the_members(self) -> None:
        known = relatives(2)
        own = np.prod(np.einsum("dm,dm->d", BuyAndHold().shares(known)[:-1], known))
        assert own == pytest.approx(known.prod(axis=0).mean(), rel=1e-12)


class TestBestMix:
    @settings(max_examples=40, deadline=None)
    @given(
        st.integers(0, 10_000),
        st.sampled_from([1e-4, 0.02, 0.3]),
        st.integers(1, 7),
        st.sampled_from([1, 5, 300]),
    )
    def test_no_mix_ends_with_more(self, seed: int, size: float, members: int, days: int) -> None:
        """What any other could be ahead by is bounded by the best mean gain, which is 1 at the best mix."""
        known = relatives(seed, days=days, members=members, size=size)
        found = best_mix(known)
        gain = (known / (known @ found)[:, None]).mean(axis=0)
        assert days * np.log(gain.max()) < 1e-4

    def test_the_better_of_two_is_all_of_it(self) -> None:
        np.testing.assert_allclose(best_mix(np.tile([1.0, 1.1], (50, 1))), [0, 1], atol=1e-9)
