from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from qlib_ext.checks import UserError
from qlib_ext.portfolio.constraints.limits import (
    Box,
    Deviation,
    Limit,
    Linear,
    Turnover,
    deviation_words,
    turnover_words,
)
from qlib_ext.portfolio.nearest import nearest
from qlib_ext.portfolio.problem import Infeasible, Problem
from qlib_ext.portfolio.relaxing import Relaxed, check_order, conflict, conflict_in_words, settle
from qlib_ext.portfolio.solving import share
from tests.portfolio.problems import day_of, problem_of


def turnover(most: float, held: Any) -> Turnover:
    return Turnover("turnover", turnover_words(most), np.asarray(held, float), most)


def band(
    row: list[float], low: float, high: float, what: str = "technology", name: str = "industry"
) -> Linear:
    return Linear(name, f"{name} band", np.array([row], float), np.array([low]), np.array([high]), (what,))


def box(high: float, count: int, name: str = "weight") -> Box:
    return Box(name, f"weights of at most {high:.0%}", np.full(count, -np.inf), np.full(count, high))


def stuck_problem(relaxable: float = 0.05) -> Problem:
    """Four stocks; the second cannot be sold, and it alone is technology together with the first."""
    held = [0.3, 0.2, 0.3, 0.2]
    known = day_of(4, held=held, sellable=np.array([True, False, True, True]))
    lower = np.array([0, 0.2, 0, 0])
    limits = [turnover(relaxable, held), band([1, 1, 0, 0], 0.0, 0.12)]
    return problem_of(4, limits, known=known, lower=lower)


def fits(limits: list[Limit], count: int = 6) -> bool:
    """Whether weights of at least 0 keep to all, by another solver; beside them stand what is bought and sold of each stock."""
    return least_trade(limits, np.zeros(count)) is not None


def least_trade(limits: list[Limit], held: np.ndarray) -> float | None:
    """The least turnover within limits, by another solver; None where no weights keep to them."""
    count = len(held)
    eye, none = np.eye(count), np.zeros(count)
    rows, most = [], []
    for limit in limits:
        if isinstance(limit, Turnover):
            held = limit.held
            rows.append(np.r_[none, np.ones(count)][None])
            most.append(np.array([limit.most]))
        elif isinstance(limit, Linear):
            rows += [np.r_[limit.matrix[0], none][None], -np.r_[limit.matrix[0], none][None]]
            most += [limit.high, -limit.low]
    rows.append(np.block([[eye, -eye], [-eye, -eye]]))
    most.append(np.r_[held, -held])
    found = linprog(np.r_[none, np.ones(count)], A_ub=np.vstack(rows), b_ub=np.concatenate(most))
    return float(found.fun) if found.success else None


def by(one: Relaxed) -> float:
    return abs(one.after - one.before)


