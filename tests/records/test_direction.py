from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    mean_absolute_error,
    mean_squared_error,
)

from qlib_ext.checks import UserError
from qlib_ext.metrics.significance import bootstrap_mean
from qlib_ext.records.direction import WHOLE, DirectionRecord
from qlib_ext.report.sections.direction import Direction
from qlib_ext.tracking.artifacts import RunArtifacts

UNIT = 0.02
STRESS = {"storm": ["2020-04-01", "2020-04-30"], "long ago": ["1999-01-01", "1999-12-31"]}


@dataclasses.dataclass
class Dataset:
    """Of the training labels that the record asks for."""

    train: pd.DataFrame

    def prepare(self, segment: str, col_set: str, data_key: str) -> pd.DataFrame:
        assert (segment, col_set) == ("train", "label")
        return self.train


def tables(days: int = 70, skill: float = 0.2, seed: int = 0) -> Mapping[str, pd.DataFrame]:
    """Predictions and labels of 12 stocks, some missing, and training labels."""
    draw = np.random.default_rng(seed)
    rows = pd.MultiIndex.from_product(
        [pd.bdate_range("2020-03-02", periods=days), [f"S{k:02d}" for k in range(12)]],
        names=["datetime", "instrument"],
    )
    returns = draw.normal(-0.001, 0.02, len(rows))
    returns[draw.random(len(rows)) < 0.02] = 0.0
    last = draw.normal(0, 0.02, len(rows))
    labels = pd.DataFrame({"NEXT_RETURN": returns, "RISE": (returns > 0) * 1.0}, index=rows)
    labels["RISE_PERSISTENCE"] = (last > 0) * 1.0
    labels.loc[draw.random(len(rows)) < 0.05] = np.nan
    rise = 1 / (1 + np.exp(-(draw.normal(0, 1, len(rows)) + 2 * skill * np.sign(returns))))
    score = (skill * returns + draw.normal(0, 0.005, len(rows))) / UNIT
    predictions = pd.DataFrame({"score": score, "direction_0": 1 - rise, "direction_1": rise}, index=rows)
    train = draw.normal(0.002, 0.02, 600)
    past = pd.DataFrame({"NEXT_RETURN": train, "RISE": (train > 0) * 1.0})
    return {"predictions": predictions, "labels": labels, "train": past}


@pytest.fixture
def made(run: Any) -> Any:
    """Write tables into a run, and the record that judges them."""

    def make(found: Mapping[str, pd.DataFrame] | None = None, **kwargs: Any) -> DirectionRecord:
        found = tables() if found is None else found
        record = DirectionRecord(
            recorder=run, model=None, dataset=Dataset(found["train"]), **{"unit": UNIT, "draws": 200} | kwargs
        )
        record.save_table("signal/predictions.parquet", found["predictions"])
        record.save_table("signal/labels.parquet", found["labels"])
        return record

    return make


@pytest.fixture
def of_run(run: Any, tmp_path: Path) -> Any:
    """The artifacts, as a section reads them."""

    def fetch(record: DirectionRecord) -> RunArtifacts:
        for path in record.makes:
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_bytes(Path(run.download_artifact(path)).read_bytes())
        return RunArtifacts(tmp_path, metrics={}, tags={}, info={})

    return fetch


