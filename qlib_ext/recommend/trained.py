"""A finished run, opened to score with: its configuration, what it learned, and what it said of the test days."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from qlib.model.base import Model
from safetensors import SafetensorError
from safetensors.numpy import load_file

from qlib_ext.checks import UserError, brief
from qlib_ext.config.build import build, in_one_form, locate
from qlib_ext.config.renamed import SINCE, RenamedError
from qlib_ext.config.security import check_classes
from qlib_ext.data.dataset import MARKET_STATUS, WINDOWS, DailyPanelDataset
from qlib_ext.data.handlers.panel import PanelHandler
from qlib_ext.data.scores_only import scores_only
from qlib_ext.features.side_data.market_status import MarketStatus
from qlib_ext.files import load_yaml
from qlib_ext.model.combinatorial import SPLITS
from qlib_ext.model.combiners.base import Combiner
from qlib_ext.model.ensemble.ensemble import Ensemble
from qlib_ext.model.ensemble.member_scores import COMBINER, MEMBERS
from qlib_ext.model.given_scores import GivenScores
from qlib_ext.model.multi_task import MultiTaskModel
from qlib_ext.model.plain_weights import PLAIN, give_weights
from qlib_ext.model.plain_weights import WINDOWS as STATISTICS
from qlib_ext.model.walk_forward import RUNS
from qlib_ext.tracking.artifacts import RunArtifacts, reading, stored

NETWORK = ("training/weights.safetensors", "training/network.json")
LEARNED = (NETWORK, *((STATISTICS, path) for path in PLAIN))  # of one of these a model is loaded
ALWAYS = ("config.yaml", "data/summary.json")
# Of `data/summary.json`.
SUMMARY: Mapping[str, type] = {
    "segments": dict,
    "fields": list,
    "missing_fields": list,
    "labels": dict,
    "universe": str,
    "store_end": str,
    "fingerprint": str,
    "lookback_days": int,
}
OPTIONAL = (
    "signal/predictions.parquet",
    "signal/labels.parquet",
    "data/coverage.parquet",
    "backtest/setup.json",
    RUNS,
    MEMBERS,
    COMBINER,
    SPLITS,
)
AGAIN = "train it again with this version"


@dataclass(frozen=True)
class TrainedRun:
    """What a finished run left that a later day can be scored with. Nothing in it is unpickled.

    Attributes
    ----------
    run_id, name
        Of the run.
    config
        Its task: model, dataset and records, as the workflow had them.
    summary
        What its dataset was, as `data/summary.json` has it.
    artifacts
        What was fetched of it.
    members
        Of an ensemble, the runs of its members, opened.
    """

    run_id: str
    name: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    artifacts: RunArtifacts
    members: tuple[TrainedRun, ...] = ()

    @classmethod
    def open(cls, client: MlflowClient, run: Run, root: Path, *, learned: bool = True) -> TrainedRun:
        """Fetch what scoring needs into the empty folder `root`; `learned` says whether its model is to score.

        Raises
        ------
        UserError
            If the run did not finish, does not keep its configuration or what its model learned, or its configuration
            names what no configuration may, or what was called so in an earlier version.
        """
        called = f"the run `{run.info.run_name}` ({run.info.run_id})"
        if run.info.status != "FINISHED":
            raise UserError(
                f"{called} must be FINISHED, found {run.info.status}: let it finish, take it up with RESUME=1, or "
                "name another"
            )
        have = set(stored(client, run.info.run_id, [*ALWAYS, *OPTIONAL, *sum(LEARNED, ())]))
        missing = [path for path in ALWAYS if path not in have]
        if missing:
            raise UserError(
                f"{called} keeps no {', '.join(missing)}: a run of a workflow with SignalRecord is needed"
            )
        artifacts = RunArtifacts.download(client, run.info.run_id, sorted(have), root)
        try:
            config = load_yaml(artifacts.text("config.yaml"))
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{called} must keep YAML in config.yaml: {error}: {AGAIN}") from error
        if not isinstance(config, Mapping) or not {"model", "dataset"} <= set(config):
            raise UserError(
                f"{called} must keep model and dataset in config.yaml, found {brief(config)}: {AGAIN}"
            )
        try:  # whoever wrote it: before any of it is built
            check_classes(config, f"config.yaml of the run {run.info.run_id}")
        except RenamedError as error:
            raise UserError(f"{called} was made by a version before {SINCE}: {error}; {AGAIN}") from error
        summary = artifacts.json("data/summary.json")
        check_summary(summary, called)
        opened = cls(run.info.run_id, run.info.run_name, config, summary, artifacts)
        if learned:
            opened.check_learned()
        return opened

    def check_learned(self) -> None:
        """Raise a UserError where the run keeps nothing that a model could score a later day with, or is none to trade by."""
        called = f"the run `{self.name}` ({self.run_id})"
        dataset = in_one_form(self.config["dataset"], "dataset")["kwargs"]
        if self.artifacts.has(SPLITS) or dataset.get("judging"):
            raise UserError(
                f"{called} is of a combinatorial cross-validation, whose models learn of days after those that they score: that "
                "judges a method, and nobody could trade so. Train by segments in the order of time, such as `segments: "
                "{walk_forward: ...}`, and name that run"
            )
        if any(all(map(self.artifacts.has, learned)) for learned in LEARNED) or self.member_runs():
            return
        given = self.given_scores()
        if given is not None:
            raise UserError(
                f"{called} has no model, its scores are of {given.called}: give newer ones by `--scores FILE`"
            )
        raise UserError(
            f"{called} keeps nothing that a model could be loaded from without running a pickle, neither "
            f"{' and '.join(NETWORK)} nor {STATISTICS} with {' or '.join(PLAIN)}: give the scores of the day as a file, by "
            f"`--scores FILE`, or where the model is a MultiTaskModel, an LGBModel or a LinearModel, {AGAIN}"
        )

    def given_scores(self) -> GivenScores | None:
        """What the run's scores were given by; None where a model made them."""
        described = in_one_form(self.config["model"], "model")
        if not issubclass(locate(described["class"], name="model"), GivenScores):
            return None
        return build(described, GivenScores, name="model")

    def scored_by(self) -> str | None:
        """The run whose model scores for this one: that whose scores it was given, or its newest fold; None for itself."""
        if (fold := self.newest_fold()) is not None:
            return str(fold["run_id"])
        given = self.given_scores()
        return None if given is None else given.run

    def newest_fold(self) -> Mapping[str, Any] | None:
        """The newest fold of a walk-forward, as `model.walk_forward.WalkForward` has it; None of another run."""
        if not self.artifacts.has(RUNS):
            return None
        with reading("the newest fold", [RUNS]):
            fold = self.artifacts.json(RUNS)[-1]
            return {name: fold[name] for name in ("fold", "run_id", "train", "valid", "due")}

    def member_runs(self) -> list[str]:
        """Ids of the runs of an ensemble's members; none of another run, nor of scores that were only combined."""
        if not self.artifacts.has(MEMBERS) or self.given_scores() is not None:
            return []
        with reading("the members of an ensemble", [MEMBERS]):
            return [str(member["run_id"]) for member in self.artifacts.json(MEMBERS)]

    def combiner(self) -> Combiner:
        """How an ensemble makes one score of its members', with the weights that it learned."""
        combiner = build(in_one_form(self.config["model"], "model"), Ensemble, name="model").combiner
        with reading("the combiner of an ensemble", [COMBINER]):
            combiner.weights = np.array(self.artifacts.json(COMBINER)["weights"], dtype=float)
        return combiner

    @property
    def region(self) -> str:
        """Qlib's region of the training; of a run that did not note it, by the lots in which it traded."""
        if "region" in self.artifacts.tags:
            return self.artifacts.tags["region"]
        if self.artifacts.has("backtest/setup.json"):
            return "cn" if self.artifacts.json("backtest/setup.json")["trade_unit"] == 100 else "us"
        return "cn"

    def table(self, path: str) -> pd.DataFrame | None:
        """A Parquet artifact; None where the run has it not."""
        return self.artifacts.table(path) if self.artifacts.has(path) else None

    def statistics(self, name: str = WINDOWS) -> tuple[np.ndarray, np.ndarray]:
        """Median and scale of the features `[T, F]`, or of the market's status `[M]`, as the training fitted them."""
        path = NETWORK[0] if self.artifacts.has(NETWORK[0]) else STATISTICS
        try:
            tensors = load_file(self.artifacts.root / path)
            return tensors[f"{name}median"], tensors[f"{name}scale"]
        except (SafetensorError, KeyError, OSError) as error:
            raise UserError(
                f"the run {self.run_id} has no statistics of its features in {path} ({error}): {AGAIN}"
            ) from error

    def segment(self, name: str) -> tuple[pd.Timestamp, pd.Timestamp] | None:
        """First and last day that a segment of the run had; None where it had no such segment."""
        found = self.summary["segments"].get(name)
        return None if found is None else (pd.Timestamp(found["start"]), pd.Timestamp(found["end"]))

    def dataset(
        self, days: Mapping[str, tuple[pd.Timestamp, pd.Timestamp]], *, features: bool = True
    ) -> DailyPanelDataset:
        """The run's dataset on the store that Qlib reads now, with other segments and the statistics of the training.

        Parameters
        ----------
        days
            Segment -> first and last day, both included.
        features
            Whether it has what a model sees, or members and labels only.

        Raises
        ------
        UserError
            If the store lacks a field that the run's features had, its universe, or a day, or the run's configuration is of
            another shape.
        """
        own = self.config["dataset"]
        config = in_one_form(own if features else scores_only(own), "dataset")
        kwargs = config["kwargs"]
        handler_config = in_one_form(kwargs.pop("handler", None), "dataset.handler")
        for name in ("segments", "cache", "purge"):
            kwargs.pop(name, None)
        index = {"benchmark": kwargs.pop("benchmark", None), **handler_config["kwargs"]}["benchmark"]
        if kwargs.get("market_status") is not None:
            status = build(kwargs["market_status"], MarketStatus, name="dataset.market_status")
            status.restore(*self.statistics(MARKET_STATUS))
            kwargs["market_status"] = status
        begin = min(first for first, _ in days.values())
        end = max(last for _, last in days.values())
        given = {"start_time": begin, "end_time": end, "init_data": False, "cache": None, "benchmark": index}
        handler = build(
            {**handler_config, "kwargs": {**handler_config["kwargs"], **given}},
            PanelHandler,
            name="dataset.handler",
        )
        trained, now = list(self.summary["fields"]), list(handler.features.names)
        if features and trained != now:
            raise UserError(f"the model was trained on the fields {trained}, found {now}: {AGAIN}")
        if handler.features.names:
            handler.features.restore(*self.statistics())
        handler.setup_data(init_type=PanelHandler.IT_LS)
        gone = set(handler.panel.missing_fields) - set(self.summary["missing_fields"])
        if gone:
            raise UserError(
                f"the store {handler.store.root} has no `{'`, `'.join(sorted(gone))}`, which the model was trained "
                f"with: bring it in, or train a model without"
            )
        return build(
            {**config, "kwargs": {**kwargs, "handler": handler, "segments": dict(days), "purge": False}},
            DailyPanelDataset,
            name="dataset",
        )

    def model(self, dataset: DailyPanelDataset) -> Model:
        """The run's model with what it learned, ready to predict on `dataset`.

        A model that was trained on a GPU is taken to the CPU where there is no GPU.
        """
        config = in_one_form(self.config["model"], "model")
        if config["kwargs"].get("device") == "cuda":
            config["kwargs"]["device"] = "auto"
        model = build(config, Model, name="model")
        if isinstance(model, MultiTaskModel):
            model.restore(self.artifacts.root / "training", dataset)
        elif not give_weights(model, self.artifacts.root):
            raise UserError(
                f"a {type(model).__name__} cannot be loaded without a pickle: MultiTaskModel, LGBModel and LinearModel can"
            )
        return model


def check_summary(summary: Any, called: str) -> None:
    """What scoring reads of `data/summary.json` must be there, in the form in which a run writes it."""
    try:
        for name, kind in SUMMARY.items():
            if not isinstance(summary[name], kind):
                raise TypeError(f"its {name} is {brief(summary[name])}")
        pd.Timestamp(summary["store_end"])
        for segment in summary["segments"].values():
            if pd.Timestamp(segment["start"]) > pd.Timestamp(segment["end"]):
                raise ValueError(f"a segment from {segment['start']} to {segment['end']}")
    except (LookupError, TypeError, ValueError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{called} must keep in data/summary.json what its dataset was, found something else ({said}): {AGAIN}"
        ) from error
