from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from qlib.workflow import R

from qlib_ext.checks import UserError
from qlib_ext.market.store import QlibStore
from qlib_ext.records.base import Record

SIGNAL = {"class": "qlib_ext.records.signal.SignalRecord", "kwargs": {}}
RANKING = {"class": "qlib_ext.records.ranking.RankingRecord", "kwargs": {"precision_at": [5]}}
MODEL = {"class": "qlib_ext.model.multi_task.MultiTaskModel"}


class Writing(Record):
    """A record that does what it is told."""

    needs = ("signal/predictions.parquet",)
    makes = ("notes/seen.txt",)

    def __init__(self, recorder: Any, do: Callable[[Record], None]):
        super().__init__(recorder)
        self.do = do

    def _generate(self) -> None:
        self.do(self)


class TestArtifacts:
    def test_a_missing_input_fails_and_names_its_maker(self, run: Any) -> None:
        record = Writing(run, lambda _: pytest.fail("it must not start"))
        with pytest.raises(
            UserError,
            match="Writing needs artifacts that this run does not have: `signal/predictions.parquet`, "
            r"written by qlib_ext.records.signal.SignalRecord\. ",
        ):
            record.generate()

    def test_everything_comes_back(self, run: Any) -> None:
        index = pd.MultiIndex.from_product(
            [pd.bdate_range("2020", periods=2), ["A", "B"]], names=["datetime", "instrument"]
        )
        table = pd.DataFrame({"x": [1.0, np.nan, 3.0, 4.0]}, index=index)
        record = Writing(run, lambda _: None)
        record.save_table("some/where/table.parquet", table)
        record.save_csv("table.csv", table)
        record.save_json("some.json", {"n": np.int64(3), "x": float("nan"), "l": (1, np.float64(2.5))})
        record.save_text("deep/note.txt", "Ännchen ≥ 3\n")
        record.save_bytes("picture.png", b"\x89PNG")
        pd.testing.assert_frame_equal(record.load_table("some/where/table.parquet"), table)
        assert pd.read_csv(run.download_artifact("table.csv"))["x"].tolist()[2:] == [3.0, 4.0]
        assert json.loads(Path(run.download_artifact("some.json")).read_text()) == {
            "n": 3,
            "x": None,
            "l": [1, 2.5],
        }
        assert Path(run.download_artifact("deep/note.txt")).read_text(encoding="utf-8") == "Ännchen ≥ 3\n"
        assert record.has("deep/note.txt")
        assert not record.has("deep/other.txt")
        assert record.has("picture.png")

    def test_metrics_are_logged_together(self, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []
        monkeypatch.setattr(run.client, "log_batch", lambda *a, **k: calls.append(k["metrics"]))
        Writing(run, lambda _: None).log_metrics({"IC": 0.03, "precision/10": np.float64(0.5)})
        assert [[metric.key for metric in call] for call in calls] == [["IC", "precision/10"]]


class TestCheckedBeforeTraining:
    """A mistake in a record shows when the run starts, not when the training is over."""

    def start(self, **task: Any) -> None:
        with R.start(experiment_name="checked"):
            R.save_objects(task=task)

    def test_a_good_task_passes(self, workplace: Any) -> None:
        self.start(model=MODEL, record=[SIGNAL, RANKING])

    def test_a_wrong_argument(self, workplace: Any) -> None:
        wrong = {
            "class": "RankingRecord",
            "module_path": "qlib_ext.records.ranking",
            "kwargs": {"precision": [5]},
        }
        with pytest.raises(
            UserError, match=r"`task.record\[1\].kwargs` has no place for `precision` \(did you mean"
        ):
            self.start(model=MODEL, record=[SIGNAL, wrong])

    def test_a_wrong_class(self, workplace: Any) -> None:
        with pytest.raises(UserError, match=r"`task.record\[0\].class` names no class: `Rank`"):
            self.start(model=MODEL, record={"class": "qlib_ext.records.ranking.Rank"})

    def test_a_wrong_order(self, workplace: Any) -> None:
        with pytest.raises(UserError, match=r"`task.record\[0\]`, RankingRecord, needs .*SignalRecord"):
            self.start(model=MODEL, record=[RANKING, SIGNAL])

    def test_a_section_that_the_model_cannot_feed(self, workplace: Any) -> None:
        report = {
            "class": "qlib_ext.records.report.ReportRecord",
            "kwargs": {"sections": [{"class": "qlib_ext.report.sections.training.Training"}]},
        }
        self.start(model=MODEL, record=[SIGNAL, report])
        with pytest.raises(
            UserError, match=r"`training/history.parquet`, written by qlib_ext.model.multi_task"
        ):
            self.start(
                model={"class": "LGBModel", "module_path": "qlib.contrib.model.gbdt"}, record=[SIGNAL, report]
            )

    def test_nor_are_artifacts_that_only_others_can_write(
        self, workplace: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A section of one's own may read what a record of one's own writes."""
        from qlib_ext.report.sections.training import Training

        monkeypatch.setattr(Training, "requires", ("weather/rain.csv",))
        report = {
            "class": "qlib_ext.records.report.ReportRecord",
            "kwargs": {"sections": [{"class": "qlib_ext.report.sections.training.Training"}]},
        }
        self.start(model=MODEL, record=[SIGNAL, report])

    def test_a_record_that_the_dataset_cannot_answer(self, workplace: Any) -> None:
        dataset = {"class": "DatasetH", "module_path": "qlib.data.dataset", "kwargs": {}}
        with pytest.raises(
            UserError, match=r"`task.record\[0\]`, SignalRecord, asks .*`describe`, `coverage`"
        ):
            self.start(model=MODEL, dataset=dataset, record=[SIGNAL])

    @pytest.mark.parametrize("index", ["SH999999", None])
    def test_an_index_of_qlibs_backtest_that_is_not_there(
        self, workplace: Any, index: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(QlibStore, "instruments", lambda self: ["SH600000"])
        config = {"strategy": {}, "backtest": {"benchmark": index}}
        record = {
            "class": "PortAnaRecord",
            "module_path": "qlib.workflow.record_temp",
            "kwargs": {"config": config},
        }
        with pytest.raises(UserError, match=r"`task.record\[0\].kwargs.config.backtest.benchmark` must be"):
            self.start(model=MODEL, record=[record])

    def test_records_of_others_are_not_judged(self, workplace: Any) -> None:
        self.start(
            model=MODEL, record=[{"class": "SigAnaRecord", "module_path": "qlib.workflow.record_temp"}]
        )
