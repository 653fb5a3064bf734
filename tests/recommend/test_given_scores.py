"""Runs that trade scores which are there already: traded as the run that made them was, and listed as it would list."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from qlib_ext.checks import UserError
from qlib_ext.market.store import QlibStore
from qlib_ext.recommend.recommendation import Recommendation, recommend
from qlib_ext.recommend.trained import TrainedRun
from qlib_ext.tracking.runs import find_run
from qlib_ext.workflow import scored

TREES = "lightgbm_csi300"
CASH = 2_000_000.0


@pytest.fixture(scope="module")
def parent(client: MlflowClient) -> Run:
    return find_run(client, TREES)


@pytest.fixture(scope="module")
def workplace(client: MlflowClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to run in, on the same MLflow; of the records that follow a backtest, nobody asks any here."""
    folder, before = tmp_path_factory.mktemp("traded"), Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
        patch.setattr(scored, "AFTER_TRADING", ())
        os.chdir(folder)
        yield folder
        os.chdir(before)


@pytest.fixture(scope="module")
def traded(
    client: MlflowClient,
    parent: Run,
    trained: QlibStore,
    workplace: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """The scores of the run, traded again by its own strategy."""
    run = TrainedRun.open(client, parent, tmp_path_factory.mktemp("parent"))
    task = scored.of_run(run.config, run.run_id)
    return scored.run_task(task, trained.root, "cn", "again")


@pytest.fixture(scope="module")
def file(client: MlflowClient, newest: QlibStore, parent: Run, workplace: Path) -> Path:
    """What the run said of its test days and says of the newest day, as a vendor writes it."""
    known = table(client, parent.info.run_id, "signal/predictions.parquet")["score"]
    listed = recommend(client, TREES, newest.root).listed["score"].dropna()
    new = pd.concat({newest.calendar[-1]: listed}, names=["datetime", "instrument"])
    scores = pd.concat([known, new]).rename("pred").reset_index()
    scores["instrument"] = scores["instrument"].str[2:] + "." + scores["instrument"].str[:2]
    path = workplace / "scores.csv"
    scores.rename(columns={"datetime": "trade_date", "instrument": "ts_code"}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def evaluated(trained: QlibStore, file: Path, workplace: Path) -> str:
    """The file, judged as scores of whatever origin."""
    task = scored.of_file(file, trained, universe="csi300", topk=6, n_drop=2)
    return scored.run_task(task, trained.root, scored.region_of(trained), "given")


def table(client: MlflowClient, run: str, path: str) -> pd.DataFrame:
    return pd.read_parquet(client.download_artifacts(run, path))


def listed(found: Recommendation) -> pd.DataFrame:
    return found.listed.drop(columns=["training_days", "new"])


def test_what_is_traded_again_has_the_orders_of_the_run(
    client: MlflowClient, parent: Run, traded: str
) -> None:
    for path in ("backtest/orders.parquet", "signal/predictions.parquet", "signal/labels.parquet"):
        pd.testing.assert_frame_equal(
            table(client, traded, path), table(client, parent.info.run_id, path), check_exact=True
        )
    tags = client.get_run(traded).data.tags
    assert tags["scores_of"] == parent.info.run_id
    assert tags["model"] == "GivenScores"
    assert tags["method"] == parent.data.tags["method"]


def test_scores_of_a_file_are_judged_as_those_of_the_run(
    client: MlflowClient, parent: Run, evaluated: str
) -> None:
    path = "signal/labels.parquet"
    theirs = table(client, parent.info.run_id, path)
    pd.testing.assert_frame_equal(
        table(client, evaluated, path)[["RETURN", "NEXT_RETURN"]],
        theirs[["RETURN", "NEXT_RETURN"]],
        check_exact=True,
    )
    path = "backtest/orders.parquet"
    pd.testing.assert_frame_equal(
        table(client, evaluated, path), table(client, parent.info.run_id, path), check_exact=True
    )
    score = table(client, parent.info.run_id, "signal/predictions.parquet")["score"]
    daily = pd.concat([score, theirs["RETURN"]], axis=1).groupby("datetime").corr(method="spearman")
    expected = daily.loc[pd.IndexSlice[:, "score"], "RETURN"].mean()
    assert client.get_run(evaluated).data.metrics["RankIC"] == pytest.approx(expected, rel=1e-6)


def test_the_model_of_the_run_lists_for_one_that_trades_its_scores(
    client: MlflowClient, parent: Run, newest: QlibStore, traded: str
) -> None:
    ours, theirs = (recommend(client, name, newest.root, cash=CASH) for name in (traded, TREES))
    pd.testing.assert_frame_equal(ours.listed, theirs.listed)
    assert ours.orders is not None
    pd.testing.assert_frame_equal(ours.orders, theirs.orders)
    assert ours.source["run"] == traded
    assert ours.source["scores"] == parent.info.run_id


def test_a_newer_file_is_listed_and_traded_as_by_the_model(
    client: MlflowClient, newest: QlibStore, file: Path, evaluated: str
) -> None:
    theirs = recommend(client, TREES, newest.root, cash=CASH)
    for run in (evaluated, TREES):
        ours = recommend(client, run, newest.root, cash=CASH, scores=file)
        assert ours.day == newest.calendar[-1]
        pd.testing.assert_frame_equal(listed(ours), listed(theirs))
        pd.testing.assert_frame_equal(ours.orders, theirs.orders)
        assert any("the file has the same scores of all" in note for note in ours.notes)
        assert ours.source["scores"] == "scores.csv"


class TestRefused:
    def test_a_run_of_a_file_asks_for_a_newer_one(
        self, client: MlflowClient, newest: QlibStore, evaluated: str
    ) -> None:
        with pytest.raises(
            UserError, match=r"has no model, its scores are of scores.csv: give newer ones by `--scores FILE`"
        ):
            recommend(client, evaluated, newest.root)

    @pytest.mark.parametrize(
        ("change", "date", "said"),
        [
            (pd.DateOffset(days=30), None, "bring newer days in with `qlib-ext data update`"),
            (pd.DateOffset(days=0), "2016-11-01", "has no score of 2016-11-01: its days are"),
        ],
    )
    def test_a_day_that_is_not_there(
        self,
        client: MlflowClient,
        newest: QlibStore,
        file: Path,
        tmp_path: Path,
        change: pd.DateOffset,
        date: str | None,
        said: str,
    ) -> None:
        scores = pd.read_csv(file, parse_dates=["trade_date"])
        scores["trade_date"] += change
        scores.to_csv(tmp_path / "scores.csv", index=False)
        with pytest.raises(UserError, match=said):
            recommend(client, TREES, newest.root, date=date, scores=tmp_path / "scores.csv")

    def test_other_scores_of_a_day_that_the_run_has_are_told(
        self, client: MlflowClient, newest: QlibStore, file: Path, tmp_path: Path
    ) -> None:
        scores = pd.read_csv(file)
        scores["pred"] = -scores["pred"]
        scores.to_csv(tmp_path / "scores.csv", index=False)
        found = recommend(client, TREES, newest.root, scores=tmp_path / "scores.csv")
        assert any("is it of the same model?" in warning for warning in found.warnings)
