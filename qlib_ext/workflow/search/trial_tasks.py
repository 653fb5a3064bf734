"""The trainings of a trial: ordinary tasks whose datasets hold no test day, with one record that looks at validation."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from qlib.model.base import Model

from qlib_ext.checks import LARGEST_SEED, UserError, brief, integer
from qlib_ext.config.build import build, check_config, dotted, in_one_form
from qlib_ext.data.config import DatasetConfig
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.fold_datasets import folds_of, is_combinatorial, of_fold, walks_forward
from qlib_ext.data.folds import WALK_FORWARD, FoldPlan
from qlib_ext.data.handlers.panel import PanelHandler
from qlib_ext.market.store import QlibStore
from qlib_ext.records.validation import SEGMENT, ValidationRecord
from qlib_ext.workflow.search.plan import Plan, Rung
from qlib_ext.workflow.search.searched import PARTS, SearchedWorkflow, differing
from qlib_ext.workflow.search.space import Parameter, Values
from qlib_ext.workflow.settings import check_settings
from qlib_ext.workflow.task import check_task

CHECKPOINTS = ("checkpoint_dir", "resume")  # of a model that can go on with a training


@dataclass(frozen=True)
class TrialTask:
    """A training of a trial.

    Attributes
    ----------
    key
        Equal for what would be trained equally: values, rung, seed and fold.
    task
        As Qlib reads it.
    rung, seed, fold
        Of the trial; the fold is 0 where the workflow has one split.
    checkpoints
        The folder from which it goes on.
    """

    key: str
    task: Mapping[str, Any]
    rung: int
    seed: int
    fold: int
    checkpoints: Path


class TrialTasks:
    """What the trials of a search train, made from its workflow and its plan.

    Parameters
    ----------
    workflow
        That is searched.
    plan
        Of the search.
    store
        That Qlib reads.

    Raises
    ------
    UserError
        If the workflow cannot be searched: its dataset is none of the package's or has no validation days, its folds begin
        from each other's weights, or a seed cannot be set.
    """

    def __init__(self, workflow: SearchedWorkflow, plan: Plan, store: QlibStore) -> None:
        self.workflow = workflow
        self.plan = plan
        self.store = store
        dataset = workflow.config["task"]["dataset"]
        check_config(in_one_form(dataset, "task.dataset"), DailyPanelDataset, name="task.dataset")
        if is_combinatorial(dataset):
            raise UserError(
                "`segments.combinatorial` judges a method on all days, and leaves a search none to keep apart: search by segments "
                "in the order of time, or by `walk_forward`"
            )
        if walks_forward(dataset) and FoldPlan.of(dataset["kwargs"]["segments"][WALK_FORWARD]).warm_start:
            raise UserError(
                "`walk_forward.warm_start` must be false in a search, which trains folds apart: set it in the workflow that "
                "the search writes"
            )
        workflow.check_name(plan.seed_name)
        self.compared = self._compared(workflow.config)

    @cached_property
    def first_seed(self) -> int:
        """The workflow's own, from which the seeds of a rung are counted on."""
        name = self.plan.seed_name
        if name in self.workflow.variables:
            one, other = (self.workflow.with_values({name: value}) for value in (1, 2))
            found = [
                path
                for part in PARTS
                for path in differing(one["task"][part], other["task"][part], f"task.{part}")
            ]
            value = self.workflow.value(found[0]) if found else None
        else:
            value = self.workflow.value(name)
        return integer(f"{name} of the workflow", 0 if value is None else value, 0, LARGEST_SEED - 1_000)

    def check(self) -> None:
        """Hold each parameter and each rung against the workflow, at both ends or all choices, with all else as it stands.

        Raises
        ------
        UserError
            If a name is unknown, a value is of another type than the workflow's or refused by what takes it, changes nothing
            that is trained, or changes what trials are compared by.
        """
        self._fitting({})
        for parameter in self.plan.space:
            given = self._conditions(parameter)
            self.workflow.check_name(parameter.name, given)
            self._check_type(parameter)
            seen = [
                self._checked(
                    f"space.{parameter.name}", word, {**given, parameter.name: parameter.value(word)}
                )
                for word in parameter.ends()
            ]
            if seen[0] == seen[1]:
                raise UserError(
                    f"`space.{parameter.name}` must change the model or the dataset, which validation can tell apart; found "
                    f"both alike at {brief(parameter.ends()[:2])}"
                )
        for k, rung in enumerate(self.plan.rungs):
            for name in rung.values:
                self.workflow.check_name(name)
            values = {**rung.values, self.plan.seed_name: self.first_seed + rung.seeds - 1}
            self._checked(f"rungs[{k}]", str(rung), values)

    def own(self) -> dict[str, Any] | None:
        """Words and numbers of the workflow as it stands; None where one of them is outside of the space."""
        words: dict[str, Any] = {}
        for parameter in self.plan.space:
            if not all(words.get(name) == word for name, word in parameter.when.items()):
                continue
            name = parameter.name
            if name in self.workflow.variables:
                ends = [parameter.value(word) for word in parameter.ends()[:2]]
                one, other = (self.workflow.with_values({name: value})["task"] for value in ends)
                found = [path for part in PARTS for path in differing(one[part], other[part], f"task.{part}")]
                name = found[0] if found else name
            try:
                words[parameter.name] = parameter.word(self.workflow.value(name))
            except ValueError:
                return None
        return words

    def of(self, values: Values, rung: int, folder: Path, where: str) -> list[TrialTask]:
        """The trainings of a trial on a rung: a seed after the other, a fold after the other.

        Parameters
        ----------
        values
            What the trial writes into the workflow.
        rung
            Its number, from 0.
        folder
            Where checkpoints are kept, from which a model that can goes on at the next rung.
        where
            Names the trial in that folder.

        Raises
        ------
        UserError
            If the trial would not be comparable with the others.
        """
        asked = self.plan.rungs[rung]
        made = []
        for seed in range(self.first_seed, self.first_seed + asked.seeds):
            config = self._config(values, asked, seed)
            self._compare(config)
            for fold, dataset in self._datasets(config).items():
                key = {"values": values, "rung": asked.values, "seed": seed, "fold": fold}
                places = folder / f"{where}-seed{seed}-fold{fold}"
                task = {
                    **config["task"],
                    "model": _resuming(config["task"]["model"], places),
                    "dataset": dataset,
                    "record": [self._record],
                }
                made.append(
                    TrialTask(json.dumps(key, sort_keys=True, default=str), task, rung, seed, fold, places)
                )
        return made

    @property
    def validations(self) -> dict[int, tuple[str, str]]:
        """Fold -> first and last day of validation; fold 0 where the workflow has one split."""
        return self.compared["validation"]

    @property
    def read_too(self) -> tuple[str, str] | None:
        """Days that another fold scores as its test, from the first to the last whose prices labels hold; None without any."""
        config = self.workflow.config
        dataset = config["task"]["dataset"]
        if not walks_forward(dataset):
            return None
        first = f"{folds_of(dataset, self.store)[0].test[0]:%Y-%m-%d}"
        one = next(iter(self._datasets(config).values()))
        described, _ = DatasetConfig.of(**one["kwargs"]).resolve(self.store)
        days = self.store.calendar
        judged = pd.Timestamp(max(end for _, end in self.validations.values()))
        place = int(days.searchsorted(judged)) + _horizon_days(described)
        last = f"{days[min(place, len(days) - 1)]:%Y-%m-%d}"
        return (first, last) if first <= last else None

    @property
    def _record(self) -> dict[str, Any]:
        names = ("label", "topk", "cost_bps")
        return {
            "class": dotted(ValidationRecord),
            "kwargs": {name: getattr(self.plan, name) for name in names},
        }

    def _config(self, values: Values, rung: Rung, seed: int) -> dict[str, Any]:
        return self.workflow.with_values({**values, **rung.values, self.plan.seed_name: seed})

    def _datasets(self, config: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
        """Fold -> a dataset without test days."""
        dataset = config["task"]["dataset"]
        if not walks_forward(dataset):
            return {0: without_test(dataset, self.store)}
        found = {}
        for fold in folds_of(dataset, self.store):
            made = of_fold(dataset, fold)
            segments = {name: days for name, days in made["kwargs"]["segments"].items() if name != "test"}
            found[fold.number] = {**made, "kwargs": {**made["kwargs"], "segments": segments}}
        return found

    def _compared(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What must be the same of all trials, or their figures would not be comparable."""
        datasets = self._datasets(config)
        some = next(iter(datasets.values()))
        handler = in_one_form(some["kwargs"]["handler"], "task.dataset.handler")["kwargs"]
        labels = handler.get("labels") or {}
        return {
            "validation": {
                fold: tuple(each["kwargs"]["segments"][SEGMENT]) for fold, each in datasets.items()
            },
            "universe": handler.get("instruments"),
            "label": labels.get(self.plan.label) if isinstance(labels, Mapping) else None,
        }

    def _compare(self, config: Mapping[str, Any]) -> None:
        found = self._compared(config)
        for name, expected in self.compared.items():
            if found[name] != expected:
                raise UserError(
                    f"trials can only be compared on the same {name}, found {brief(found[name])} beside {brief(expected)}: "
                    "take what changes it out of `space`"
                )

    def _conditions(self, parameter: Parameter) -> dict[str, Any]:
        """What must be in the workflow for a parameter to be searched."""
        others = {other.name: other for other in self.plan.space}
        given: dict[str, Any] = {}
        for name, word in parameter.when.items():
            given |= {**self._conditions(others[name]), name: others[name].value(word)}
        return given

    def _checked(self, where: str, word: Any, values: Values) -> dict[str, Any]:
        """What would be trained with these values, checked."""
        try:
            return self._fitting(values)
        except UserError as error:
            raise UserError(f"`{where}` cannot be {brief(word)}: {error}") from error

    def _fitting(self, values: Values) -> dict[str, Any]:
        """Model and dataset of the workflow with these values, checked as those of a trial."""
        config = self.workflow.with_values(values)
        check_settings(config)
        self._compare(config)
        dataset = next(iter(self._datasets(config).values()))
        check_task({**config["task"], "dataset": dataset, "record": [self._record]}, writes=False)
        return {part: config["task"][part] for part in PARTS}

    def _check_type(self, parameter: Parameter) -> None:
        """A number cannot take the place of a word, nor a fraction that of a whole number."""
        value = None if parameter.name in self.workflow.variables else self.workflow.value(parameter.name)
        if value is None or parameter.kind == "choice":
            return
        wanted: Any = int if parameter.kind == "int" else (int, float)
        whole = parameter.kind == "float" and isinstance(value, int) and not isinstance(value, bool)
        if isinstance(value, bool) or not isinstance(value, wanted) or (whole and parameter.step is None):
            raise UserError(
                f"`space.{parameter.name}` must be of the type that the workflow has there, {type(value).__name__} "
                f"{brief(value)}; found {parameter}"
            )


def without_test(dataset: Mapping[str, Any], store: QlibStore) -> dict[str, Any]:
    """A dataset of `train` and `valid` alone, whose labels hold no price of a day of `test`.

    Raises
    ------
    UserError
        If it has no such segments, or labels of all days of `valid` reach into `test`.
    """
    config = in_one_form(copy.deepcopy(dict(dataset)), "task.dataset")
    described, segments = DatasetConfig.of(**config["kwargs"]).resolve(store)
    for name in ("train", SEGMENT):
        if name not in segments:
            raise UserError(f"a search needs the segment `{name}`, found {', '.join(segments)}")
    last = segments[SEGMENT][1]
    later = [first for first, _ in segments.values() if first > last]
    if later:
        reach = _horizon_days(described)
        days: pd.DatetimeIndex = store.calendar
        until = days[days < min(later)]
        kept = until[: max(0, len(until) - reach)]
        kept = kept[(kept >= segments[SEGMENT][0]) & (kept <= last)]
        if not len(kept):
            raise UserError(
                f"segment `{SEGMENT}` must have days whose labels do not reach into `test` ({reach} days "
                f"ahead), found none from {segments[SEGMENT][0]:%Y-%m-%d} to {last:%Y-%m-%d}: make it longer"
            )
        last = kept[-1]
    days_of = {"train": segments["train"], SEGMENT: (segments[SEGMENT][0], last)}
    named = {name: [f"{day:%Y-%m-%d}" for day in pair] for name, pair in days_of.items()}
    return {**config, "kwargs": {**config["kwargs"], "segments": named}}


def _horizon_days(described: Any) -> int:
    """How many days ahead the labels of a handler reach."""
    if not isinstance(described, Mapping):
        raise UserError(f"`handler` must be a mapping in a search, found {brief(described)}")
    silent = {**(described.get("kwargs") or {}), "init_data": False, "cache": None}
    return build({**described, "kwargs": silent}, PanelHandler, name="handler").horizon_days


def _resuming(model: Any, folder: Path) -> dict[str, Any]:
    """The model, going on from its checkpoints in a folder of the search, where it can."""
    config = in_one_form(model, "task.model")
    kind, kwargs = check_config(config, Model, name="task.model")
    if not {*CHECKPOINTS} <= {*inspect.signature(kind).parameters}:
        return config
    return {**config, "kwargs": {**kwargs, "checkpoint_dir": str(folder), "resume": 1}}


def reopen(folder: Path) -> None:
    """Let a training that came to the end of its rung be taken up again."""
    for mark in folder.rglob("*.closed"):
        mark.unlink(missing_ok=True)
