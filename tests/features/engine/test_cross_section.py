"""Operators that look at a day: by hand, of members alone, and in the midst of others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.features.engine import cross_section, evaluation
from qlib_ext.features.engine.evaluation import Program, evaluate
from tests.features.arrays import market_of

VALUES = np.array([[[3.0, 1.0, 2.0, np.nan], [5.0, 5.0, 9.0, 7.0], [4.0, 1.0, np.nan, 2.0]]], np.float32)


def test_by_hand() -> None:
    np.testing.assert_allclose(
        cross_section.rank(VALUES[0]),
        [[1, 1 / 3, 2 / 3, np.nan], [0.375, 0.375, 1, 0.75], [1, 1 / 3, np.nan, 2 / 3]],
    )
    np.testing.assert_allclose(cross_section.zscore(VALUES[0])[0], [1, -1, 0, np.nan])
    groups = np.array([[0, 0, 1, 1], [0, 0, 1, -1], [1, 1, 0, 1]])
    np.testing.assert_allclose(
        cross_section.neutralize(VALUES[0].astype(float), groups),
        [[1, -1, 0, np.nan], [0, 0, 0, np.nan], [5 / 3, -4 / 3, np.nan, -1 / 3]],
        rtol=1e-6,
    )


@pytest.mark.parametrize("value", [1.0, 0.1, 0.7])
def test_a_day_of_equal_values_has_no_zscore(value: float) -> None:
    assert np.isnan(cross_section.zscore(np.array([[value, value, value, np.nan]]))).all()


def test_members_alone_are_compared() -> None:
    market = market_of(VALUES, ["close"])
    members = np.ones((3, 4), dtype=bool)
    members[1, 2] = False
    market = dataclasses.replace(market, members=members)
    np.testing.assert_allclose(evaluate("CSRank($close)", market)[1], [0.5, 0.5, np.nan, 1])
    np.testing.assert_allclose(
        evaluate("2 * Mean(CSRank($close), 2)", market)[1], [1.5, 5 / 6, 4 / 3, 2], rtol=1e-6
    )


@pytest.mark.parametrize("text", ["CSRank(Mean($close, 2))", "CSZScore(Mean($close, 2))"])
def test_a_suspended_stock_counts_alike_whether_it_trades_again_or_not(text: str) -> None:
    values = np.array([[3.0, 1.0, 2.0], [5.0, 6.0, 9.0], [np.nan, 2.0, 7.0], [4.0, 8.0, 1.0]], np.float32)
    known, whole = (evaluate(text, market_of(values[None, :days], ["close"])) for days in (3, 4))
    np.testing.assert_array_equal(known, whole[:3])
    assert np.isnan(known[2, 0])


def test_blocks_of_stocks_see_all_of_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(10, 1, (2, 30, 70)).astype(np.float32)
    market = market_of(values, ["close", "open"])
    text = "CSZScore(Mean(CSRank($close / $open), 3)) - CSRank($open)"
    whole = evaluate(text, market)
    monkeypatch.setattr(evaluation, "WIDEST", 8)
    monkeypatch.setattr(evaluation, "CELLS", 64)
    np.testing.assert_allclose(evaluate(text, market), whole, rtol=1e-6)
    assert len({(v.days.start, v.stocks[0]) for v in Program([text]).evaluate(market)}) >= 10


def test_groups_are_side_data() -> None:
    program = Program(["CSNeutralize($close, industry)"])
    assert program.group_names == ("industry",)
    market = market_of(VALUES, ["close"])
    with pytest.raises(UserError, match="groups stocks by side data, which only features can"):
        list(program.evaluate(market))
    (values,) = program.evaluate(market, lambda name: np.array([[0, 0, 1, 1]] * 3))
    np.testing.assert_allclose(values.plane[0], [1, -1, 0, np.nan])
