from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from qlib.data import D

from qlib_ext.checks import UserError
from qlib_ext.features.engine import evaluation
from qlib_ext.features.market_panel import MarketPanel

EXPRESSIONS = [
    "$close",
    "$Close",
    "Ref($close, -2) / Ref($close, -1) - 1",
    "Ref($close, 0)",
    "$close / Ref($close, 0)",
    "Ref($close, 5) - $open",
    "Ref(Ref($close, 2), -3)",
    "Ref($close, -1) > $close",
    "Ref($close > 10, -1)",
    "($close > 10) & ($volume > 100000)",
    "Not($close > 10)",
    "2 - $close",
    "3 * $close + 1 / $open",
    "Power($close, 0)",
    "Log($volume + 1)",
    "Sign($close - Ref($close, 1))",
    "Greater($high, $low) - Less($open, $close)",
    "Abs($close - $open)",
    "If($close > $open, $close, $open)",
    "Mean($close, 5)",
    "Mean($close, 0)",
    "Mean($close, 0.2)",
    "Mean(Ref($close, -1), 3)",
    "Ref(Mean($close, 5), -3) / $close - 1",
    "Mean($close > Ref($close, 1), 5)",
    "Std($close, 5)",
    "Slope($close, 5)",
    "Slope($close, 0)",
    "Rsquare($close, 5)",
    "Resi($close, 5)",
    "WMA($close, 5)",
    "EMA($close, 5)",
    "Rank($close, 5)",
    "Quantile($close, 5, 0.3)",
    "Count($close, 5)",
    "Ref(Count($close, 5), -3)",
    "Max($high, 5) - Min($low, 5)",
    "IdxMax($close, 5)",
    "Delta($close, 3)",
    "Corr($close, Log($volume + 1), 5)",
    "Cov($close, $volume, 5)",
    "Ref($close / $open, 1) + Std(Ref($high, 1) / $low, 4)",
    "Sum(Greater($close - Ref($close, 1), 0), 5) / (Sum(Abs($close - Ref($close, 1)), 5) + 1e-12)",
]


class TestAgainstQlib:
    @pytest.mark.parametrize("expression", EXPRESSIONS)
    def test_the_values_are_those_of_qlib(self, expression: str, panel: MarketPanel) -> None:
        theirs = D.features(list(panel.instruments), [expression], freq="day").iloc[:, 0]
        expected = np.full(panel.members.shape, np.nan, np.float32)
        days = panel.calendar.get_indexer(theirs.index.get_level_values("datetime"))
        stocks = pd.Index(panel.instruments).get_indexer(theirs.index.get_level_values("instrument"))
        expected[days, stocks] = theirs
        found = evaluation.evaluate(expression, panel)
        assert found.dtype == np.float32
        assert np.isfinite(found).sum() > 500
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_the_panel_is_left_as_it_is(self, panel: MarketPanel) -> None:
        before = panel.values.copy()
        for expression in EXPRESSIONS:
            evaluation.evaluate(expression, panel)
        np.testing.assert_array_equal(panel.values, before)

    @pytest.mark.parametrize(
        "expression", ["$close", "$close - $open", "Std($close, 5)", "Corr($close, $open, 9)"]
    )
    def test_nothing_is_remembered_of_another_panel(self, expression: str, panel: MarketPanel) -> None:
        first = evaluation.evaluate(expression, panel)
        larger = evaluation.evaluate(
            expression, dataclasses.replace(panel, values=panel.values * np.float32(2))
        )
        again = evaluation.evaluate(expression, panel)
        np.testing.assert_array_equal(first, again)
        if "Corr" not in expression:
            np.testing.assert_array_equal(larger, 2 * first)


class TestEvaluator:
    @pytest.mark.parametrize("expression", EXPRESSIONS)
    def test_some_days_are_those_of_all_days(self, expression: str, panel: MarketPanel) -> None:
        whole = evaluation.evaluate(expression, panel)
        evaluate = evaluation.evaluator(expression, panel)
        for days in (slice(0, 1), slice(0, 7), slice(50, 53), slice(120, 200), slice(199, 200)):
            found = evaluate(days)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, whole[days])

    def test_errors_come_before_any_day_is_asked_for(self, panel: MarketPanel) -> None:
        with pytest.raises(UserError, match="needs the field `amount`"):
            evaluation.evaluator("$amount / $close", panel)


