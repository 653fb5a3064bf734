from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from qlib_ext.portfolio.allocation import Decision
from qlib_ext.portfolio.constraints.limits import Linear
from qlib_ext.portfolio.diary import Diary
from qlib_ext.portfolio.relaxing import Relaxed
from qlib_ext.portfolio.risk import Risk
from tests.portfolio.decisions import MOST, decisions

DAYS = pd.bdate_range("2024-01-01", periods=16)
CODES = tuple(f"SH{600000 + stock}" for stock in range(8))
MADE = [*decisions(DAYS, CODES)]


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    diary = Diary()
    for day, decision in MADE:
        diary.add(day, decision)
    return diary.tables()


class TestDays:
    def test_a_row_a_rebalancing_with_the_day_that_it_was_known(
        self, tables: dict[str, pd.DataFrame]
    ) -> None:
        days = tables["days"]
        assert [*days.index] == [DAYS[1], DAYS[6], DAYS[11]]
        assert [*days["known"]] == [DAYS[0], DAYS[5], DAYS[10]]
        assert days["names"].tolist() == [5, 5, 5]
        assert days["invested"].to_numpy() == pytest.approx(0.95)

    def test_turnover_by_cause(self, tables: dict[str, pd.DataFrame]) -> None:
        days = tables["days"]
        assert days["turnover/new"].tolist() == pytest.approx([0.95, 0.1, 0.1])
        first = MADE[1][1].known.held
        assert days["turnover/out"].iloc[1] == pytest.approx(first[0])
        assert days["turnover"].iloc[1] == pytest.approx(np.abs(MADE[1][1].weights - first).sum())

    def test_what_left_the_universe_is_told_apart(self) -> None:
        day, decision = MADE[1]
        scores = decision.known.scores.copy()
        scores[-1, 0] = np.nan
        diary = Diary()
        diary.add(day, replace(decision, known=replace(decision.known, scores=scores)))
        days = diary.tables()["days"]
        assert days["turnover/left"].iloc[0] == pytest.approx(decision.known.held[0])
        assert days["turnover/out"].iloc[0] == 0


class TestRisk:
    def test_shares_of_stocks_add_up_to_the_whole(self, tables: dict[str, pd.DataFrame]) -> None:
        shares = tables["stocks"].groupby("datetime")[["risk_share", "active_share"]].sum()
        np.testing.assert_allclose(shares, 1.0)

    def test_shares_of_factors_and_of_stocks_alone_add_up_too(self, tables: dict[str, pd.DataFrame]) -> None:
        shares = tables["factors"].groupby("datetime")[["risk_share", "active_share"]].sum()
        for day, decision in MADE:
            active = decision.weights - decision.known.benchmark
            for name, weights in (("risk_share", decision.weights), ("active_share", active)):
                alone = (decision.risk.specific * weights**2).sum() / decision.risk.volatility(weights) ** 2
                assert shares.loc[day, name] == pytest.approx(1 - alone)

    def test_industries_are_named(self, tables: dict[str, pd.DataFrame]) -> None:
        assert tables["stocks"]["industry"].head(3).tolist() == ["banks", "technology", "utilities"]


class TestLimits:
    def test_what_bound_the_weights(self, tables: dict[str, pd.DataFrame]) -> None:
        limits = tables["limits"]
        assert limits.loc[[DAYS[1]], "name"].tolist() == ["weight"]
        assert limits.loc[[DAYS[6]], "name"].tolist() == ["turnover", "weight"]
        largest = limits[limits["name"] == "weight"]
        assert largest["stocks"].tolist() == [2, 2, 2]
        assert largest["words"].iloc[0] == "weights of at most 25%"
        assert set(limits["what"]) == {"binding"}

    def test_of_a_limit_of_several_parts_those_that_bind_are_named(self) -> None:
        day, decision = MADE[0]
        assert decision.problem is not None
        own = np.arange(len(CODES)) % 2 == np.array([[0], [1]])  # even and odd places
        most = own @ decision.weights + [0.0, 0.1]
        pair = Linear("pair", "a pair", own.astype(float), np.full(2, -np.inf), most, ("even", "odd"))
        diary = Diary()
        diary.add(day, replace(decision, problem=replace(decision.problem, limits=(pair,))))
        limits = diary.tables()["limits"]
        assert limits.loc[limits["name"] == "pair", "part"].tolist() == ["even"]

    def test_what_gave_way_is_told(self) -> None:
        day, decision = MADE[0]
        gave = Relaxed("turnover", "turnover of at most 20%", "turnover of at most 31%", 0.2, 0.31)
        diary = Diary()
        diary.add(day, replace(decision, relaxed=(gave, gave), told=("One; two", "three")))
        limits, days = diary.tables()["limits"], diary.tables()["days"]
        assert limits.loc[limits["what"] == "relaxed", "words"].tolist() == [gave.words] * 2
        assert days["told"].iloc[0].splitlines() == ["One; two", "three"]


class TestFrontier:
    def test_it_is_of_the_newest_day_that_had_weights(self, tables: dict[str, pd.DataFrame]) -> None:
        diary = Diary()
        for day, decision in MADE:
            diary.add(day, decision)
        day, decision = MADE[-1]
        diary.add(day, replace(decision, problem=None, kept=True))
        pd.testing.assert_frame_equal(diary.tables()["frontier"], tables["frontier"])
        chosen = tables["frontier"].set_index("kind").loc["chosen"]
        assert chosen["volatility"] == pytest.approx(decision.risk.volatility(decision.weights))
        assert chosen["expected"] == pytest.approx(decision.expected @ decision.weights)
        assert decision.weights.max() == MOST


def test_without_a_decision_all_is_empty() -> None:
    assert all(table.empty for table in Diary().tables().values())


def test_a_covariance_has_no_factors() -> None:
    day, decision = MADE[0]
    diary = Diary()
    plain = Risk.of_covariance(decision.risk.covariance())
    diary.add(day, Decision(decision.known, decision.weights, plain, None))
    found = diary.tables()
    assert found["factors"].empty
    assert found["frontier"].empty
    assert found["days"]["volatility"].iloc[0] == pytest.approx(decision.risk.volatility(decision.weights))
