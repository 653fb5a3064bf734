from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.features.engine.graph import Graph, walk
from qlib_ext.features.engine.parsing import parse


class TestGraph:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("$close", "$close"),
            ("$Close", "$close"),
            (" 1 + $close*2 ", "Add(1, Mul($close, 2))"),
            ("Mean($close, N=5) * -1.5", "Mul(Mean($close, 5), -1.5)"),
            ("(1/2)*$close", "Mul(0.5, $close)"),
            ("($open > 1) & ($close <= $open)", "And(Gt($open, 1), Le($close, $open))"),
            ("$close ** 2", "Power($close, 2)"),
            ("CSNeutralize($close, industry)", "CSNeutralize($close, industry)"),
            ("Quantile($close, 5, 0.8)", "Quantile($close, 5, 0.8)"),
            ("If($close > $open,\n $close, 0)", "If(Gt($close, $open), $close, 0)"),
        ],
    )
    def test_what_a_text_says(self, text: str, shown: str) -> None:
        assert str(parse(text)) == shown

    def test_what_is_written_twice_is_one_node(self) -> None:
        graph = Graph()
        one, other = parse("Mean($close, 5) / Mean($close, 5)", graph), parse("Mean($close, 5) + 1", graph)
        assert one.args[0] is one.args[1] is other.args[0]
        assert len(list(walk([one, other]))) == 4
        assert parse("$close * 2", graph) is not parse("$close * 2.0", graph)


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("$close + Meen($open, 5)", r"`Meen` at character 10 is no operator \(did you mean Mean"),
            ("$close + open", r"`open` at character 10 is no field: a field is written `\$open`"),
            (
                "Mean($close)",
                r"`Mean\(\$close\)` at character 1 must be Mean\(feature, N\), found 1 argument",
            ),
            ("Mean($close, M=3)", r"must be Mean\(feature, N\)"),
            (
                "Mean($close, 2.5)",
                r"must look at a whole number of days, at least 1, or 0 for all so far; found 2.5",
            ),
            ("Skew($close, 2)", "at least 3"),
            ("Mean($close, $open)", "must be a number, which `Mean` takes as `N`"),
            ("Mean(3, 5)", "`3` at character 6 must be an expression over a field"),
            ("Ref($close, 1.5)", "must shift by whole days"),
            ("Quantile($close, 5, 2)", "must take a share from 0 to 1"),
            ("Corr($close, $open, 0)", "must look at a whole number of days"),
            ("EMA($close, -1)", "must take a span of days"),
            ("Not($close)", r"takes conditions such as `\$close > \$open`, found `\$close`"),
            ("($open > 1) - ($close > 1)", "subtracts two conditions"),
            ("-$close", "has a sign before an expression"),
            ("1 < $close < 2", "must compare two things"),
            ("1/0*$close", "is no number: .*division by zero"),
            ("9 ** 9 ** 9 * $close", "is arithmetic of numbers alone"),
            ("Greater(1, 2)", "names no field"),
            ("CSNeutralize($close, 5)", "must be the name that `CSNeutralize` takes as `groups`"),
            ("CSNeutralize($close, $industry)", r"`\$industry` at character 22 must be the name"),
            ("Abs(" * 101 + "$close" + ")" * 101, "is more than 100 operators deep"),
            ("$close[0]", "is no field such as"),
            ("$close.real", "is no field such as"),
            ("__import__('os')", "is no operator"),
            ("(" * 5000, "is no Qlib expression"),
            ("$close +", "is no Qlib expression: invalid syntax"),
            ("", "must be a text"),
            (3, "must be a text"),
            ("$close + " * 2000 + "1", "at most 10000 characters"),
        ],
    )
    def test_say_what_where_and_the_way_out(self, text: object, message: str) -> None:
        with pytest.raises(UserError, match=message):
            parse(text)

    @given(st.text(max_size=60) | st.text("$clo()+-*/><&|. 1,", max_size=30))
    def test_any_text_is_an_expression_or_refused_in_one_way(self, text: str) -> None:
        with contextlib.suppress(UserError):
            parse(text)
