"""The search itself: which training comes next, what a trial is worth, and when it ends."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient
from optuna.trial import Trial

import qlib_ext
from qlib_ext.checks import UserError
from qlib_ext.lock import BusyError
from qlib_ext.market.store import QlibStore
from qlib_ext.masking import masked
from qlib_ext.model.trainings.side_by_side import Outcome, Places, train_all
from qlib_ext.model.trainings.training import Training
from qlib_ext.records.ledger import user
from qlib_ext.records.validation import DIGEST, FIGURES
from qlib_ext.tracking import ledger
from qlib_ext.tracking.runs import PARENT
from qlib_ext.workflow.search.plan import Plan
from qlib_ext.workflow.search.searched import SearchedWorkflow
from qlib_ext.workflow.search.study import Study, Tried, best_of
from qlib_ext.workflow.search.trial_tasks import TrialTask, TrialTasks, reopen

logger = logging.getLogger(__name__)

CHECKPOINTS, LOG = "checkpoints", "trainings.log"
FAILURES = 3  # one after the other, before anything has worked: the fault is not that of a trial
TRIAL, RUNG, SEED, FOLD = "search_trial", "search_rung", "search_seed", "search_fold"  # tags of a run
PARENT_RUN = "parent_run"


@dataclass
class _Climb:
    """A trial on its way up.

    Attributes
    ----------
    trial, values
        Of Optuna, and what it writes into the workflow.
    rung
        On which it is.
    waiting
        Trainings of the rung that have not begun.
    missing
        How many have not ended.
    folders
        Where its checkpoints lie.
    """

    trial: Trial
    values: Mapping[str, Any]
    rung: int = -1
    tasks: list[TrialTask] = field(default_factory=list)
    waiting: list[TrialTask] = field(default_factory=list)
    missing: int = 0
    folders: set[Path] = field(default_factory=set)
    ended: bool = False


class Search:
    """Trials of a space, each trained on more and more and stopped where others are better.

    Parameters
    ----------
    workflow, plan
        What is searched, and how.
    store
        That Qlib reads.
    folder
        Where the search is kept; it is there.
    places
        Where trainings run side by side.

    Raises
    ------
    UserError
        If the plan does not fit the workflow, or the folder holds another search.
    """

    def __init__(
        self, workflow: SearchedWorkflow, plan: Plan, store: QlibStore, folder: Path, places: Places
    ) -> None:
        self.workflow = workflow
        self.plan = plan
        self.store = store
        self.folder = folder
        self.places = places
        self.tasks = TrialTasks(workflow, plan, store)
        self.tasks.check()
        self.own = self.tasks.own()
        self.fingerprint = store.fingerprint()
        self.study = Study(folder, plan, self._identity(), places.workers)
        self.problems: list[str] = []  # of the ledger
        self._known = dict(self.study.known())

    @property
    def parent(self) -> str | None:
        """The run above all trainings, where an earlier call made one."""
        return self.study.study.user_attrs.get(PARENT_RUN)

    def run(
        self,
        recorder: Any,
        *,
        trials: int | None,
        hours: float | None,
        on_trial: Callable[[Tried], None] = lambda tried: None,
    ) -> None:
        """Search until there are so many trials, or all calls together have taken so many hours.

        Trainings that are under way then come to their end; trials that are not at theirs are taken up by the next call.

        Parameters
        ----------
        recorder
            Qlib's recorder of the run under way, below which trainings are.
        trials, hours
            Those of earlier calls count. None for no such bound; of a grid, all of it.
        on_trial
            Called with each trial that has ended.

        Raises
        ------
        UserError
            If the first trainings fail one after the other.
        """
        self.study.study.set_user_attr(PARENT_RUN, recorder.id)
        self.study.prepare(self.own)
        self.enter()  # a kill may have come between the end of a trial and its line
        queue = _Queue(self, recorder, trials, hours, on_trial)
        try:
            train_all(queue, self.places, recorder.uri, queue.heard, go_on=True)
        finally:
            queue.count_time()
            self.enter(open_too=True)
        self._tidy()

    def best(self) -> Tried | None:
        """The best trial of those on the last rung."""
        return best_of(self.study.tried())

    def winning_values(self, best: Tried) -> dict[str, Any]:
        """What the best trial writes into the workflow, with what its last rung does."""
        return {**self.plan.space.values(best.words), **self.plan.last.values}

    def enter(self, *, open_too: bool = False) -> None:
        """Enter into the ledger of trials what it does not have, each a look at the days of validation.

        Parameters
        ----------
        open_too
            Whether trials that are not at their end are entered, by what is known of them.
        """
        path = ledger.ledger_path(self.store.root)
        try:
            known = {entry.trial.what for entry in ledger.entries(path)}
            for trial in self.study.study.trials:
                results = [*self.study.results(trial).values()]
                if results and (open_too or trial.state.is_finished()):
                    line = self._line(trial.number, results)
                    if line.what not in known:
                        ledger.enter(path, line)
            self.problems = []
        except (OSError, BusyError, ledger.LedgerError) as error:
            self.problems = [f"the trials are not all in the ledger of trials: {error}"]

    def _line(self, number: int, results: Sequence[Mapping[str, Any]]) -> ledger.Trial:
        days = self.tasks.validations.values()
        what = hashlib.sha256("".join(sorted(each[DIGEST] for each in results)).encode()).hexdigest()[:32]
        ratio = statistics.fmean(each["information_ratio"] for each in results) / math.sqrt(252)
        rank_ic = statistics.fmean(each["rank_ic"] for each in results)
        return ledger.Trial(
            time=datetime.now().astimezone().isoformat(timespec="seconds"),
            what=what,
            fingerprint=self.fingerprint,
            universe=str(self.tasks.compared["universe"]),
            first=min(first for first, _ in days),
            last=max(last for _, last in days),
            run_id="",
            name=f"search {self.folder.name} trial {number}",
            user=user(),
            rank_ic=rank_ic if math.isfinite(rank_ic) else None,
            ratio=ratio if math.isfinite(ratio) else None,
        )

    def _identity(self) -> str:
        known = {
            "task": self.workflow.config["task"],
            "plan": self.plan.identity(),
            "fingerprint": self.fingerprint,
            "version": qlib_ext.__version__,
        }
        return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:32]

    def _tidy(self) -> None:
        """Remove the checkpoints of what has ended."""
        if not self.study.left_open():
            shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)


class _Queue:
    """What is trained next, by what has been heard; it may have nothing now and something later.

    Parameters
    ----------
    search, recorder, trials, hours, on_trial
        As in `Search.run`.
    """

    def __init__(
        self,
        search: Search,
        recorder: Any,
        trials: int | None,
        hours: float | None,
        on_trial: Callable[[Tried], None],
    ) -> None:
        self.search = search
        self.study = search.study
        self.recorder = recorder
        self.client: MlflowClient = recorder.client
        self.parent = recorder.id
        run = self.client.get_run(recorder.id)
        self.experiment = self.client.get_experiment(run.info.experiment_id).name
        self.name = run.info.run_name
        self.trials = trials
        self.on_trial = on_trial
        self.counted = time.monotonic()
        left = math.inf if hours is None else 3600 * hours - self.study.seconds
        self.until = self.counted + left
        self.open: list[_Climb] = []
        self.under_way: dict[str, tuple[_Climb, TrialTask, float]] = {}
        self.failures = 0
        self.worked = bool(search._known)
        self.earlier = self.study.left_open()

    def __iter__(self) -> Iterator[Training]:
        return self

    def __next__(self) -> Training:
        while time.monotonic() < self.until:
            for climb in self.open:
                if climb.waiting:
                    return self._begin(climb, climb.waiting.pop(0))
            trial = self._next_trial()
            if trial is None:
                break
            words = self.search.plan.space.suggest(trial)
            climb = _Climb(trial, self.search.plan.space.values(words))
            self.open.append(climb)
            self._go_on(climb)
        raise StopIteration

    def heard(self, outcome: Outcome) -> None:
        """Take the outcome of a training."""
        self.count_time()
        climb, task, begun = self.under_way.pop(outcome.training.called)
        if outcome.error is not None:
            self._failed(climb, task, outcome.error)
            return
        self.worked, self.failures = True, 0
        data = self.client.get_run(outcome.run_id).data
        result: dict[str, Any] = {name: data.metrics.get(f"validation/{name}", math.nan) for name in FIGURES}
        result |= {
            DIGEST: data.tags.get(DIGEST, ""),
            "run_id": outcome.run_id,
            "seconds": time.monotonic() - begun,
        }
        self.search._known[task.key] = result
        if not climb.ended:
            self.study.note(climb.trial, task.key, result)
            self._taken(climb)

    def count_time(self) -> None:
        """Count the time since it was counted last; a process that is killed has lost no more."""
        now = time.monotonic()
        self.study.add_seconds(now - self.counted)
        self.counted = now

    def _next_trial(self) -> Trial | None:
        if self.earlier:
            return self.earlier.pop(0)
        if self.trials is not None and self.study.begun >= self.trials:
            return None
        if self.search.plan.sampler == "grid" and not self.study.waiting:
            return None
        return self.study.ask()

    def _begin(self, climb: _Climb, task: TrialTask) -> Training:
        where = [f"trial {climb.trial.number}", f"rung {task.rung}", f"seed {task.seed}"]
        tags = {TRIAL: climb.trial.number, RUNG: task.rung, SEED: task.seed}
        if task.fold:
            where, tags = [*where, f"fold {task.fold}"], {**tags, FOLD: task.fold}
        called = " ".join(where)
        reopen(task.checkpoints)
        self.under_way[called] = climb, task, time.monotonic()
        own = {PARENT: self.parent, **{name: str(value) for name, value in tags.items()}}
        log = str((self.search.folder / LOG).absolute())
        return Training(called, task.task, self.experiment, f"{self.name} {called}", own, log)

    def _go_on(self, climb: _Climb) -> None:
        """Take a trial to its next rung; trainings that were made before count."""
        climb.rung += 1
        folder = self.search.folder / CHECKPOINTS
        try:
            climb.tasks = self.search.tasks.of(climb.values, climb.rung, folder, f"trial{climb.trial.number}")
        except UserError as error:
            self._end(climb, str(error))
            return
        climb.folders |= {task.checkpoints for task in climb.tasks}
        climb.waiting = []
        for task in climb.tasks:
            known = self.search._known.get(task.key)
            if known is None:
                climb.waiting.append(task)
            elif task.key not in self.study.results(climb.trial):  # another trial of the same values had it
                self.study.note(climb.trial, task.key, {**known, "seconds": 0.0})
        climb.missing = len(climb.waiting)
        if not climb.missing:
            self._judge(climb)

    def _taken(self, climb: _Climb) -> None:
        climb.missing -= 1
        if not climb.missing:
            self._judge(climb)

    def _judge(self, climb: _Climb) -> None:
        results = self.study.results(climb.trial)
        objective = self.search.plan.objective
        seeds: dict[int, list[float]] = {}
        for task in climb.tasks:
            seeds.setdefault(task.seed, []).append(float(results[task.key][objective]))
        by_seed = {seed: statistics.fmean(values) for seed, values in seeds.items()}
        if self.study.judge(climb.trial, climb.rung, by_seed):
            self._go_on(climb)
        else:
            self._end(climb)

    def _failed(self, climb: _Climb, task: TrialTask, error: Exception) -> None:
        if not self.worked:
            self.failures += 1
            if self.failures >= FAILURES:
                raise error
        if not climb.ended:
            self._end(climb, masked(f"{type(error).__name__}: {error}"))

    def _end(self, climb: _Climb, error: str = "") -> None:
        if error:
            self.study.failed(climb.trial, error)
            logger.warning("trial %d failed: %s", climb.trial.number, error)
        climb.ended, climb.waiting = True, []
        self.open.remove(climb)
        tried = next(each for each in self.study.tried() if each.number == climb.trial.number)
        self.search.enter()
        if not any(other is climb for other, _, _ in self.under_way.values()):
            for folder in climb.folders:
                shutil.rmtree(folder, ignore_errors=True)
        shown = {"search/value": tried.value}
        best = self.search.best()
        if best is not None:
            shown["search/best"] = best.value
        self.recorder.log_metrics(step=tried.number, **shown)
        self.on_trial(tried)
