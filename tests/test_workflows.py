"""The workflow files: each builds, each says what the paper says, and the main ones run from bars to report."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import mlflow
import pandas as pd
import pytest
import qlib
import yaml
from qlib.model.base import Model
from qlib.strategy.base import BaseStrategy
from qlib.utils import init_instance_by_config

from qlib_ext.config.build import build, locate
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.folds import FoldPlan
from qlib_ext.market.importing.import_bars import import_bars
from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.market.synthetic.us_sample import USSampleMarket
from qlib_ext.model.multi_task import MultiTaskModel
from qlib_ext.records.base import Record
from qlib_ext.report import standard
from tests.interpreter import Interpreter, qrun

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / "workflows").glob("*.yaml"))
WALKS = ROOT / "workflows" / "walk_forward_csi300.yaml"
# What it is, tests/benchmarks/leaderboard says.
RECOMMENDED = ROOT / "workflows" / "recommended_csi300.yaml"
OF_SEGMENTS = [path for path in WORKFLOWS if path not in (WALKS, RECOMMENDED)]
REAL = ROOT.parent / "shared" / "market" / "cn"
SEGMENTS = {
    "cn": {
        "train": ["2007-01-01", "2014-12-31"],
        "valid": ["2015-01-01", "2016-12-31"],
        "test": ["2017-01-01", "2020-12-31"],
    },
    "us": {
        "train": ["2000-01-01", "2009-12-31"],
        "valid": ["2010-01-01", "2011-12-31"],
        "test": ["2012-01-01", "2014-12-31"],
    },
}


def render(path: Path, **variables: Any) -> dict[str, Any]:
    """A workflow as qrun reads it."""
    return yaml.safe_load(jinja2.Template(path.read_text(encoding="utf-8")).render(variables))


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample market that reaches into all three segments."""
    root = tmp_path_factory.mktemp("market") / "tiny"
    SampleMarket(seed=3, stocks=60, start="2014-03-03", end="2017-06-30").write(root)
    return root


@pytest.fixture(scope="module")
def us_market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample market written out as a US vendor does, adjusted and stamped with the close, and imported."""
    folder = tmp_path_factory.mktemp("us")
    made, _ = SampleMarket(seed=3, stocks=30, start="2009-06-01", end="2012-04-30").write(folder / "made")
    closes = (made.calendar + pd.Timedelta(hours=16)).tz_localize("America/New_York")
    names = {"open": "Open", "high": "High", "low": "Low", "close": "Close", "volume": "Volume"}
    (folder / "prices").mkdir()
    for code in made.instruments():
        if code in ("SH000016", "SH000903"):
            continue
        bars = pd.DataFrame(made.read(list(names), [code])[:, :, 0].T, columns=list(names.values()))
        table = bars.assign(Date=closes.astype(str)).dropna()
        table.to_csv(folder / "prices" / f"{'QQQ' if code == 'SH000300' else code}.csv.gz", index=False)
    settings = ImportSettings(region="us", calendar="data", benchmarks=("QQQ",))
    return import_bars(folder / "prices", folder / "store", settings).store.root


@pytest.fixture(scope="module")
def us_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A US sample market, whose test days lie in the crisis."""
    root = tmp_path_factory.mktemp("us_sample") / "tiny"
    USSampleMarket(seed=3, stocks=30, start="2007-10-01", end="2009-04-30").write(root)
    return root


# `qrun`, whose last record falls.
FALLS = """
from qlib.cli.run import run
from qlib_ext.records.report import ReportRecord

def fall(self):
    raise OSError("the disk is full")

ReportRecord._generate = fall
run()
"""


QRUN = ("-m", "qlib.cli.run")
NO_PICTURES = qrun()
Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(**variables: Any) -> dict[str, str]:
    """This one, with variables of a workflow."""
    # MLflow puts the store of whatever ran before in this process into the environment.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_TRACKING")}
    return {**inherited, "OMP_NUM_THREADS": "1", **{key: str(value) for key, value in variables.items()}}


