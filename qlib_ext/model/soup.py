"""Soups: the mean of the weights of several finished runs."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.tracking import MlflowClient
from torch import Tensor

from qlib_ext.checks import UserError, brief, one_of
from qlib_ext.config.build import in_one_form, locate
from qlib_ext.data.dataset import MARKET_STATUS, WINDOWS, DailyPanelDataset
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.files import load_yaml
from qlib_ext.model.averaging.members import number_of_members
from qlib_ext.model.batch_norm import renew_statistics
from qlib_ext.model.evaluator import Evaluator
from qlib_ext.model.multi_task import MultiTaskModel, read_weights, take_weights
from qlib_ext.tracking.active import active_recorder
from qlib_ext.tracking.artifacts import RunArtifacts, stored
from qlib_ext.tracking.runs import connect, find_run

logger = logging.getLogger(__name__)

GREEDY, UNIFORM = "greedy", "uniform"
MEMBERS = "soup/members.json"
CONFIG, SUMMARY = "config.yaml", "data/summary.json"
NEEDED = (CONFIG, SUMMARY, "training/network.json", "training/weights.safetensors")
# Of `data/summary.json`, what two runs must have in common; of their segments those that a choice may read.
DATA = ("fingerprint", "universe", "fields", "lookback_days", "labels")
CHOSEN_BY = ("train", "valid")
BALANCER = {"class": "qlib_ext.model.balancers.equal.EqualWeighting"}  # nothing is trained

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Member:
    """A run whose weights may go into a soup.

    Attributes
    ----------
    run_id, name
        Of the run.
    alike
        What it must have in common with the others.
    weights
        Of its network.
    statistics
        What its features were normalised by.
    """

    run_id: str
    name: str
    alike: Mapping[str, Any]
    weights: Weights
    statistics: Weights


class Soup(MultiTaskModel):
    """A network whose weights are the mean of those of several runs, judged on validation. Nothing is trained.

    Source: Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
    inference time, 2022, section 2. With f(A) the validation RankIC of the mean of the weights A, and θ(1), θ(2), ... in the
    order of f alone, the greedy soup (Algorithm 1) takes θ(k) in where::

        f(A and θ(k)) ≥ f(A)

    Parameters
    ----------
    runs
        At least two finished runs on MLflow, each as `qlib_ext.tracking.runs.find_run` takes it.
    backbone, tasks, trainer
        As of these runs; of `trainer` the precision alone matters.
    kind
        `greedy`, or `uniform`: all of them.
    device
        As of `MultiTaskModel`.
    tracking_uri
        Where the runs are; by default as `qlib_ext.tracking.runs.connect` has it.

    Attributes
    ----------
    members : list of dict
        `run_id`, `name`, `rank_ic` on validation alone, `with_it` of the mean with it, and `kept` of each run, in the order in
        which they were tried, after `fit`.

    Raises
    ------
    UserError
        From the constructor if an argument is of another shape. From `check_before` and `fit` if a run did not finish or keeps
        no weights, or runs are of other networks or other data than each other or than the workflow.

    Notes
    -----
    The test segment is not read. Batch normalisation gets its running statistics anew, from the days of training. A mean of
    weights is worth something where the runs lie in one basin: those that start from one run (`start_from`), or differ in
    learning rate and length. Runs from other seeds mostly do not, and a greedy soup of them is the best run alone.
    """

    makes = ("training/network.json", "training/weights.safetensors", MEMBERS)

    def __init__(
        self,
        runs: Sequence[str],
        backbone: Mapping[str, Any],
        tasks: Mapping[str, Mapping[str, Any]],
        trainer: Mapping[str, Any] | None = None,
        kind: str = GREEDY,
        device: str = "auto",
        tracking_uri: str | None = None,
    ) -> None:
        super().__init__(backbone, tasks, BALANCER, trainer, device=device, checkpoint_dir=None)
        if isinstance(runs, str) or not isinstance(runs, Sequence) or len(set(map(str, runs))) < 2:
            raise UserError(f"`runs` must be a list of at least two runs, found {brief(runs)}")
        self.runs = [str(run) for run in runs]
        self.kind = one_of("kind", kind, (GREEDY, UNIFORM))
        self.tracking_uri = tracking_uri
        self.members: list[dict[str, Any]] = []

    def check_before(self, spec: DatasetSpec) -> None:
        """What `MultiTaskModel` checks, and the runs against each other, the network and the store."""
        super().check_before(spec)
        self._check(self._read()[0].alike, {"fingerprint": spec.store.fingerprint()})

    def fit(self, dataset: DailyPanelDataset, reweighter: Any = None) -> None:
        """Average the weights; `valid` decides which, and `test` is never read."""
        members = self._read()
        tasks, network, train, valid = self._begin(dataset, reweighter)
        self._check(members[0].alike, _data(dataset.describe()))
        _check_statistics(members[0], dataset.statistics())
        network.to(self.device)
        labels = tuple(task.label for task in tasks)
        days, train_days = valid.labelled(labels), train.labelled(labels)
        evaluator = Evaluator(network, tasks, self.options.precision)

        def load(chosen: Sequence[Weights]) -> None:
            take_weights(network, mean_of(chosen), "name runs of one network")
            if len(chosen) > 1:
                renew_statistics(network, (train[int(position)] for position in train_days))

        def judge(chosen: Sequence[Weights]) -> float:
            load(chosen)
            return evaluator.losses_and_scores(valid, days)[1]["rank_ic"]

        rows = stirred([member.weights for member in members], judge, everything=self.kind == UNIFORM)
        load([members[row["member"]].weights for row in rows if row["kept"]])
        self._network = network
        self.members = [
            {"run_id": members[row["member"]].run_id, "name": members[row["member"]].name, **row}
            for row in rows
        ]
        self._tell()
        recorder = active_recorder()
        if recorder is not None:
            self._save(recorder, dataset)
            self._save_members(recorder)

    def _read(self) -> list[Member]:
        """The runs, each once, held against each other."""
        client = connect(self.tracking_uri)
        members = [_member(client, run) for run in self.runs]
        twice = {member.run_id for member in members}
        if len(twice) < len(members):
            raise UserError(f"`runs` must name each run once, found {', '.join(self.runs)}")
        first = members[0]
        for member in members[1:]:
            compare(
                member.alike, first.alike, f"the run {called(member)}", f"as the run {called(first)} has it"
            )
        return members

    def _check(self, alike: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        own = {"backbone": self.backbone, "tasks": self.tasks, **data}
        compare(plain(own), alike, "this workflow", "as the runs have it")

    def _tell(self) -> None:
        for row in self.members:
            logger.info(
                "%s: validation RankIC %.4f alone, %.4f in the mean: %s",
                row["name"],
                row["rank_ic"],
                row["with_it"],
                "kept" if row["kept"] else "left out",
            )
        best, found = self.members[0], [row for row in self.members if row["kept"]][-1]["with_it"]
        if found < best["rank_ic"]:
            logger.warning(
                "the mean of all runs has a validation RankIC of %.4f, below the %.4f of %s alone: take a greedy soup",
                found,
                best["rank_ic"],
                best["name"],
            )

    def _save_members(self, recorder: Any) -> None:
        kept = [row for row in self.members if row["kept"]]
        recorder.set_tags(soup=f"{self.kind}, {len(kept)} of {len(self.members)} runs")
        recorder.log_metrics(**{"valid/rank_ic": kept[-1]["with_it"]})
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(MEMBERS).name
            path.write_text(json.dumps(self.members, indent=2) + "\n", encoding="utf-8")
            recorder.log_artifact(str(path), str(Path(MEMBERS).parent))


def stirred(
    weights: Sequence[Weights], judge: Callable[[Sequence[Weights]], float], *, everything: bool = False
) -> list[dict[str, Any]]:
    """Which weights go into the mean, tried in the order of what each is worth alone.

    Parameters
    ----------
    weights
        Of M networks of one shape.
    judge
        From some of them to what their mean is worth, higher is better.
    everything
        Keep all, whatever they are worth.

    Returns
    -------
    list of dict
        A row a network: `member`, its position in `weights`; `rank_ic` alone; `with_it`, that of the mean with it; `kept`.

    Raises
    ------
    UserError
        If none is worth anything: RankIC is undefined for each.
    """
    alone = [judge([each]) for each in weights]
    if np.isnan(alone).all():
        raise UserError(
            "no run has a validation RankIC: all scores of a day are equal, on every day; name others"
        )
    order = sorted(range(len(weights)), key=lambda k: (np.isnan(alone[k]), -alone[k]))
    rows: list[dict[str, Any]] = []
    kept: list[Weights] = []
    best = -np.inf
    for k in order:
        found = judge([*kept, weights[k]]) if kept else alone[k]
        taken = everything or found >= best
        if taken:
            kept.append(weights[k])
            best = found
        rows.append({"member": k, "rank_ic": alone[k], "with_it": found, "kept": bool(taken)})
    return rows


def mean_of(weights: Sequence[Weights]) -> dict[str, Tensor]:
    """The mean of each weight, computed in float64; what is no fraction, such as a count, is that of the first."""
    return {
        name: torch.stack([each[name].double() for each in weights]).mean(dim=0).to(first.dtype)
        if first.is_floating_point()
        else first
        for name, first in weights[0].items()
    }


def compare(found: Mapping[str, Any], expected: Mapping[str, Any], whose: str, like: str) -> None:
    """Raise a UserError where one has something else than the other, of what it has."""
    for name, value in found.items():
        if value != expected[name]:
            raise UserError(
                f"`{name}` of {whose} must be {like}, {brief(expected[name])}, found {brief(value)}: weights are averaged of "
                "runs of one network on one set of data"
            )


def called(member: Member) -> str:
    """A run for messages."""
    return f"{member.name} ({member.run_id[:8]})"


def plain(content: Any) -> Any:
    """A configuration as JSON has it, so that it can be compared with one that was kept."""
    return json.loads(json.dumps(content, default=str))


def _member(client: MlflowClient, wanted: str) -> Member:
    run = find_run(client, wanted)
    run_id, name = run.info.run_id, str(run.info.run_name)
    if run.info.status != "FINISHED":
        raise UserError(
            f"the run `{name}` ({run_id}) must be FINISHED, found {run.info.status}: name another"
        )
    missing = {*NEEDED} - {*stored(client, run_id, NEEDED)}
    if missing:
        raise UserError(
            f"the run `{name}` ({run_id}) keeps no {', '.join(sorted(missing))}: a run of a MultiTaskModel with SignalRecord is "
            "needed; of a walk-forward name a fold"
        )
    with tempfile.TemporaryDirectory() as folder:
        kept = RunArtifacts.download(client, run_id, NEEDED, Path(folder))
        config, summary = load_yaml(kept.text(CONFIG)), kept.json(SUMMARY)
        _, tensors = read_weights(kept.root / "training")
    model = in_one_form(config["model"], "model")
    if not issubclass(locate(model["class"], name="model"), MultiTaskModel):
        raise UserError(f"the run `{name}` ({run_id}) must be of a MultiTaskModel, found {model['class']}")
    statistics = {key: value for key, value in tensors.items() if key.startswith((WINDOWS, MARKET_STATUS))}
    weights = {key: value for key, value in tensors.items() if key not in statistics}
    if number_of_members(weights):
        raise UserError(
            f"the run `{name}` ({run_id}) is an ensemble of snapshots, which has no mean of weights"
        )
    return Member(run_id, name, _alike(model["kwargs"], config["dataset"], summary), weights, statistics)


def _alike(
    kwargs: Mapping[str, Any], dataset: Mapping[str, Any], summary: Mapping[str, Any]
) -> dict[str, Any]:
    """What runs must have in common: their network, and their data but for the days that a choice must not read."""
    data = in_one_form(dataset, "dataset")["kwargs"]
    named = {key: value for key, value in data.items() if key not in ("cache", "segments")}
    own = {"backbone": kwargs["backbone"], "tasks": kwargs["tasks"]}
    return plain({**own, **_data(summary), "dataset": named})


def _data(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a dataset says of itself, what decides a choice."""
    segments = {f"segments.{name}": summary["segments"].get(name) for name in CHOSEN_BY}
    return {**{name: summary[name] for name in DATA}, **segments}


def _check_statistics(member: Member, own: Mapping[str, np.ndarray]) -> None:
    """The features of the workflow must be normalised as those of the runs were: by the same days, in the same way."""
    same = own.keys() == member.statistics.keys() and all(
        np.array_equal(own[name], value.numpy(), equal_nan=True) for name, value in member.statistics.items()
    )
    if not same:
        raise UserError(
            f"the features must be normalised as those of the run {called(member)} were, found others: take its dataset, with "
            "the same `train`"
        )