class TestConflict:
    def test_nothing_conflicts_where_weights_are_allowed(self) -> None:
        assert conflict(problem_of(3)) == []

    def test_is_said_in_words(self) -> None:
        held = [0.55, 0.09123, 0.2, 0.15877]
        known = day_of(4, held=held, sellable=np.array([True, False, True, True]))
        problem = problem_of(
            4,
            [turnover(0.05, held), band([1, 1, 0, 0], 0.08, 0.12), band([0, 0, 1, 0], 0, 1, "utilities")],
            known=known,
            lower=np.array([0, 0.09123, 0, 0]),
        )
        assert conflict_in_words(problem) == (
            "turnover of at most 5% and technology between 8% and 12% cannot all be kept"
        )
        problem = replace(problem, limits=problem.limits[1:], upper=np.ones(4))
        assert conflict(problem) == []
        narrow = replace(problem, limits=(band([1, 1, 0, 0], 0.02, 0.04),))
        assert conflict_in_words(narrow) == (
            "technology between 2% and 4% and SH600001 held at 9.123% (cannot be sold) cannot all be kept"
        )

    def test_a_bound_of_each_weight_and_the_invested_share(self) -> None:
        problem = problem_of(4, most=0.2, boxes=(box(0.2, 4),))
        assert conflict_in_words(problem) == "weights of at most 20% and 100% invested cannot all be kept"

    def test_what_cannot_be_bought(self) -> None:
        known = day_of(3, buyable=np.zeros(3, bool))
        assert conflict_in_words(problem_of(3, known=known, upper=np.zeros(3))) == (
            "100% invested and no purchase of 3 of 3 stocks (cannot be bought) cannot all be kept"
        )

    def test_bounds_that_nobody_named(self) -> None:
        problem = problem_of(2, lower=np.array([0.4, 0.0]), upper=np.array([0.3, 1.0]))
        assert conflict_in_words(problem) == "no weights keep within the bounds of the single stocks"

    @settings(max_examples=5, deadline=None)
    @given(st.integers(0, 10_000))
    def test_without_one_of_them_nothing_conflicts(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        count = 6
        held = rng.dirichlet(np.ones(count))
        limits: list[Limit] = [turnover(rng.uniform(0, 0.6), held)]
        for k in range(4):
            low = rng.uniform(0, 0.8)
            limits.append(band(list(rng.integers(0, 2, count)), low, low + 0.1, f"row {k}", f"row {k}"))
        found = conflict(problem_of(count, limits))
        if not found:
            assert fits([*limits, share(problem_of(count))])
            return
        assert not fits(found)
        for one in found:
            assert fits([each for each in found if each is not one])


class TestSettle:
    def test_what_can_be_kept_stays(self) -> None:
        problem = problem_of(3, [turnover(2.0, [0, 0, 0])])
        assert settle(problem, ["turnover"]) == (problem, [])

    def test_the_first_of_the_order_gives_way_alone_where_it_suffices(self) -> None:
        held = np.array([0.5, 0.3, 0.2])
        problem = problem_of(3, [turnover(0.1, held), band([1, 0, 0], 0, 0.3)])
        for order, gave in ((["turnover", "industry"], "turnover"), (["industry", "turnover"], "industry")):
            settled, told = settle(problem, order)
            assert [one.name for one in told] == [gave]
            assert conflict(settled) == []
        _, (one,) = settle(problem, ["turnover"])
        assert one.words == "turnover of at most 10% gave way to turnover of at most 40.03%"
        assert (one.before, one.after) == (0.1, pytest.approx(0.4, rel=2e-3))
        _, (one,) = settle(problem, ["industry"])
        assert one.words == "technology between 0% and 30% gave way to technology between -15.02% and 45.02%"
        assert (one.before, one.after) == (0.3, pytest.approx(0.45, rel=2e-3))

    @settings(max_examples=8, deadline=None)
    @given(st.integers(2, 8), st.integers(0, 10_000))
    def test_gives_way_by_no_more_than_another_solver_finds(self, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        held, row = rng.dirichlet(np.ones(count)), (np.arange(count) % 2).astype(float)
        low = rng.uniform(0, 0.9)
        problem = problem_of(count, [turnover(0.01, held), band(list(row), low, low + 0.05)], seed=seed)
        needed = least_trade([share(problem), *problem.limits[1:]], held)
        assert needed is not None
        settled, told = settle(problem, ["turnover"])
        if needed > 0.01 + 1e-5:
            assert by(told[0]) == pytest.approx(needed - 0.01, rel=5e-3, abs=1e-5)
        found = nearest(settled, held)
        assert settled.broken(found) == []

    def test_what_comes_late_in_the_order_gives_way_little(self) -> None:
        """20% cannot be sold, so the band gives way by 8 points whatever is traded, and turnover by what that needs."""
        settled, told = settle(stuck_problem(), ["turnover", "industry"])
        assert [one.name for one in told] == ["turnover", "industry"]
        assert by(told[1]) == pytest.approx(0.08, rel=5e-3)
        assert by(told[0]) == pytest.approx(
            0.55, rel=5e-3
        )  # all 30% of the first are sold, and others bought
        settled, told = settle(stuck_problem(), ["industry", "turnover"])
        assert [one.name for one in told] == ["industry"]
        assert by(told[0]) == pytest.approx(0.355, rel=5e-3)  # half of 5% is sold of the first
        assert conflict(settled) == []

    def test_a_stock_that_cannot_be_sold_never_gives_way(self) -> None:
        with pytest.raises(Infeasible) as error:
            settle(stuck_problem(), ["turnover"])
        assert str(error.value) == (
            "technology between 0% and 12% and SH600001 held at 20% (cannot be sold) cannot all be kept, whatever gives way of "
            "turnover"
        )

    def test_the_bounds_of_weights_give_way_but_not_those_of_0(self) -> None:
        problem = problem_of(4, boxes=(box(0.2, 4),), upper=np.array([0.2, 0.2, 0.2, 0]))
        settled, (one,) = settle(problem, ["weight"])
        np.testing.assert_allclose(settled.upper, [1 / 3, 1 / 3, 1 / 3, 0], atol=1e-3)
        assert by(one) == pytest.approx(0.1333, rel=5e-3)
        assert one.words.startswith(
            "weights of at most 20% gave way to weights of at most 20%, wider by 13.3"
        )
        assert nearest(settled, np.array([1.0, 0, 0, 0])).sum() == pytest.approx(1)

    def test_one_constraint_s_bounds_give_way_and_another_s_do_not(self) -> None:
        capacity = Box(
            "capacity", "at most 10% of what is traded", np.full(4, -np.inf), np.array([0.1, 0.1, 1, 1])
        )
        problem = problem_of(4, upper=np.array([0.1, 0.1, 0.3, 0.3]), boxes=(box(0.3, 4), capacity))
        settled, (one,) = settle(problem, ["weight"])
        assert one.name == "weight"
        np.testing.assert_allclose(settled.upper, [0.1, 0.1, 0.4, 0.4], atol=1e-3)
        np.testing.assert_allclose(settle(problem, ["capacity"])[0].upper, [0.2, 0.2, 0.3, 0.3], atol=1e-3)

    def test_a_holding_above_its_bound_that_cannot_be_sold_keeps_it(self) -> None:
        known = day_of(4, held=[0.5, 0, 0, 0], sellable=np.array([False, True, True, True]))
        problem = problem_of(
            4,
            known=known,
            lower=np.array([0.5, 0, 0, 0]),
            upper=np.array([0.5, 0.1, 0.1, 0.1]),
            boxes=(box(0.1, 4),),
        )
        settled, (one,) = settle(problem, ["weight"])
        assert by(one) == pytest.approx(0.2 / 3, rel=5e-3)
        assert (settled.lower[0], settled.upper[0]) == (0.5, 0.5)

    def test_less_is_invested_where_the_order_says_so(self) -> None:
        problem = problem_of(3, [turnover(0.25, np.zeros(3))])
        settled, (one,) = settle(problem, ["cash"])
        assert settled.invested == pytest.approx(0.25, abs=1e-3)
        assert one.words.startswith("100% invested gave way to 24.9")
        assert (one.name, one.before, one.after) == ("cash", 1.0, settled.invested)
        ranged, _ = settle(replace(problem, least_invested=0.9), ["cash"])
        assert ranged.invested == 1
        assert ranged.least_invested == pytest.approx(0.25, abs=1e-3)

    def test_only_the_rows_that_must_give_way(self) -> None:
        rows = Linear(
            "industry",
            "industries",
            np.eye(3),
            np.zeros(3),
            np.array([0.2, 0.3, 0.4]),
            ("banks", "technology", "utilities"),
        )
        known = day_of(3, held=[0.5, 0, 0], sellable=np.array([False, True, True]))
        settled, (one,) = settle(
            problem_of(3, [rows], known=known, lower=np.array([0.5, 0, 0])), ["industry"]
        )
        assert one.words.startswith("banks between 0% and 20% gave way to ")
        np.testing.assert_allclose(settled.limits[0].high, [0.5, 0.3, 0.4], atol=1e-3)

    def test_tracking_error_gives_way(self) -> None:
        plain = problem_of(4)
        limit = Deviation(
            "tracking_error", deviation_words(1e-4, "x"), plain.risk, plain.known.benchmark, 1e-4, "x"
        )
        held = np.eye(4)[0]
        problem = replace(plain, limits=(limit, turnover(0.2, held)))
        settled, (one,) = settle(problem, ["tracking_error"])
        assert one.words.startswith("tracking error against x of at most 0.1587% a year gave way to ")
        assert one.before == pytest.approx(0.001587, rel=1e-3)
        assert one.name == "tracking_error"
        found = nearest(settled, plain.known.benchmark)
        assert settled.broken(found) == []
        closest = nearest(replace(plain, limits=problem.limits[1:]), plain.known.benchmark)
        assert limit.excess(closest) == pytest.approx(by(one) / 252**0.5, rel=5e-3)


class TestOrder:
    def test_names_must_be_those_of_constraints(self) -> None:
        assert check_order(["cash"], []) == ("cash",)
        with pytest.raises(
            UserError, match="`relax` must name constraints of the portfolio, cash; found 'turnovr'"
        ):
            check_order(["turnovr"], [])
        with pytest.raises(UserError, match="more than once"):
            check_order(["cash", "cash"], [])
