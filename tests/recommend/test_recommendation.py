"""A run's scores on a store: those of its own backtest, bit for bit, and a clear answer where they cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import qlib
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner

from qlib_ext.checks import UserError
from qlib_ext.cli.main import app
from qlib_ext.config.build import build
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.market.store import QlibStore, synthetic_note
from qlib_ext.model.multi_task import MultiTaskModel
from qlib_ext.recommend.daily import DailyConfig, Status, daily
from qlib_ext.recommend.recommendation import Recommendation, recommend
from qlib_ext.recommend.trained import TrainedRun
from qlib_ext.tracking.artifacts import DamagedError
from qlib_ext.tracking.place import local_folder
from qlib_ext.tracking.runs import find_run

Cut = Callable[..., QlibStore]
SYNTHETIC = synthetic_note(3)  # of the sample market that all of these are made on
NETWORK, TREES = "mimstocr_csi300", "lightgbm_csi300"


@pytest.fixture(scope="module")
def kept(client: MlflowClient, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TrainedRun]:
    """A run as it lies in MLflow."""

    def opened(name: str) -> TrainedRun:
        return TrainedRun.open(client, find_run(client, name), tmp_path_factory.mktemp("kept"))

    return opened


@pytest.fixture(scope="module")
def today(client: MlflowClient, newest: QlibStore) -> Recommendation:
    """The list of the newest day."""
    return recommend(client, NETWORK, newest.root)


@pytest.mark.parametrize(
    "path",
    ["config.yaml", "data/summary.json", "signal/predictions.parquet", "model/booster.txt"],
)
def test_a_damaged_artifact_is_named_and_nothing_scored(
    client: MlflowClient, newest: QlibStore, path: str
) -> None:
    folder = local_folder(find_run(client, TREES).info.artifact_uri)
    assert folder is not None
    whole = (folder / path).read_bytes()
    middle = len(whole) // 2
    (folder / path).write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    try:
        with pytest.raises(DamagedError, match=f"the artifact `{path}` is damaged"):
            recommend(client, TREES, newest.root)
    finally:
        (folder / path).write_bytes(whole)


def said(found: list[str], words: str) -> str:
    """The one sentence that has the words."""
    (sentence,) = [sentence for sentence in found if words in sentence]
    return sentence


def always_scored(run: TrainedRun) -> str:
    """A stock that the run has scored on every test day."""
    predictions = run.artifacts.table("signal/predictions.parquet")
    days = predictions.groupby(level="instrument").size()
    return str(days.index[days == days.max()][0])


class TestScores:
    @pytest.mark.parametrize("name", [NETWORK, TREES])
    @pytest.mark.parametrize("place", [0, 30, -1])
    def test_they_are_the_backtests_bit_for_bit(
        self,
        client: MlflowClient,
        kept: Callable[[str], TrainedRun],
        newest: QlibStore,
        name: str,
        place: int,
    ) -> None:
        predictions = kept(name).table("signal/predictions.parquet")
        assert predictions is not None
        day = predictions.index.unique("datetime")[place]
        found = recommend(client, name, newest.root, date=f"{day:%Y-%m-%d}")
        listed = found.listed.dropna(subset="rank").sort_index()
        columns = [*predictions.columns]
        pd.testing.assert_frame_equal(
            listed[columns],
            predictions.loc[day].rename_axis(index="instrument"),
            check_exact=True,
            check_names=False,
        )
        assert f"the scores of all {len(listed)} stocks are the run's, bit for bit" in said(
            found.notes, "bit for bit"
        )
        assert found.warnings == [SYNTHETIC]

    def test_the_newest_day_is_scored_as_a_backtest_that_reaches_to_it_would(
        self, kept: Callable[[str], TrainedRun], newest: QlibStore, today: Recommendation
    ) -> None:
        run = kept(NETWORK)
        qlib.init(provider_uri=str(newest.root), region="cn", kernels=1)
        config = run.config["dataset"]
        segments = {**config["kwargs"]["segments"], "test": ["2016-12-01", "2017-06-30"]}
        dataset = build(
            {**config, "kwargs": {**config["kwargs"], "segments": segments}},
            DailyPanelDataset,
            name="dataset",
        )  # it fits its statistics anew, on the same days
        model = build(run.config["model"], MultiTaskModel, name="model")
        model.restore(run.artifacts.root / "training", dataset)
        expected = model.predict(dataset, "test").loc[newest.calendar[-1]].sort_index()
        assert today.day == newest.calendar[-1]
        listed = today.listed.dropna(subset="rank").sort_index()
        assert list(listed.index) == list(expected.index)
        for column in expected:
            assert np.array_equal(listed[column].to_numpy(np.float32), expected[column].to_numpy()), column

    def test_statistics_are_those_of_the_training(
        self, client: MlflowClient, cut: Cut, today: Recommendation
    ) -> None:
        short = cut(start="2017-02-01")  # no day of the training, yet all days that the windows look at
        found = recommend(client, NETWORK, short.root)
        pd.testing.assert_series_equal(found.listed["score"], today.listed["score"], check_exact=True)
        assert "unknown" in said(found.notes, "reach back to the training")
        assert found.listed["training_days"].isna().all()
        assert not found.listed["new"].any()

    def test_nothing_after_the_day_is_looked_at(
        self, client: MlflowClient, newest: QlibStore, cut: Cut
    ) -> None:
        day = newest.calendar[-20]
        early = recommend(client, NETWORK, cut(end=day).root)
        late = recommend(client, NETWORK, newest.root, date=f"{day:%Y-%m-%d}")
        assert early.day == day
        columns = [column for column in early.listed if column != "industry"]
        pd.testing.assert_frame_equal(early.listed[columns], late.listed[columns], check_exact=True)
        assert "19 days after this one" in said(late.notes, "days after")


class TestList:
    def test_it_has_the_members_of_the_day_in_the_order_of_their_scores(
        self, newest: QlibStore, today: Recommendation
    ) -> None:
        spells = newest.membership("csi300")
        members = spells[(spells["start"] <= today.day) & (today.day <= spells["end"])]["instrument"]
        listed = today.listed
        assert set(listed.index) == set(members) & set(newest.instruments())
        scored = listed.dropna(subset="rank")
        assert scored["score"].is_monotonic_decreasing
        assert [*scored["rank"]] == [*range(1, len(scored) + 1)]
        silent = listed[listed["rank"].isna()]
        assert silent["score"].isna().all()
        assert silent["suspended"].all()
        assert silent["close"].isna().all()

    def test_classes_are_the_most_probable_ones(self, today: Recommendation) -> None:
        scored = today.listed.dropna(subset="rank")
        probabilities = scored[[f"momentum_{k}" for k in range(5)]].to_numpy()
        assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
        assert [*scored["momentum_class"]] == [*probabilities.argmax(axis=1)]

    def test_prices_flags_and_industries_are_the_stores(
        self, newest: QlibStore, today: Recommendation
    ) -> None:
        codes = [*today.listed.index]
        bars = newest.read(["close", "factor", "volume"], codes).astype(float)
        close, factor, volume = bars[:, -1]
        assert today.listed["close"].to_numpy() == pytest.approx(close / factor, abs=1e-3, nan_ok=True)
        suspended = np.isnan(close) | (volume <= 0)
        assert [*today.listed["suspended"]] == [*suspended]
        before = pd.DataFrame(bars[0, :-1]).ffill().iloc[-1].to_numpy()
        fen, reference = np.round(100 * close / factor), np.round(100 * before / factor)
        with np.errstate(invalid="ignore"):  # 10 % of the last close, rounded half up
            up, down = np.floor(1.1 * reference + 0.5 + 1e-6), np.floor(0.9 * reference + 0.5 + 1e-6)
            assert [*today.listed["limit_up"]] == [*((fen >= up) & ~suspended)]
            assert [*today.listed["limit_down"]] == [*((fen <= down) & ~suspended)]
        table = pd.read_parquet(next((newest.root / "side").glob("industry.parquet")))
        one = table[table["instrument"] == codes[0]]
        one = one[(one["start"] <= today.day) & (one["end"].isna() | (one["end"] >= today.day))]
        assert today.listed.loc[codes[0], "industry"] == one["industry"].iloc[0]

    def test_flags_on_a_day_with_limits_and_suspensions(
        self, client: MlflowClient, newest: QlibStore, cut: Cut
    ) -> None:
        day = newest.calendar[-1]
        up, down, still, gone = (recommend(client, NETWORK, newest.root).listed.dropna(subset="rank").index)[
            :4
        ]

        def change(bars: dict[str, np.ndarray], calendar: pd.DatetimeIndex, codes: list[str]) -> None:
            for code, move in ((up, 0.1), (down, -0.1)):
                column = codes.index(code)
                bars["close"][-1, column] = bars["close"][-2, column] * (1 + move)
                bars["change"][-1, column] = move
            bars["volume"][-1, codes.index(still)] = 0.0  # the close is carried over
            for values in bars.values():
                values[-1, codes.index(gone)] = np.nan

        found = recommend(client, NETWORK, cut(change=change).root).listed
        assert found.loc[up, ["suspended", "limit_up", "limit_down"]].tolist() == [False, True, False]
        assert found.loc[down, ["suspended", "limit_up", "limit_down"]].tolist() == [False, False, True]
        assert found.loc[still, ["suspended", "limit_up", "limit_down"]].tolist() == [True, False, False]
        assert found.loc[gone, ["suspended", "limit_up", "limit_down"]].tolist() == [True, False, False]
        assert pd.isna(found.loc[gone, "rank"])
        assert found.index[-1] == gone
        assert day == newest.calendar[-1]

    def test_stocks_that_the_training_never_saw_are_marked(
        self, client: MlflowClient, newest: QlibStore, cut: Cut, today: Recommendation
    ) -> None:
        code = today.listed.index[0]

        def change(bars: dict[str, np.ndarray], calendar: pd.DatetimeIndex, codes: list[str]) -> None:
            for values in bars.values():
                values[calendar < "2017-03-01", codes.index(code)] = np.nan  # listed in March 2017

        found = recommend(client, NETWORK, cut(change=change).root)
        assert found.listed.loc[code, "training_days"] == 0
        assert found.listed.loc[code, "new"]
        assert code in said(found.notes, "never seen them")
        other = found.listed.index[found.listed["training_days"] > 0][0]
        close = newest.read(["close"], [other])[0, :, 0]
        inside = (newest.calendar >= "2016-04-01") & (newest.calendar <= "2016-08-31")
        assert 0 < found.listed.loc[other, "training_days"] <= int((~np.isnan(close[inside])).sum())


class TestPast:
    def test_the_runs_own_store_is_recognised(self, client: MlflowClient, trained: QlibStore) -> None:
        found = recommend(client, NETWORK)  # the store of the training is the default
        assert found.source["store"] == str(trained.root)
        assert said(found.notes, "the one that the run was made with")
        assert found.warnings == [SYNTHETIC]

    def test_newer_days_are_normal(self, newest: QlibStore, today: Recommendation) -> None:
        days = int((newest.calendar > "2017-03-31").sum())
        assert f"{days} days that the training did not, and the same past" in said(today.notes, "same past")
        assert today.warnings == [SYNTHETIC]

    def test_another_past_is_a_warning(
        self, client: MlflowClient, cut: Cut, kept: Callable[[str], TrainedRun]
    ) -> None:
        code = always_scored(kept(NETWORK))

        def change(bars: dict[str, np.ndarray], calendar: pd.DatetimeIndex, codes: list[str]) -> None:
            bars["close"][calendar == "2017-03-30", codes.index(code)] *= 1.05

        warnings = recommend(client, NETWORK, cut(change=change).root).warnings
        assert "2 of" in said(warnings, "not that of the training")
        assert f"first that of {code} on 2017-03-28" in said(warnings, "not that of the training")
        assert said(warnings, "the scores differ from the run's")

    def test_lost_days_and_members_are_told(
        self, client: MlflowClient, cut: Cut, kept: Callable[[str], TrainedRun]
    ) -> None:
        code = always_scored(kept(NETWORK))

        def change(bars: dict[str, np.ndarray], calendar: pd.DatetimeIndex, codes: list[str]) -> None:
            for values in bars.values():
                values[calendar <= "2016-06-30", codes.index(code)] = np.nan

        warnings = recommend(client, NETWORK, cut(change=change).root).warnings
        assert "other members or closes on" in said(warnings, "not that of the training")

    def test_a_store_older_than_the_run_is_doubted(self, client: MlflowClient, cut: Cut) -> None:
        found = recommend(client, NETWORK, cut(end="2017-02-28").root)
        assert "is it the right one?" in said(found.warnings, "before the one")

    def test_a_day_of_the_training_must_be_asked_for(self, client: MlflowClient, cut: Cut) -> None:
        old = cut(end="2016-11-15")
        with pytest.raises(
            UserError, match=r"trained and chosen on days up to 2016-11-\d\d: it has no new day"
        ):
            recommend(client, NETWORK, old.root)
        found = recommend(client, NETWORK, old.root, date="2016-11-15")
        assert "it has seen what followed" in said(found.warnings, "trained and chosen")


class TestStops:
    @pytest.mark.parametrize(
        ("date", "message"),
        [
            ("2017-06-24", "no trading day of the store .*: the nearest are 2017-06-23 and 2017-06-26"),
            ("2019-01-02", "after the last day of the store .*, 2017-06-30"),
            ("1999-01-04", "before the first day of the store .*, 2016-01-0"),
            ("soon", "`--date` must be a day such as 2017-06-30, found 'soon'"),
            ("2017-06-23 15:00", "`--date` must be a day"),
        ],
    )
    def test_a_day_that_is_none(
        self, client: MlflowClient, newest: QlibStore, date: str, message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            recommend(client, NETWORK, newest.root, date=date)

    def test_a_field_that_is_gone(self, client: MlflowClient, cut: Cut) -> None:
        def change(bars: dict[str, np.ndarray], calendar: pd.DatetimeIndex, codes: list[str]) -> None:
            del bars["high"]

        with pytest.raises(UserError, match="no field `high`"):
            recommend(client, NETWORK, cut(change=change).root)

    def test_an_optional_field_that_the_training_had(self, client: MlflowClient, cut: Cut) -> None:
        def change(bars: dict[str, np.ndarray], calendar: pd.DatetimeIndex, codes: list[str]) -> None:
            del bars["vwap"]

        with pytest.raises(UserError, match="no `vwap`, which the model was trained with"):
            recommend(client, NETWORK, cut(change=change).root)

    def test_a_field_without_a_value_that_day(self, client: MlflowClient, cut: Cut) -> None:
        def change(bars: dict[str, np.ndarray], calendar: pd.DatetimeIndex, codes: list[str]) -> None:
            bars["open"][-1] = np.nan

        with pytest.raises(UserError, match="no `open` of any stock on 2017-06-30"):
            recommend(client, NETWORK, cut(change=change).root)

    def test_a_universe_that_was_not_carried_on(self, client: MlflowClient, cut: Cut) -> None:
        store = cut()
        path = store.root / "instruments" / "csi300.txt"
        path.write_text(
            path.read_text(encoding="utf-8").replace("2017-06-30", "2017-05-31"), encoding="utf-8"
        )
        with pytest.raises(
            UserError, match=r"no member on 2017-06-30: its last spell ends on 2017-0[56]-\d\d"
        ):
            recommend(client, NETWORK, store.root)

    def test_a_run_without_what_it_takes(
        self, client: MlflowClient, kept: Callable[[str], TrainedRun]
    ) -> None:
        run = client.create_run("0", run_name="half")
        with pytest.raises(UserError, match=r"must be FINISHED, found RUNNING: .*RESUME=1"):
            recommend(client, run.info.run_id)
        client.set_terminated(run.info.run_id)
        with pytest.raises(UserError, match=r"keeps no config.yaml, data/summary.json"):
            recommend(client, run.info.run_id)
        root = kept(TREES).artifacts.root
        client.log_artifact(run.info.run_id, str(root / "config.yaml"))
        client.log_artifact(run.info.run_id, str(root / "data" / "summary.json"), "data")
        with pytest.raises(
            UserError, match=r"without running a pickle, .*weights.safetensors.*booster.txt.*train it"
        ):
            recommend(client, run.info.run_id)

    def test_weights_of_another_network(self, kept: Callable[[str], TrainedRun], newest: QlibStore) -> None:
        run = kept(NETWORK)
        qlib.init(provider_uri=str(newest.root), region="cn", kernels=1)
        day = newest.calendar[-1]
        dataset = run.dataset({"day": (day, day)})
        config: dict[str, Any] = json.loads(json.dumps(run.config["model"]))
        config["kwargs"]["backbone"]["kwargs"]["hidden_size"] = 9
        model = build(config, MultiTaskModel, name="model")
        with pytest.raises(UserError, match=r"do not fit the network .* in backbone\."):
            model.restore(run.artifacts.root / "training", dataset)


class TestCommand:
    def test_it_shows_the_top_and_writes_everything(
        self, client: MlflowClient, newest: QlibStore, today: Recommendation, tmp_path: Path
    ) -> None:
        out = tmp_path / "lists" / "list.csv"
        options = ["--store", str(newest.root), "--top", "3", "--cash", "1000000", "--out", str(out)]
        done = CliRunner().invoke(
            app, ["recommend", "--run", NETWORK, "--tracking-uri", client.tracking_uri, *options]
        )
        assert done.exit_code == 0, done.output
        shown = done.output.partition("Orders of the next trading day")[0]
        assert today.listed.index[2] in shown
        assert today.listed.index[3] not in shown
        written = pd.read_csv(out, index_col="instrument")
        assert [*written.index] == [*today.listed.index]
        assert (
            written["score"].to_numpy(np.float32).tobytes()
            == today.listed["score"].to_numpy(np.float32).tobytes()
        )
        orders = pd.read_csv(out.with_suffix(".orders.csv"))
        assert set(orders["side"]) == {"BUY"}
        assert [*orders["instrument"]] == [*today.listed.index[:6]]
        facts = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
        assert (facts["day"], facts["universe"], facts["cash"]) == ("2017-06-30", "csi300", 1e6)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--out", "list.txt"], "`--out` must be a CSV file"),
            (["--cash", "-5"], "`--cash` must be an amount of at least 0"),
            (["--store", "nowhere"], "found no directory at `nowhere`"),
        ],
    )
    def test_what_is_wrong_is_said_in_one_line(
        self, client: MlflowClient, options: list[str], message: str
    ) -> None:
        given = ["recommend", "--run", NETWORK, "--tracking-uri", client.tracking_uri, *options]
        done = CliRunner().invoke(app, given)
        assert isinstance(done.exception, UserError)
        assert message in str(done.exception)


def test_a_daily_call_makes_the_list_of_a_real_run(
    client: MlflowClient, newest: QlibStore, tmp_path: Path
) -> None:
    """From a store and a run to the files, with nothing in the place of any step but the fetch."""
    before = newest.fingerprint()
    settings = DailyConfig(
        store=str(newest.root),
        run=TREES,
        out=str(tmp_path),
        cash=1e6,
        top=3,
        tracking_uri=client.tracking_uri,
    )
    outcome = daily(settings)
    assert outcome.status == Status.LIST, outcome.text
    found = json.loads((tmp_path / f"{newest.calendar[-1]:%Y-%m-%d}.json").read_text())
    expected = recommend(client, TREES, newest.root, cash=1e6)
    assert [row["instrument"] for row in found["list"]] == list(expected.listed.index)
    assert len(found["orders"]) == len(expected.orders)  # type: ignore[arg-type]
    assert found["warnings"][0] == SYNTHETIC
    assert daily(settings).status == Status.NO_NEW_DAY
    assert newest.fingerprint() == before
