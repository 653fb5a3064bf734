"""Wrong configurations of the shipped workflows: each stops `qrun` before it trains, in one line that says what to do.

Every case is a workflow of the project with one thing changed, given to the function behind `qrun`. The line must name
what was expected and what was found.
"""

from __future__ import annotations

import copy
import functools
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from qlib.cli.run import workflow as qrun
from qlib.contrib.model.gbdt import LGBModel
from ruamel.yaml import YAML

from qlib_ext.checks import UserError
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.market.synthetic.us_sample import USSampleMarket
from qlib_ext.model.multi_task import MultiTaskModel

ROOT = Path(__file__).parent.parent
SEGMENTS = {
    "train": ["2015-01-05", "2015-06-30"],
    "valid": ["2015-07-01", "2015-09-30"],
    "test": ["2015-10-08", "2015-12-31"],
}
REMOVED = object()
MAIN, LGB, RESNEXT, EQUAL, MASTER = (
    "mimstocr_csi300",
    "lightgbm_csi300",
    "resnext_sp500",
    "ew_csi300",
    "master_csi300",
)


class TrainingBeganError(Exception):
    """The workflow passed all checks."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A little Chinese and a little US market."""
    root = tmp_path_factory.mktemp("bad_input")
    SampleMarket(seed=3, stocks=20, start="2015-01-01", end="2015-12-31").write(root / "cn")
    USSampleMarket(seed=3, stocks=20, start="2008-01-01", end="2008-12-31").write(root / "us")
    (root / "cn" / "instruments" / "nobody.txt").touch()
    return {"cn": root / "cn", "us": root / "us"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to run in; one MLflow database serves all runs that get as far."""
    folder, before = tmp_path_factory.mktemp("workplace"), Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture
def start(
    stores: dict[str, Path], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """`qrun` of a configuration, with an end where the training would begin."""

    def training(self: Any, *args: Any, **kwargs: Any) -> None:
        raise TrainingBeganError

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # Qlib's and ours go when the test ends
    terminate = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(LGBModel, "fit", training)
    fit = MultiTaskModel.fit

    def checked_fit(self: Any, dataset: Any, reweighter: Any = None) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("qlib_ext.model.multi_task.Trainer.fit", training)
            fit(self, dataset, reweighter)

    monkeypatch.setattr(MultiTaskModel, "fit", checked_fit)
    load, loaded = YAML.load, {}

    def load_once(self: YAML, text: str) -> Any:
        """Qlib and this package read the same text with the same reader, which takes most of a case's time."""
        if text not in loaded:
            loaded[text] = load(self, text)
        return copy.deepcopy(loaded[text])

    monkeypatch.setattr(YAML, "load", load_once)

    def run(config: dict[str, Any]) -> None:
        path = workplace / "workflow.yaml"
        path.write_text(written(config), encoding="utf-8")
        monkeypatch.setattr(sys, "argv", ["qrun", str(path)])
        logging.disable(logging.WARNING)
        try:
            qrun(str(path))
        finally:
            logging.disable(logging.NOTSET)

    yield run
    signal.signal(signal.SIGTERM, terminate)


def written(config: dict[str, Any]) -> str:
    """A configuration as JSON, which is YAML and is written fast; a day stands there without quotes, as in a workflow."""
    text = json.dumps(config, ensure_ascii=False, default=lambda day: f"<{day:%Y-%m-%d}>")
    return re.sub(r'"<([\d-]{10})>"', r"\1", text).replace(": Infinity", ": .inf")


def made(name: str, stores: dict[str, Path]) -> dict[str, Any]:
    """A workflow as it is shipped, on the days and stocks of a little market."""
    return copy.deepcopy(_made(name, stores["us" if name == RESNEXT else "cn"]))


@functools.cache
def _made(name: str, store: Path) -> dict[str, Any]:
    text = (ROOT / "workflows" / f"{name}.yaml").read_text(encoding="utf-8")
    region = "us" if name == RESNEXT else "cn"
    given = {"QLIB_DATA": str(store), "PANEL_CACHE": "off", "HIDDEN_SIZE": "8", "TOPK": "5"}
    given |= {"N_DROP": "1", "WIDTH": "8", "CARDINALITY": "2", "START": "2008-01-01", "END": "2008-12-31"}
    config = yaml.safe_load(jinja2.Template(text).render(given))
    # said in full: MLflow leaves the store of whatever ran before in this process in the environment
    config["qlib_init"]["exp_manager"]["kwargs"]["uri"] = "sqlite:///mlflow.db"
    if region == "cn":
        dataset = config["task"]["dataset"]["kwargs"]
        dataset["segments"] = copy.deepcopy(SEGMENTS)
        dataset["handler"]["kwargs"] |= {"fit_start_time": "2015-01-05", "fit_end_time": "2015-06-30"}
    return config


def put(config: dict[str, Any], path: str, value: Any) -> None:
    """Set what stands at `task/model/kwargs/seed`; an item of a list goes by the end of its class, or by its number.

    `kwargs` that are left out are made.
    """
    *way, last = path.split("/")
    place: Any = config
    for step in way:
        place = place.setdefault(step, {}) if step == "kwargs" else place[_step(place, step)]
    if value is REMOVED:
        del place[_step(place, last)]
    else:
        place[_step(place, last)] = value


def _step(place: Any, step: str) -> Any:
    if not isinstance(place, list):
        return step
    if step.isdigit():
        return int(step)
    return next(k for k, item in enumerate(place) if item["class"].endswith(step))


MODEL, DATASET, HANDLER = "task/model/kwargs", "task/dataset/kwargs", "task/dataset/kwargs/handler/kwargs"
FEATURES = f"{HANDLER}/features/kwargs"
EXPRESSIONS = "qlib_ext.features.expressions.Expressions"
TRAINER = f"{MODEL}/trainer"
STRATEGY = "task/record/BacktestRecord/kwargs/strategy"
BACKTEST = "task/record/BacktestRecord/kwargs/backtest"
EXCHANGE = f"{BACKTEST}/exchange_kwargs"
RETURN = "Ref($close, -2) / Ref($close, -1) - 1"

# workflow, what is changed, to what, what the line says
CASES: list[tuple[str, str, Any, str]] = [
    # -- the workflow itself
    (MAIN, "tasks", {}, "a workflow has no key `tasks` (did you mean task?)"),
    (MAIN, "experiment", "x", "a workflow has no key `experiment` (did you mean experiment_name?)"),
    (MAIN, "colour", "red", "a workflow has no key `colour`"),
    (MAIN, "task", REMOVED, "a workflow must have `task`"),
    (MAIN, "task", "train", "`task` must be a mapping with model, dataset and record, found 'train'"),
    (MAIN, "experiment_name", 7, "`experiment_name` must be a name, found 7"),
    (MAIN, "qlib_init/provider_url", "x", "`qlib_init` has no place for `provider_url` (did you mean provider_uri"),
    (MAIN, "qlib_init/kernels", "2", "`qlib_init.kernels` must be an integer, found '2'"),
    (MAIN, "qlib_init/kernels", 0, "`qlib_init.kernels` must be at least 1, found 0"),
    (MAIN, "qlib_init/exp_manager/kwargs/uri", "mlruns", "the tracking URI must name a database or a server"),
    (MAIN, "qlib_init/provider_uri", "nowhere", "qlib-ext data sample"),
    (MAIN, "task/records", [], "`key of task` must be one of dataset, model, record, reweighter, found 'records'"),
    (MAIN, "task/dataset", REMOVED, "`task` must have a `dataset`, found model, record"),
    # -- model
    (MAIN, "task/model", "qlib_ext.model.multi_task.MultiTaskModel", "`task.model` must be a mapping with `class`"),
    (MAIN, "task/model/kwarg", {}, "`task.model` has no place for `kwarg` (did you mean kwargs?)"),
    (MAIN, "task/model/class", 3, "`task.model.class` must be a dotted class"),
    (MAIN, "task/model/class", "qlib_ext.model.multi_task.MultiTaskModl", "(did you mean MultiTaskModel"),
    (MAIN, "task/model/class", "qlib_ext.model.multitask.MultiTaskModel", "does not exist: `qlib_ext.model.multitask` (did you mean multi_task"),
    (MAIN, "task/model/class", "qlib_ext.data.dataset.DailyPanelDataset", "`task.model.class` must be a Model, found"),
    (MAIN, "task/model/class", "subprocess.Popen", "must be of one of the packages qlib, qlib_ext"),
    (MAIN, f"{MODEL}/sed", 1, "`task.model.kwargs` has no place for `sed` (did you mean seed?)"),
    (MAIN, f"{MODEL}/seed", -1, "`seed` must be at least 0, found -1"),
    (MAIN, f"{MODEL}/seed", 10**30, "`seed` must be at most 4,294,967,295, found 10000"),
    (MAIN, f"{MODEL}/seed", True, "`seed` must be an integer, found True"),
    (MAIN, f"{MODEL}/seed", "one", "`seed` must be an integer, found 'one'"),
    (MAIN, f"{MODEL}/device", "gpu", "`device` must be one of auto, cpu, cuda, found 'gpu'"),
    (MAIN, f"{MODEL}/resume", "yes", "`resume` must be one of 0, 1, found 'yes'"),
    (MAIN, "qlib_init/exp_manager/kwargs/uri", "sqlite:////dev/null/x/mlflow.db", "the place of MLflow's database mlflow.db must be a folder that can be written"),
    (MAIN, f"{MODEL}/checkpoint_dir", "/dev/null/x", "`checkpoint_dir` must be a folder that can be written, found '/dev/null/x' (Not a directory: '/dev/null')"),
    (MAIN, f"{MODEL}/checkpoint_dir", 5, "`checkpoint_dir` must be a folder, or null for none, found 5"),
    (MAIN, f"{MODEL}/backbone", "LSTM", "`backbone` must be a mapping, found 'LSTM'"),
    (MAIN, f"{MODEL}/backbone/class", "qlib_ext.model.backbones.lstm.LSTMM", "is not in `qlib_ext.model.backbones.lstm` (did you mean LSTM?)"),
    (MAIN, f"{MODEL}/backbone/class", "qlib_ext.model.losses.mse.MSE", "`backbone.class` must be a Backbone, found"),
    (MAIN, f"{MODEL}/backbone/class", "qlib_ext.model.backbones.base.Backbone", "`backbone.class` must be a class that can be built"),
    (MAIN, f"{MODEL}/backbone/kwargs", {"hiden_size": 8}, "`backbone.kwargs` has no place for `hiden_size` (did you mean hidden_size?)"),
    (MAIN, f"{MODEL}/backbone/kwargs/hidden_size", 0, "`hidden_size` must be at least 1, found 0"),
    (MAIN, f"{MODEL}/backbone/kwargs/hidden_size", 90_000, "`parameters of the network` must be at most 1,000,000,000"),
    (MAIN, f"{MODEL}/backbone/kwargs/num_layers", 10**6, "`num_layers` must be at most 1,000, found 1000000"),
    (MAIN, f"{MODEL}/backbone/kwargs/hidden_size", 8.5, "`hidden_size` must be an integer, found 8.5"),
    (MAIN, f"{MODEL}/backbone/kwargs/num_layers", True, "`num_layers` must be an integer, found True"),
    (RESNEXT, f"{MODEL}/backbone/kwargs/cardinality", 3, "cardinality"),
    (RESNEXT, f"{MODEL}/backbone/kwargs/pooling", "sum", "`pooling` must be one of"),
    (MASTER, f"{MODEL}/backbone/kwargs/beta", 0, "`beta` must be above 0, found 0"),
    (MASTER, f"{MODEL}/backbone/kwargs/num_market", 63, "`backbone.kwargs` must not set `num_market`: it is given by the program"),
    (MAIN, f"{MODEL}/tasks", {}, "`tasks` must hold a regression task named `score`, found none"),
    (MAIN, f"{MODEL}/tasks/score", REMOVED, "`tasks` must hold a regression task named `score`, found momentum"),
    (MAIN, f"{MODEL}/tasks/score", ["RETURN"], "`tasks.score` must be a mapping with `label` and `loss`"),
    (MAIN, f"{MODEL}/tasks/score/label", REMOVED, "`tasks.score` must name its `label`, found ['loss']"),
    (MAIN, f"{MODEL}/tasks/score/label", "RETURNS", "`tasks.score.label` must be one of the dataset's labels ("),
    (MAIN, f"{MODEL}/tasks/score/label", 5, "`tasks.score.label` must be a str, found int: 5"),
    (MAIN, f"{MODEL}/tasks/score/lable", "RETURN", "(did you mean label?)"),
    (MAIN, f"{MODEL}/tasks/score/classes", 3, "`tasks.score.classes` is for classification losses, found MSE"),
    (MAIN, f"{MODEL}/tasks/momentum/classes", 1, "`tasks.momentum.classes` must be at least 2, found 1"),
    (MAIN, f"{MODEL}/tasks/momentum/classes", 2, "`tasks.momentum.classes` must be at least"),
    (MAIN, f"{MODEL}/tasks/momentum/label", "RETURN", "must be a label of classes 0, 1, ..., found"),
    (MAIN, f"{MODEL}/tasks/score/loss", {"class": "qlib_ext.model.losses.mse.MEE"}, "(did you mean MSE?)"),
    (MAIN, f"{MODEL}/tasks/score/loss", {"class": "qlib_ext.model.losses.cross_entropy.CrossEntropy"}, "the task `score` must be a regression"),
    (MAIN, f"{MODEL}/tasks/score/loss", {"class": "my_losses.Huber"}, "QLIB_EXT_PACKAGES=my_losses"),
    (MAIN, f"{MODEL}/tasks/score/head", {"class": "qlib_ext.model.heads.mlp.MLPHead", "kwargs": {"hidden_size": -1}}, "`hidden_size` must be at least 1, found -1"),
    (MAIN, f"{MODEL}/balancer/class", "qlib_ext.model.balancers.cqb.CQBB", "(did you mean CQB?)"),
    (MAIN, f"{MODEL}/balancer/kwargs/beta", 1.5, "`beta` must"),
    (MAIN, f"{MODEL}/balancer/kwargs/window", 0, "`window` must be at least"),
    (MAIN, f"{MODEL}/balancer/kwargs/decay", "1e-3", "`decay` must be at least 0, found '1e-3'"),
    (RESNEXT, f"{MODEL}/balancer/kwargs/weights", {"direction": 1.0, "scor": 1.0}, "scor"),
    (RESNEXT, f"{MODEL}/balancer/kwargs/weights/score", -1.0, "-1.0"),
    (MAIN, f"{MODEL}/balancer", {"class": "qlib_ext.model.balancers.torchjd.TorchJDAggregator", "kwargs": {"method": {"class": "torchjd.aggregation.UPGrd"}}}, "(did you mean UPGrad"),
    (MAIN, f"{MODEL}/balancer", {"class": "qlib_ext.model.balancers.torchjd.TorchJDAggregator", "kwargs": {"method": "UPGrad"}}, "`method` must be a mapping with `class`"),
    # -- training
    (MAIN, TRAINER, [1], "`trainer` must be a mapping, found [1]"),
    (MAIN, f"{TRAINER}/epochs", 3, "`key of trainer` must be one of"),
    (MAIN, f"{TRAINER}/n_epochs", 0, "`n_epochs` must be at least 1, found 0"),
    (MAIN, f"{TRAINER}/n_epochs", 10**9, "`n_epochs` must be at most 100,000, found 1000000000"),
    (MAIN, f"{TRAINER}/n_epochs", True, "`n_epochs` must be an integer, found True"),
    (MAIN, f"{TRAINER}/patience", 2.5, "`patience` must be an integer, found 2.5"),
    (MAIN, f"{TRAINER}/learning_rate", -1.0e-4, "`learning_rate` must be above 0, found -0.0001"),
    (MAIN, f"{TRAINER}/learning_rate", "2e-4", "`learning_rate` must be above 0, found '2e-4'"),
    (MAIN, f"{TRAINER}/learning_rate", float("inf"), "`learning_rate` must be a finite number, found inf"),
    (MAIN, f"{TRAINER}/precision", "float16", "`precision` must be one of bfloat16, float32, found 'float16' (did you mean"),
    (MAIN, f"{TRAINER}/selection", "sharpe", "`selection` must be one of authors, loss, rank_ic, found 'sharpe'"),
    (MAIN, f"{TRAINER}/selection", ["loss"], "`selection` must be one of authors, loss, rank_ic, found ['loss']"),
    (MAIN, f"{TRAINER}/phases", [], "`phases` must be a list of at least 1 phase, found []"),
    (RESNEXT, f"{TRAINER}/phases/0/tasks", ["directions"], "`phases[0].tasks` must be one of direction, score, found 'directions' (did you mean direction?)"),
    (RESNEXT, f"{TRAINER}/phases/0/epochs", 0, "`phases[0].epochs` must be at least 1, found 0"),
    (RESNEXT, f"{TRAINER}/selection", "rank_ic", "give it `selection: loss`"),
    (RESNEXT, f"{TRAINER}/plateau", {"factor": 1.5}, "`plateau.factor` must lie in (0, 1), found 1.5"),
    (RESNEXT, f"{TRAINER}/plateau", {"factors": 0.5}, "(did you mean factor?)"),
    (RESNEXT, f"{TRAINER}/augmentations/0/class", "qlib_ext.model.augmentations.crop.Crops", "(did you mean Crop?)"),
    (RESNEXT, f"{TRAINER}/augmentations/Jitter/kwargs", {"probability": 2}, "`probability` must lie in"),
    (RESNEXT, f"{TRAINER}/augmentations", {"class": "x"}, "`augmentations"),
    (MAIN, f"{TRAINER}/averaging", "EMA", "`averaging` must be a mapping with `class`"),
    (MAIN, f"{TRAINER}/averaging", {"class": "qlib_ext.model.averaging.ema.EMA", "kwargs": {"decay": 1}}, "`decay` must lie in [0, 1), found 1"),
    (MAIN, f"{TRAINER}/averaging", {"class": "qlib_ext.model.averaging.swa.SWA", "kwargs": {"start": 1000}}, "`averaging.start` must be below the epochs of each phase"),
    # -- dataset
    (MAIN, "task/dataset/class", "qlib_ext.data.dataset.DailyPanelDatset", "(did you mean DailyPanelDataset"),
    (MAIN, f"{DATASET}/segment", {}, "`task.dataset.kwargs` has no place for `segment` (did you mean segments?)"),
    (MAIN, f"{DATASET}/segments", {}, "`segments` must name at least one segment"),
    (MAIN, f"{DATASET}/segments", "train", "`segments` must name at least one segment"),
    (MAIN, f"{DATASET}/segments/valid", ["2015-06-01", "2015-09-30"], "segments `train` and `valid` overlap"),
    (MAIN, f"{DATASET}/segments/train", ["2015-06-30", "2015-01-05"], "segment `train` must not end before it begins"),
    (MAIN, f"{DATASET}/segments/test", ["2014-01-01", "2014-12-31"], "segment `test` must lie after `train`"),
    (MAIN, f"{DATASET}/segments/valid", ["2016-01-01", "2016-06-30"], "segment `test` must lie after `valid`"),
    (MAIN, f"{DATASET}/segments/test", ["2015-10-08", "2015-11-31"], "`segments.test[1]` must be a day such as 2014-12-31, found '2015-11-31'"),
    (MAIN, f"{DATASET}/segments/test", [2015, 2016], "`segments.test[0]` must be a day such as 2014-12-31, found 2015"),
    (MAIN, f"{DATASET}/segments/test", ["2015-10-08"], "segment `test` must be a pair of dates"),
    (MAIN, f"{DATASET}/segments/test", ["2015-10-08", None], "segment `test` must have a first and a last day"),
    (MAIN, f"{DATASET}/segments/test", ["2031-01-01", "2031-12-31"], "holds no day of the universe `csi300`"),
    (MAIN, f"{DATASET}/segments/test", REMOVED, "`segments` must hold `test`"),
    (MAIN, f"{DATASET}/segments/valid", REMOVED, "`segments` must hold `valid`, which MultiTaskModel needs"),
    (MASTER, f"{DATASET}/market_status", REMOVED, "a gate needs features of the market, found none: name `market_status`"),
    (MASTER, f"{DATASET}/market_status/kwargs/indices", ["SH000905"], "it has no bars of SH000905; of indices it has SH000016, SH000300, SH000903"),
    (MASTER, f"{DATASET}/market_status/kwargs/windows", [5, 5], "`windows` must be a list of different numbers of days"),
    (MASTER, f"{DATASET}/market_status/class", "qlib_ext.features.side_data.macro.Macro", "`market_status.class` must be a MarketStatus"),
    (RESNEXT, f"{DATASET}/segments/split", [0.7, 0.3], "`segments.split` must be the shares of train, valid, test"),
    (RESNEXT, f"{DATASET}/segments/split", [0.7, 0.2, 0.2], "`segments.split` must make 1 together"),
    (RESNEXT, f"{DATASET}/segments/test", ["2008-10-01", "2008-12-31"], "`segments.split` makes all segments, found test beside it"),
    (MAIN, f"{DATASET}/benchmark", "SH999999", "no bars of the benchmark `SH999999`"),
    (MAIN, f"{DATASET}/benchmark", 300, "`benchmark` must be a str, found int: 300"),
    (MAIN, f"{DATASET}/record_fields", ["chang"], "no field `chang`"),
    (MAIN, f"{DATASET}/record_fields", "change", "`record_fields` must be a list of names, found 'change'"),
    (MAIN, f"{DATASET}/purge", "no", "`purge` must be a bool, found str: 'no'"),
    (LGB, f"{DATASET}/table_labels", ["RETRUN"], "`table_labels` must be one of"),
    (MAIN, f"{DATASET}/market_value", {"class": "qlib_ext.features.side_data.market_value.FromSharse"}, "`market_value.class` names no class"),
    (MAIN, f"{DATASET}/cache", 5, "`cache` must be a directory, or off for none, found 5"),
    # -- handler
    (MAIN, f"{DATASET}/handler", "alpha360", "`handler` must be a mapping with `class`"),
    (MAIN, f"{HANDLER}/instruments", "csi3000", "no universe `csi3000` (instruments/csi3000.txt) (did you mean csi300"),
    (MAIN, f"{HANDLER}/instruments", "nobody", "no member of the universe `nobody`: instruments/nobody.txt is empty"),
    (MAIN, f"{HANDLER}/instruments", ["SH600000"], "`instruments` must be a str, found list"),
    (MAIN, f"{HANDLER}/fit_start", "2015-01-05", "`handler.kwargs` has no place for `fit_start` (did you mean fit_start_time"),
    (MAIN, f"{HANDLER}/fit_end_time", "2015-02-30", "`fit_end_time` must be a day such as 2014-12-31, found '2015-02-30'"),
    (MAIN, f"{HANDLER}/fit_end_time", "2014-12-31", "`fit_start_time` must not lie after `fit_end_time`"),
    (MAIN, f"{HANDLER}/fit_start_time", REMOVED, "must be given both or not at all"),
    (RESNEXT, f"{HANDLER}/end_time", "2007-01-01", "`start_time` must not lie after `end_time`"),
    (RESNEXT, f"{HANDLER}/start_time", 2008, "`start_time` must be a day such as 2014-12-31, found 2008"),
    (MAIN, f"{HANDLER}/labels", {}, "`columns` must be labels of the handler (MOMENTUM, MOMENTUM_PERSISTENCE), found 'RETURN'"),
    (MAIN, f"{HANDLER}/labels", ["RETURN"], "`labels` must be a mapping from names to Qlib expressions"),
    (MAIN, f"{HANDLER}/labels/RETURN", "Ref(side.valuation.pe, -1)", "`labels.RETURN` must be made of bars, found `side.valuation.pe`"),
    (MAIN, f"{HANDLER}/features", {"class": EXPRESSIONS, "kwargs": {"expressions": ["side.planted_scores.score"]}}, "no side data 'planted_scores' (did you mean planted_score?)"),
    (MAIN, f"{HANDLER}/features", {"class": EXPRESSIONS, "kwargs": {"expressions": ["side.planted_score.scor"]}}, "have no scor"),
    (MAIN, f"{HANDLER}/features", {"class": EXPRESSIONS, "kwargs": {"expressions": ["side.industry.bank"]}}, "must hold numbers, found spells"),
    (MAIN, f"{HANDLER}/labels/RETURN", "Reff($close, -2)", "`Reff` at character 1 is no operator (did you mean Ref?)"),
    (MAIN, f"{HANDLER}/labels/RETURN", "Ref($closing, -2) / Ref($closing, -1) - 1", "needs the field `closing`"),
    (MAIN, f"{HANDLER}/labels/RETURN", "Ref($close, -2", "is no Qlib expression"),
    (MAIN, f"{HANDLER}/labels/RETURN", 5, "a Qlib expression must be a text such as `$close`, found 5"),
    (MAIN, f"{HANDLER}/labels/RETURN", "__import__('os').getcwd()", "is no Qlib expression"),
    (MAIN, f"{FEATURES}/fields", ["open", "high"], "`fields` must hold `close`"),
    (MAIN, f"{HANDLER}/features", "alpha360", "`features` must be a mapping with `class`"),
    (MAIN, f"{HANDLER}/features/class", "qlib_ext.features.alpha360.Alpha36", "`features.class` names no class: `Alpha36`"),
    (MAIN, f"{HANDLER}/features/class", "qlib_ext.data.processors.momentum_line.MomentumLine", "must be a FeatureSet"),
    (MAIN, f"{HANDLER}/lookback_days", 60, "`handler.kwargs` has no place for `lookback_days`"),
    (MAIN, f"{FEATURES}/lookback", 60, "`features.kwargs` has no place for `lookback` (did you mean lookback_days"),
    (MAIN, f"{FEATURES}/lookback_days", 0, "`lookback_days` must be at least 1, found 0"),
    (MAIN, f"{HANDLER}/infer_processors/0/class", "qlib_ext.data.processors.momentum_line.Momentum", "(did you mean MomentumLine"),
    (MAIN, f"{HANDLER}/infer_processors/0/kwargs/length_days", 0, "`length_days` must be at least 1, found 0"),
    (MAIN, f"{HANDLER}/infer_processors", {"class": "x.Y"}, "must be"),
    (MAIN, f"{HANDLER}/learn_processors/0/kwargs/columns", ["RETRUN"], "`columns` must be labels of the handler"),
    (MAIN, f"{HANDLER}/learn_processors/0/kwargs/columns", "RETURN", "`columns` must be a list of names, found 'RETURN'"),
    (MAIN, f"{HANDLER}/learn_processors/0/kwargs/method", "ranks", "`method` must be one of rank, zscore, found 'ranks' (did you mean rank?)"),
    (RESNEXT, f"{HANDLER}/infer_processors/0/kwargs/source", "NEXT", "NEXT"),
    (RESNEXT, f"{HANDLER}/learn_processors/0/kwargs/unit", 0, "`unit` must be above 0, found 0"),
    (RESNEXT, f"{FEATURES}/macro/kwargs/series", {"gdp": "relative_change"}, "gdp"),
    (RESNEXT, f"{FEATURES}/macro/kwargs/series", {"cpi": "growth"}, "growth"),
    (RESNEXT, f"{FEATURES}/macro/kwargs/limit_days", -1, "`limit_days` must be"),
    (RESNEXT, f"{FEATURES}/form", "returns", "`form` must be one of"),
    (RESNEXT, f"{FEATURES}/fill", "backward", "`fill` must be one of"),
    (RESNEXT, f"{FEATURES}/bars", ["open", "clos"], "clos"),
    # -- records
    (MAIN, "task/record", "BacktestRecord", "`task.record` must be a list of records, found 'BacktestRecord'"),
    (MAIN, "task/record/RankingRecord/class", "qlib_ext.records.ranking.RankRecord", "(did you mean RankingRecord"),
    (MAIN, "task/record/RankingRecord/class", "SignalRecrd", "`SignalRecrd` is not in `qlib.workflow.record_temp`"),
    (MAIN, "task/record/SignalRecord/class", "qlib_ext.checks.UserError", "must be a Record"),
    (MAIN, "task/record/SignalRecord", REMOVED, "written by qlib_ext.records.signal.SignalRecord"),
    (MAIN, "task/record/RankingRecord/kwargs/labels", ["RETURN", "TOMORROW"], "`labels` must be one of the dataset's labels"),
    (MAIN, "task/record/RankingRecord/kwargs/labels", "RETURN", "`labels` must be a list of names, found 'RETURN'"),
    (MAIN, "task/record/RankingRecord/kwargs/precision_at", [0], "`precision_at` must be at least 1, found 0"),
    (MAIN, "task/record/RankingRecord/kwargs/precision_at", 10, "`precision_at` must be a list of numbers of stocks, found 10"),
    (MAIN, "task/record/MomentumRecord/kwargs", {"task": "momentums"}, "`task` must be a classification task of the model (momentum), found 'momentums'"),
    (LGB, "task/record/ImportanceRecord/kwargs", {"days": 1}, "`days` must be at least 2, found 1"),
    (LGB, "task/record/ImportanceRecord/kwargs", {"label": "RETRUN"}, "`label` must be one of the dataset's labels"),
    (LGB, "task/record/ImportanceRecord/kwargs", {"groups": {"prices": ["close", "hgih"]}}, "`groups.prices` must name features of the dataset, or patterns of them such as `ROC*`, found 'hgih' (did you mean high?)"),
    (LGB, "task/record/ImportanceRecord/kwargs", {"groups": ["close"]}, "`groups` must be a mapping from names to lists of features"),
    (RESNEXT, "task/record/DirectionRecord/kwargs/periods", {"crisis": ["2008-09-01", "2008-02-30"]}, "`periods['crisis']` must be a day"),
    (MAIN, "task/record/ReportRecord/kwargs", {"sections": [{"class": "qlib_ext.report.sections.costs.Cost"}]}, "(did you mean Costs"),
    (MAIN, "task/record/ReportRecord/kwargs", {"out_dir": "/dev/null/x"}, "`out_dir` of the report must be a folder that can be written"),
    (MAIN, "task/record/ReportRecord/kwargs", {"out_dir": 3}, "`out_dir` must be a folder, found 3"),
    # -- backtest
    (MAIN, f"{STRATEGY}/class", "qlib_ext.strategy.topk_dropout.TopKDropout", "(did you mean TopkDropout"),
    (MAIN, f"{STRATEGY}/kwargs/topk", 50, "the most stocks that `csi300` has on a day from 2015-10-08 to 2015-12-31; found 50"),
    (MAIN, f"{STRATEGY}/kwargs/topk", 0, "`topk` must be at least 1, found 0"),
    (MAIN, f"{STRATEGY}/kwargs/topk", 5.0, "`topk` must be an integer, found 5.0"),
    (MAIN, f"{STRATEGY}/kwargs/n_drop", 6, "`n_drop` must"),
    (MAIN, f"{STRATEGY}/kwargs/n_drop", -1, "`n_drop` must"),
    (MAIN, f"{STRATEGY}/kwargs/risk_degree", 1.2, "`risk_degree` must lie in (0, 1], found 1.2"),
    (MAIN, f"{STRATEGY}/kwargs/top_k", 5, "(did you mean topk?)"),
    (MAIN, f"{BACKTEST}/acount", 1, "`backtest` has no place for `acount` (did you mean account?)"),
    (MAIN, f"{BACKTEST}/account", 0, "`backtest.account` must be above 0, found 0"),
    (MAIN, f"{BACKTEST}/account", "1e8", "`backtest.account` must be above 0, found '1e8'"),
    (MAIN, f"{BACKTEST}/benchmark", "SH000301", "`backtest.benchmark` must be an instrument of the store"),
    (MAIN, EXCHANGE, [0.1], "`backtest.exchange_kwargs` must be a mapping, found [0.1]"),
    (MAIN, f"{EXCHANGE}/deal_prices", "close", "has no place for `deal_prices` (did you mean deal_price?)"),
    (MAIN, f"{EXCHANGE}/deal_price", "closing", "needs the field `closing`, which the store"),
    (MAIN, f"{EXCHANGE}/deal_price", "$close)(", "`backtest.exchange_kwargs.deal_price`: '$close)(' is no Qlib expression"),
    (MAIN, f"{EXCHANGE}/deal_price", 3, "`backtest.exchange_kwargs.deal_price` must be a price such as close"),
    (MAIN, f"{EXCHANGE}/open_cost", -0.001, "`backtest.exchange_kwargs.open_cost` must lie in [0, 1), found -0.001"),
    (MAIN, f"{EXCHANGE}/close_cost", 15, "`backtest.exchange_kwargs.close_cost` must lie in [0, 1), found 15"),
    (MAIN, f"{EXCHANGE}/min_cost", -5, "`backtest.exchange_kwargs.min_cost` must be at least 0, found -5"),
    (MAIN, f"{EXCHANGE}/limit_threshold", 9.5, "`backtest.exchange_kwargs.limit_threshold` must lie in (0, 1), found 9.5"),
    (MAIN, f"{EXCHANGE}/limit_threshold", "10%", "`backtest.exchange_kwargs.limit_threshold` must be a fraction such as 0.095"),
    (MAIN, f"{EXCHANGE}/volume_threshold", ["all", "$volume"], "must be one of cum, current, found 'all'"),
    (MAIN, f"{EXCHANGE}/rules", "cnn", "`rules` must be one of cn, us, or a YAML file; found 'cnn' (did you mean cn"),
    (MAIN, f"{EXCHANGE}/commission", 2, "`commission` must lie in [0, 1), found 2"),
    (MAIN, f"{EXCHANGE}/quote_cls", "x", "`backtest.exchange_kwargs` has no place for `quote_cls`"),
    (MAIN, "task/record/BacktestRecord/kwargs/days_per_year", 0, "`days_per_year` must be above 0, found 0"),
    (MAIN, "task/record/BacktestRecord/kwargs/start", "2016-13-01", "`start` must be a day such as 2014-12-31"),
    (MAIN, "task/record/BacktestRecord/kwargs/start", "2019-01-01", "`start` and `end` must leave days of the test segment"),
    # -- Qlib's LightGBM
    (LGB, f"{MODEL}/loss", "mae2", "`task.model.kwargs` do not fit LGBModel"),
    (LGB, f"{MODEL}/num_leafs", 31, "`task.model.kwargs` has no place for `num_leafs` (did you mean num_leaves?)"),
    (LGB, f"{MODEL}/seed", 10**12, "`task.model.kwargs.seed` must be at most 2,147,483,647, found 1000000000000"),
    (LGB, f"{MODEL}/num_boost_round", 10**9, "`task.model.kwargs.num_boost_round` must be at most 100,000"),
    (LGB, f"{MODEL}/n_estimators", 10**9, "`task.model.kwargs.n_estimators` must be at most 100,000"),
    (LGB, f"{MODEL}/num_leaves", 1, "`task.model.kwargs` do not fit LightGBM"),
    (LGB, f"{MODEL}/max_depth", "deep", "`task.model.kwargs` do not fit LightGBM"),
    (LGB, "task/model/class", "qlib.contrib.model.gbdt.LGBModle", "(did you mean LGBModel"),
    (LGB, "task/model/class", "qlib.contrib.model.gdbt.LGBModel", "does not exist: `qlib.contrib.model.gdbt` (did you mean gbdt"),
    # -- code and files that a configuration must not bring
    (MAIN, f"{DATASET}/handler", "file:///tmp/handler.pkl", "must not be a file that is unpickled"),
    (MAIN, "task/model", {"class": "Model", "module_path": "/tmp/model.py"}, "`task.model.module_path` must be a dotted module, found the file"),
    (MAIN, "task/model", {"func": "os.system", "kwargs": {"command": "true"}}, "must name a class, found the function 'os.system'"),
]  # fmt: skip


def named(case: tuple[str, str, Any, str]) -> str:
    """`n_epochs=0`: what is changed, in short."""
    value = "removed" if case[2] is REMOVED else re.sub(r"[^\w.\-]+", "_", str(case[2]))[:24]
    return f"{case[0].partition('_')[0]}-{case[1].rpartition('/')[2]}={value}"


class TestStops:
    @pytest.mark.parametrize("case", CASES, ids=named)
    def test_before_the_training_in_one_line(
        self,
        case: tuple[str, str, Any, str],
        stores: dict[str, Path],
        start: Callable[[dict[str, Any]], None],
    ) -> None:
        name, path, value, message = case
        config = made(name, stores)
        put(config, path, value if value is REMOVED else copy.deepcopy(value))
        with pytest.raises(UserError) as stopped:
            start(config)
        said = str(stopped.value)
        assert message in said
        assert "\n" not in said

    def test_there_are_more_than_sixty(self) -> None:
        assert len({(name, path, str(value)) for name, path, value, _ in CASES}) == len(CASES) > 60


class TestTrains:
    @pytest.mark.parametrize("name", [MAIN, EQUAL, LGB, RESNEXT])
    def test_what_is_right_passes(
        self, name: str, stores: dict[str, Path], start: Callable[[dict[str, Any]], None]
    ) -> None:
        with pytest.raises(TrainingBeganError):
            start(made(name, stores))