def complete(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return found["predictions"].join(found["labels"]).dropna()


class TestFigures:
    def test_it_writes_what_it_names(self, made: Any, files: Any) -> None:
        record = made()
        before = files()
        record.generate()
        assert files() - before == set(record.list())

    def test_against_scikit_learn(self, made: Any, run: Any, read: Any) -> None:
        found = tables()
        made(found, periods=STRESS).generate()
        summary = read("direction/summary.csv").reset_index().set_index(["period", "rule"])
        table = complete(found)
        parts = {
            WHOLE: table,
            "storm": table[table.index.get_level_values(0).month == 4],
        }
        for period, rows in parts.items():
            rules = {
                "model": rows["direction_1"] > 0.5,
                "majority": np.ones(len(rows)),
                "persistence": rows["RISE_PERSISTENCE"],
            }
            for rule, guess in rules.items():
                figures = summary.loc[(period, rule)]
                assert figures["accuracy"] == pytest.approx(accuracy_score(rows["RISE"], guess))
                assert figures["macro_f1"] == pytest.approx(f1_score(rows["RISE"], guess, average="macro"))
                right = (rows["RISE"] == guess).groupby("datetime").mean()
                assert figures["accuracy_by_day"] == pytest.approx(right.mean())
                assert (figures["rows"], figures["days"]) == (len(rows), len(right))
            forecasts = {
                "model": rows["score"] * UNIT,
                "zero": np.zeros(len(rows)),
                "train_mean": np.full(len(rows), found["train"]["NEXT_RETURN"].mean()),
            }
            for rule, forecast in forecasts.items():
                figures = summary.loc[(period, rule)]
                assert figures["mae"] == pytest.approx(mean_absolute_error(rows["NEXT_RETURN"], forecast))
                assert figures["rmse"] == pytest.approx(
                    mean_squared_error(rows["NEXT_RETURN"], forecast) ** 0.5
                )
        assert np.isnan(summary.loc[(WHOLE, "zero"), "accuracy"])
        assert np.isnan(summary.loc[(WHOLE, "majority"), "mae"])
        metrics = run.list_metrics()
        assert metrics["direction/accuracy"] == summary.loc[(WHOLE, "model"), "accuracy"]
        assert metrics["return/zero_rmse"] == summary.loc[(WHOLE, "zero"), "rmse"]

    def test_the_majority_is_that_of_the_training_rows(self, made: Any, run: Any) -> None:
        """In the test rows falls are more common: a rule that looked there would be a little too good."""
        found = tables()
        assert complete(found)["RISE"].mean() < 0.5 < found["train"]["RISE"].mean()
        made(found).generate()
        assert run.list_metrics()["direction/majority_accuracy"] == pytest.approx(
            complete(found)["RISE"].mean()
        )

    def test_advantages_have_their_sign_and_their_interval(self, made: Any, read: Any) -> None:
        found = tables(skill=0.5)
        made(found, draws=500).generate()
        table = read("direction/differences.csv").reset_index()
        table = table.set_index(["period", "metric", "over", "rule"]).loc[WHOLE]
        gap = table["model"] - table["baseline"]
        sign = np.where(table.index.get_level_values("metric").isin(["mae", "rmse"]), -1, 1)
        np.testing.assert_allclose(table["advantage"], sign * gap, atol=1e-12)
        assert (table["low"] < table["advantage"]).all()
        assert (table["advantage"] < table["high"]).all()
        assert (table["low"] > 0).all()  # such skill is beyond doubt
        daily = read("direction/daily.parquet")
        by_day = daily["accuracy/model"] - daily["accuracy/majority"]
        oracle = bootstrap_mean(by_day, draws=500)
        np.testing.assert_allclose(table.loc[("accuracy", "by_day", "majority"), ["low", "high"]], oracle)

    def test_no_skill_is_no_evidence(self, made: Any, read: Any) -> None:
        made(tables(days=120, skill=0.0)).generate()
        table = read("direction/differences.csv").reset_index()
        row = table[(table["metric"] == "accuracy") & (table["rule"] == "persistence")].iloc[0]
        assert row["low"] < 0 < row["high"]

    def test_without_a_persistence_column(self, made: Any, read: Any) -> None:
        found = dict(tables())
        found["labels"] = found["labels"].drop(columns="RISE_PERSISTENCE")
        made(found, persistence=None).generate()
        assert "accuracy/persistence" not in read("direction/daily.parquet")


class TestMistakes:
    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"label": "UP"}, "`label` names `UP`"),
            ({"forecast": "ret"}, "`forecast` names `ret`"),
            ({"task": "momentum"}, "`task` must name a classification task of the model"),
        ],
    )
    def test_a_column_that_is_not_there(self, kwargs: dict[str, Any], message: str, made: Any) -> None:
        with pytest.raises(UserError) as caught:
            made(**kwargs).generate()
        assert str(caught.value).startswith(message)

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"unit": 0}, "`unit` must be above 0, found 0"),
            (
                {"periods": {"x": ["2009-01-02", "2009-01-01"]}},
                "`periods['x']` must be a first day and one not",
            ),
            ({"periods": {"x": ["soon"]}}, "`periods['x']` must be a first and a last day"),
            ({"periods": {WHOLE: ["2009-01-01", "2009-01-02"]}}, f"`periods` must not name `{WHOLE}`"),
            ({"level": 1.0}, "`level` must lie in (0, 1)"),
        ],
    )
    def test_an_argument_that_does_not_fit(self, kwargs: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError) as caught:
            DirectionRecord(recorder=None, model=None, dataset=None, **kwargs)
        assert str(caught.value).startswith(message)

    def test_no_row_with_everything(self, made: Any) -> None:
        found = dict(tables())
        found["labels"] = found["labels"] * np.nan
        with pytest.raises(UserError, match="no stock of any test day"):
            made(found).generate()


class TestSection:
    def test_it_shows_the_figures_of_the_artifacts(self, made: Any, of_run: Any) -> None:
        record = made(tables(skill=0.05), periods=STRESS)
        record.generate()
        page = of_run(record)
        text = Direction().render(page)
        summary = page.table("direction/summary.csv")
        accuracy = summary.loc[WHOLE].set_index("rule").loc["model", "accuracy"]
        assert f"{100 * accuracy:.2f}%" in text
        assert "storm: 2020-04-01 to 2020-04-30" in text
        assert "No test day lies in: long ago" in text
        assert "Look for a leak" not in text
        charts = Direction().charts(page)
        assert set(charts) == {"direction_accuracy", "direction_advantage"}
        bars = charts["direction_advantage"]
        assert list(bars.values.index) == [WHOLE, "storm", "long ago"]
        assert bars.values.iloc[0, 0] == pytest.approx(
            100 * page.table("direction/differences.csv")["advantage"].iloc[0]
        )

    def test_what_is_too_good_is_said(self, made: Any, of_run: Any, caplog: Any) -> None:
        record = made(tables(skill=2.0))
        record.generate()
        page = of_run(record)
        assert json.loads(page.text("direction/setup.json"))["implausible"]
        assert "a leak of the future is likelier than skill" in caplog.text
        assert "Look for a leak" in Direction().render(page)
