"""A workflow whose model is an ensemble, from its task to its run: two seeds of trees on a little market, side by side."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import qlib
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from qlib_ext.checks import UserError
from qlib_ext.data.fold_datasets import with_segments
from qlib_ext.lookahead import audit
from qlib_ext.lookahead.findings import Result
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.cross_section import spearman
from qlib_ext.model.ensemble.ensemble import Ensemble
from qlib_ext.model.trainings.processes import Processes
from qlib_ext.recommend.recommendation import recommend
from qlib_ext.tracking.runs import PARENT, find_run
from qlib_ext.workflow import scored
from qlib_ext.workflow.ensemble import with_members
from qlib_ext.workflow.task import check_task
from tests.workflow.little import RECORDS, at_work, little_store, little_task

SEGMENTS = {
    "train": ["2016-01-04", "2016-05-31"],
    "valid": ["2016-06-01", "2016-08-31"],
    "test": ["2016-09-01", "2016-12-30"],
}
LEARNING = {"class": "qlib_ext.model.combiners.ic_weights.ICWeights", "kwargs": {"shrinkage": 0.5}}
NETWORK = {
    "backbone": {
        "class": "qlib_ext.model.backbones.lstm.LSTM",
        "kwargs": {"hidden_size": 4, "num_layers": 1},
    },
    "tasks": {"score": {"label": "RETURN", "loss": {"class": "qlib_ext.model.losses.mse.MSE"}}},
    "balancer": {
        "class": "qlib_ext.model.balancers.single_task.SingleTask",
        "kwargs": {"task": "score"},
    },
}
PREDICTIONS, VALIDATION = "signal/predictions.parquet", "signal/validation.parquet"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    return little_store(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="module")
def task() -> dict[str, Any]:
    """The LightGBM workflow, smaller, with two seeds."""
    config = little_task(SEGMENTS, {"dates": 2})
    model = {"model": config["model"], "seeds": 2, "combine": LEARNING, "workers": 2, "resume": 1}
    config["model"] = {"class": "qlib_ext.model.ensemble.ensemble.Ensemble", "kwargs": model}
    return config


@pytest.fixture(scope="module")
def workplace(store: QlibStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with at_work(tmp_path_factory.mktemp("together")) as folder:
        yield folder


@pytest.fixture(scope="module")
def run_id(task: dict[str, Any], store: QlibStore, workplace: Path) -> str:
    return scored.run_task(task, store.root, "cn", "seeds")


@pytest.fixture(scope="module")
def client(run_id: str, workplace: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{workplace / 'mlflow.db'}")


@pytest.fixture(scope="module")
def members(client: MlflowClient, run_id: str) -> list[Run]:
    return [client.get_run(each["run_id"]) for each in kept(client, run_id, "ensemble/members.json")]


def kept(client: MlflowClient, run_id: str, path: str) -> Any:
    file = client.download_artifacts(run_id, path)
    if path.endswith(".json"):
        return json.loads(Path(file).read_text(encoding="utf-8"))
    return pd.read_parquet(file) if path.endswith(".parquet") else pd.read_csv(file, index_col=0)


class TestRun:
    def test_a_member_is_a_run_below_the_ensemble(self, run_id: str, members: list[Run]) -> None:
        assert [run.data.tags["member"] for run in members] == ["1 of 2", "2 of 2"]
        assert {run.data.tags[PARENT] for run in members} == {run_id}
        assert [run.data.tags["seed"] for run in members] == ["0", "1"]

    def test_the_name_of_the_experiment_stands_for_the_ensemble(
        self, client: MlflowClient, run_id: str
    ) -> None:
        assert find_run(client, "seeds").info.run_id == run_id

    def test_the_tags_tell_of_an_ensemble(self, client: MlflowClient, run_id: str) -> None:
        tags = client.get_run(run_id).data.tags
        assert (tags["model"], tags["method"]) == ("Ensemble", "2 seeds of LGBModel")
        assert tags["seed"] == "0, 1"

    def test_weights_follow_from_the_validation_of_the_members(
        self, client: MlflowClient, run_id: str, members: list[Run]
    ) -> None:
        ics = []
        for run in members:
            table = kept(client, run.info.run_id, VALIDATION)
            days = table.index.get_level_values("datetime")
            assert (days.min(), days.max()) == (pd.Timestamp("2016-06-01"), pd.Timestamp("2016-08-29"))
            wide = table[["score", "RETURN"]].unstack("instrument")
            ics.append(spearman(wide["score"], wide["RETURN"]).mean())
        shrunk = np.maximum(np.mean(ics) + 0.5 * (np.array(ics) - np.mean(ics)), 0)
        expected = shrunk / shrunk.sum() if shrunk.sum() else [0.5, 0.5]
        assert kept(client, run_id, "ensemble/combiner.json")["weights"] == pytest.approx([*expected])

    def test_scores_are_the_weighted_mean_of_the_members(
        self, client: MlflowClient, run_id: str, members: list[Run]
    ) -> None:
        weights = kept(client, run_id, "ensemble/combiner.json")["weights"]
        parts = []
        for run in members:
            by_day = kept(client, run.info.run_id, PREDICTIONS)["score"].astype(float).groupby("datetime")
            parts.append(by_day.transform(lambda each: (each - each.mean()) / each.std(ddof=0)))
        expected = sum(weight * part for weight, part in zip(weights, parts, strict=True))
        found = kept(client, run_id, PREDICTIONS)["score"]
        pd.testing.assert_series_equal(found, expected, check_names=False)

    def test_members_are_judged_beside_each_other(self, client: MlflowClient, run_id: str) -> None:
        found = kept(client, run_id, "ensemble/members.csv")
        assert found.index.tolist() == ["seed 0", "seed 1", "ensemble"]
        daily = kept(client, run_id, "ranking/daily.parquet")["rank_ic/RETURN"]
        assert found.loc["ensemble", "RankIC"] == pytest.approx(daily.mean())
        without = found.loc["ensemble", "RankIC"] - found["gain"]
        assert without["seed 0"] == pytest.approx(found.loc["seed 1", "RankIC"])
        correlation = kept(client, run_id, "ensemble/correlation.csv")
        assert 0 < correlation.loc["seed 0", "seed 1"] < 1

    def test_each_member_was_audited(self, client: MlflowClient, run_id: str) -> None:
        found = kept(client, run_id, "lookahead/audit.json")
        assert found["findings"] == []
        assert found["members"] == [1, 2]

    def test_no_member_is_entered_into_the_ledger(
        self, client: MlflowClient, run_id: str, members: list[Run]
    ) -> None:
        assert "ledger_entry" in client.get_run(run_id).data.tags
        assert not any("ledger_entry" in run.data.tags for run in members)


class TestAfterwards:
    def test_recommend_scores_the_newest_day_as_the_run_did(
        self, client: MlflowClient, run_id: str, store: QlibStore
    ) -> None:
        found = recommend(client, "seeds", store.root, date="2016-12-30")
        table = kept(client, run_id, PREDICTIONS).loc["2016-12-30", "score"]
        listed = found.listed["score"].dropna()
        assert listed.sort_index().to_dict() == pytest.approx(table.sort_index().to_dict())
        assert any("stocks are the run's" in note for note in found.notes), found.warnings

    def test_finished_members_are_not_trained_again(
        self, client: MlflowClient, members: list[Run], task: dict[str, Any], store: QlibStore
    ) -> None:
        """With another combiner, and one that is trained on the days of validation alone scores the same."""
        again = copy.deepcopy(task)
        again["model"]["kwargs"]["combine"] = {"class": "qlib_ext.model.combiners.mean_rank.MeanRank"}
        again["record"] = again["record"][:1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Processes, "train", lambda *given: pytest.fail("a member is trained again"))
            found = scored.run_task(again, store.root, "cn", "seeds")
        runs = kept(client, found, "ensemble/members.json")
        assert [each["run_id"] for each in runs] == [run.info.run_id for run in members]
        assert [each["trained"] for each in runs] == [False, False]

    def test_runs_are_combined_as_their_ensemble_was(
        self, client: MlflowClient, run_id: str, members: list[Run], task: dict[str, Any], store: QlibStore
    ) -> None:
        """`qlib-ext ensemble` of the members: the same scores, judged and traded the same."""
        of_member = yaml.safe_load(
            Path(client.download_artifacts(members[0].info.run_id, "config.yaml")).read_text(encoding="utf-8")
        )
        runs = {f"seed {k}": run.info.run_id for k, run in enumerate(members)}
        both = scored.of_runs({**of_member, "record": task["record"]}, runs, LEARNING)
        both["record"] = [
            each for each in both["record"] if each["class"].endswith((*RECORDS, "EnsembleRecord"))
        ]
        found = scored.run_task(both, store.root, "cn", "both")
        for path in (PREDICTIONS, "backtest/daily.parquet"):
            pd.testing.assert_frame_equal(kept(client, found, path), kept(client, run_id, path))
        pd.testing.assert_frame_equal(
            kept(client, found, "ensemble/members.csv"), kept(client, run_id, "ensemble/members.csv")
        )


class TestTask:
    @pytest.fixture(autouse=True)
    def on_the_store(self, store: QlibStore, workplace: Path) -> None:
        qlib.init(provider_uri=str(store.root), region="cn", kernels=1, logging_level=40)

    def test_one_of_another_model_stays_as_it_is(self, task: dict[str, Any]) -> None:
        plain = {**task, "model": task["model"]["kwargs"]["model"]}
        assert with_members(plain) == plain

    def test_it_is_done_once(self, task: dict[str, Any]) -> None:
        before = copy.deepcopy(task)
        once = with_members(task)
        assert task == before
        assert with_members(once) == once

    def test_records_that_look_into_a_model_run_in_each_member(self, task: dict[str, Any]) -> None:
        more = copy.deepcopy(task)
        more["record"] += [
            {"class": "qlib_ext.records.fold.FoldRecord"},
            {"class": "qlib_ext.records.importance.ImportanceRecord"},
            {"class": "qlib_ext.records.report.ReportRecord"},
        ]
        found = with_members(more)
        names = [record["class"].rpartition(".")[2] for record in found["record"]]
        assert names == [*RECORDS, "FoldRecord", "EnsembleRecord", "ReportRecord"]
        inside = {r["class"].rpartition(".")[2]: r["kwargs"] for r in found["model"]["kwargs"]["record"]}
        assert [*inside] == ["SignalRecord", "LookaheadRecord", "FoldRecord", "ImportanceRecord"]
        assert inside["FoldRecord"] == {"keep_scores": True}

    def test_a_member_with_a_dataset_of_its_own_has_the_days_of_the_workflow(
        self, task: dict[str, Any]
    ) -> None:
        own = copy.deepcopy(task["dataset"])
        del own["kwargs"]["segments"]
        members = [{"model": task["model"]["kwargs"]["model"], "dataset": own, "name": "other"}]
        found = Ensemble(members=members, dataset=task["dataset"]).tasks()["other"]
        assert found["dataset"] == with_segments(task["dataset"], SEGMENTS)
        assert found["dataset"]["kwargs"]["handler"]["kwargs"]["fit_end_time"] == "2016-05-31"

    def test_warm_members_begin_from_those_of_their_name(
        self, task: dict[str, Any], client: MlflowClient, run_id: str
    ) -> None:
        network = {"class": "qlib_ext.model.multi_task.MultiTaskModel", "kwargs": NETWORK}
        runs = {each["member"]: each["run_id"] for each in kept(client, run_id, "ensemble/members.json")}
        trees = task["model"]["kwargs"]["model"]
        members = [{"name": "seed 0", "model": network}, {"name": "seed 1", "model": trees}]
        ensemble = Ensemble(members, dataset=task["dataset"], start_from=run_id)
        tasks = ensemble.tasks(client)
        assert ensemble.starters() == ["seed 0"]
        assert tasks["seed 0"]["model"]["kwargs"] == {**NETWORK, "start_from": runs["seed 0"]}
        assert "start_from" not in tasks["seed 1"]["model"]["kwargs"]
        assert "start_from" not in ensemble.tasks()["seed 0"]["model"]["kwargs"]
        members[0]["name"] = "LSTM"
        for run, found in ((run_id, "'seed 0', 'seed 1'"), (runs["seed 0"], "")):
            with pytest.raises(UserError, match=f"with the member `LSTM`, found .*{found}"):
                Ensemble(members, dataset=task["dataset"], start_from=run).tasks(client)

    def test_it_knows_the_future_where_the_workflow_does(self, task: dict[str, Any]) -> None:
        own, judged = copy.deepcopy(task["dataset"]), copy.deepcopy(task["dataset"])
        judged["kwargs"] |= {"judging": True, "segments": {**SEGMENTS, "train": [SEGMENTS["train"]]}}
        members = [{"model": task["model"]["kwargs"]["model"], "dataset": own, "name": "other"}]
        found = Ensemble(members=members, dataset=judged).tasks()["other"]["dataset"]["kwargs"]
        assert found["judging"] is True
        assert found["handler"]["kwargs"]["fit_spans"] == [SEGMENTS["train"]]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"seeds": None}, "must have `members`, or `model` and `seeds`; found model"),
            ({"seeds": [1, 1]}, r"`seeds` must be seeds, each once, found \[1, 1\]"),
            ({"label": "PRICE"}, "PRICE"),
            ({"model": None, "seeds": None, "members": []}, "at least one model, found none"),
            (
                {"combine": {"class": "qlib_ext.model.losses.mse.MSE"}},
                "`combine.class` must be a Combiner, found",
            ),
        ],
    )
    def test_what_cannot_be_is_told_before_anything_is_trained(
        self, task: dict[str, Any], changes: dict[str, Any], message: str
    ) -> None:
        wrong = copy.deepcopy(task)
        wrong["model"]["kwargs"] |= changes
        with pytest.raises(UserError, match=message):
            check_task(wrong)

    def test_the_task_of_a_member_is_checked_too(self, task: dict[str, Any]) -> None:
        wrong = copy.deepcopy(task)
        wrong["model"]["kwargs"]["model"]["kwargs"]["num_leaves"] = "many"
        with pytest.raises(UserError, match="num_leaves"):
            check_task(wrong)

    def test_a_combiner_that_learns_needs_a_validation(self, task: dict[str, Any]) -> None:
        wrong = copy.deepcopy(task)
        del wrong["dataset"]["kwargs"]["segments"]["valid"]
        with pytest.raises(UserError, match="must hold `valid`, which ICWeights needs"):
            check_task(wrong)

    def test_the_audit_looks_at_each_member_once(
        self, task: dict[str, Any], store: QlibStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[str] = []

        def audited(task: Any, **how: Any) -> Result:
            seen.append(task["model"]["class"])
            facts = {"first": "2016-01-04", "last": "2016-12-30", "changed_markets": 1, "changed": ["bars"]}
            return Result(facts, how["dates"], (), ())

        real = audit._of_members
        monkeypatch.setattr(audit, "audit", audited)
        found = real(task, 10, 1, None, 0, None)
        assert seen == ["qlib.contrib.model.gbdt.LGBModel"]
        assert found.facts["members"] == [1]
