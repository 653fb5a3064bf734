"""What may be searched: names of values in a workflow, and which values each may take."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from qlib_ext.checks import LARGEST, UserError, brief, nearest, short

KINDS = ("int", "float", "choice")
OPTIONS = {"int": ("step", "log", "when"), "float": ("step", "log", "when"), "choice": ("when",)}
MOST_VALUES = 1_000  # of a grid, and of a choice
LONGEST_NAME = 500  # of a path
SCALARS = (bool, int, float, str, type(None))

Values = Mapping[str, Any]


class Asked(Protocol):
    """What a parameter asks for a value: a trial of Optuna's."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of the choices."""


@dataclass(frozen=True)
class Parameter:
    """A value of a workflow that is searched.

    A trial holds a number as it is, and a choice by its word: the choice itself where it is a text, a number or a truth, and
    otherwise what it is shown as.

    Attributes
    ----------
    name
        A variable of the workflow's template, such as `HIDDEN_SIZE`, or a path such as `task.model.kwargs.seed`, with the
        numbers of lists from 0.
    kind
        One of `KINDS`.
    low, high, step, log
        Of a number: both ends may be taken; whether sizes rather than differences count.
    choices
        Word -> value.
    when
        Other parameter -> the word or number at which this one is searched; elsewhere it stays as the workflow has it.
    """

    name: str
    kind: str
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    choices: Mapping[Any, Any] = field(default_factory=dict)
    when: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, given: Any) -> Parameter:
        """From the mapping in a file, such as `{int: [16, 128], log: true}` or `{choice: [a, b]}`."""
        where = f"space.{name}"
        kinds = [kind for kind in KINDS if isinstance(given, Mapping) and kind in given]
        if len(kinds) != 1:
            raise UserError(
                f"`{where}` must be one of {{int: [low, high]}}, {{float: [low, high]}} and {{choice: [a, b]}}, found "
                f"{brief(given)}"
            )
        kind = kinds[0]
        for key in given:
            if key != kind and key not in OPTIONS[kind]:
                raise UserError(
                    f"`{where}` has no place for `{key}`{nearest(str(key), OPTIONS[kind])}; beside {kind} it takes "
                    f"{', '.join(OPTIONS[kind])}"
                )
        when = given.get("when", {})
        if not isinstance(when, Mapping):
            raise UserError(f"`{where}.when` must be a mapping from another parameter, found {brief(when)}")
        if kind == "choice":
            return cls(name, kind, choices=_choices(where, given[kind]), when=when)
        return cls(name, kind, **_range(where, kind, given), when=when)

    def suggest(self, trial: Asked) -> Any:
        """The word or number of a trial."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.name, list(self.choices))
        if self.kind == "int":
            return trial.suggest_int(
                self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log
            )
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def value(self, word: Any) -> Any:
        """What is written into the workflow."""
        return self.choices[word] if self.kind == "choice" else word

    def word(self, value: Any) -> Any:
        """The word or number of a value; a ValueError where it is none that the parameter may take."""
        if self.kind == "choice":
            for word, choice in self.choices.items():
                if type(choice) is type(value) and choice == value:
                    return word
        elif (
            isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high
        ):
            steps = (value - self.low) / self.step if self.step else 0.0
            if math.isclose(steps, round(steps), abs_tol=1e-9) and (
                self.kind == "float" or value == int(value)
            ):
                return value
        raise ValueError(f"{value} is none of {self}")

    def ends(self) -> list[Any]:
        """Words and numbers that show what can be wrong with the rest: both ends, or all choices."""
        if self.kind == "choice":
            return list(self.choices)
        return [int(self.low), int(self.high)] if self.kind == "int" else [self.low, self.high]

    def grid(self) -> list[Any]:
        """All words and numbers.

        Raises
        ------
        UserError
            If a number has no step.
        """
        if self.kind == "choice":
            return list(self.choices)
        if (self.kind == "float" and self.step is None) or self.log:
            raise UserError(
                f"`space.{self.name}` must say which values a grid takes, found {self}: give a `step` and no `log`, or "
                "{choice: [...]}"
            )
        step = self.step or 1
        number = int((self.high - self.low) / step + 1e-9) + 1
        values = [self.low + k * step for k in range(number)]
        return (
            [int(value) for value in values] if self.kind == "int" else [float(f"{v:.12g}") for v in values]
        )

    def __str__(self) -> str:
        if self.kind == "choice":
            return " | ".join(map(str, self.choices))
        step = f", step {self.step:g}" if self.step else ""
        return f"{self.kind} {self.low:g} to {self.high:g}{step}{', log' if self.log else ''}"


class Space(tuple[Parameter, ...]):
    """The parameters of a search, in their order."""

    @classmethod
    def of(cls, given: Any) -> Space:
        """From the mapping in a file.

        Raises
        ------
        UserError
            If there is none, one is none of the three kinds or has an empty range, or a condition names no choice of a
            parameter before it.
        """
        if not isinstance(given, Mapping) or not given:
            raise UserError(
                f"`space` must be a mapping such as HIDDEN_SIZE: {{int: [16, 128], log: true}}, found {brief(given)}"
            )
        found: dict[str, Parameter] = {}
        for name, one in given.items():
            if not isinstance(name, str) or not name:
                raise UserError(f"`space` must have names as keys, found {brief(name)}")
            found[name] = Parameter.of(short("space", name, LONGEST_NAME), one)
            for other, word in found[name].when.items():
                if other == name or other not in found:
                    raise UserError(
                        f"`space.{name}.when` must name a parameter before it, found {brief(other)}"
                        f"{nearest(str(other), found)}"
                    )
                try:
                    found[other].word(word) if found[other].kind != "choice" else found[other].choices[word]
                except (ValueError, KeyError, TypeError) as error:
                    raise UserError(
                        f"`space.{name}.when.{other}` must be a value of it, found {brief(word)}: {found[other]}"
                    ) from error
        return cls(found.values())

    def suggest(self, trial: Asked) -> dict[str, Any]:
        """Words and numbers of a trial, of the parameters that its others leave open."""
        words: dict[str, Any] = {}
        for parameter in self:
            if _holds(parameter, words):
                words[parameter.name] = parameter.suggest(trial)
        return words

    def values(self, words: Values) -> dict[str, Any]:
        """What of a trial is written into the workflow, by name."""
        return {each.name: each.value(words[each.name]) for each in self if each.name in words}

    def grid(self) -> list[dict[str, Any]]:
        """All combinations, the last parameter first to change.

        Raises
        ------
        UserError
            If a number has no step, or there are too many.
        """
        found = list(itertools.islice(self._combinations({}, 0), MOST_VALUES + 1))
        if len(found) > MOST_VALUES:
            raise UserError(
                f"a grid must have at most {MOST_VALUES:,} combinations, found more: name fewer values, or take `sampler: tpe`"
            )
        return found

    def _combinations(self, words: Values, place: int) -> Iterator[dict[str, Any]]:
        if place == len(self):
            yield dict(words)
        elif not _holds(self[place], words):
            yield from self._combinations(words, place + 1)
        else:
            for word in self[place].grid():
                yield from self._combinations({**words, self[place].name: word}, place + 1)


def _holds(parameter: Parameter, words: Values) -> bool:
    return all(other in words and words[other] == word for other, word in parameter.when.items())


def _range(where: str, kind: str, given: Values) -> dict[str, Any]:
    bounds, step, log = given[kind], given.get("step"), given.get("log", False)
    if not isinstance(bounds, (list, tuple)) or len(bounds) != 2:
        raise UserError(f"`{where}.{kind}` must be [low, high], found {brief(bounds)}")
    for name, value in (("low", bounds[0]), ("high", bounds[1]), ("step", step)):
        if name == "step" and value is None:
            continue
        wanted = int if kind == "int" else (int, float)
        if isinstance(value, bool) or not isinstance(value, wanted) or not abs(value) <= LARGEST:
            number = "a whole number" if kind == "int" else "a number"
            raise UserError(f"`{where}`: {name} must be {number}, found {brief(value)}")
    low, high = bounds
    if low >= high:
        raise UserError(
            f"`{where}.{kind}` must be [low, high] with low below high, found {brief(bounds)}: an empty range"
        )
    if not isinstance(log, bool):
        raise UserError(f"`{where}.log` must be true or false, found {brief(log)}")
    if step is not None and (log or not 0 < step <= high - low):
        raise UserError(
            f"`{where}.step` must be above 0, at most {high - low:g}, and without `log`, found {brief(step)}"
            f"{' with log' if log else ''}"
        )
    if log and low <= 0:
        raise UserError(f"`{where}` must lie above 0 where `log` is true, found {brief(bounds)}")
    return {"low": low, "high": high, "step": step, "log": log}


def _choices(where: str, given: Any) -> dict[Any, Any]:
    if not isinstance(given, (list, tuple)) or not 2 <= len(given) <= MOST_VALUES:
        raise UserError(f"`{where}.choice` must be a list of 2 values or more, found {brief(given)}")
    found: dict[Any, Any] = {}
    for value in given:
        word = value if isinstance(value, SCALARS) else _shown(value)
        if any(type(word) is type(known) and word == known for known in found) or word in found:
            raise UserError(f"`{where}.choice` must hold each value once, found {brief(value)} twice")
        found[word] = value
    return found


def _shown(value: Any) -> str:
    """A mapping or list as a person tells it from others: its class without modules, and what it holds."""
    if isinstance(value, Mapping):
        kwargs = value.get("kwargs") or {}
        if "class" in value and isinstance(kwargs, Mapping):
            inside = ", ".join(f"{key}={_shown(part)}" for key, part in kwargs.items())
            return f"{str(value['class']).rpartition('.')[2]}({inside})"
        return "{" + ", ".join(f"{key}: {_shown(part)}" for key, part in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return str(value)
