"""What holds for every constraint: what it says is true of the weights that it is given for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.constraints.beta_band import BetaBand
from qlib_ext.portfolio.constraints.capacity import Capacity
from qlib_ext.portfolio.constraints.cash_band import CashBand
from qlib_ext.portfolio.constraints.industry_band import IndustryBand
from qlib_ext.portfolio.constraints.industry_cap import IndustryCap
from qlib_ext.portfolio.constraints.long_short import LongShort
from qlib_ext.portfolio.constraints.max_turnover import MaxTurnover
from qlib_ext.portfolio.constraints.number_of_names import NumberOfNames
from qlib_ext.portfolio.constraints.smallest_weight import SmallestWeight
from qlib_ext.portfolio.constraints.style_bands import StyleBands
from qlib_ext.portfolio.constraints.tracking_error import TrackingError
from qlib_ext.portfolio.constraints.weight_bounds import WeightBounds
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.nearest import nearest
from qlib_ext.portfolio.problem import Problem
from qlib_ext.portfolio.risk import Risk
from tests.portfolio.problems import day_of, problem_of, risk_of

COUNT = 12
NEAR = 1e-5


@dataclass(frozen=True)
class Case:
    """A constraint, one that is narrower or wider, and what it says, in other words than its own."""

    constraint: Constraint
    other: Constraint
    says: Callable[[Floats, KnownDay, Risk], bool]


def slope(known: KnownDay, weights: Floats) -> float:
    """Of the weights' past returns on the market's."""
    own, market = known.returns @ weights, known.market
    return float(np.cov(own, market)[0, 1] / np.var(market, ddof=1))


def by_industry(known: KnownDay, weights: Floats) -> Floats:
    assert known.industry is not None
    return np.array([weights[known.industry == one].sum() for one in (0, 1, 2)])


def usual(known: KnownDay) -> Floats:
    return known.planes["traded_value"][-20:].mean(axis=0) / known.account


CASES = [
    Case(WeightBounds(0.15), WeightBounds(0.3), lambda w, known, risk: w.max() <= 0.15 + NEAR),
    Case(
        WeightBounds(above_benchmark=0.1, below_benchmark=0.02),
        WeightBounds(above_benchmark=0.2, below_benchmark=0.05),
        lambda w, known, risk: (
            np.max(w - known.benchmark) <= 0.1 + NEAR and np.min(w - known.benchmark) >= -0.02 - NEAR
        ),
    ),
    Case(NumberOfNames(least=8), NumberOfNames(least=4), lambda w, known, risk: np.sum(w > NEAR) >= 8),
    Case(NumberOfNames(most=3), NumberOfNames(most=6), lambda w, known, risk: np.sum(w > 0) <= 3),
    Case(
        SmallestWeight(0.12),
        SmallestWeight(0.01),
        lambda w, known, risk: all(one == 0 or one >= 0.12 - NEAR for one in w),
    ),
    Case(
        MaxTurnover(0.3), MaxTurnover(0.6), lambda w, known, risk: np.abs(w - known.held).sum() <= 0.3 + NEAR
    ),
    Case(
        TrackingError(0.08),
        TrackingError(0.16),
        lambda w, known, risk: (
            252 * (w - known.benchmark) @ risk.covariance() @ (w - known.benchmark) <= 0.08**2 * (1 + NEAR)
        ),
    ),
    Case(
        TrackingError(0.08, against="equal"),
        TrackingError(0.16, against="equal"),
        lambda w, known, risk: (
            252 * (w - 1 / COUNT) @ risk.covariance() @ (w - 1 / COUNT) <= 0.08**2 * (1 + NEAR)
        ),
    ),
    Case(
        BetaBand(0.9, 1.0),
        BetaBand(0.5, 1.2),
        lambda w, known, risk: 0.9 - NEAR <= slope(known, w) <= 1 + NEAR,
    ),
    Case(
        IndustryBand(0.0),
        IndustryBand(0.1),
        lambda w, known, risk: np.allclose(
            by_industry(known, w), by_industry(known, known.benchmark), atol=NEAR
        ),
    ),
    Case(
        IndustryBand(0.05, against="equal"),
        IndustryBand(0.2, against="equal"),
        lambda w, known, risk: np.abs(by_industry(known, w) - 1 / 3).max() <= 0.05 + NEAR,
    ),
    Case(
        IndustryCap(0.4), IndustryCap(0.6), lambda w, known, risk: by_industry(known, w).max() <= 0.4 + NEAR
    ),
    Case(
        IndustryCap({"technology": 0.1}),
        IndustryCap({"technology": 0.3}),
        lambda w, known, risk: by_industry(known, w)[1] <= 0.1 + NEAR,
    ),
    Case(
        StyleBands({"factor_1": [-0.1, 0.2]}),
        StyleBands({"factor_1": [-1.0, 1.0]}),
        lambda w, known, risk: -0.1 - NEAR <= risk.loadings[:, 1] @ (w - known.benchmark) <= 0.2 + NEAR,
    ),
    Case(
        StyleBands({"reversal": [-0.1, 0.1], "factor_0": [0.0, 1.0]}, against="nothing"),
        StyleBands({"reversal": [-2.0, 2.0], "factor_0": [-2.0, 2.0]}, against="nothing"),
        lambda w, known, risk: (
            0 - NEAR <= risk.loadings[:, 0] @ w <= 1 + NEAR and abs(reversal(known) @ w) <= 0.1 + NEAR
        ),
    ),
    Case(CashBand(0.1, 0.2), CashBand(0.0, 0.3), lambda w, known, risk: 0.8 - NEAR <= w.sum() <= 0.9 + NEAR),
    Case(
        Capacity(traded=0.1),
        Capacity(traded=0.5),
        lambda w, known, risk: bool(np.all(np.abs(w - known.held) <= 0.1 * usual(known) + NEAR)),
    ),
    Case(
        Capacity(held=0.3),
        Capacity(held=1.0),
        lambda w, known, risk: bool(np.all(w <= 0.3 * usual(known) + NEAR)),
    ),
    Case(
        LongShort(gross=1.5, net=0.5),
        LongShort(gross=2.0, net=0.5, most_short=0.1),
        lambda w, known, risk: (
            np.abs(w).sum() <= 1.5 + NEAR and w.min() >= -0.05 - NEAR and abs(w.sum() - 0.5) <= NEAR
        ),
    ),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case.constraint))


def reversal(known: KnownDay) -> Floats:
    """Return of 20 days, in standard deviations from the mean."""
    close = known.planes["close"]
    moved = close[-1] / close[-21] - 1
    scaled = np.clip((moved - moved.mean()) / moved.std(), -3, 3)
    return scaled - scaled.mean()


def market(seed: int = 3) -> KnownDay:
    rng = np.random.default_rng(seed)
    plain = day_of(COUNT, seed=seed)
    planes = {
        "close": 10 * np.cumprod(1 + plain.returns, axis=0),
        "traded_value": rng.uniform(0.5, 2, (60, COUNT)) * plain.account,
        "market_value": np.full((60, COUNT), 1e9),
    }
    held, benchmark = rng.dirichlet(np.ones(COUNT)), rng.dirichlet(np.ones(COUNT) * 5)
    return day_of(COUNT, seed=seed, planes=planes, held=held, benchmark=benchmark)


def asked(constraint: Constraint, known: KnownDay, risk: Risk) -> Problem:
    """What a constraint comes to, alone."""
    unbound = np.full(COUNT, np.inf)
    box = constraint.box(known)
    low, high = (-unbound, unbound) if box is None else (box.low, box.high)
    short = isinstance(constraint, LongShort)
    least, most = constraint.invested() or (1.0, 1.0)
    return Problem(
        known=known,
        expected=None,
        risk=risk,
        lower=low if short else np.maximum(low, 0.0),
        upper=high,
        limits=tuple(constraint.limits(known, risk)),
        invested=most,
        least_invested=None if least == most else least,
    )


def solved(constraint: Constraint, known: KnownDay, risk: Risk, wanted: Floats) -> Floats:
    """The nearest weights that keep to it, in as many steps as it takes."""
    problem, some = asked(constraint, known, risk), np.ones(COUNT, bool)
    while True:
        found = nearest(problem.only(some) if not some.all() else problem, wanted)
        kept = constraint.kept(found, known)
        if kept is None or np.all(kept | (found == 0)):
            return found
        some &= kept


@each_case
class TestLaws:
    def test_shows_the_call_that_makes_it_again(self, case: Case) -> None:
        namespace = {type(one.constraint).__name__: type(one.constraint) for one in CASES}
        again = eval(repr(case.constraint), namespace)  # noqa: S307  # ours
        known, risk = market(), risk_of(COUNT, 3)
        assert [limit.words for limit in again.limits(known, risk)] == [
            limit.words for limit in case.constraint.limits(known, risk)
        ]

    def test_what_it_says_is_true_of_the_weights(self, case: Case) -> None:
        known, risk = market(), risk_of(COUNT, 3)
        for seed in range(3):
            wanted = np.random.default_rng(seed).dirichlet(np.ones(COUNT) * 0.2)
            assert case.says(solved(case.constraint, known, risk, wanted), known, risk)

    def test_it_matters(self, case: Case) -> None:
        """Weights that break what it says are not allowed."""
        known, risk = market(), risk_of(COUNT, 3)
        wanted = np.zeros(COUNT)
        wanted[1], wanted[2] = 0.95, 0.05
        if not case.says(wanted, known, risk):
            assert np.abs(solved(case.constraint, known, risk, wanted) - wanted).sum() > 0.01

    def test_a_wider_one_is_never_further_from_what_is_wanted(self, case: Case) -> None:
        known, risk = market(), risk_of(COUNT, 3)
        if case.constraint.kept(known.held, known) is not None:
            return  # found in steps, each of which is the best, but not all of them together
        for seed in range(3):
            wanted = np.random.default_rng(seed).dirichlet(np.ones(COUNT) * 0.2)
            one, other = (
                risk.volatility(solved(each, known, risk, wanted) - wanted)
                for each in (case.constraint, case.other)
            )
            assert other <= one + 1e-6

    def test_the_order_of_stocks_does_not_matter(self, case: Case) -> None:
        known, risk = market(), risk_of(COUNT, 3)
        order = np.random.default_rng(7).permutation(COUNT)
        wanted = np.random.default_rng(1).dirichlet(np.ones(COUNT) * 0.2)
        other = replace(
            known,
            scores=known.scores[:, order],
            returns=known.returns[:, order],
            held=known.held[order],
            benchmark=known.benchmark[order],
            industry=None if known.industry is None else known.industry[order],
            planes={name: plane[:, order] for name, plane in known.planes.items()},
        )
        found = solved(case.constraint, known, risk, wanted)
        again = solved(case.constraint, other, risk.take(order), wanted[order])
        np.testing.assert_allclose(again, found[order], atol=2e-4)

    def test_says_itself_in_words(self, case: Case) -> None:
        known, risk = market(), risk_of(COUNT, 3)
        problem = asked(case.constraint, known, risk)
        box = case.constraint.box(known)
        said = [*problem.limits, *([] if box is None else [box])]
        for limit in [part for one in said for part in (one, *one.parts())]:
            assert limit.name == case.constraint.name
            assert limit.words
        assert case.constraint.notes(known, risk) == []  # everything is known of every stock

    def test_its_limits_give_way(self, case: Case) -> None:
        known, risk = market(), risk_of(COUNT, 3)
        wanted = np.random.default_rng(5).dirichlet(np.ones(COUNT) * 0.2)
        for limit in case.constraint.limits(known, risk):
            wider = limit.widened(np.full(len(limit.parts()), 0.01))
            less = limit.excess(wanted) - 0.01
            assert wider.excess(wanted) == pytest.approx(less)
            assert len(wider.parts()) == len(limit.parts())


def test_several_hold_together() -> None:
    known, risk = market(), risk_of(COUNT, 3)
    limits = [*MaxTurnover(0.3).limits(known, risk), *IndustryBand(0.1).limits(known, risk)]
    found = nearest(problem_of(COUNT, limits, known=known, risk=risk), known.benchmark)
    assert np.abs(found - known.held).sum() <= 0.3 + NEAR
    assert np.abs(by_industry(known, found) - by_industry(known, known.benchmark)).max() <= 0.1 + NEAR
