from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from qlib.workflow import R

import qlib_ext.api as qe
from qlib_ext.checks import UserError


class TestRun:
    def test_it_keeps_what_a_workflow_would_say(self, notebook: Path, trained: qe.Run) -> None:
        task = yaml.safe_load(trained.fetch(["config.yaml"]).text("config.yaml"))
        assert task["model"]["kwargs"]["backbone"] == {
            "class": "qlib_ext.model.backbones.lstm.LSTM",
            "kwargs": {"num_features": 6, "lookback_days": 60, "hidden_size": 4},
        }
        strategy = {
            "class": "qlib_ext.strategy.topk_dropout.TopkDropout",
            "kwargs": {"topk": 4, "n_drop": 1},
        }
        assert [
            record["kwargs"]["strategy"]
            for record in task["record"]
            if "strategy" in record.get("kwargs", {})
        ] == [strategy]
        assert trained.tags["backbone"] == "LSTM"

    def test_it_is_found_again(self, notebook: Path, trained: qe.Run) -> None:
        again = qe.Run("tiny")
        assert (again.id, again.experiment, again.status) == (trained.id, "tiny", "FINISHED")
        assert again.metrics == trained.metrics

    def test_tables_are_those_of_the_run(self, notebook: Path, trained: qe.Run) -> None:
        assert trained.scores.equals(trained.tables["signal/predictions.parquet"]["score"])
        mean = qe.rank_ic(trained.scores, trained.labels).mean()
        assert mean == pytest.approx(trained.metrics["RankIC"])
        assert "backtest/orders" in trained.tables
        trained.tables["backtest/daily"]["return"] = 0.0  # a copy
        assert (trained.table("backtest/daily")["return"] != 0).any()

    def test_an_unknown_table_is_answered_with_the_nearest(self, notebook: Path, trained: qe.Run) -> None:
        with pytest.raises(UserError, match=r"has no table `backtest/dayly` \(did you mean backtest/daily"):
            trained.tables["backtest/dayly"]
        assert "backtest/dayly" not in trained.tables

    def test_it_shows_its_figures(self, notebook: Path, trained: qe.Run) -> None:
        shown = trained._repr_html_()
        assert "Ranking against RETURN" in shown
        assert "Synthetic market" in shown

    def test_its_report(self, notebook: Path, trained: qe.Run) -> None:
        report = trained.report()
        assert report.path == notebook.resolve() / f"reports/runs/tiny-{trained.id[:8]}/report.html"
        assert report.path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
        assert f'<iframe src="reports/runs/tiny-{trained.id[:8]}/report.html"' in report._repr_html_()

    def test_it_stays_on_its_store_wherever_the_session_goes(
        self, notebook: Path, trained: qe.Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        elsewhere = f"sqlite:///{notebook / 'elsewhere.db'}"  # is not there
        places: list[str] = []

        def train(task: dict[str, Any], name: str) -> SimpleNamespace:
            places.append(R.get_uri())
            return SimpleNamespace(id=trained.id)

        monkeypatch.setattr("qlib_ext.workflow.run.task_train", train)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", elsewhere)
        again = qe.backtest(trained, n_drop=1)
        assert places == [again.client.tracking_uri] == [trained.client.tracking_uri]
        assert qe.compare([trained]).runs["run"].tolist() == [trained.id]
        assert os.environ["MLFLOW_TRACKING_URI"] == elsewhere
        with pytest.raises(UserError, match="`tracking_uri` must be left out for a Run"):
            qe.backtest(trained, tracking_uri=elsewhere)


class TestKeywords:
    @pytest.mark.parametrize(
        ("ask", "said"),
        [
            (lambda run, scores: qe.evaluate(scores, "cn", univers="csi300"), "`evaluate`.*mean universe"),
            (lambda run, scores: qe.evaluate(scores, "cn", portfolio={}), "`evaluate` has no place for"),
            (lambda run, scores: qe.backtest(scores, "cn", horizn=5), "`backtest`.*mean horizon"),
            (lambda run, scores: qe.backtest(run, stratgy=1), "`backtest`.*mean strategy"),
            (lambda run, scores: qe.backtest(run, horizon=5), "`horizon` is for scores"),
            (lambda run, scores: run.recommend("cn", curent="x.csv"), "`recommend`.*mean current"),
            (lambda run, scores: run.recommend("cn", client=1), "`recommend` has no place for `client`"),
            (lambda run, scores: run.recommend("cn", scores=scores), "`scores` must be the path of a file"),
            (lambda run, scores: run.recommend("cn", scores="none.csv"), "none.csv"),
        ],
    )
    def test_one_that_is_unknown_is_answered_with_the_nearest(
        self,
        notebook: Path,
        trained: qe.Run,
        scores: pd.Series,
        ask: Callable[[qe.Run, pd.Series], Any],
        said: str,
    ) -> None:
        with pytest.raises(UserError, match=said):
            ask(trained, scores)


class TestCompare:
    def test_it_shows_and_writes_what_the_command_does(self, notebook: Path, trained: qe.Run) -> None:
        found = qe.compare([trained])
        assert found.runs["run"].tolist() == [trained.id]
        assert "<table" in found._repr_html_()
        assert found.report().path.with_name("groups.csv").is_file()

    def test_none_is_refused(self) -> None:
        with pytest.raises(UserError, match="at least one run"):
            qe.compare([])


class TestAgreement:
    def test_either_order_and_either_shape(self) -> None:
        wide = pd.DataFrame(
            {"A": [1.0, 3.0], "B": [2.0, 2.0], "C": [4.0, 1.0]}, pd.date_range("2020-01-06", periods=2)
        )
        long = wide.rename_axis(index="datetime", columns="instrument").stack()
        swapped = long.swaplevel()
        expected = [1.0, 1.0]
        for table in (wide, long, swapped, long.to_frame("score")):
            assert qe.rank_ic(table, long).tolist() == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("table", "said"),
        [
            ([1.0], "must be a Series or a DataFrame"),
            (pd.Series([1.0], ["A"]), "must be indexed"),
            (
                pd.Series(
                    [1.0, 2.0],
                    pd.MultiIndex.from_tuples([("2020", "A")] * 2, names=["datetime", "instrument"]),
                ),
                "more than once",
            ),
        ],
    )
    def test_what_is_no_table_of_scores_is_refused(self, table: object, said: str) -> None:
        with pytest.raises(UserError, match=said):
            qe.ic(table, pd.Series(dtype=float))
