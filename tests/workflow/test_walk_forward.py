"""A workflow that walks forward, from its task to its run: two folds of trees on a little market, in processes of their own."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import qlib
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

import qlib_ext
from qlib_ext.checks import UserError
from qlib_ext.lookahead import audit
from qlib_ext.lookahead.findings import Result
from qlib_ext.market.store import QlibStore
from qlib_ext.model.trainings import below
from qlib_ext.model.trainings.below import identity
from qlib_ext.model.trainings.processes import Processes
from qlib_ext.model.trainings.training import Training
from qlib_ext.model.walk_forward import WalkForward
from qlib_ext.recommend.recommendation import age, recommend
from qlib_ext.recommend.trained import TrainedRun
from qlib_ext.tracking.runs import PARENT, find_run
from qlib_ext.verify.bundle import write_bundle
from qlib_ext.verify.verdict import verify
from qlib_ext.workflow import scored
from qlib_ext.workflow.task import check_task
from qlib_ext.workflow.walk_forward import walked
from tests.workflow.little import RECORDS, at_work, little_store, little_task

PLAN = {"train": "4m", "valid": "2m", "test": "3m", "resume": 1}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    return little_store(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="module")
def task() -> dict[str, Any]:
    """The LightGBM workflow, smaller, and walking forward."""
    return little_task({"walk_forward": PLAN}, {"dates": 2, "refits": 2})


@pytest.fixture(scope="module")
def workplace(store: QlibStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with at_work(tmp_path_factory.mktemp("walked")) as folder:
        yield folder


@pytest.fixture(scope="module")
def run_id(task: dict[str, Any], store: QlibStore, workplace: Path) -> str:
    return scored.run_task(task, store.root, "cn", "walk")


@pytest.fixture(scope="module")
def client(run_id: str, workplace: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{workplace / 'mlflow.db'}")


@pytest.fixture(scope="module")
def folds(client: MlflowClient, run_id: str) -> list[Run]:
    """Runs of the folds, in their order."""
    return [client.get_run(run["run_id"]) for run in runs_of(client, run_id)]


def runs_of(client: MlflowClient, run_id: str) -> list[dict[str, Any]]:
    return json.loads(Path(client.download_artifacts(run_id, "folds/runs.json")).read_text(encoding="utf-8"))


def table(client: MlflowClient, run_id: str, path: str) -> pd.DataFrame:
    file = client.download_artifacts(run_id, path)
    return pd.read_parquet(file) if path.endswith(".parquet") else pd.read_csv(file, index_col=0)


class TestRun:
    def test_a_fold_is_a_run_below_the_one_that_walks(self, run_id: str, folds: list[Run]) -> None:
        assert [run.data.tags["fold"] for run in folds] == ["1 of 2", "2 of 2"]
        assert {run.data.tags[PARENT] for run in folds} == {run_id}
        assert {run.info.status for run in folds} == {"FINISHED"}

    def test_each_fold_is_another_and_scores_from_its_first_day(
        self, client: MlflowClient, run_id: str, folds: list[Run]
    ) -> None:
        assert folds[0].data.tags["fold_identity"] != folds[1].data.tags["fold_identity"]
        assert [run["scores"][0] for run in runs_of(client, run_id)] == ["2016-07-04", "2016-10-10"]

    def test_the_name_of_the_experiment_stands_for_the_run_and_not_for_a_fold(
        self, client: MlflowClient, run_id: str
    ) -> None:
        assert find_run(client, "walk").info.run_id == run_id

    def test_the_tags_tell_of_the_model_of_the_folds(self, client: MlflowClient, run_id: str) -> None:
        tags = client.get_run(run_id).data.tags
        assert tags["model"] == "LGBModel"
        assert tags["walk_forward"] == "rolling, train 4m, valid 2m, test 3m"

    def test_everything_is_fitted_on_the_days_of_the_fold(
        self, client: MlflowClient, folds: list[Run]
    ) -> None:
        for run in folds:
            config = yaml.safe_load(
                Path(client.download_artifacts(run.info.run_id, "config.yaml")).read_text()
            )
            kwargs = config["dataset"]["kwargs"]
            handler = kwargs["handler"]["kwargs"]
            assert [handler["fit_start_time"], handler["fit_end_time"]] == kwargs["segments"]["train"]

    def test_the_days_that_are_scored_are_those_of_the_folds_without_a_gap(
        self, client: MlflowClient, run_id: str, folds: list[Run], store: QlibStore
    ) -> None:
        stitched = table(client, run_id, "signal/predictions.parquet")
        parts = [table(client, run.info.run_id, "signal/predictions.parquet") for run in folds]
        pd.testing.assert_frame_equal(stitched, pd.concat(parts), check_exact=True)
        days = stitched.index.get_level_values("datetime").unique()
        assert days.equals(store.calendar[store.calendar >= "2016-07-04"].rename("datetime"))

    def test_no_fold_is_entered_into_the_ledger_beside_its_run(
        self, client: MlflowClient, run_id: str, folds: list[Run]
    ) -> None:
        assert "ledger_entry" in client.get_run(run_id).data.tags
        assert not any("ledger_entry" in client.get_run(run.info.run_id).data.tags for run in folds)

    def test_folds_are_judged_beside_each_other(self, client: MlflowClient, run_id: str) -> None:
        found = table(client, run_id, "folds/folds.csv")
        daily = table(client, run_id, "ranking/daily.parquet")["rank_ic/RETURN"]
        days = {fold: daily.loc[row["test_start"] : row["test_end"]] for fold, row in found.iterrows()}
        assert found["days"].tolist() == [len(part) for part in days.values()]
        assert found["RankIC"].tolist() == pytest.approx([part.mean() for part in days.values()])
        traded = table(client, run_id, "backtest/daily.parquet")
        whole = (1 + traded["return"] - traded["cost"]).prod()
        assert (1 + found["return"]).prod() == pytest.approx(whole)
        assert table(client, run_id, "folds/drift.csv").columns.tolist() == ["1", "2"]

    def test_a_fold_ranks_the_days_that_it_trained_on_better(self, client: MlflowClient, run_id: str) -> None:
        found = table(client, run_id, "folds/folds.csv")
        assert (found["RankIC/train"] > found["RankIC/test"]).all()

    def test_each_fold_was_audited_and_no_border_leaks(self, client: MlflowClient, run_id: str) -> None:
        file = client.download_artifacts(run_id, "lookahead/audit.json")
        found = json.loads(Path(file).read_text(encoding="utf-8"))
        assert found["findings"] == []
        assert found["folds"] == [1, 2]
        assert "borders" in [check["name"] for check in found["checks"]]
        refits = next(check for check in found["checks"] if check["name"] == "refits")
        assert refits["dates"] == 4  # of each fold after its training, and after its validation


class TestRecommended:
    def test_the_newest_fold_scores_the_newest_day_as_it_did_in_the_run(
        self, client: MlflowClient, run_id: str, folds: list[Run], store: QlibStore
    ) -> None:
        found = recommend(client, "walk", store.root)
        assert found.source["run"] == run_id
        assert found.source["scores"] == folds[1].info.run_id
        kept = table(client, run_id, "signal/predictions.parquet").loc[store.calendar[-1], "score"]
        listed = found.listed["score"].dropna()
        assert listed.sort_index().to_dict() == kept.sort_index().to_dict()
        assert (found.listed["training_days"] > 0).any(), "of the training of the fold"
        said = " ".join(found.notes)
        trained_to = runs_of(client, run_id)[1]["train"][1]
        assert f"scored by fold 2, the newest of the walk-forward: trained on days up to {trained_to}" in said
        assert "the next fold is due on 2017-01-04" in said
        assert not any("due" in warning for warning in found.warnings)

    def test_it_says_when_it_is_due_for_retraining(
        self, client: MlflowClient, run_id: str, tmp_path: Path
    ) -> None:
        run = TrainedRun.open(client, client.get_run(run_id), tmp_path / "run", learned=False)
        notes: list[str] = []
        warnings: list[str] = []
        age(run, pd.Timestamp("2017-01-14"), notes, warnings)
        assert warnings == [
            "the model is due for retraining since 2017-01-04, 10 days before this one: run the workflow again on this store"
        ]


class TestResumed:
    """A second run of the same task, of which one fold is not finished."""

    @pytest.fixture(scope="class")
    def trained(self) -> list[str]:
        return []

    @pytest.fixture(scope="class")
    def warned(self) -> list[str]:
        return []

    @pytest.fixture(scope="class")
    def again(
        self,
        client: MlflowClient,
        folds: list[Run],
        task: dict[str, Any],
        store: QlibStore,
        trained: list[str],
        warned: list[str],
    ) -> str:
        """The process of the fold that is missing is not begun: it would train what the one that was killed did."""
        client.set_terminated(folds[1].info.run_id, "KILLED")
        client.set_tag(folds[0].info.run_id, "git_commit", "0" * 40)

        def taken(self: Processes, training: Training, settings: Any) -> str:
            trained.append(training.called)
            client.set_terminated(folds[1].info.run_id, "FINISHED")
            client.set_tag(folds[1].info.run_id, "data_fingerprint", "of a store that has grown meanwhile")
            return folds[1].info.run_id

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Processes, "train", taken)
            patch.setattr(below.logger, "warning", lambda said, *of: warned.append(said % of))
            less = {**task, "record": task["record"][:1]}
            return scored.run_task(copy.deepcopy(less), store.root, "cn", "walk")

    def test_a_finished_fold_is_not_trained_again(
        self, client: MlflowClient, again: str, folds: list[Run], trained: list[str]
    ) -> None:
        assert trained == ["fold 2 of 2"]
        runs = runs_of(client, again)
        assert [run["run_id"] for run in runs] == [run.info.run_id for run in folds]
        assert [run["trained"] for run in runs] == [False, True]

    def test_a_fold_of_other_code_is_taken_with_a_warning(self, again: str, warned: list[str]) -> None:
        assert f"fold 1 of 2 was trained by the code of the commit {'0' * 40}, and this is" in warned[0]

    def test_a_fold_that_read_other_data_than_the_rest_is_named(self, again: str, warned: list[str]) -> None:
        assert len(warned) == 2
        assert "fold 2 of 2 read other data than the rest" in warned[1]

    def test_it_says_of_every_day_what_the_first_run_said(
        self, client: MlflowClient, again: str, run_id: str
    ) -> None:
        path = "signal/predictions.parquet"
        pd.testing.assert_frame_equal(
            table(client, again, path), table(client, run_id, path), check_exact=True
        )

    def test_folds_stay_below_a_run_that_came_to_its_end(
        self, client: MlflowClient, again: str, run_id: str, folds: list[Run]
    ) -> None:
        assert client.get_run(folds[0].info.run_id).data.tags[PARENT] == run_id


class TestTask:
    @pytest.fixture(autouse=True)
    def on_the_store(self, store: QlibStore, workplace: Path) -> None:
        qlib.init(provider_uri=str(store.root), region="cn", kernels=1, logging_level=40)

    def test_one_that_does_not_walk_stays_as_it_is(self, task: dict[str, Any]) -> None:
        plain = copy.deepcopy(task)
        plain["dataset"]["kwargs"]["segments"] = {"test": ["2016-10-01", "2016-12-30"]}
        assert walked(plain) == plain

    def test_it_is_walked_once(self, task: dict[str, Any]) -> None:
        before = copy.deepcopy(task)
        once = walked(task)
        assert task == before
        assert walked(once) == once

    def test_its_dataset_has_the_days_that_the_folds_score_and_no_features(
        self, task: dict[str, Any], store: QlibStore
    ) -> None:
        kwargs = walked(task)["dataset"]["kwargs"]
        assert kwargs["segments"] == {"test": ["2016-07-04", "2016-12-30"]}
        assert kwargs["handler"]["kwargs"]["features"]["class"].endswith("NoFeatures")

    def test_records_that_look_into_the_model_run_in_each_fold(self, task: dict[str, Any]) -> None:
        more = copy.deepcopy(task)
        more["record"] += [
            {"class": "qlib_ext.records.importance.ImportanceRecord"},
            {"class": "qlib_ext.records.report.ReportRecord"},
        ]
        found = walked(more)
        names = [record["class"].rpartition(".")[2] for record in found["record"]]
        assert names == [*RECORDS, "FoldsRecord", "ReportRecord"]
        inside = [record["class"].rpartition(".")[2] for record in found["model"]["kwargs"]["record"]]
        assert inside == ["SignalRecord", "LookaheadRecord", "FoldRecord", "ImportanceRecord"]

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ([], {}),
            ([("folds.FoldsRecord", {"label": "NEXT"})], {"label": "NEXT"}),
            ([("fold.FoldRecord", {"days": 9})], {"days": 9}),
        ],
    )
    def test_a_fold_is_judged_once_by_the_label_that_the_task_names(
        self, task: dict[str, Any], given: list[tuple[str, Any]], expected: dict[str, Any]
    ) -> None:
        more = copy.deepcopy(task)
        more["record"] += [{"class": f"qlib_ext.records.{name}", "kwargs": kwargs} for name, kwargs in given]
        inside = walked(more)["model"]["kwargs"]["record"]
        assert [x["kwargs"] for x in inside if x["class"].endswith(".FoldRecord")] == [expected]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"test": ["2016-10-01", "2016-12-30"]}, "makes all segments, found test beside it"),
            ({"walk_forward": {**PLAN, "warm_start": True}}, "must be false for LGBModel"),
            ({"walk_forward": {**PLAN, "train": "4y"}}, "needs days after"),
        ],
    )
    def test_what_cannot_be_is_told_before_anything_is_trained(
        self, task: dict[str, Any], changes: dict[str, Any], message: str
    ) -> None:
        wrong = copy.deepcopy(task)
        wrong["dataset"]["kwargs"]["segments"] |= changes
        with pytest.raises(UserError, match=message):
            check_task(wrong)

    def test_an_ensemble_of_trees_alone_cannot_begin_from_weights(self, task: dict[str, Any]) -> None:
        wrong = copy.deepcopy(task)
        model = {"model": wrong["model"], "seeds": 2}
        wrong["model"] = {"class": "qlib_ext.model.ensemble.ensemble.Ensemble", "kwargs": model}
        wrong["dataset"]["kwargs"]["segments"]["walk_forward"]["warm_start"] = True
        with pytest.raises(UserError, match=r"must be false for Ensemble, .*an Ensemble with such a member"):
            check_task(wrong)

    def test_the_task_of_a_fold_is_checked_too(self, task: dict[str, Any]) -> None:
        wrong = copy.deepcopy(task)
        wrong["record"].append(
            {"class": "qlib_ext.records.importance.ImportanceRecord", "kwargs": {"label": "PRICE"}}
        )
        with pytest.raises(UserError, match="PRICE"):
            check_task(wrong)


class TestLookahead:
    """`qlib-ext lookahead` on the workflow: the audit of a fold is that of an ordinary task, and is not made here."""

    @pytest.fixture
    def looked(
        self, monkeypatch: pytest.MonkeyPatch, store: QlibStore, workplace: Path
    ) -> list[dict[str, Any]]:
        qlib.init(provider_uri=str(store.root), region="cn", kernels=1, logging_level=40)
        seen: list[dict[str, Any]] = []

        def audited(task: Mapping[str, Any], **how: Any) -> Result:
            seen.append({"segments": task["dataset"]["kwargs"]["segments"], **how})
            facts = {"first": "2016-01-04", "last": "2016-12-30", "changed_markets": 1, "changed": ["bars"]}
            return Result(facts, how["dates"], (), ())

        monkeypatch.setattr(audit, "audit", audited)
        return seen

    def test_folds_share_the_dates_and_each_is_built_anew_on_both_sides_of_its_validation(
        self, task: dict[str, Any], store: QlibStore, looked: list[dict[str, Any]]
    ) -> None:
        found = audit._of_folds(task, store, 10, 1, None, 0, None)
        folds = WalkForward(**walked(task)["model"]["kwargs"]).folds(store)
        assert [each["segments"] for each in looked] == [fold.segments for fold in folds]
        assert [(each["dates"], each["refits"]) for each in looked] == [(5, 2), (5, 2)]
        assert found.dates == 10

    def test_one_model_is_not_that_of_all_folds(
        self, task: dict[str, Any], store: QlibStore, looked: list[dict[str, Any]]
    ) -> None:
        with pytest.raises(UserError, match="a walk-forward has a model a fold, and one was given"):
            audit._of_folds(task, store, 10, 1, lambda dataset: None, 0, None)
        assert looked == []


class TestModel:
    """What decides whether a fold is one that an earlier run has."""

    @pytest.fixture
    def of_fold(self, task: dict[str, Any], store: QlibStore, workplace: Path) -> dict[str, Any]:
        qlib.init(provider_uri=str(store.root), region="cn", kernels=1, logging_level=40)
        model = WalkForward(**walked(task)["model"]["kwargs"])
        return model.task(model.folds(store)[0])

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("model.kwargs.seed", 7),
            ("model.class", "qlib.contrib.model.linear.LinearModel"),
            ("model.kwargs.start_from", "a" * 32),
            ("dataset.kwargs.segments.train", ["2016-01-05", "2016-04-28"]),
            ("dataset.kwargs.handler.kwargs.fit_end_time", "2016-04-01"),
            ("dataset.kwargs.handler.kwargs.labels.RETURN", "Ref($close, -3) / Ref($close, -1) - 1"),
            ("dataset.kwargs.purge", False),
        ],
    )
    def test_what_decides_a_number_makes_another_fold(
        self, of_fold: dict[str, Any], path: str, value: Any
    ) -> None:
        assert identity(changed(of_fold, path, value), "data") != identity(of_fold, "data")

    def test_other_data_or_another_version_makes_another_fold(
        self, of_fold: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = {identity(of_fold, "data"), identity(of_fold, "other data")}
        monkeypatch.setattr(qlib_ext, "__version__", "0.0.0")
        assert len(found | {identity(of_fold, "data")}) == 3

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("model.kwargs.resume", 1),
            ("model.kwargs.checkpoint_dir", "elsewhere"),
            ("dataset.kwargs.cache", "elsewhere"),
            ("record", []),
        ],
    )
    def test_where_things_are_left_makes_no_other_fold(
        self, of_fold: dict[str, Any], path: str, value: Any
    ) -> None:
        assert identity(changed(of_fold, path, value), "data") == identity(of_fold, "data")


def changed(task: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A task with another value at a dotted path."""
    found = copy.deepcopy(dict(task))
    *parents, last = path.split(".")
    place = found
    for name in parents:
        place = place[name]
    assert place.get(last) != value, "this would change nothing"
    place[last] = value
    return found


class TestBundle:
    def test_each_fold_is_made_again_from_its_own_weights(
        self,
        client: MlflowClient,
        run_id: str,
        folds: list[Run],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        written = write_bundle(client, client.get_run(run_id), tmp_path / "walk.zip")
        found = verify(written.path)
        assert found.exact, found.first
        for run in folds:
            assert f"{run.info.run_id[:8]}/fold/drift.csv" in found.compared
            assert f"{run.info.run_id[:8]}/model/booster.txt" in found.not_compared
        assert {"folds/folds.csv", "backtest/orders.parquet"} <= found.compared.keys()