@pytest.fixture
def run(interpreter: Interpreter, empty_database: Path) -> Run:
    """`qrun` of a workflow in a folder, or another program with its arguments, where libraries are imported already."""

    def ran(
        workflow: str, folder: Path, program: tuple[str, str] = NO_PICTURES, **variables: Any
    ) -> subprocess.CompletedProcess[str]:
        if not (folder / "mlflow.db").exists():
            shutil.copy(empty_database, folder / "mlflow.db")
        path = str(ROOT / "workflows" / f"{workflow}.yaml")
        return interpreter(*program, path, cwd=folder, env=environment(**variables))

    return ran


@pytest.fixture
def run_anew() -> Run:
    """`qrun` as a user starts it, in a process of its own and a folder with nothing in it."""

    def ran(workflow: str, folder: Path, **variables: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *QRUN, str(ROOT / "workflows" / f"{workflow}.yaml")]
        return subprocess.run(
            command, cwd=folder, env=environment(**variables), capture_output=True, text=True, check=False
        )

    return ran


# All that a run may say on a terminal: Qlib's two lines from before this package is there, what the package says, what
# LightGBM says of its rounds, the table of results and where things are.
SAID = re.compile(
    r"""\s*$
    |\[\d+:MainThread\]\(.*\)\ INFO\ -\ qlib\.qrun\ -\ .*Render\ the\ template
    |\[\d+:MainThread\]\(.*\)\ INFO\ -\ qlib\.Initialization\ -\ .*default_conf
    |Run\ \w+\ \d{4}-\d\d-\d\d\ \d\d:\d\d:\d\d.*\ \([0-9a-f]{32}\)$
    |segment\ `\w+`\ asks\ for
    |training\ .*\ on\ cpu:
    |\d+\ of\ \d+\ training\ days\ lack
    |epoch\ \d+:\ loss\ train/valid
    |best\ epoch\ \d+
    |permutation\ importance:\ [\d,]+\ days\ scored,
    |Backtest(:|\ from)
    |Training\ until\ validation|\[\d+\]\ttrain's\ |Did\ not\ meet\ early|Early\ stopping,|\[1\]\t
    |(Report|MLflow\ store|Experiment|Run)\ \ +\S+$""",
    re.VERBOSE,
)


