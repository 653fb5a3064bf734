"""A workflow that is cross-validated, from its task to its run: three splits of trees on a little market, in processes of their own."""

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
from mlflow.tracking import MlflowClient
from scipy.stats import spearmanr

from qlib_ext.checks import UserError
from qlib_ext.data.fold_datasets import splits_of
from qlib_ext.lookahead import audit
from qlib_ext.lookahead.findings import Result
from qlib_ext.market.store import QlibStore
from qlib_ext.recommend.recommendation import recommend
from qlib_ext.tracking.runs import PARENT
from qlib_ext.workflow import scored
from qlib_ext.workflow.task import check_task
from qlib_ext.workflow.walk_forward import walked
from tests.workflow.little import RECORDS, at_work, little_store, little_task

PLAN = {"folds": 3, "test_folds": 2, "embargo": 1}
PROCESSOR = {
    "class": "qlib.data.dataset.processor.ZScoreNorm",
    "kwargs": {"fit_start_time": "2016-01-04", "fit_end_time": "2016-06-30", "fields_group": "label"},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    return little_store(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="module")
def task() -> dict[str, Any]:
    """The LightGBM workflow, smaller, and cross-validated."""
    return little_task({"combinatorial": PLAN}, {"dates": 1, "refits": 1})


@pytest.fixture(scope="module")
def workplace(store: QlibStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with at_work(tmp_path_factory.mktemp("crossed")) as folder:
        yield folder


@pytest.fixture(scope="module")
def run_id(task: dict[str, Any], store: QlibStore, workplace: Path) -> str:
    return scored.run_task(task, store.root, "cn", "crossed")


@pytest.fixture(scope="module")
def client(run_id: str, workplace: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{workplace / 'mlflow.db'}")


@pytest.fixture(scope="module")
def splits(client: MlflowClient, run_id: str) -> list[dict[str, Any]]:
    return read_json(client, run_id, "splits/runs.json")


@pytest.fixture
def on_the_store(store: QlibStore, workplace: Path) -> None:
    qlib.init(provider_uri=str(store.root), region="cn", kernels=1, logging_level=40)


def read_json(client: MlflowClient, run_id: str, path: str) -> Any:
    return json.loads(Path(client.download_artifacts(run_id, path)).read_text(encoding="utf-8"))


def table(client: MlflowClient, run_id: str, path: str) -> pd.DataFrame:
    file = client.download_artifacts(run_id, path)
    return pd.read_parquet(file) if path.endswith(".parquet") else pd.read_csv(file, index_col=0)


class TestRun:
    def test_a_split_is_a_run_below_the_one_that_is_judged(
        self, client: MlflowClient, run_id: str, splits: list[dict[str, Any]]
    ) -> None:
        tags = [client.get_run(split["run_id"]).data.tags for split in splits]
        assert [each["split"] for each in tags] == ["1 of 3", "2 of 3", "3 of 3"]
        assert {each[PARENT] for each in tags} == {run_id}
        assert not any("ledger_entry" in each for each in tags)
        own = client.get_run(run_id).data.tags
        assert own["combinatorial"] == "3 folds, 2 of them scored at a time, embargo 1 days"
        assert "ledger_entry" in own

    def test_a_split_learns_of_the_fold_that_it_does_not_score_alone(
        self, client: MlflowClient, splits: list[dict[str, Any]], store: QlibStore
    ) -> None:
        assert [(split["folds"], split["paths"], split["in_order"]) for split in splits] == [
            ([1, 2], [1, 1], False),
            ([1, 3], [2, 1], False),
            ([2, 3], [2, 2], True),
        ]
        for split in splits:
            file = Path(client.download_artifacts(split["run_id"], "config.yaml"))
            kwargs = yaml.safe_load(file.read_text(encoding="utf-8"))["dataset"]["kwargs"]
            handler = kwargs["handler"]["kwargs"]
            assert handler["fit_spans"] == split["train"] == kwargs["segments"]["train"]
            assert "fit_start_time" not in handler
            assert kwargs.get("judging", False) is not split["in_order"]
            scored_days = table(client, split["run_id"], "signal/predictions.parquet").index.unique(
                "datetime"
            )
            expected = [store.calendar[store.calendar.slice_indexer(*days)] for days in split["scores"]]
            assert scored_days.equals(expected[0].append(expected[1]).rename("datetime"))

    def test_the_run_is_the_first_path(
        self, client: MlflowClient, run_id: str, splits: list[dict[str, Any]], store: QlibStore
    ) -> None:
        first = [
            table(client, split["run_id"], "signal/predictions.parquet").loc[slice(*days)]
            for fold in (1, 2, 3)
            for split in splits
            for number, path, days in zip(split["folds"], split["paths"], split["scores"], strict=True)
            if (number, path) == (fold, 1)
        ]
        kept = table(client, run_id, "signal/predictions.parquet")
        pd.testing.assert_frame_equal(kept, pd.concat(first), check_exact=True)
        assert kept.index.unique("datetime").equals(store.calendar.rename("datetime"))

    def test_each_path_is_judged_and_traded(
        self, client: MlflowClient, run_id: str, splits: list[dict[str, Any]]
    ) -> None:
        found = table(client, run_id, "paths/paths.csv")
        assert [*found.index] == [1, 2]
        metrics = client.get_run(run_id).data.metrics
        assert found.loc[1, "RankIC"] == pytest.approx(metrics["RankIC"])
        for name in ("annualised_return", "annualised_excess_return", "sharpe_ratio", "max_drawdown"):
            assert found.loc[1, name] == pytest.approx(metrics[f"backtest/{name}"])
            assert found.loc[2, name] != found.loc[1, name]
        # the second path by hand: fold 1 of the second split, folds 2 and 3 of the third
        second = table(client, splits[1]["run_id"], "signal/predictions.parquet")["score"]
        third = table(client, splits[2]["run_id"], "signal/predictions.parquet")["score"]
        path = pd.concat([second.loc[slice(*splits[1]["scores"][0])], third])
        labels = table(client, run_id, "signal/labels.parquet")["RETURN"]
        both = pd.concat([path, labels], axis=1, join="inner").dropna()
        by_day = [spearmanr(*part.to_numpy().T).statistic for _, part in both.groupby(level="datetime")]
        assert found.loc[2, "RankIC"] == pytest.approx(np.nanmean(by_day))
        assert metrics["paths/RankIC"] == pytest.approx(found["RankIC"].mean())
        assert metrics["paths/RankIC/sd"] == pytest.approx(found["RankIC"].std(ddof=1))
        wealth = table(client, run_id, "paths/wealth.parquet")
        own = table(client, run_id, "backtest/series.parquet")["wealth/excess_with_cost"]
        np.testing.assert_allclose(wealth["1"], own)
        chosen = read_json(client, run_id, "paths/overfitting.json")
        assert (chosen["configurations"], chosen["measure"]) == (2, "return over the index")
        assert 0 <= chosen["probability"] <= 1

    def test_splits_are_judged_beside_each_other(self, client: MlflowClient, run_id: str) -> None:
        found = table(client, run_id, "paths/splits.csv")
        assert found["folds"].tolist() == ["1 2", "1 3", "2 3"]
        assert (found["RankIC/train"] > found["RankIC/test"]).all()

    def test_the_split_in_the_order_of_time_was_audited_and_no_border_leaks(
        self, client: MlflowClient, run_id: str
    ) -> None:
        found = read_json(client, run_id, "lookahead/audit.json")
        assert found["findings"] == []
        assert found["splits"] == [3]
        assert {"borders", "refits"} <= {check["name"] for check in found["checks"]}
        assert "splits 3 of 3 were looked at" in " ".join(found["notes"])


class TestRecommended:
    def test_nobody_trades_by_it_in_words(
        self, client: MlflowClient, run_id: str, splits: list[dict[str, Any]], store: QlibStore
    ) -> None:
        for wanted in (run_id, splits[0]["run_id"]):
            with pytest.raises(
                UserError, match="cross-validation, whose models learn of days after those that they"
            ):
                recommend(client, wanted, store.root)


@pytest.mark.usefixtures("on_the_store")
class TestTask:
    def test_it_is_walked_once_and_leaves_the_task_as_it_was(self, task: dict[str, Any]) -> None:
        before = copy.deepcopy(task)
        once = walked(task)
        assert task == before
        assert walked(once) == once
        names = [record["class"].rpartition(".")[2] for record in once["record"]]
        assert names == [*RECORDS, "PathsRecord"]
        assert once["dataset"]["kwargs"]["segments"] == {"test": ["2016-01-04", "2016-12-30"]}

    def test_what_walks_forward_elsewhere_is_no_record_of_it(self, task: dict[str, Any]) -> None:
        more = copy.deepcopy(task)
        more["record"].append({"class": "qlib_ext.records.folds.FoldsRecord"})
        found = walked(more)
        every = [*found["record"], *found["model"]["kwargs"]["record"]]
        assert not [record for record in every if record["class"].endswith("FoldsRecord")]

    @pytest.mark.parametrize(
        ("place", "value", "message"),
        [
            (("segments", "test"), ["2016-10-01", "2016-12-30"], "makes all segments, found test beside it"),
            (("segments", "combinatorial"), {"folds": 2}, "`combinatorial.folds` must be"),
            (("segments", "combinatorial"), {"embargo": 90}, "no day of training"),
            (
                ("handler", "kwargs", "learn_processors"),
                [PROCESSOR],
                "ZScoreNorm' is fitted from one day to another",
            ),
        ],
    )
    def test_what_cannot_be_is_told_before_anything_is_trained(
        self, task: dict[str, Any], place: tuple[str, ...], value: Any, message: str
    ) -> None:
        wrong = copy.deepcopy(task)
        inside = wrong["dataset"]["kwargs"]
        for key in place[:-1]:
            inside = inside[key]
        inside[place[-1]] = value
        with pytest.raises(UserError, match=message):
            check_task(wrong)

    def test_the_audit_looks_at_the_split_in_the_order_of_time(
        self, task: dict[str, Any], store: QlibStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[dict[str, Any]] = []
        real = audit.audit

        def audited(task: Any, **how: Any) -> Result:
            seen.append(task["dataset"]["kwargs"])
            return Result({"first": "", "last": "", "changed_markets": 0, "changed": []}, 5, (), ())

        monkeypatch.setattr(audit, "audit", audited)
        found = real(task, dates=5)
        last = splits_of(task["dataset"], store)[-1]
        assert [each["segments"] for each in seen] == [last.segments]
        assert "judging" not in seen[0]
        assert found.facts["splits"] == [3]
