"""Every check returns what is right, and says what it expected and what it found where it is not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlib_ext import checks
from qlib_ext.checks import UserError, duration

NOT_NUMBERS: list[Any] = [True, False, None, "abc", "1e-3", math.nan, [1], object]
numbers = st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6)


def message(check: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(UserError) as error:
        check(*args, **kwargs)
    return str(error.value)


def test_a_user_error_is_a_value_error() -> None:
    # Qlib's builder swallows TypeError, so an error that a user must see is never one.
    assert issubclass(UserError, ValueError)
    assert not issubclass(UserError, TypeError)


class TestAtLeast:
    @given(value=numbers, minimum=numbers)
    def test_returns_the_value_or_refuses_it(self, value: float, minimum: float) -> None:
        if value >= minimum:
            assert checks.at_least("x", value, minimum) is value
        else:
            assert (
                message(checks.at_least, "x", value, minimum)
                == f"`x` must be at least {minimum:g}, found {value!r}"
            )

    def test_message(self) -> None:
        assert message(checks.at_least, "topk", 0, 1) == "`topk` must be at least 1, found 0"
        assert message(checks.at_least, "rate", -0.5, 0.25) == "`rate` must be at least 0.25, found -0.5"

    @pytest.mark.parametrize("value", NOT_NUMBERS)
    def test_refuses_what_is_no_number(self, value: Any) -> None:
        assert message(checks.at_least, "topk", value, -5) == f"`topk` must be at least -5, found {value!r}"

    @pytest.mark.parametrize("value", [np.int64(3), np.float32(3.0), 1e15])
    def test_takes_any_kind_of_number(self, value: Any) -> None:
        assert checks.at_least("x", value, 3) is value


class TestAbove:
    def test_returns_the_value(self) -> None:
        assert checks.above("beta", 1e-9, 0) == 1e-9

    @pytest.mark.parametrize("value", [0, -1.5, *NOT_NUMBERS])
    def test_message(self, value: Any) -> None:
        assert message(checks.above, "beta", value, 0) == f"`beta` must be above 0, found {value!r}"


class TestBetween:
    @pytest.mark.parametrize("value", [0, 0.5, 1, np.float64(1)])
    def test_the_ends_belong_to_the_interval(self, value: Any) -> None:
        assert checks.between("p", value, 0, 1) is value

    @pytest.mark.parametrize(
        ("options", "value", "interval"),
        [
            ({}, -0.1, "[0, 1]"),
            ({}, 1.1, "[0, 1]"),
            ({"open_low": True}, 0, "(0, 1]"),
            ({"open_high": True}, 1, "[0, 1)"),
            ({"open_low": True, "open_high": True}, 1, "(0, 1)"),
        ],
    )
    def test_message_shows_the_interval(self, options: dict[str, bool], value: float, interval: str) -> None:
        found = message(checks.between, "p", value, 0, 1, **options)
        assert found == f"`p` must lie in {interval}, found {value!r}"

    def test_an_open_end_leaves_the_other_in(self) -> None:
        assert checks.between("p", 1, 0, 1, open_low=True) == 1
        assert checks.between("p", 0, 0, 1, open_high=True) == 0

    @pytest.mark.parametrize("value", NOT_NUMBERS)
    def test_refuses_what_is_no_number(self, value: Any) -> None:
        assert message(checks.between, "p", value, -1, 2) == f"`p` must lie in [-1, 2], found {value!r}"


class TestInteger:
    def test_returns_the_value(self) -> None:
        assert checks.integer("n", 3) == 3
        assert checks.integer("n", 3, 3) == 3

    @pytest.mark.parametrize("value", [True, 1.0, "1", None, math.nan])
    def test_message(self, value: Any) -> None:
        assert message(checks.integer, "n", value) == f"`n` must be an integer, found {value!r}"

    def test_message_of_the_minimum(self) -> None:
        assert message(checks.integer, "n", 2, 3) == "`n` must be at least 3, found 2"

    def test_every_one_has_an_upper_bound(self) -> None:
        assert checks.integer("n", 100_000) == 100_000
        assert message(checks.integer, "n", 100_001, 1) == "`n` must be at most 100,000, found 100001"
        assert message(checks.integer, "n", 8, 1, 7) == "`n` must be at most 7, found 8"
        assert message(checks.integer, "n", 10**400).startswith("`n` must be at most 100,000, found 10000")
        for check in (checks.at_least, checks.above):
            assert check("x", 1e15, 0) == 1e15
            assert message(check, "x", 2e15, 0) == "`x` must be at most 1e+15, found 2000000000000000.0"
            assert message(check, "x", 10**400, 0).startswith("`x` must be at most 1e+15, found 1000")
            assert message(check, "x", 3.5, 0, 3.0) == "`x` must be at most 3, found 3.5"
        assert message(checks.at_least, "x", math.inf, 0) == "`x` must be at most 1e+15, found inf"


class TestShort:
    def test_a_name_has_an_end(self) -> None:
        assert checks.short("name", "a" * 100) == "a" * 100
        said = message(checks.short, "name", "a" * 1000, 99)
        assert said.startswith("`name` must have at most 99 letters, found 1,000: 'aaa")
        assert len(said) < 300


class TestOneOf:
    def test_returns_the_value(self) -> None:
        assert checks.one_of("device", "cpu", ["auto", "cpu", "cuda"]) == "cpu"

    def test_message_lists_the_choices_and_the_nearest(self) -> None:
        assert message(checks.one_of, "device", "cdua", ["cuda", "auto", "cpu"]) == (
            "`device` must be one of auto, cpu, cuda, found 'cdua' (did you mean cuda?)"
        )

    def test_message_without_a_near_choice(self) -> None:
        assert message(checks.one_of, "k", 7, [10, 20]) == "`k` must be one of 10, 20, found 7"


class TestInstance:
    def test_returns_the_value(self) -> None:
        value = [1]
        assert checks.instance("rows", value, list) is value

    def test_message(self) -> None:
        assert message(checks.instance, "rows", "ab", list) == "`rows` must be a list, found str: 'ab'"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")]
)
def test_a_duration_is_what_a_person_plans_by(seconds: float, said: str) -> None:
    assert duration(seconds) == said


class TestNearest:
    def test_names_the_nearest_first(self) -> None:
        assert checks.nearest("hiden", ["width", "hidden"]) == " (did you mean hidden?)"
        assert checks.nearest("lste", ["lstm", "list"]) == " (did you mean lstm or list?)"

    def test_says_nothing_when_nothing_is_near(self) -> None:
        assert checks.nearest("xyz", ["hidden"]) == ""
        assert checks.nearest("xyz", []) == ""

    def test_reads_an_iterator_once(self) -> None:
        assert checks.nearest("hiden", iter(["hidden"])) == " (did you mean hidden?)"


class TestBrief:
    def test_what_is_short_is_shown_as_it_is(self) -> None:
        for value in ("a", 3, None, [1, "b"], {"z": 1, "a": [2]}, (1,), {"b"}, 1.5):
            assert checks.brief(value) == repr(value)

    def test_aliases_of_aliases_stay_short(self) -> None:
        value: Any = "lol" * 1_000
        for _ in range(30):
            value = [value] * 10 if isinstance(value, dict) else dict.fromkeys(range(20), value)
        assert len(checks.brief(value)) < 5_000
        assert len(message(checks.integer, "x", value)) <= checks.MOST_LETTERS + 10
        assert len(message(checks.one_of, "x", value, ("a", "b"))) <= checks.MOST_LETTERS + 10

    def test_a_long_message_keeps_its_beginning_and_its_end(self) -> None:
        said = str(UserError("begin " + "x" * 10**6 + " end"))
        assert said.startswith("begin x")
        assert said.endswith("x end")
        assert len(said) <= checks.MOST_LETTERS + 10

    def test_no_near_word_is_looked_for_of_a_very_long_one(self) -> None:
        assert checks.nearest("topk" * 10**6, ["topk"]) == ""
