"""A search from its first trial to its last, and again from where it was stopped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.store import QlibStore
from qlib_ext.model.trainings.processes import Processes
from qlib_ext.records.validation import DIGEST
from qlib_ext.tracking.ledger import entries, ledger_path
from qlib_ext.tracking.runs import PARENT
from qlib_ext.workflow.search.result import Found
from qlib_ext.workflow.search.search import RUNG, SEED, TRIAL
from tests.workflow.search.conftest import LEAVES, Run, Searches, Trained, scrambled


class TestSearch:
    def test_the_best_half_climb_and_the_best_is_the_mean_of_its_seeds(
        self, searches: Searches, parent: Run, trained: Trained, store: QlibStore
    ) -> None:
        search = searches()
        heard: list[int] = []
        search.run(parent, trials=4, hours=None, on_trial=lambda tried: heard.append(tried.number))
        tried = search.study.tried()
        assert sorted(heard) == [0, 1, 2, 3]
        assert {trial.state for trial in tried} <= {"complete", "stopped"}
        assert tried[0].own, "the workflow as it stands comes first"
        assert (tried[0].words["LEARNING_RATE"], tried[0].words[LEAVES]) == (0.1, 7)
        best = search.best()
        assert best is not None
        assert best.value == max(trial.value for trial in tried if trial.state == "complete")
        assert [*best.by_seed] == [0, 1]
        assert best.value == pytest.approx(sum(best.by_seed.values()) / 2)
        assert best.values[0] == best.by_seed[0], "the first seed was not trained again"
        stopped = [trial for trial in tried if trial.state == "stopped"]
        assert search.study.seconds > 0
        assert len(trained) == 4 + len(tried) - len(stopped)
        assert all(trial.values[0] < max(other.values[0] for other in tried) for trial in stopped)

        assert {training.tags[PARENT] for training in trained} == {parent.id}
        run = parent.client.search_runs([parent.client.get_experiment_by_name("little search").experiment_id])
        below = [each.data for each in run if each.info.run_id != parent.id]
        assert {(data.tags[TRIAL], data.tags[RUNG], data.tags[SEED]) for data in below} >= {("0", "0", "0")}
        of_first = next(data for data in below if (data.tags[TRIAL], data.tags[RUNG]) == ("0", "0"))
        assert of_first.metrics["validation/rank_ic"] == tried[0].values[0]
        assert parent.client.get_run(parent.id).data.metrics["search/best"] == best.value

        lines = entries(ledger_path(store.root))
        assert len(lines) == 4, "each configuration is a look at the days of validation"
        assert {(line.trial.first, line.trial.last) for line in lines} == {("2014-07-01", "2014-08-27")}

    def test_no_price_of_a_test_day_reaches_a_figure(
        self,
        searches: Searches,
        parent: Run,
        trained: Trained,
        store: QlibStore,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        searches().run(parent, trials=2, hours=None)
        expected = searches().study.tried()
        shutil.copytree(store.root, tmp_path / "other")
        scrambled(store, tmp_path / "other", "2014-09-01")
        monkeypatch.setenv("QLIB_DATA", str(tmp_path / "other"))
        again = searches(folder="again")
        assert again.fingerprint != store.fingerprint()
        again.run(parent, trials=2, hours=None)
        found = again.study.tried()
        assert [trial.values for trial in found] == [trial.values for trial in expected]
        assert [trial.words for trial in found] == [trial.words for trial in expected]

        # and such a day would be noticed: a label of the last two days of validation holds one
        task = trained[-1].task
        longer = {**task["dataset"]["kwargs"]["segments"], "valid": ["2014-07-01", "2014-08-29"]}
        figures = []
        for root in (store.root, tmp_path / "other"):
            monkeypatch.setenv("QLIB_DATA", str(root))
            made = searches({"rungs": [{}]}, folder=f"longer-{root.name}")
            monkeypatch.setattr(
                made.tasks, "_datasets", lambda config: {0: _with(config["task"]["dataset"], longer)}
            )
            made.run(parent, trials=1, hours=None)
            figures.append(made.study.tried()[0].value)
        assert figures[0] != figures[1]

    def test_it_goes_on_where_it_was_stopped(
        self, searches: Searches, parent: Run, trained: Trained, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = searches(folder="whole")
        whole.run(parent, trials=2, hours=None)
        expected = [(x.state, dict(x.values), x.words) for x in whole.study.tried()]
        once = len(trained)
        trained.clear()

        train = Processes.train

        def stopped(self: Processes, training: Any, settings: Any) -> str:
            if len(trained) == 1:
                raise KeyboardInterrupt
            return train(self, training, settings)

        monkeypatch.setattr(Processes, "train", stopped)
        with pytest.raises(KeyboardInterrupt):
            searches().run(parent, trials=2, hours=None)
        monkeypatch.setattr(Processes, "train", train)
        assert [trial.state for trial in searches().study.tried()] == ["open"]
        again = searches()
        again.run(parent, trials=2, hours=None)
        first = again.study.tried()[0]
        assert (first.state, dict(first.values)) == expected[0][:2]
        assert len(trained) <= once, "what was done is not done again"
        again.run(parent, trials=2, hours=None)
        assert len(again.study.tried()) == 2, "the number counts trials of all calls"

    def test_a_line_of_the_ledger_that_is_missing_is_entered_by_the_next_call(
        self,
        searches: Searches,
        parent: Run,
        trained: Trained,
        store: QlibStore,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def full(*args: Any) -> None:
            raise OSError("no space left")

        search = searches({"rungs": [{}]})
        with monkeypatch.context() as changed:
            changed.setattr("qlib_ext.tracking.ledger.enter", full)
            search.run(parent, trials=1, hours=None)
        assert "no space left" in search.problems[0]
        trial = search.study.ask()  # as if killed after a training, and the hours over
        assert trial is not None
        search.study.note(trial, "k", {**next(search.study.known())[1], DIGEST: "other"})
        search.run(parent, trials=None, hours=0)
        assert search.problems == []
        assert [line.trial.name for line in entries(ledger_path(store.root))] == [
            "search found trial 0",
            "search found trial 1",
        ]
        search.run(parent, trials=None, hours=0)
        assert len(entries(ledger_path(store.root))) == 2

    def test_a_folder_holds_one_search(self, searches: Searches, parent: Run) -> None:
        searches()
        with pytest.raises(UserError, match=r"holds another search.*another `--out`"):
            searches({"topk": 6})

    def test_without_time_left_nothing_begins(
        self, searches: Searches, parent: Run, trained: Trained
    ) -> None:
        search = searches()
        search.study.add_seconds(3600)
        search.run(parent, trials=None, hours=1)
        assert trained == []

    def test_a_training_that_fails_ends_its_trial_and_three_end_the_search(
        self, searches: Searches, parent: Run, trained: Trained, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train = Processes.train

        def fails(self: Processes, training: Any, settings: Any) -> str:
            if "trial 1 " in training.called or broken:
                raise UserError("no room on the device")
            return train(self, training, settings)

        broken = False
        monkeypatch.setattr(Processes, "train", fails)
        search = searches({"rungs": [{}]})
        search.run(parent, trials=3, hours=None)
        found = search.study.tried()
        assert [trial.state for trial in found] == ["complete", "failed", "complete"]
        assert found[1].error == "UserError: no room on the device"
        broken = True
        with pytest.raises(UserError, match="no room on the device"):
            searches({"rungs": [{}]}, folder="broken").run(parent, trials=9, hours=None)

    def test_a_grid_ends_by_itself_and_so_does_a_space_of_which_all_is_tried(
        self, searches: Searches, parent: Run, trained: Trained
    ) -> None:
        space = {LEAVES: {"choice": [7, 15]}, "task.model.kwargs.max_depth": {"choice": [-1, 3]}}
        search = searches({"space": space, "sampler": "grid", "rungs": [{}]}, workers=2)
        search.run(parent, trials=None, hours=None)
        tried = search.study.tried()
        combinations = {(trial.words[LEAVES], trial.words["task.model.kwargs.max_depth"]) for trial in tried}
        assert combinations == {(7, -1), (7, 3), (15, -1), (15, 3)}
        assert {trial.state for trial in tried} == {"complete"}
        trained.clear()
        other = searches({"space": {LEAVES: {"choice": [7, 15]}}, "rungs": [{}]}, folder="other")
        other.run(parent, trials=6, hours=0.01)
        assert len(other.study.tried()) == len(trained) == 2
        assert "Every configuration of the space has been tried." in Found.of(other).notes

    def test_folds_are_judged_together_and_their_overlap_is_told(
        self,
        searches: Searches,
        parent: Run,
        trained: Trained,
        store: QlibStore,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        plan = "{walk_forward: {train: 3m, valid: 2m, test: 1m, start: 2014-08-01, end: 2014-09-30}}"
        monkeypatch.setenv("SEGMENTS", plan)
        search = searches({"rungs": [{}]})
        search.run(parent, trials=1, hours=None)
        assert [training.tags["search_fold"] for training in trained] == ["1", "2"]
        for training in trained:
            assert "test" not in training.task["dataset"]["kwargs"]["segments"]
        values = [result["rank_ic"] for _, result in search.study.known()]
        assert search.study.tried()[0].value == pytest.approx(sum(values) / 2)
        last = search.tasks.validations[2][1]
        reach = store.calendar[store.calendar > last][:2][-1]  # of a label of two days
        assert search.tasks.read_too == ("2014-08-01", f"{reach:%Y-%m-%d}")
        assert reach < store.calendar[store.calendar >= "2014-09-01"][0]


class TestCheckpoints:
    def test_a_network_goes_on_from_its_checkpoint(
        self, searches: Searches, workflow: Path, parent: Run, trained: Trained
    ) -> None:
        text = workflow.read_text(encoding="utf-8")
        begin, end = text.index("  model:"), text.index("  dataset:")
        network = """  model:
    class: qlib_ext.model.multi_task.MultiTaskModel
    kwargs:
      backbone: {class: qlib_ext.model.backbones.lstm.LSTM, kwargs: {hidden_size: 4, num_layers: 1}}
      tasks: {score: {label: RETURN, loss: {class: qlib_ext.model.losses.mse.MSE}}}
      balancer: {class: qlib_ext.model.balancers.single_task.SingleTask}
      trainer: {n_epochs: {{ N_EPOCHS | default(2, true) }}, patience: 1}
      seed: {{ SEED | default(0, true) }}
"""
        workflow.write_text(text[:begin] + network + text[end:], encoding="utf-8")
        space = {"task.model.kwargs.trainer.learning_rate": {"float": [1e-3, 1e-2]}}
        ladder = [{"N_EPOCHS": 1}, {"N_EPOCHS": 2}]
        climbed = searches({"space": space, "rungs": ladder})
        climbed.run(parent, trials=1, hours=None)
        at_once = searches({"space": space, "rungs": [{"N_EPOCHS": 2}]}, folder="at_once")
        at_once.run(parent, trials=1, hours=None)
        (one,), (other,) = climbed.study.tried(), at_once.study.tried()
        assert one.words == other.words
        assert one.value == other.value
        folders = {training.task["model"]["kwargs"]["checkpoint_dir"] for training in trained}
        assert len(folders) == 2, "a trial goes on in its own folder"
        assert not any(Path(folder).exists() for folder in folders), "what has ended needs none"


def _with(dataset: dict[str, Any], segments: dict[str, Any]) -> dict[str, Any]:
    return {**dataset, "kwargs": {**dataset["kwargs"], "segments": segments}}
