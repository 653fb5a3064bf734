from __future__ import annotations

import json
import math

import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.schedule import Phase, Plateau, check, identity, plan

TASKS = ("score", "direction", "volume")
DEFAULT = Phase(TASKS, epochs=100, patience=30, learning_rate=1e-3, selection="rank_ic")


def planned(*phases, **changes):
    default = Phase(**{**vars(DEFAULT), **changes})
    return plan(list(phases), TASKS, default)


class TestPlan:
    def test_without_phases_there_is_one_of_all_tasks(self):
        assert plan(None, TASKS, DEFAULT) == (DEFAULT,)
        assert planned({"tasks": "all"}) == (DEFAULT,)

    def test_a_phase_says_what_differs(self):
        found = planned(
            {"tasks": ["direction"], "epochs": 3, "selection": "loss"},
            {"tasks": ["volume", "score"], "patience": 2, "learning_rate": 0.1},
            {"tasks": "all"},
        )
        assert found == (
            Phase(("direction",), 3, 30, 1e-3, "loss"),
            Phase(("score", "volume"), 100, 2, 0.1, "rank_ic"),
            DEFAULT,
        )

    @pytest.mark.parametrize(
        ("phase", "message"),
        [
            ({}, r"`phases\[0\]` must be a mapping with `tasks`, found \{\}"),
            ("all", r"`phases\[0\]` must be a mapping with `tasks`, found 'all'"),
            ({"tasks": "score"}, r"`phases\[0\].tasks` must be a list of tasks or `all`, found 'score'"),
            ({"tasks": []}, r"`phases\[0\].tasks` must be a list of tasks or `all`, found \[\]"),
            (
                {"tasks": ["scores"]},
                r"`phases\[0\].tasks` must be one of direction, score, volume, found 'scores' .did you mean score",
            ),
            (
                {"tasks": ["score", "score"]},
                r"`phases\[0\].tasks` must name each task once, found score, score",
            ),
            ({"tasks": "all", "epoch": 3}, r"`key of phases\[0\]` must be one of .*, found 'epoch'"),
            ({"tasks": "all", "epochs": 0}, r"`phases\[0\].epochs` must be at least 1, found 0"),
            ({"tasks": "all", "patience": 1.5}, r"`phases\[0\].patience` must be an integer, found 1.5"),
            ({"tasks": "all", "learning_rate": 0}, r"`phases\[0\].learning_rate` must be above 0, found 0"),
            (
                {"tasks": "all", "selection": "ic"},
                r"`phases\[0\].selection` must be one of authors, loss, rank",
            ),
            (
                {"tasks": ["direction"]},
                r"`phases\[0\]` trains direction and not `score`, which the selection `rank_ic` measures: give it",
            ),
        ],
    )
    def test_messages(self, phase, message):
        with pytest.raises(UserError, match=message):
            planned(phase, {"tasks": "all"})

    def test_every_task_must_be_trained(self):
        with pytest.raises(UserError, match="`phases` must train every task, found none with volume"):
            planned({"tasks": ["score"]}, {"tasks": ["score", "direction"]})

    @pytest.mark.parametrize("wrong", [[], {}, "all", 3, {"tasks": "all"}])
    def test_no_list_of_phases(self, wrong):
        with pytest.raises(UserError, match="`phases` must be a list of at least 1 phase, found"):
            check(wrong)

    def test_what_needs_no_tasks_is_checked_without_them(self):
        check(None)
        check([{"tasks": ["whatever"]}])
        with pytest.raises(UserError, match=r"`phases\[1\].epochs` must be at least 1, found -1"):
            check([{"tasks": "all"}, {"tasks": "all", "epochs": -1}])


class TestIdentity:
    def test_forgets_only_how_long_the_last_phase_may_go_on(self):
        first = {"tasks": ["direction"], "epochs": 3, "selection": "loss"}
        expected = identity(planned(first, {"tasks": "all"}))
        assert identity(planned(first, {"tasks": "all", "epochs": 7})) == expected
        assert identity(planned(first, {"tasks": "all"}, epochs=9)) == expected
        assert identity(planned({**first, "epochs": 4}, {"tasks": "all"})) != expected
        assert identity(planned(first, {"tasks": "all", "patience": 3})) != expected
        json.dumps(expected)

    def test_a_first_phase_that_takes_the_number_of_epochs_depends_on_it(self):
        phases = {"tasks": ["direction"], "selection": "loss"}, {"tasks": "all"}
        assert identity(planned(*phases, epochs=9)) != identity(planned(*phases, epochs=10))


def rates(scores, **kwargs):
    """The learning rate after each score, from 1."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = Plateau(**kwargs).scheduler(optimizer)
    found = []
    for score in scores:
        scheduler.step(score)
        found.append(optimizer.param_groups[0]["lr"])
    return found


class TestPlateau:
    @pytest.mark.parametrize("offset", [0.0, -5.0, 5.0])
    def test_falls_after_more_epochs_without_a_better_score_than_patience(self, offset):
        scores = [offset + x for x in (0.1, 0.3, 0.2, 0.3, 0.25, 0.31, 0.3, 0.3)]
        # better at 0, 1 and 5; epochs 2, 3 are let pass, 4 lowers
        assert rates(scores, factor=0.5, patience=2) == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]

    def test_without_patience_each_epoch_that_is_no_better_lowers_it(self):
        assert rates([0.0, 0.0, -1.0, 0.1, 0.1], factor=0.1, patience=0) == pytest.approx(
            [1, 0.1, 0.01, 0.01, 0.001]
        )

    def test_to_the_lowest(self):
        found = rates([0.0] * 6, factor=0.1, patience=0, min_learning_rate=0.003)
        assert found == pytest.approx([1, 0.1, 0.01, 0.003, 0.003, 0.003])

    def test_an_epoch_without_a_score_is_no_better(self):
        assert rates([0.1, math.nan, math.nan], factor=0.5, patience=1) == [1, 1, 0.5]

    def test_its_state_is_json(self):
        optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = Plateau().scheduler(optimizer)
        for _ in range(3):
            state = scheduler.state_dict()
            assert json.loads(json.dumps(state)) == state
            scheduler.step(0.5)

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (0.5, "`plateau` must be a mapping, found 0.5"),
            ({"gamma": 0.5}, "`key of plateau` must be one of factor, min_learning_rate, patience"),
            ({"factor": 1.0}, r"`plateau.factor` must lie in \(0, 1\), found 1.0"),
            ({"patience": -1}, "`plateau.patience` must be at least 0, found -1"),
            ({"min_learning_rate": -1}, "`plateau.min_learning_rate` must be at least 0, found -1"),
        ],
    )
    def test_messages(self, config, message):
        with pytest.raises(UserError, match=message):
            Plateau.of(config)

    def test_of_a_workflow(self):
        assert Plateau.of(None) is None
        assert Plateau.of({}) == Plateau()
        assert Plateau.of({"factor": 0.1}) == Plateau(factor=0.1)