def strange(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of a run that are none of those."""
    said = re.sub(r"Synthetic market: .*?a real market\.", "", done.stderr + done.stdout, flags=re.DOTALL)
    # The table is one piece, between its title and where things are.
    said = re.sub(r"^\w+_csi300 *\n *Measure .*?^(?=Report )", "", said, flags=re.DOTALL | re.MULTILINE)
    return [line for line in said.splitlines() if not SAID.match(line)]


class TestFiles:
    @pytest.mark.parametrize("path", OF_SEGMENTS, ids=lambda path: path.stem)
    def test_every_part_builds(self, path: Path, market: Path, us_market: Path, us_sample: Path) -> None:
        config = render(path, PANEL_CACHE="off")
        assert config["experiment_name"] == path.stem
        region = config["qlib_init"]["region"]
        markets = {"cn": market, "us": us_sample if path.stem.startswith("resnext") else us_market}
        qlib.init(provider_uri=str(markets[region]), region=region, kernels=1)
        task = config["task"]
        model = init_instance_by_config(task["model"], accept_types=Model)
        dataset = init_instance_by_config(task["dataset"], accept_types=DailyPanelDataset)
        assert isinstance(model, Model)
        assert set(dataset.segments) == {"train", "valid", "test"}
        assert (dataset.handler.fit_start_time, dataset.handler.fit_end_time) == dataset.segments["train"]
        names = [record["class"] for record in task["record"]]
        assert len({*names}) == len(names)
        for record in task["record"]:
            kwargs = record.get("kwargs", {})
            assert issubclass(locate(record["class"], name="record"), Record)
            if "strategy" in kwargs:
                signal = pd.Series(
                    [1.0], pd.MultiIndex.from_tuples([(pd.Timestamp("2017-01-03"), "SH600000")])
                )
                assert isinstance(
                    build(kwargs["strategy"], BaseStrategy, name="strategy", signal=signal), BaseStrategy
                )

    @pytest.mark.parametrize("path", OF_SEGMENTS, ids=lambda path: path.stem)
    def test_the_test_years_come_last_and_fit_on_train_only(self, path: Path) -> None:
        config = render(path)
        kwargs = config["task"]["dataset"]["kwargs"]
        segments = kwargs["segments"]
        if set(segments) == {"split"}:  # in the order of time, and fitted on the first of them
            assert segments["split"] == [0.70, 0.15, 0.15]
            assert not {"fit_start_time", "fit_end_time"} & set(kwargs["handler"]["kwargs"])
            return
        assert segments["train"][1] < segments["valid"][0] <= segments["valid"][1] < segments["test"][0]
        assert not {"fit_start_time", "fit_end_time"} & set(kwargs["handler"]["kwargs"]), (
            "the dataset gives them"
        )
        written = {name: [str(day) for day in days] for name, days in segments.items()}
        assert written == SEGMENTS[config["qlib_init"]["region"]]

    @pytest.mark.parametrize("path", OF_SEGMENTS, ids=lambda path: path.stem)
    def test_segments_are_set_from_outside(self, path: Path) -> None:
        plan = {"train": "5y", "valid": "1y", "test": "6m"}
        kwargs = render(path, SEGMENTS="{walk_forward: {train: 5y, valid: 1y, test: 6m}}")["task"]["dataset"][
            "kwargs"
        ]
        assert kwargs["segments"] == {"walk_forward": plan}

    def test_the_walk_forward_is_that_of_the_same_model_on_the_same_data(self) -> None:
        walks, plain = (render(path)["task"] for path in (WALKS, ROOT / "workflows" / "lightgbm_csi300.yaml"))
        plan = FoldPlan.of(walks["dataset"]["kwargs"].pop("segments")["walk_forward"])
        assert str(plan) == "rolling, train 5y, valid 1y, test 6m"
        plain["dataset"]["kwargs"].pop("segments")
        assert (walks["model"], walks["dataset"]) == (plain["model"], plain["dataset"])
        others = ("FoldsRecord", "ImportanceRecord")
        kept = [[x for x in task["record"] if not x["class"].endswith(others)] for task in (walks, plain)]
        assert kept[0] == kept[1]

    @pytest.mark.parametrize("name", ["mimstocr_csi300", "mimstocr_csi100", "mimstocr_sse50"])
    def test_the_defaults_are_the_papers(self, name: str) -> None:
        kwargs = render(ROOT / "workflows" / f"{name}.yaml")["task"]["model"]["kwargs"]
        model = MultiTaskModel(**kwargs)
        assert (model.options.n_epochs, model.options.patience, model.options.learning_rate) == (
            100,
            30,
            2e-4,
        )
        assert model.options.selection == "rank_ic"
        assert kwargs["backbone"]["kwargs"] == {"hidden_size": 128, "num_layers": 2}
        assert kwargs["balancer"]["kwargs"] == {"beta": 0.5, "decay": 1e-3, "window": 6}
        assert model.seed == 0
        assert not model.resume

    def test_the_defaults_of_resnext_are_the_papers(self) -> None:
        kwargs = render(ROOT / "workflows" / "resnext_sp500.yaml")["task"]["model"]["kwargs"]
        model = MultiTaskModel(**kwargs)
        backbone = kwargs["backbone"]["kwargs"]
        assert (backbone["width"], backbone["cardinality"], backbone["stages"]) == (128, 32, 3)
        assert list(model.tasks) == ["direction", "score"]
        assert [list(phase.tasks) for phase in model.options.plan(list(model.tasks))] == [
            ["direction"],
            ["score"],
            ["direction", "score"],
        ]
        assert set(kwargs["balancer"]["kwargs"]["weights"].values()) == {1.0}

    def test_a_forecast_of_resnext_is_turned_back_by_the_unit_that_made_its_label(self) -> None:
        task = render(ROOT / "workflows" / "resnext_sp500.yaml")["task"]
        (scaled,) = task["dataset"]["kwargs"]["handler"]["kwargs"]["learn_processors"]
        (judged,) = (record for record in task["record"] if record["class"].endswith("DirectionRecord"))
        assert scaled["kwargs"]["unit"] == judged["kwargs"]["unit"] == 0.02
        assert scaled["kwargs"]["columns"] == [task["model"]["kwargs"]["tasks"]["score"]["label"]]

    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
    def test_the_data_are_audited_and_the_report_shows_it(self, path: Path) -> None:
        records = render(path)["task"]["record"]
        names = [record["class"].rpartition(".")[2] for record in records]
        # after what describes the data, and before the long work of a backtest
        assert names.index("QualityRecord") == names.index("SignalRecord") + 1
        assert records[-1] == {"class": "qlib_ext.records.report.ReportRecord"}  # the standard report
        assert [type(section).__name__ for section in standard.sections()][-2:] == ["Quality", "Provenance"]

    def test_variables_reach_the_model(self) -> None:
        variables = {
            "N_EPOCHS": "7",
            "LEARNING_RATE": "0.01",
            "SEED": "5",
            "DEVICE": "cpu",
            "RESUME": "1",
            "HIDDEN_SIZE": "16",
        }
        config = render(ROOT / "workflows" / "mimstocr_csi300.yaml", PRECISION="bfloat16", **variables)
        model = MultiTaskModel(**config["task"]["model"]["kwargs"])
        assert (model.options.n_epochs, model.seed, model.device, model.resume) == (7, 5, "cpu", True)
        assert (model.options.precision, model.options.learning_rate) == ("bfloat16", 0.01)
        assert model.backbone["kwargs"]["hidden_size"] == 16


class TestRun:
    def test_from_bars_to_report(
        self, market: Path, tmp_path: Path, run_anew: Run, interpreter: Interpreter
    ) -> None:
        done = run_anew("mimstocr_csi300", tmp_path, QLIB_DATA=market, N_EPOCHS=2, HIDDEN_SIZE=8, SEED=1)
        assert done.returncode == 0, done.stderr[-3000:]
        assert strange(done) == []
        for shown in ("RankIC", "Precision@10", "report.html", "sqlite:///mlflow.db"):
            assert shown in done.stdout
        (report,) = (tmp_path / "reports" / "runs").glob("*/report.html")
        assert report.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")

        client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("mimstocr_csi300")
        (record,) = client.search_runs([experiment.experiment_id])
        assert record.info.status == "FINISHED"
        assert {"IC", "ICIR", "RankIC", "RankICIR", "precision/10", "momentum/accuracy"} <= set(
            record.data.metrics
        )
        assert -1 <= record.data.metrics["RankIC"] <= 1
        assert record.data.metrics["quality/errors"] == 0  # no false alarm on a sample market
        tags = record.data.tags
        assert (tags["universe"], tags["backbone"], tags["balancer"]) == ("csi300", "LSTM", "CQB")
        assert len(tags["data_fingerprint"]) == 16
        for metric in ("train/loss/score", "valid/loss/momentum", "balance/V/score", "balance/beta/momentum"):
            steps = [point.step for point in client.get_metric_history(record.info.run_id, metric)]
            assert sorted(steps) == [0, 1], metric
        folder = tmp_path / "mlruns" / experiment.experiment_id / record.info.run_id / "artifacts"
        assert (folder / "training" / "weights.safetensors").is_file()
        audit = json.loads((folder / "data" / "quality.json").read_text(encoding="utf-8"))
        assert audit["store"]["days"] == len(QlibStore(market).calendar)
        page = report.read_text(encoding="utf-8")
        for title in ("Summary", "Cumulative return", "Training", "Data quality", "Provenance"):
            assert f">{title}</h2>" in page
        scores = pd.read_parquet(folder / "signal" / "predictions.parquet")
        labels = pd.read_parquet(folder / "signal" / "labels.parquet")
        assert scores.index.equals(labels.index)
        assert scores["score"].notna().all()
        daily = pd.read_parquet(folder / "ranking" / "daily.parquet")
        assert record.data.metrics["RankIC"] == pytest.approx(daily["rank_ic/RETURN"].mean())

        words = ["mimstocr_csi300", f"again={record.info.run_id}", "--uri", "sqlite:///mlflow.db"]
        results = str(ROOT / "benchmarks" / "results.py")
        table = interpreter(results, *words, cwd=tmp_path, env=environment()).stdout
        assert (
            f"| RankIC | {record.data.metrics['RankIC']:.4f} | {record.data.metrics['RankIC']:.4f} |" in table
        )
        assert table.startswith("| | mimstocr_csi300 | again |")
        assert "| hidden size | 8 | 8 |" in table
        assert "| RankIC | +0.00000 | +0.00000 | +0.00000 |" in table

    def test_imported_us_shares_from_bars_to_report(self, us_market: Path, tmp_path: Path, run: Run) -> None:
        done = run("mimstocr_us", tmp_path, QLIB_DATA=us_market, N_EPOCHS=1, HIDDEN_SIZE=8, TOPK=20)
        assert done.returncode == 0, done.stderr[-3000:]
        (report,) = (tmp_path / "reports" / "runs").glob("*/report.html")
        assert report.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
        (folder,) = tmp_path.glob("mlruns/*/*/artifacts")
        setup = json.loads((folder / "backtest" / "setup.json").read_text(encoding="utf-8"))
        assert (setup["benchmark"], setup["trade_unit"], setup["days_per_year"]) == ("QQQ", 1, 252)
        assert setup["exchange"] == {"deal_price": "close", "rules": "us"}
        assert setup["rules"]["market"] == "US shares"
        positions = pd.read_parquet(folder / "backtest" / "positions.parquet")
        assert "QQQ" not in positions.index.get_level_values("instrument")
        assert positions.groupby(level="datetime").size().iloc[0] == 20
        daily = pd.read_parquet(folder / "backtest" / "daily.parquet")
        closes = QlibStore(us_market).read(["close"], ["QQQ"])[0, :, 0]
        index = pd.Series(closes, QlibStore(us_market).calendar).pct_change()
        pd.testing.assert_series_equal(
            daily["benchmark"], index.loc[daily.index], check_names=False, check_dtype=False, rtol=1e-5
        )

    def test_resnext_from_a_made_market_to_the_report(
        self, us_sample: Path, tmp_path: Path, run: Run
    ) -> None:
        sizes = {"HIDDEN_SIZE": 8, "WIDTH": 8, "CARDINALITY": 2, "TOPK": 5, "N_DROP": 1}
        drawn = qrun("Direction", "Training")
        done = run("resnext_sp500", tmp_path, drawn, QLIB_DATA=us_sample, N_EPOCHS=1, **sizes)
        assert done.returncode == 0, done.stderr[-3000:]
        (report,) = (tmp_path / "reports" / "runs").glob("*/report.html")
        page = report.read_text(encoding="utf-8")
        assert "Direction and return</h2>" in page
        assert "crisis of 2008: 2008-09-01 to 2009-03-31" in page
        (folder,) = tmp_path.glob("mlruns/*/*/artifacts")
        described = json.loads((folder / "data" / "summary.json").read_text(encoding="utf-8"))
        assert described["look_ahead"] == []
        assert described["split"] == [0.70, 0.15, 0.15]
        assert described["macro"]["stated_lags"] == {}
        summary = pd.read_csv(folder / "direction" / "summary.csv", index_col=["period", "rule"])
        model = summary.loc[("all test days", "model")]
        assert 0.3 < model["accuracy"] < 0.6  # nothing knows the future
        assert (
            0.5 * summary.loc[("all test days", "zero"), "mae"] < model["mae"] < 0.2
        )  # a return, in its own unit
        audit = json.loads((folder / "data" / "quality.json").read_text(encoding="utf-8"))
        assert not audit["findings"]

    def test_nothing_that_was_trained_is_trained_again(self, market: Path, tmp_path: Path, run: Run) -> None:
        variables = {"QLIB_DATA": market, "HIDDEN_SIZE": 8, "SEED": 1}
        straight, pieces = tmp_path / "straight", tmp_path / "pieces"
        straight.mkdir()
        pieces.mkdir()
        assert run("stl_csi300", straight, N_EPOCHS=2, **variables).returncode == 0

        fallen = run("stl_csi300", pieces, ("-c", FALLS), N_EPOCHS=1, **variables)
        assert fallen.returncode != 0
        assert "the disk is full" in fallen.stderr
        assert not list(pieces.glob("checkpoints/*/*.closed"))
        ended = run("stl_csi300", pieces, N_EPOCHS=1, RESUME=1, **variables)
        assert ended.returncode == 0, ended.stderr[-3000:]
        assert "taking up" in ended.stderr
        client = mlflow.MlflowClient(f"sqlite:///{pieces / 'mlflow.db'}")
        (experiment,) = client.search_experiments(filter_string="name = 'stl_csi300'")
        runs = client.search_runs([experiment.experiment_id])
        seconds = [logged.data.metrics["seconds/train"] for logged in runs]
        assert len(seconds) == 2
        assert seconds[0] == seconds[1]  # the epoch is told as it was, to the last bit: nothing was trained
        assert list(pieces.glob("checkpoints/*/*.closed"))
        longer = run("stl_csi300", pieces, N_EPOCHS=2, RESUME=1, **variables)
        assert longer.returncode == 0, longer.stderr[-3000:]
        assert "taking up" in longer.stderr
        assert len(list(pieces.glob("checkpoints/*/*.safetensors"))) == 1
        pd.testing.assert_frame_equal(self._scores(straight), self._scores(pieces), check_exact=True)

    @staticmethod
    def _scores(folder: Path) -> pd.DataFrame:
        newest = max(
            folder.glob("mlruns/*/*/artifacts/signal/predictions.parquet"), key=lambda p: p.stat().st_mtime
        )
        return pd.read_parquet(newest)

    def test_qlibs_lightgbm_goes_through_the_same_records(
        self, market: Path, tmp_path: Path, run: Run
    ) -> None:
        done = run("lightgbm_csi300", tmp_path, qrun("Importance"), QLIB_DATA=market)
        assert done.returncode == 0, done.stderr[-3000:]
        assert strange(done) == []
        (report,) = (tmp_path / "reports" / "runs").glob("*/report.html")
        assert "Feature importance</h2>" in report.read_text(encoding="utf-8")
        (path,) = tmp_path.glob("mlruns/*/*/artifacts/importance/features.csv")
        features = pd.read_csv(path, index_col="feature")
        assert list(features.index) == ["close", "open", "high", "low", "vwap", "volume"]
        assert (features["splits"] > 0).any()


class TestStops:
    """What is missing is said at once, in one message, before any training."""

    @pytest.mark.parametrize(
        ("workflow", "variables", "messages"),
        [
            ("mimstocr_csi300", {"QLIB_DATA": "nowhere"}, ["nowhere", "qlib-ext data sample", "QLIB_DATA"]),
            ("mimstocr_csi300", {"N_EPOCHS": 0}, ["`n_epochs` must be at least 1, found 0"]),
            ("mimstocr_csi300", {"DEVICE": "gpu"}, ["`device` must be one of auto, cpu, cuda, found 'gpu'"]),
            ("stl_csi300", {"MLFLOW_TRACKING_URI": "mlruns"}, ["sqlite:///mlflow.db"]),
        ],
    )
    def test_with_one_message(
        self,
        workflow: str,
        variables: dict[str, Any],
        messages: list[str],
        market: Path,
        tmp_path: Path,
        run: Run,
    ) -> None:
        done = run(workflow, tmp_path, **{"QLIB_DATA": market, **variables})
        assert done.returncode == 1
        shown = done.stdout + done.stderr
        for message in messages:
            assert message in shown
        assert "Traceback" not in shown
        assert 'File "' not in shown
        assert "epoch 0" not in shown

    def test_a_store_without_the_universe(self, market: Path, tmp_path: Path, run: Run) -> None:
        poor = tmp_path / "poor"
        for part in ("calendars", "features", "instruments"):
            (poor / part).mkdir(parents=True)
        (poor / "calendars" / "day.txt").write_text((market / "calendars" / "day.txt").read_text())
        for code in ("sh000300",):
            (poor / "features" / code).symlink_to(market / "features" / code)
        (poor / "instruments" / "all.txt").write_text("SH000300\t2014-03-03\t2017-06-30\n")
        done = run("mimstocr_csi300", tmp_path, QLIB_DATA=poor)
        assert done.returncode == 1
        assert "no universe `csi300`" in done.stdout + done.stderr

    @pytest.mark.skipif(not REAL.is_dir(), reason="the real market ../shared/market/cn is not here")
    def test_the_real_store_has_no_sse50(self, tmp_path: Path, run: Run) -> None:
        done = run("mimstocr_sse50", tmp_path, QLIB_DATA=REAL)
        assert done.returncode == 1
        shown = done.stdout + done.stderr
        assert "no universe `sse50`" in shown
        assert "csi300" in shown
