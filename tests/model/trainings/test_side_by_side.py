"""Trainings side by side: one that fails lets others end, and each is told of as it ends. No process is begun here."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from qlib_ext.checks import UserError
from qlib_ext.model.trainings import side_by_side
from qlib_ext.model.trainings.processes import Processes
from qlib_ext.model.trainings.side_by_side import Outcome, Places, train_all
from qlib_ext.model.trainings.training import Training

TRAININGS = [Training(f"fold {k}", {}, "walk", f"walk fold {k}", {}) for k in (1, 2, 3)]


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "qlib_settings", lambda uri: {"uri": uri})


@pytest.fixture
def told() -> list[Outcome]:
    return []


def test_each_is_told_with_its_run(monkeypatch: pytest.MonkeyPatch, told: list[Outcome]) -> None:
    monkeypatch.setattr(Processes, "train", lambda self, each, settings: f"{settings['uri']}{each.called}")
    train_all(TRAININGS, Places(2), "sqlite:///", told.append)
    assert {each.training.called: each.run_id for each in told} == {
        each.called: f"sqlite:///{each.called}" for each in TRAININGS
    }


class TestFailure:
    @pytest.fixture
    def done(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Of three the first fails while the second is under way."""
        begun, failed = threading.Event(), threading.Event()
        done: list[str] = []

        def trained(self: Processes, training: Training, settings: Any) -> str:
            if training.called == "fold 1":
                begun.wait(10)
                failed.set()
                raise UserError("`learning_rate` is too high")
            begun.set()
            failed.wait(10)
            time.sleep(0.1)  # the failure of the first is known before this one ends
            done.append(training.called)
            return "run"

        monkeypatch.setattr(Processes, "train", trained)
        return done

    def test_those_under_way_end_and_none_begins(self, done: list[str], told: list[Outcome]) -> None:
        with pytest.raises(UserError, match="too high"):
            train_all(TRAININGS, Places(2), "sqlite:///", told.append)
        assert done == [each.training.called for each in told] == ["fold 2"]

    def test_or_all_are_trained_and_it_is_told(self, done: list[str], told: list[Outcome]) -> None:
        train_all(TRAININGS, Places(2), "sqlite:///", told.append, go_on=True)
        assert sorted(done) == ["fold 2", "fold 3"]
        assert [(each.training.called, str(each.error)) for each in told if each.error] == [
            ("fold 1", "`learning_rate` is too high")
        ]


def test_a_second_error_is_logged(
    monkeypatch: pytest.MonkeyPatch, told: list[Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    both = threading.Barrier(2)

    def trained(self: Processes, training: Training, settings: Any) -> str:
        both.wait(10)
        raise UserError(f"{training.called} is wrong")

    monkeypatch.setattr(Processes, "train", trained)
    with pytest.raises(UserError) as first:
        train_all(TRAININGS, Places(2), "sqlite:///", told.append)
    (other,) = {"fold 1", "fold 2"} - {str(first.value)[:6]}
    assert caplog.messages == [f"{other} failed too: {other} is wrong"]


def test_an_interruption_stops_all(monkeypatch: pytest.MonkeyPatch, told: list[Outcome]) -> None:
    stopped = threading.Event()

    def trained(self: Processes, training: Training, settings: Any) -> str:
        if training.called == "fold 2":
            stopped.wait(10)
        return "run"

    def interrupted(outcome: Outcome) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Processes, "train", trained)
    monkeypatch.setattr(Processes, "stop", lambda self: stopped.set())
    with pytest.raises(KeyboardInterrupt):
        train_all(TRAININGS, Places(2), "sqlite:///", interrupted)
    assert stopped.is_set()


def test_what_comes_next_may_follow_from_what_was_heard(
    monkeypatch: pytest.MonkeyPatch, told: list[Outcome]
) -> None:
    def until_enough() -> Iterator[Training]:
        while len(told) < 2:
            yield TRAININGS[len(told)]

    monkeypatch.setattr(Processes, "train", lambda self, each, settings: "run")
    train_all(until_enough(), Places(1), "sqlite:///", told.append)
    assert [each.training.called for each in told] == ["fold 1", "fold 2"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"workers": 0}, "`workers` must be at least 1, found 0"),
        ({"ray": 7}, "`ray` must be `local` or the address of a cluster, such as 10.0.0.1:6379, found 7"),
        ({"ray": {"adress": "auto"}}, "`ray` has no place for `adress` .did you mean address"),
        ({"ray": {"cpus": 0}}, "`ray.cpus` must be at least 1, found 0"),
    ],
)
def test_a_place_that_is_none(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Places(**given)
