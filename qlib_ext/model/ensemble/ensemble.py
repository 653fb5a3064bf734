"""An ensemble as a model: its members are trained as runs of their own, and their scores become one."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from mlflow.tracking import MlflowClient
from qlib.config import C
from qlib.data.dataset import Dataset
from qlib.model.base import Model

from qlib_ext.checks import UserError, brief, instance, integer, nearest, one_of
from qlib_ext.config.build import build, dotted, in_one_form, locate
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.fold_datasets import with_segments
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.market.store import QlibStore
from qlib_ext.model.combiners.base import Combiner
from qlib_ext.model.combiners.mean_z_score import MeanZScore
from qlib_ext.model.ensemble.member_scores import (
    COMBINER,
    MEMBERS,
    MemberScores,
    combine_tables,
    keep,
    members_of,
)
from qlib_ext.model.trainings.below import RunsBelow
from qlib_ext.model.trainings.side_by_side import Places
from qlib_ext.model.trainings.warm_start import START_FROM, can_start
from qlib_ext.tracking.active import active_recorder

logger = logging.getLogger(__name__)

MEMBER = "member"  # tag
OF_MEMBER = ("model", "dataset", "name")
MOST_MEMBERS = 1000


class Ensemble(Model):
    """Several models whose scores become one.

    Every member is a run of its own on MLflow, below the one under way, with the task that it would have alone. What a
    combiner learns, it learns on the validation segment; the test segment is only scored.

    Parameters
    ----------
    members
        `{class, kwargs}` of any Qlib model each; or `{model, dataset, name}`, where a member has a dataset of its own. Its
        segments are then those of the workflow, and what is fitted is fitted on their days of training.
    model, seeds
        In the place of `members` one model with several seeds: a list of them, or how many from the model's own on.
    combine
        `{class, kwargs}` of a combiner (`qlib_ext.model.combiners`); by default `MeanZScore`.
    label
        Raw label that a combiner learns by.
    workers, ray
        Where members are trained, as `qlib_ext.model.trainings.side_by_side.Places` takes them.
    resume
        Take members that earlier runs have finished with the same configuration, data and version; train the others.
    start_from
        Run of an ensemble with the same members, from whose members' weights each begins that can. Members that cannot, such as
        trees, learn from nothing.
    dataset, record
        Of the members that have no dataset of their own, and the records of each. Given by the workflow
        (`workflow.ensemble.with_members`).

    Attributes
    ----------
    runs : list of dict
        `member` (its name), `run_id` and `trained` (False where an earlier run had it) of each, after `fit`.
    scores : MemberScores or None
        What the members said, after `fit`.
    combiner : Combiner
        With the weights that it has learned.

    Raises
    ------
    UserError
        If an argument is of another shape, or the model takes no seed.
    """

    makes = (MEMBERS, COMBINER)

    def __init__(
        self,
        members: Sequence[Mapping[str, Any]] | None = None,
        model: Mapping[str, Any] | None = None,
        seeds: int | Sequence[int] | None = None,
        combine: Mapping[str, Any] | None = None,
        label: str = "RETURN",
        workers: int = 1,
        ray: Any = None,
        resume: bool | int = False,
        start_from: str | None = None,
        dataset: Mapping[str, Any] | None = None,
        record: Sequence[Any] = (),
    ):
        if (members is None) == (model is None) or (seeds is None) != (model is None):
            raise UserError(
                "an ensemble must have `members`, or `model` and `seeds`; found "
                f"{', '.join(name for name, it in (('members', members), ('model', model), ('seeds', seeds)) if it is not None) or 'none'}"
            )
        if members is not None:
            self.members = _named(
                [_member(each, k) for k, each in enumerate(instance("members", members, list))]
            )
        else:
            self.members = _of_seeds(in_one_form(model, "model"), seeds)
        self.alike = members is None  # but for their seed
        self.combiner = build(combine or {"class": dotted(MeanZScore)}, Combiner, name="combine")
        self.label = instance("label", label, str)
        self.places = Places(workers, ray)
        self.resume = bool(one_of("resume", resume, (0, 1)))
        self.start_from = None if start_from is None else instance("start_from", start_from, str)
        self.dataset = None if dataset is None else in_one_form(dataset, "task.dataset")
        self.record = [in_one_form(each, "record of a member") for each in record]
        self.runs: list[dict[str, Any]] = []
        self.scores: MemberScores | None = None

    def starters(self) -> list[str]:
        """Names of the members that can begin from the weights of a run."""
        return [name for name, member in self.members.items() if can_start(member["model"])]

    def tasks(self, client: MlflowClient | None = None) -> dict[str, dict[str, Any]]:
        """Name -> the task of each member, an ordinary one.

        Parameters
        ----------
        client
            Of the MLflow store where the run `start_from` is; without it members are those that learn from nothing.

        Raises
        ------
        UserError
            If the workflow gave no dataset, a member's own cannot be fitted on its days of training, or the run `start_from`
            lacks a member.
        """
        if self.dataset is None:
            raise UserError(
                "an ensemble trains its members on the dataset of a workflow, found none: run it by `qrun`"
            )
        segments = self.dataset["kwargs"].get("segments")
        judging = bool(self.dataset["kwargs"].get("judging"))
        tasks = {
            name: {
                "model": copy.deepcopy(member["model"]),
                "dataset": copy.deepcopy(self.dataset)
                if member.get("dataset") is None
                else with_segments(member["dataset"], segments, judging=judging),
                "record": copy.deepcopy(self.record),
            }
            for name, member in self.members.items()
        }
        if client is not None and self.start_from is not None:
            runs = members_of(client, self.start_from)
            for name in self.starters():
                if name not in runs:
                    raise UserError(
                        f"`start_from` must be a run of an ensemble with the member `{name}`, found {brief([*runs])} in "
                        f"{self.start_from}"
                    )
                tasks[name]["model"]["kwargs"][START_FROM] = runs[name]
        return tasks

    def different_tasks(self) -> dict[str, dict[str, Any]]:
        """Those of `tasks` that differ by more than the seed."""
        tasks = self.tasks()
        return dict([*tasks.items()][:1]) if self.alike else tasks

    def classifications(self) -> dict[str, bool]:
        """Task -> whether it predicts a class, of the tasks that every member has."""
        found: list[dict[str, bool]] = []
        for member in [*self.members.values()][: 1 if self.alike else None]:
            kind = locate(member["model"]["class"], name="model")
            if not hasattr(kind, "classifications"):
                return {}
            found.append(build(member["model"], Model, name="model").classifications())
        return {name: of for name, of in found[0].items() if all(name in each for each in found)}

    def check_before(self, spec: DatasetSpec) -> None:
        """The label and the segments, against those of the dataset."""
        if self.combiner.learns:
            spec.require_segment("valid", type(self.combiner).__name__)
            spec.require_raw_label("label", self.label)

    def fit(self, dataset: Dataset, reweighter: Any = None) -> None:
        """Train every member as a run below the one under way, or take it from a run that has it; learn how to combine.

        Raises
        ------
        UserError
            If no run is under way, or a member fails.
        """
        recorder = active_recorder()
        if recorder is None:
            raise UserError(
                "members are runs below another one, found none under way: run the workflow by `qrun`"
            )
        below = RunsBelow(recorder, MEMBER, QlibStore(C.dpm.get_data_uri("day")).fingerprint())
        tasks = self.tasks(recorder.client)
        trainings = [below.training(k, len(tasks), task) for k, task in enumerate(tasks.values(), 1)]
        found = below.trained(trainings, self.places, resume=self.resume)
        self.runs = [
            {"member": name, "run_id": run_id, "trained": trained}
            for name, (run_id, trained) in zip(tasks, found, strict=True)
        ]
        runs = {run["member"]: run["run_id"] for run in self.runs}
        self.scores = MemberScores.read(recorder.client, runs, validation=self.combiner.learns)
        self.scores.fit(self.combiner, self.label)
        logger.info(
            "%r: weights %s", self.combiner, brief(self.combiner.weights_of(len(runs)).round(3).tolist())
        )
        keep(recorder, self.runs, self.combiner)

    def predict(self, dataset: Dataset, segment: str = "test") -> pd.DataFrame:
        """The scores of the ensemble of a segment, `score` first: of `test`, and of `valid` where there is one."""
        if self.scores is None:
            raise RuntimeError("no member was trained yet: call `fit` first")
        tables = {"test": self.scores.predictions, "valid": self.scores.validation}.get(segment, ())
        if not tables:
            raise UserError(
                f"an ensemble keeps what its members said of `valid` and `test`, found segment {brief(segment)}"
            )
        return combine_tables(tables, self.combiner)


def _member(given: Any, number: int) -> dict[str, Any]:
    """A member as `{model, dataset, name}`."""
    name = f"members[{number}]"
    if isinstance(given, Mapping) and "model" in given:
        for key in given:
            if key not in OF_MEMBER:
                raise UserError(
                    f"`{name}` has no place for `{key}`{nearest(str(key), OF_MEMBER)}; it takes {', '.join(OF_MEMBER)}"
                )
        member = dict(given)
    else:
        member = {"model": given}
    member["model"] = in_one_form(member["model"], f"{name}.model")
    if issubclass(locate(member["model"]["class"], name=f"{name}.model"), Ensemble):
        raise UserError(f"`{name}` is an ensemble itself: name its members in its place")
    if member.get("dataset") is not None:
        member["dataset"] = in_one_form(member["dataset"], f"{name}.dataset")
        if not issubclass(locate(member["dataset"]["class"], name=f"{name}.dataset"), DailyPanelDataset):
            raise UserError(
                f"`{name}.dataset.class` must be a DailyPanelDataset, found {member['dataset']['class']}"
            )
    return member


def _named(members: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The members by their names: given ones, or the classes, with a number where there are several of one."""
    if not members:
        raise UserError("`members` must name at least one model, found none")
    names = [str(member.get("name") or member["model"]["class"].rpartition(".")[2]) for member in members]
    found = {}
    for k, (name, member) in enumerate(zip(names, members, strict=True)):
        own = name if names.count(name) == 1 else f"{name} {names[: k + 1].count(name)}"
        if own in found:
            raise UserError(f"members must have names of their own, found `{own}` twice")
        found[own] = member
    return found


def _of_seeds(model: dict[str, Any], seeds: int | Sequence[int] | None) -> dict[str, dict[str, Any]]:
    """One model with several seeds."""
    kind = locate(model["class"], name="model")
    if issubclass(kind, Ensemble):
        raise UserError("`model` is an ensemble itself: name its members as `members`")
    takes = inspect.signature(kind).parameters
    if "seed" not in takes and not any(each.kind is each.VAR_KEYWORD for each in takes.values()):
        raise UserError(
            f"`seeds` need a model that takes `seed`, and {kind.__name__} does not: name `members`"
        )
    if isinstance(seeds, (list, tuple)):
        numbers = [integer("seeds", seed, 0) for seed in seeds]
        if not numbers or len(numbers) != len({*numbers}):
            raise UserError(f"`seeds` must be seeds, each once, found {brief(seeds)}")
    else:
        first = integer("model.kwargs.seed", model["kwargs"].get("seed", 0), 0)
        numbers = [first + k for k in range(integer("seeds", seeds, 1, MOST_MEMBERS))]
    return {
        f"seed {seed}": {"model": {**model, "kwargs": {**model["kwargs"], "seed": seed}}} for seed in numbers
    }
