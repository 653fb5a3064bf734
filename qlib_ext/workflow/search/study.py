"""A search kept on disk: Optuna's study in a database of its own, with what each training of each trial was worth."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from qlib_ext.checks import UserError
from qlib_ext.workflow.search.plan import Plan
from qlib_ext.workflow.search.space import Space, Values

optuna.logging.set_verbosity(optuna.logging.ERROR)

DATABASE = "study.db"
NAME = "search"
IDENTITY, SECONDS, RESULTS, RUNGS, OWN, ERROR = "identity", "seconds", "results", "rungs", "own", "error"
GOES_ON, REPEAT = "goes_on", "repeat"
MOST_REPEATS = 50  # in a row: the sampler has nothing new then
FEWEST_FOR_IMPORTANCE = 30  # trials: three are the best tenth then


@dataclass(frozen=True)
class Tried:
    """A trial as it stands.

    Attributes
    ----------
    number
        From 0.
    state
        `complete` on the last rung, `stopped` below it, `failed` or `open`.
    words
        Parameter -> its word or number.
    values
        Rung -> mean over seeds and folds.
    by_seed
        Seed -> mean over folds, on the highest rung that it reached.
    seconds
        That its trainings took.
    own
        Whether it is the workflow as it stood.
    error
        Why it failed; empty where it did not.
    """

    number: int
    state: str
    words: Mapping[str, Any]
    values: Mapping[int, float]
    by_seed: Mapping[int, float]
    seconds: float
    own: bool
    error: str

    @property
    def rung(self) -> int:
        """The highest that it was judged on; -1 for none."""
        return max(self.values, default=-1)

    @property
    def value(self) -> float:
        """On that rung; NaN where there is none."""
        return self.values.get(self.rung, math.nan)

    @property
    def deviation(self) -> float:
        """Standard deviation over seeds; NaN of one."""
        return statistics.stdev(self.by_seed.values()) if len(self.by_seed) > 1 else math.nan


class Study:
    """Optuna's study of a search, taken up where it stands.

    Parameters
    ----------
    folder
        Of the search; it is there.
    plan
        Of the search.
    identity
        What the search is known by.
    workers
        How many trials are open at once.

    Raises
    ------
    UserError
        If the folder holds another search.
    """

    def __init__(self, folder: Path, plan: Plan, identity: str, workers: int) -> None:
        self.plan = plan
        self.combinations = _combinations(plan.space)
        self.path = folder / DATABASE
        storage = optuna.storages.RDBStorage(f"sqlite:///{self.path.absolute()}")
        self.study = optuna.create_study(
            storage=storage, study_name=NAME, direction="maximize", load_if_exists=True
        )
        known = self.study.user_attrs.get(IDENTITY)
        if known is None:
            self.study.set_user_attr(IDENTITY, identity)
        elif known != identity:
            raise UserError(
                f"{folder} holds another search: the workflow, the space, the data or the version of the package have "
                "changed since; name another `--out`, or remove the folder"
            )
        self.study.sampler = self._sampler(workers)

    def _sampler(self, workers: int) -> BaseSampler:
        seed = (
            self.plan.seed + len(self.study.trials)
        ) % 2**32  # taken up again it draws on, and not the same once more
        if self.plan.sampler == "tpe":
            return TPESampler(seed=seed, constant_liar=workers > 1)
        return RandomSampler(seed=seed)

    def prepare(self, own: Mapping[str, Any] | None) -> None:
        """Note what is tried first: all of a grid, or the workflow as it stands."""
        if self.plan.sampler == "grid":
            for words in self.plan.space.grid():
                self.study.enqueue_trial(words, user_attrs={OWN: words == own}, skip_if_exists=True)
        elif own is not None and not self.study.trials:
            self.study.enqueue_trial(dict(own), user_attrs={OWN: True})

    @property
    def begun(self) -> int:
        """Trials that are not waiting."""
        return len(self._trials())

    @property
    def exhausted(self) -> bool:
        """Whether no combination of the space is left; never where it has more than a grid may have."""
        return self._left(self._known()) == []

    @property
    def waiting(self) -> int:
        """Trials of a grid that are still to come."""
        return sum(trial.state == TrialState.WAITING for trial in self.study.trials)

    def left_open(self) -> list[Trial]:
        """Trials that an earlier call began and did not end."""
        found = [trial for trial in self.study.trials if trial.state == TrialState.RUNNING]
        return [Trial(self.study, trial._trial_id) for trial in found]

    def ask(self) -> Trial | None:
        """Begin a trial of values that no other has; None where none are left, or the sampler has nothing new."""
        known = self._known()
        for _ in range(MOST_REPEATS):
            left = self._left(known)
            if left == []:
                return None
            trial = self.study.ask()
            if _key(self.plan.space.suggest(trial)) not in known:
                return trial
            trial.set_user_attr(REPEAT, True)
            self.study.tell(trial, state=TrialState.FAIL)
            if left:
                draw = np.random.default_rng([self.plan.seed, trial.number])
                self.study.enqueue_trial(left[draw.integers(len(left))])
        return None

    def results(self, trial: Trial | FrozenTrial) -> dict[str, dict[str, Any]]:
        """Key of a training -> what it was worth."""
        return json.loads(trial.user_attrs.get(RESULTS, "{}"))

    def note(self, trial: Trial, key: str, result: Mapping[str, Any]) -> None:
        """Keep what a training was worth."""
        results = {**self.results(trial), key: dict(result)}
        trial.set_user_attr(RESULTS, json.dumps(results))

    def known(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Keys of all trainings that are done, with what they were worth."""
        for trial in self.study.trials:
            yield from json.loads(trial.user_attrs.get(RESULTS, "{}")).items()

    def judge(self, trial: Trial, rung: int, by_seed: Mapping[int, float]) -> bool:
        """Note what a trial was worth on a rung; whether it goes on to the next.

        It is decided once: a trial that is taken up after a kill is not held against those that came later. On the last rung it
        is complete. A trial without a value is stopped.

        Source: Li et al. (2020), "A System for Massively Parallel Hyperparameter Tuning", asynchronous successive halving; as in
        Optuna a trial waits for no other, and the best goes on where fewer than `factor` have come.
        """
        value = statistics.fmean(by_seed.values())
        decided = trial.user_attrs.get(GOES_ON, {})
        if str(rung) not in decided:
            decided = {**decided, str(rung): self._is_among_the_best(trial, rung, value)}
            trial.set_user_attr(GOES_ON, decided)
        values = {**trial.user_attrs.get(RUNGS, {}), str(rung): {str(k): v for k, v in by_seed.items()}}
        trial.set_user_attr(RUNGS, values)
        last = rung == len(self.plan.rungs) - 1
        if last and math.isfinite(value):
            self.study.tell(trial, value)
            return False
        step = self.plan.factor**rung
        if (
            step not in self.study.trials[trial.number].intermediate_values
        ):  # nor twice where it is taken up again
            trial.report(value, step=step)
        if last or not decided[str(rung)]:
            self.study.tell(trial, state=TrialState.PRUNED)
            return False
        return True

    def _is_among_the_best(self, trial: Trial, rung: int, value: float) -> bool:
        others = [each.values.get(rung, math.nan) for each in self.tried() if each.number != trial.number]
        rivals = sorted(filter(math.isfinite, [value, *others]), reverse=True)
        return math.isfinite(value) and value >= rivals[max(1, len(rivals) // self.plan.factor) - 1]

    def failed(self, trial: Trial, error: str) -> None:
        """End a trial whose training failed."""
        trial.set_user_attr(ERROR, error)
        self.study.tell(trial, state=TrialState.FAIL)

    @property
    def seconds(self) -> float:
        """That all calls together have taken."""
        return float(self.study.user_attrs.get(SECONDS, 0.0))

    def add_seconds(self, seconds: float) -> None:
        """Count the time of this call."""
        self.study.set_user_attr(SECONDS, self.seconds + seconds)

    def tried(self) -> list[Tried]:
        """All trials that have begun."""
        return [_tried(trial) for trial in self._trials()]

    def _trials(self) -> list[FrozenTrial]:
        """Those that have begun; the same again is none."""
        return [
            trial
            for trial in self.study.trials
            if trial.state != TrialState.WAITING and REPEAT not in trial.user_attrs
        ]

    def _known(self) -> set[str]:
        return {_key(trial.params) for trial in self._trials()}

    def _left(self, known: set[str]) -> list[dict[str, Any]] | None:
        """Combinations that no trial has; None where the space has more than a grid may have."""
        if self.combinations is None:
            return None
        return [words for words in self.combinations if _key(words) not in known]


def _combinations(space: Space) -> list[dict[str, Any]] | None:
    try:
        return space.grid()
    except UserError:
        return None


def _key(words: Values) -> str:
    """Equal for the same values, however a number with steps was come to."""
    return repr(sorted((name, f"{x:.12g}" if isinstance(x, float) else repr(x)) for name, x in words.items()))


def _tried(trial: FrozenTrial) -> Tried:
    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed"}
    rungs = {
        int(rung): {int(seed): float(value) for seed, value in seeds.items()}
        for rung, seeds in trial.user_attrs.get(RUNGS, {}).items()
    }
    results = json.loads(trial.user_attrs.get(RESULTS, "{}"))
    return Tried(
        number=trial.number,
        state=states.get(trial.state, "open"),
        words=dict(trial.params),
        values={rung: statistics.fmean(seeds.values()) for rung, seeds in sorted(rungs.items())},
        by_seed=rungs[max(rungs)] if rungs else {},
        seconds=sum(float(result["seconds"]) for result in results.values()),
        own=bool(trial.user_attrs.get(OWN, False)),
        error=str(trial.user_attrs.get(ERROR, "")),
    )


def importance(study: Study) -> dict[str, float]:
    """How much each parameter alone sets the best tenth of the trials apart, on the first rung; as shares of 1.

    Source: Watanabe, Bansal and Hutter (2023), "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
    Subspaces", by Optuna.

    Returns
    -------
    Parameter -> share, the largest first; empty of fewer than `FEWEST_FOR_IMPORTANCE` trials. Parameters that not all trials
    have are left out.
    """
    flat = optuna.create_study(direction="maximize")
    for trial in study.study.trials:
        seeds = trial.user_attrs.get(RUNGS, {}).get("0", {})
        value = statistics.fmean(seeds.values()) if seeds else math.nan
        if math.isfinite(value):
            made = optuna.trial.create_trial(
                params=trial.params, distributions=trial.distributions, value=float(value)
            )
            flat.add_trial(made)
    values = [trial.value for trial in flat.trials]
    if len(values) < FEWEST_FOR_IMPORTANCE or len(set(values)) < 2:
        return {}
    return dict(get_param_importances(flat, evaluator=PedAnovaImportanceEvaluator()))


def best_of(tried: Sequence[Tried]) -> Tried | None:
    """The best of the trials that climbed to the top, where all had the same seeds; None where none has."""
    top = [trial for trial in tried if trial.state == "complete"]
    return max(top, key=lambda trial: trial.value, default=None)
