"""What a space file may say, and what is told of one that says something else."""

from __future__ import annotations

from typing import Any

import pytest

from qlib_ext.checks import UserError
from qlib_ext.workflow.search.plan import Plan
from qlib_ext.workflow.search.space import Space

CHOICE = {"class": "qlib_ext.model.backbones.lstm.LSTM", "kwargs": {"hidden_size": 4}}
A: dict[str, Any] = {"a": {"int": [1, 3]}}


class Fixed:
    """A trial that answers as it is told."""

    def __init__(self, **words: Any) -> None:
        self.words = words

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self.words[name])

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self.words[name])

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        assert self.words[name] in choices
        return self.words[name]


class TestSpace:
    def test_a_choice_that_is_no_word_has_one(self) -> None:
        space = Space.of({"x": {"choice": [CHOICE, None, 3]}})
        assert [*space[0].choices] == ["LSTM(hidden_size=4)", None, 3]
        assert space.values({"x": "LSTM(hidden_size=4)"}) == {"x": CHOICE}
        assert space[0].word(CHOICE) == "LSTM(hidden_size=4)"

    def test_a_condition_leaves_a_parameter_out(self) -> None:
        space = Space.of({"kind": {"choice": ["a", "b"]}, "x": {"int": [1, 3], "when": {"kind": "b"}}})
        assert space.suggest(Fixed(kind="a", x=2)) == {"kind": "a"}
        assert space.suggest(Fixed(kind="b", x=2)) == {"kind": "b", "x": 2}
        assert space.grid() == [{"kind": "a"}, *({"kind": "b", "x": x} for x in (1, 2, 3))]

    def test_a_grid_takes_both_ends_and_the_numbers_as_they_are_written(self) -> None:
        space = Space.of({"x": {"float": [0.1, 0.3], "step": 0.1}, "n": {"int": [2, 7], "step": 3}})
        assert space[0].grid() == [0.1, 0.2, 0.3]
        assert space[1].grid() == [2, 5]
        assert len(space.grid()) == 6

    @pytest.mark.parametrize(
        ("value", "word"), [(0.2, 0.2), (0.25, None), (0.4, None), ("a", None), (True, None)]
    )
    def test_what_the_workflow_has_is_a_word_of_the_parameter_or_none(self, value: Any, word: Any) -> None:
        (parameter,) = Space.of({"x": {"float": [0.1, 0.3], "step": 0.1}})
        if word is not None:
            assert parameter.word(value) == word
            return
        with pytest.raises(ValueError, match="is none of float"):
            parameter.word(value)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({}, "must be a mapping such as HIDDEN_SIZE"),
            ({"x": {"ints": [1, 2]}}, "must be one of {int"),
            ({"x": {"int": [1, 2], "float": [1, 2]}}, "must be one of {int"),
            ({"x": {"int": [1, 2], "lgo": True}}, "has no place for `lgo` \\(did you mean log\\?\\)"),
            ({"x": {"int": [2, 2]}}, "an empty range"),
            ({"x": {"int": [1, 2.5]}}, "high must be a whole number, found 2.5"),
            ({"x": {"float": ["a", 2]}}, "low must be a number"),
            ({"x": {"float": [1, 2, 3]}}, "must be \\[low, high\\]"),
            ({"x": {"float": [0, 1], "log": True}}, "must lie above 0 where `log`"),
            ({"x": {"float": [1, 2], "log": 1}}, "must be true or false"),
            ({"x": {"float": [1, 2], "step": 3}}, "must be above 0, at most 1"),
            ({"x": {"choice": [1]}}, "must be a list of 2 values or more"),
            ({"x": {"choice": [1, 1]}}, "must hold each value once"),
            ({**A, "x": {"int": [1, 2], "when": {"b": 1}}}, "must name a parameter before it, found 'b'"),
            ({**A, "x": {"int": [1, 2], "when": {"a": 9}}}, "must be a value of it, found 9: int 1 to 3"),
        ],
    )
    def test_what_cannot_be_is_told(self, given: Any, message: str) -> None:
        with pytest.raises(UserError, match=message):
            Space.of(given)

    def test_a_grid_has_an_end(self) -> None:
        with pytest.raises(UserError, match="at most 1,000 combinations"):
            Space.of({"x": {"int": [1, 40]}, "y": {"int": [1, 40]}}).grid()
        with pytest.raises(UserError, match="give a `step` and no `log`"):
            Space.of({"x": {"float": [1, 2]}}).grid()


class TestPlan:
    def test_by_default_the_best_third_have_three_seeds(self) -> None:
        plan = Plan.of({"space": A})
        assert [str(rung) for rung in plan.rungs] == ["1 seed", "3 seeds"]
        assert plan.factor == 3

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({}, "must be a mapping with `space`"),
            ({"space": A, "objectiv": "ic"}, "has no place for `objectiv` \\(did you mean objective\\?\\)"),
            ({"space": A, "objective": "rankic"}, "must be one of .* \\(did you mean rank_ic"),
            ({"space": A, "sampler": "cmaes"}, "must be one of grid, random, tpe"),
            ({"space": A, "rungs": []}, "must be a list such as"),
            ({"space": A, "rungs": [{"seeds": 0}]}, "must be at least 1"),
            ({"space": A, "rungs": [{"seeds": 3}, {"seeds": 2}]}, "must ask for more than the rung before"),
            (
                {"space": A, "rungs": [{"N_EPOCHS": 1}, {"N_EPOCHS": 1}]},
                "must ask for more than the rung before",
            ),
            ({"space": A, "rungs": [{"a": 1}]}, "must not hold `a`, which `rungs`"),
            ({"space": A, "seed_name": "a"}, "must not hold `a`"),
            ({"space": A, "factor": 1}, "must be at least 2"),
        ],
    )
    def test_what_cannot_be_is_told(self, given: Any, message: str) -> None:
        with pytest.raises(UserError, match=message):
            Plan.of(given)