class TestPlain:
    """What is called plain has the bits of Qlib's numbers, and nothing else is called so."""

    def test_its_values_are_qlibs_bit_for_bit(self, panel: MarketPanel) -> None:
        texts = [text for text in EXPRESSIONS if evaluation.Program([text]).plain]
        assert len(texts) > 15
        theirs = D.features(list(panel.instruments), texts, freq="day")
        days = panel.calendar.get_indexer(theirs.index.get_level_values("datetime"))
        stocks = pd.Index(panel.instruments).get_indexer(theirs.index.get_level_values("instrument"))
        for text in texts:
            found = evaluation.evaluate(text, panel)[days, stocks]
            np.testing.assert_array_equal(found, theirs[text].to_numpy(), err_msg=text, strict=True)

    @pytest.mark.parametrize(
        "expression", ["Mean($close, 5)", "Ref($close, 0)", "1 + Ref(Max($close, 2), 1)"]
    )
    def test_windows_are_not(self, expression: str) -> None:
        assert not evaluation.Program(["$close", expression]).plain


class TestReach:
    @pytest.mark.parametrize(
        ("expression", "days"),
        [
            ("$close", 0),
            ("Ref($close, 5)", 0),
            ("Ref($close, -1) / $close - 1", 1),
            ("Ref($close, -2) / Ref($close, -1) - 1", 2),
            ("Ref(Mean($close, 5), -5) / $close - 1", 5),
            ("Ref(Ref($close, -2), -3)", 5),
            ("If($close > Ref($close, -4), 1, 0)", 4),
            ("Corr(Ref($close, -1), $open, 5)", 1),
            ("Ref(Ref($close, -2), 1)", 2),  # the truth is 1: never too few
        ],
    )
    def test_by_hand(self, expression: str, days: int) -> None:
        assert evaluation.reach(expression) == days

    @pytest.mark.parametrize("expression", [text for text in EXPRESSIONS if "Ref($close, 0)" not in text])
    def test_the_value_depends_on_no_later_day(self, expression: str, panel: MarketPanel) -> None:
        day = 100
        values = panel.values.copy()
        values[:, day + evaluation.reach(expression) + 1 :] *= np.float32(1.5)
        moved = evaluation.evaluate(expression, dataclasses.replace(panel, values=values))
        before = evaluation.evaluate(expression, panel)
        np.testing.assert_array_equal(moved[: day + 1], before[: day + 1])


class TestErrors:
    @pytest.mark.parametrize(
        ("expression", "message"),
        [
            ("Reff($close, 1)", r"'Reff\(\$close, 1\)' is no Qlib expression: .*Reff"),
            ("$close +", "is no Qlib expression"),
            ("Mean($close)", "is no Qlib expression"),
            ("3", "'3' is no Qlib expression: it names no field"),
            (
                "$amount / $close",
                "'.amount / .close' needs the field `amount`; the panel has close, open, high",
            ),
            (
                "ChangeInstrument('SH000300', $close)",
                "of the stock itself alone; `ChangeInstrument` reads more",
            ),
            ("Mask($close, 'sh000300')", "`Mask` reads more"),
            ("$$roewa_q", "`PFeature` reads more"),
        ],
    )
    def test_the_expression_is_named(self, expression: str, message: str, panel: MarketPanel) -> None:
        with pytest.raises(UserError, match=message):
            evaluation.evaluate(expression, panel)

    def test_a_field_that_the_store_lacks_is_named(self, panel: MarketPanel) -> None:
        without = dataclasses.replace(panel, missing_fields=("vwap",))
        with pytest.raises(
            UserError, match="needs the field `vwap`; the panel has close, open, high, low, volume"
        ):
            evaluation.evaluate("$vwap", without)
