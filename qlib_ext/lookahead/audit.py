"""The audit: a workflow's dataset and model on markets that are the same up to a day and others after it."""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from qlib.config import C
from qlib.data.cache import H
from qlib.data.dataset import DatasetH
from qlib.model.base import Model

from qlib_ext.checks import UserError, integer
from qlib_ext.config.build import build, in_one_form, locate
from qlib_ext.data.fold_datasets import (
    folds_of,
    is_combinatorial,
    of_fold,
    of_split,
    splits_of,
    walks_forward,
)
from qlib_ext.lookahead import changed_market, folds, given_scores, leaks
from qlib_ext.lookahead import static_checks as known
from qlib_ext.lookahead.batches import BLOCK_DAYS, blocks, choose, plan
from qlib_ext.lookahead.changed_market import Block, ChangedMarkets
from qlib_ext.lookahead.findings import Check, Finding, Result
from qlib_ext.lookahead.history import HistoryCut, feature_findings, score_findings
from qlib_ext.lookahead.leaks import Leak
from qlib_ext.lookahead.observation import (
    FEATURES,
    LABELS,
    ROWS,
    SCORES,
    Day,
    Difference,
    compare,
    differences,
    fitted_state,
    moved,
)
from qlib_ext.lookahead.provider import reading
from qlib_ext.lookahead.sampled_market import sampled
from qlib_ext.lookahead.subject import Labels, Subject, build_dataset, check_task, fresh_model
from qlib_ext.market.progress import Progress
from qlib_ext.market.store import QlibStore
from qlib_ext.model.ensemble.ensemble import Ensemble
from qlib_ext.model.given_scores import GivenScores
from qlib_ext.model.multi_task import MultiTaskModel

DATES = 200
FOLDS = 4  # of a walk-forward that are looked at
NEIGHBOURS = 4  # days of a batch with which a day that is changed is scored in the same call
LABEL_DAYS = 30  # so many days before a change labels are looked at
HANDED_DAYS = 15  # the last days of a segment of which it is seen what training is given
TOGETHER = 6  # days that are scored together and alone
APART = (
    1e-4  # of the scores' deviation: nearer than that, two scores of a table are the same but for rounding
)
SPLIT_APART = 1e-3  # of a feature's deviation: a logarithm of volume plus one moves by less


def audit(
    task: Mapping[str, Any],
    *,
    dates: int = DATES,
    refits: int = 3,
    model: Callable[[DatasetH], Model] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Look for the future in what a workflow calls known.

    Of a task whose dataset walks forward, some folds are looked at, each as a task of its own; of one that is cross-validated,
    the split whose training comes before all that it scores. Scores that were given (`GivenScores`) cannot be made again, and
    are looked at as `given_scores.look` does. Of an ensemble, each member is looked at by itself: what combines their scores of a
    day knows nothing but these and the validation.

    Everything after a day t becomes another market: bars, membership, and each table of side data; then what is said
    of day t must be equal bit for bit; scores of a model that is none of the package's to 1e-4 of their deviation, since a product
    of matrices rounds by how many rows it has. The statistics of the training are kept, since a day of the training is
    normalised by all of them; that they follow from the training alone is seen by building everything anew, with all
    days after the training changed. One changed market serves many days t where features remember no longer than the
    days between them; what differs is always seen again in a market of its own, in which only days after t differ.

    One more market has no bars before some day: features and scores of days after it must be those of the whole history, to
    rounding, once they have as many days as the features say they need.

    Parameters
    ----------
    task
        The `task` of a workflow: `dataset` and `model`.
    dates
        Number of days t, spread over the segments; all where there are fewer.
    refits
        How many times everything is built anew on a market that is another one from some day on: after the last day
        of training first, then of validation, then in between.
    model
        Makes the model to look at, from the dataset; by default one with fresh weights.
    seed
        Of the changed markets.
    progress
        Called with (done, total, what).

    Raises
    ------
    UserError
        If the task has no dataset or model, or its segments hold no day to look at.
    """
    check_task(task)
    integer("dates", dates, 1)
    integer("refits", refits, 1)
    store = QlibStore(C.dpm.get_data_uri("day"))
    if walks_forward(task["dataset"]):
        return _of_folds(task, store, dates, refits, model, seed, progress)
    if is_combinatorial(task["dataset"]):
        every = splits_of(task["dataset"], store)
        task = {**task, "dataset": of_split(task["dataset"], every[-1])}
        found = audit(task, dates=dates, refits=refits, model=model, seed=seed, progress=progress)
        return folds.together({every[-1].number: found}, len(every), "split")
    described = in_one_form(task["model"], "task.model")
    if issubclass(locate(described["class"], name="task.model"), GivenScores):
        dataset = build_dataset(task)
        given = build(described, GivenScores, name="task.model") if model is None else model(dataset)
        return given_scores.look(given, dataset, store)
    if issubclass(locate(described["class"], name="task.model"), Ensemble):
        return _of_members(task, dates, refits, model, seed, progress)
    with tempfile.TemporaryDirectory(prefix="lookahead-") as folder:
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)  # the same notes and warnings, for every market that is loaded
        try:
            with (
                warnings.catch_warnings(action="ignore"),
                sampled(task, store, Path(folder) / "sample") as (part, said),
            ):
                notes = [said] if said else []
                looked = _Audit(task, part, store, Path(folder), dates, refits, model, seed, progress, notes)
                return looked.run()
        finally:
            logging.disable(before)
            H.clear()


def _of_folds(
    task: Mapping[str, Any],
    store: QlibStore,
    dates: int,
    refits: int,
    model: Callable[[DatasetH], Model] | None,
    seed: int,
    progress: Progress | None,
) -> Result:
    """The audits of some folds, spread evenly, which share the dates; each is built anew after its training and its validation."""
    if model is not None:
        raise UserError(
            "a walk-forward has a model a fold, and one was given: leave it out; a run with LookaheadRecord looks at the "
            "weights of each of its folds"
        )
    every = folds_of(task["dataset"], store)
    chosen = sorted({round(k * (len(every) - 1) / (FOLDS - 1)) for k in range(FOLDS)})
    found = {}
    for fold in (every[k] for k in chosen):
        one = {**task, "dataset": of_fold(task["dataset"], fold)}
        found[fold.number] = audit(
            one, dates=max(1, dates // len(chosen)), refits=max(2, refits), seed=seed, progress=progress
        )
    return folds.together(found, len(every), "fold")


def _of_members(
    task: Mapping[str, Any],
    dates: int,
    refits: int,
    model: Callable[[DatasetH], Model] | None,
    seed: int,
    progress: Progress | None,
) -> Result:
    """The audits of an ensemble's members, of several seeds that of the first."""
    if model is not None:
        raise UserError(
            "an ensemble has a model a member, and one was given: leave it out; a run with LookaheadRecord looks at the weights "
            "of each of its members"
        )
    described = in_one_form(task["model"], "task.model")
    ensemble = build(
        {**described, "kwargs": {**described["kwargs"], "dataset": task["dataset"]}},
        Ensemble,
        name="task.model",
    )
    every = ensemble.different_tasks().values()
    found = {
        k: audit(one, dates=dates, refits=refits, seed=seed, progress=progress)
        for k, one in enumerate(every, 1)
    }
    return folds.together(found, len(ensemble.members), "member")


class _Audit:
    def __init__(
        self,
        task: Mapping[str, Any],
        store: QlibStore,
        whole: QlibStore,
        folder: Path,
        dates: int,
        refits: int,
        model: Callable[[DatasetH], Model] | None,
        seed: int,
        progress: Progress | None,
        notes: Sequence[str],
    ) -> None:
        self.whole = whole  # of which `store` may be a part
        self.task, self.store, self.folder, self.seed = task, store, folder, seed
        self.progress = progress
        self.made = 0
        self.done = 0
        self.findings: list[Finding] = []
        self.checks: list[Check] = []
        self.notes = [*notes]
        self.about = ""  # how long it will take
        self.say(0, dates, "building the dataset")
        self.markets = ChangedMarkets(store, seed)
        self.tabular = _reads_tables(task)
        H.clear()
        began = time.perf_counter()
        self.subject = Subject(build_dataset(task), store, tabular=self.tabular)
        load = time.perf_counter() - began
        self.frozen = False  # whether the dataset holds the data of another store than its own
        self.days = len(store.calendar)
        self.dates = choose(list(self.subject.segments.values()), self.days, dates)
        if not self.dates:
            raise UserError("the segments hold no day that has a day after it: give longer segments")
        if len(self.dates) < dates:
            self.notes.append(f"the segments have {len(self.dates)} days to look at, fewer than {dates}")
        self.boundaries = self._boundaries(refits)
        self.cut = HistoryCut.plan(
            self.subject.lookback_days, list(self.subject.segments.values()), self.dates[-1]
        )
        self.cut_scores: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        # Each market is loaded, and the store itself again after it.
        batches = len(plan(self.dates, self.subject.lookback_days + BLOCK_DAYS))
        self.about = (
            f" (about {max(1, round(load * (len(self.boundaries) + 2 * batches + 3) / 60))} min in all)"
        )
        self.given = model
        self.known: dict[int, Day] = {}
        self.known_labels: dict[int, Labels] = {}
        self.known_scores: dict[tuple[int, ...], dict[int, tuple[np.ndarray, np.ndarray]]] = {}
        self.confirmed: dict[str, Leak] = {}
        self.horizon: int = 0
        self.scored = True
        self.rounding = 0.0  # up to which two scores of a day are the same

    # -- the steps -----------------------------------------------------------------------------------------

    def run(self) -> Result:
        subject = self.subject
        self.findings += known.segments(subject)
        self.findings += known.declared(subject)
        self.findings += known.data(subject, self.whole)
        near = {day for t in self.boundaries for day in self._near(t)}
        self._learn_days([*self.dates, *near, *([] if self.cut is None else self.cut.lengths)])
        self._learn_labels([day for t in self.boundaries for day in self._labelled(t)])
        self.findings += known.batches(subject, self.dates[:: max(1, len(self.dates) // 5)][:5])
        self.columns, self.label_columns = subject.columns, subject.label_columns()
        self.handed = {name: subject.handed(name, HANDED_DAYS) for name in subject.segments}
        self.state = fitted_state(subject.dataset)
        self.model = fresh_model(self.task, subject) if self.given is None else self.given(subject.dataset)
        self._check_scoring()
        if self.cut is not None and self.scored:
            self.cut_scores = subject.scores(self.model, [*self.cut.lengths])
        self._refit()
        self.findings += known.purge(subject, self.horizon)
        self._batches()
        self._history()
        self._split()
        told = [leak for leak in self.confirmed.values() if self._tells(leak)]
        self._learn_labels([leak.first for leak in told])
        self.findings += [
            leaks.finding(
                leak, self.store.calendar, self.columns, self.label_columns, self.known, self.known_labels
            )
            for leak in told
        ]
        return self._result()

    def _check_scoring(self) -> None:
        """Whether a day has one score, whatever is scored with it."""
        step = max(1, len(self.dates) // TOGETHER)
        days = sorted({day for t in self.dates[::step][:TOGETHER] for day in (t, t + 1)})
        together = self.subject.scores(self.model, days)
        again = self.subject.scores(self.model, days)
        alone = {day: self.subject.scores(self.model, [day]).get(day) for day in days}
        shown = [values for _, values in together.values()]
        spread = float(np.nanstd(np.concatenate(shown))) if shown else 0.0
        if not isinstance(self.model, MultiTaskModel):  # a product of matrices rounds by how many rows it has
            self.rounding = APART * spread
        if not spread > 0:
            self.notes.append("the scores are all the same, so that nothing can be seen in them")
        unlike = [day for day in together if not _same(together[day], again.get(day), 0.0)]
        if unlike:
            self.scored = False
            self._add("score-not-repeatable", "two calls give two scores", unlike)
            return
        other = [day for day in together if not _same(together[day], alone[day], APART * spread)]
        if other:
            self._add(
                "score-depends-on-other-days", "a day alone and among other days is scored differently", other
            )
        self.checks.append(Check("scoring", "scores of a day alone, among others, and again", len(days)))

    def _refit(self) -> None:
        """Build everything anew where only days after t differ, and hold it against what it was."""
        declared = self.subject.horizon_days
        reach, reacts = 0, False
        for number, t in enumerate(self.boundaries):
            self.say(number, len(self.boundaries), "building everything anew on changed markets")
            with self._market([(t + 1, self.days)]):
                other = Subject(build_dataset(self.task), self.store, tabular=self.tabular)
                near = self._near(t)
                found = self._compare(
                    other.observe([day for day in near if day <= t]), [d for d in near if d <= t]
                )
                reacts |= bool(
                    self._compare(other.observe([d for d in near if d > t]), [d for d in near if d > t])
                )
                reach = max(reach, self._reach(other, t))
                names = moved(self.state, fitted_state(other.dataset))
                same = self._check_handed(other, t, max(reach, declared or 0))
                # Else a model is trained on other numbers; that labels reach into the next segment is told by `purge`.
                purged = (
                    self.subject.segments.get("train", np.array([-1]))[-1] + max(reach, declared or 0) <= t
                )
                if number == 0 and purged and same and not found and not names:
                    self._check_fit(other, t)
            frozen = self._frozen(t, list(found)) if found else {}
            for day in sorted(frozen):
                new = [difference for difference in frozen[day] if difference.what not in self.confirmed]
                self._confirm(day, new, t)
                for difference in frozen[day]:
                    self.confirmed[difference.what].add(day, difference)
            fitted = [day for day in found if day not in frozen]
            if t >= self._train_end() and (names or fitted):
                what = f"{names[0]} moves" if names else "features move when everything is built anew"
                size = found[min(fitted)][0].said() if fitted else ""
                self._add("statistics-look-ahead", what, [t], size)
        if not reacts:
            self._add("store-not-read", "the features do not change where the store does", [])
        if declared is not None and reach > declared:
            what = f"labels reach {reach} days ahead, and their expressions {declared}"
            self._add("label-longer-than-declared", what, self.boundaries[:1])
        self.horizon = max(reach, declared or 0)
        what = "statistics, training rows, labels and features, built anew where only days after t differ"
        self.checks.append(Check("refits", what, len(self.boundaries)))

    def _reach(self, other: Subject, t: int) -> int:
        """How many days ahead labels are seen to reach, where only days after t differ."""
        days = self._labelled(t)
        theirs = other.labels(days)
        unlike = [day for day in days if not _same_labels(self.known_labels[day], theirs[day])]
        return max((t + 1 - day for day in unlike), default=0)

    def _check_handed(self, other: Subject, t: int, horizon_days: int) -> bool:
        """Whether training is given something of later segments, beyond the labels that `known.purge` tells of."""
        before = len(self.findings)
        for name, ours in self.handed.items():
            if name not in ("train", "valid") or not ours or max(self.subject.segments[name]) > t:
                continue
            theirs = other.handed(name, HANDED_DAYS)
            unlike = [
                day
                for day in ours
                if day + horizon_days <= t and (day not in theirs or not _same_labels(ours[day], theirs[day]))
            ]
            if unlike:
                self._add("training-data-look-ahead", f"rows of segment `{name}` move", unlike)
        return len(self.findings) == before

    def _check_fit(self, other: Subject, t: int) -> None:
        """Whether a model that is trained on the changed market, with the same training days, scores as before."""
        if self.given is not None or not self.scored or isinstance(self.model, MultiTaskModel):
            return
        days = [day for day in self.dates if day <= min(t, self._train_end())][-5:]
        if not days:
            return
        ours = self.subject.scores(self.model, days)
        theirs = other.scores(fresh_model(self.task, other), days)
        unlike = [day for day in ours if not _same(ours[day], theirs.get(day), 0.0)]
        if unlike:
            again = self.subject.scores(fresh_model(self.task, self.subject), days)
            if all(_same(ours[day], again.get(day), 0.0) for day in ours):
                self._add("fit-reads-test", "the trained model moves", unlike)
            else:
                self.notes.append("training twice gives two models, so that what it reads cannot be seen")
        self.checks.append(Check("training", "a model trained anew beside later days that differ", len(days)))

    def _batches(self) -> None:
        pool, spacing = list(self.dates), self.subject.lookback_days + BLOCK_DAYS
        while pool:
            batches = plan(pool, spacing)
            self._learn_scores(batches)
            pool = []
            for number, batch in enumerate(batches):
                self.say(self.done, len(self.dates), "days compared on changed markets")
                again = self._batch(batch)
                self.done += len(batch) - len(again)
                if again:  # features remember longer than that
                    pool = [*again, *(day for rest in batches[number + 1 :] for day in rest)]
                    spacing *= 2
                    break
        self.say(self.done, len(self.dates), "days compared on changed markets")
        what = "rows, features, side data, labels" + (" and scores" if self.scored else "")
        self.checks.append(Check("dates", f"{what} of t where only days after t differ", len(self.dates)))

    def _batch(self, batch: Sequence[int]) -> list[int]:
        """Compare the days of a batch; days that must be looked at again, since they remember the one before."""
        unlike = self._differences(blocks(batch, self.days), batch, batch)
        waiting = sorted(unlike)
        while waiting:
            t = waiting[0]
            new = {difference.what for difference in unlike[t]} - set(self.confirmed)
            if new:
                strict = unlike[t] if len(batch) == 1 else self._frozen(t, [t]).get(t, [])
                really = {difference.what: difference for difference in strict}
                self._confirm(t, [really[what] for what in sorted(new & set(really))])
                if new - set(really):
                    return [day for day in waiting if day != t]
            for difference in unlike[t]:
                self.confirmed[difference.what].add(t, difference)
            waiting = waiting[1:]
        return []

    def _confirm(self, day: int, found: Sequence[Difference], t: int | None = None) -> None:
        """Find out what each difference follows from: of all that changes after t, change one at a time."""
        if not found:
            return
        t = day if t is None else t
        follows: dict[str, list[str]] = {difference.what: [] for difference in found}
        for source in self.markets.sources:
            for difference in self._frozen(t, [day], (source,)).get(day, []):
                if difference.what in follows:
                    follows[difference.what].append(source)
        for difference in found:
            self.confirmed[difference.what] = Leak(difference, day, follows[difference.what])

    def _history(self) -> None:
        """Whether features and scores of a day change with how much history is loaded."""
        needed = self.subject.lookback_days
        if self.cut is None:
            self.notes.append(
                f"of no day the history can be cut to the {needed} days that features need: the store has too few"
            )
            return
        if FEATURES in self.confirmed:  # what remembers all days so far, and those to come, is told once
            self.notes.append(
                "features follow from later days, so that it was not looked at how much history they need"
            )
            return
        self.say(self.done, len(self.dates), "loading a shorter history")
        days, root = [*self.cut.lengths], self._root()
        changed_market.write_shortened(self.store, root, self.cut.first)
        with reading(root):
            self.frozen = True
            self.subject.reload_since(days[-1])
            theirs = self.subject.observe(days)
            scores = self.subject.scores(self.model, days) if self.cut_scores else {}
        changed_market.remove(root)
        found, notes = feature_findings(
            self.cut,
            self.known,
            theirs,
            self.columns,
            self.store.calendar,
            needed,
            declared=self.subject.features is not None,
        )
        told = SCORES in self.confirmed or any(x.kind == "score-depends-on-other-days" for x in self.findings)
        if self.cut_scores and not told and not found:
            more = score_findings(self.cut, self.cut_scores, scores, self.store.calendar, needed)
            found, notes = [*found, *more[0]], [*notes, *more[1]]
        self.findings += found
        self.notes += notes
        lengths = ", ".join(map(str, self.cut.lengths.values()))
        what = f"features and scores of days with {lengths} days of bars up to them, beside those with all of them"
        self.checks.append(Check("history", what, len(days)))

    def _split(self) -> None:
        """Whether features know of splits that come after all days."""
        if known.adjusted_forwards(self.whole):
            self.notes.append(
                "prices are adjusted forwards, from the first day on: their levels know of no later split"
            )
            return
        self.say(self.done, len(self.dates), "splitting shares after the last day")
        root = self._root()
        changed_market.write_split(self.store, root, self.seed)
        with reading(root):
            self.frozen = True
            self.subject.reload()
            theirs = self.subject.observe(self.dates)
        changed_market.remove(root)
        ours = [self.known[day].planes[FEATURES] for day in self.dates if day in self.known]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a column may be missing altogether
            limit = SPLIT_APART * np.nanstd(np.concatenate(ours), axis=0) + 1e-6
        unlike: dict[int, Difference] = {}
        for day in self.dates:
            one, other = self.known.get(day), theirs.get(day)
            if one is None or other is None or not np.array_equal(one.codes, other.codes):
                continue
            with np.errstate(invalid="ignore"):
                apart = np.abs(one.planes[FEATURES] - other.planes[FEATURES])
            far = (apart > limit) | (np.isnan(one.planes[FEATURES]) != np.isnan(other.planes[FEATURES]))
            if far.any():
                columns = tuple(np.flatnonzero(far.any(axis=0)).tolist())
                unlike[day] = Difference(
                    FEATURES, columns, int(far.any(axis=1).sum()), len(far), float(np.nanmax(apart))
                )
        if unlike:
            first = unlike[min(unlike)]
            names = leaks.columns_said(self.columns, first.columns)
            self._add(
                "levels-hold-later-splits",
                f"{names} {'move' if len(first.columns) > 1 else 'moves'} with a later split",
                list(unlike),
                first.said(),
            )
        self.checks.append(
            Check("splits", "features where shares are split after the last day", len(self.dates))
        )

    # -- comparisons ---------------------------------------------------------------------------------------

    def _differences(
        self,
        changed: Sequence[Block],
        days: Sequence[int],
        batch: Sequence[int] = (),
        sources: Sequence[str] | None = None,
    ) -> dict[int, list[Difference]]:
        """What differs on `days` in a market that is another one in `changed`; of a batch, scores as well."""
        scored = self.scored and len(batch) > 0
        before = [t - self.horizon for t in batch if t >= self.horizon]
        self._learn_labels(before)
        if scored:
            self._learn_scores([batch])
        with self._market(changed, sources):
            self.frozen = True
            self.subject.reload()
            theirs = self.subject.observe(days)
            scores = self.subject.scores(self.model, self._scored_with(batch)) if scored else {}
            labels = self.subject.labels(before)
        found = self._compare(theirs, days)
        for t in days:
            if scored and t in batch and t in self.known_scores[tuple(batch)]:
                unlike = _score_difference(self.known_scores[tuple(batch)][t], scores.get(t), self.rounding)
                if unlike is not None:
                    found.setdefault(t, []).append(unlike)
            day = t - self.horizon
            if day in labels and not _same_labels(self.known_labels[day], labels[day]):
                found.setdefault(t, []).append(Difference(LABELS, (), 0, 0, np.nan))
        return found

    def _frozen(
        self, t: int, days: Sequence[int], sources: Sequence[str] | None = None
    ) -> dict[int, list[Difference]]:
        """What differs on `days` where everything after t does and nothing else, statistics kept."""
        batch = next((list(key) for key in self.known_scores if t in key), [])
        return self._differences([(t + 1, self.days)], days, batch if list(days) == [t] else [], sources)

    def _compare(self, theirs: Mapping[int, Day], days: Sequence[int]) -> dict[int, list[Difference]]:
        found = {}
        for day in days:
            one, other = self.known.get(day), theirs.get(day)
            if one is None or other is None:
                unlike = [] if one is other else [Difference(ROWS, (), 1, 1, np.nan)]
            else:
                unlike = differences(one, other)
            if unlike:
                found[day] = unlike
        return found

    def _scored_with(self, batch: Sequence[int]) -> list[int]:
        """The days of a batch and some of those that are changed: a model that mixes days would show it."""
        return sorted({*batch, *(t + 1 for t in batch[:NEIGHBOURS])})

    # -- what is known of the store itself -----------------------------------------------------------------

    def _learn_days(self, days: Sequence[int]) -> None:
        missing = sorted({*days} - set(self.known))
        if missing:
            self._restore()
            self.known.update(self.subject.observe(missing))

    def _learn_labels(self, days: Sequence[int]) -> None:
        missing = sorted({*days} - set(self.known_labels))
        if missing:
            self._restore()
            self.known_labels.update(self.subject.labels(missing))

    def _learn_scores(self, batches: Sequence[Sequence[int]]) -> None:
        self._learn_labels([t - self.horizon for batch in batches for t in batch if t >= self.horizon])
        if not self.scored:
            return
        missing = [batch for batch in batches if tuple(batch) not in self.known_scores]
        if missing:
            self._restore()
        for number, batch in enumerate(missing):
            self.say(number, len(missing), "scoring the market as it is")
            self.known_scores[tuple(batch)] = self.subject.scores(self.model, self._scored_with(batch))

    def _restore(self) -> None:
        """Put the data of the store itself back."""
        if self.frozen:
            self.subject.reload()
            self.frozen = False

    # -- markets -------------------------------------------------------------------------------------------

    def _root(self) -> Path:
        self.made += 1
        return self.folder / f"market-{self.made}"

    @contextmanager
    def _market(self, changed: Sequence[Block], sources: Sequence[str] | None = None) -> Iterator[None]:
        """Let Qlib read a market that is another one in `changed`, in all that a store holds; it is removed afterwards."""
        root = self._root()
        self.markets.write(root, changed, sources)
        with reading(root):
            yield
        changed_market.remove(root)

    # -- days ----------------------------------------------------------------------------------------------

    def _train_end(self) -> int:
        """The last day of training, purged days and all."""
        segments = self.subject.segments
        later = [days[0] for name, days in segments.items() if name != "train" and len(days)]
        if "train" not in segments:
            return -1
        after = [day for day in later if day > segments["train"][-1]]
        return int(min(after) - 1 if after else segments["train"][-1])

    def _boundaries(self, number: int) -> list[int]:
        """Days after which everything is changed: those before a segment begins, then days between them."""
        starts = sorted(int(days[0]) for days in self.subject.segments.values() if len(days))
        found = [day - 1 for day in starts[1:] if day - 1 < self.days - 1] or [self.dates[-1]]
        middle = [
            self.dates[round(share * (len(self.dates) - 1))] for share in (0.9, 0.5, 0.75, 0.25, 0.6, 0.4)
        ]
        found += [day for day in middle if day not in found]
        return found[:number]

    def _near(self, t: int) -> list[int]:
        """Days up to t, ever further apart, and some after it."""
        days = [t - gap for gap in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)]
        segments = set(np.concatenate(list(self.subject.segments.values())).tolist())
        return [day for day in sorted({*days, t + 1, t + 2, t + 6, t + 15}) if day in segments]

    def _labelled(self, t: int) -> list[int]:
        return [day for day in range(t - LABEL_DAYS, t + 1) if day >= 0]

    # -- the answer ----------------------------------------------------------------------------------------

    def _tells(self, leak: Leak) -> bool:
        """Scores that follow from features that leak tell nothing new; nor do labels whose reach is told already."""
        what = leak.difference.what
        if what == SCORES:
            others = [other for key, other in self.confirmed.items() if key not in (SCORES, LABELS)]
            return bool(leak.dates.difference(*(other.dates for other in others)))
        return what != LABELS or all(x.kind != "label-longer-than-declared" for x in self.findings)

    def _add(self, kind: str, what: str, days: Sequence[int], size: str = "") -> None:
        first = f"{self.store.calendar[min(days)]:%Y-%m-%d}" if len(days) else None
        self.findings.append(Finding(kind, what, first, len(days), size))

    def _result(self) -> Result:
        calendar = self.store.calendar
        facts = {
            "store": self.whole.root.name,
            "universe": str(getattr(self.subject.handler, "instruments", "")),
            "first": f"{calendar[self.dates[0]]:%Y-%m-%d}",
            "last": f"{calendar[self.dates[-1]]:%Y-%m-%d}",
            "changed_markets": self.made,
            "changed": list(self.markets.sources),
            "label_reach_days": self.horizon,
        }
        self.checks.append(Check("segments", "order, overlap, purge, days to fit on, what is declared"))
        findings = {(finding.kind, finding.what): finding for finding in self.findings}
        return Result(facts, len(self.dates), tuple(findings.values()), tuple(self.checks), tuple(self.notes))

    def say(self, done: int, total: int, what: str) -> None:
        """Tell how far it is."""
        if self.progress is not None:
            self.progress(done, total, what + self.about)


def _reads_tables(task: Mapping[str, Any]) -> bool:
    """Whether the model is one of Qlib's own, which know no panels."""
    model = task["model"]
    return str(model.get("module_path") or model["class"]).startswith("qlib.")


def _same(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray] | None, apart: float
) -> bool:
    """Whether two scorings of a day agree: the same stocks, and no score further apart."""
    if other is None or not np.array_equal(one[0], other[0]) or one[1].shape != other[1].shape:
        return False
    if apart == 0.0:
        return np.array_equal(one[1], other[1], equal_nan=True)
    return bool(np.allclose(one[1], other[1], rtol=0, atol=apart, equal_nan=True))


def _score_difference(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray] | None, apart: float
) -> Difference | None:
    if other is None or not np.array_equal(one[0], other[0]):
        return Difference(SCORES, (), len(one[0]), len(one[0]), np.nan)
    return None if _same(one, other, apart) else compare(SCORES, one[1], other[1])


def _same_labels(one: Labels, other: Labels) -> bool:
    return set(one) == set(other) and all(_same(one[kind], other[kind], 0.0) for kind in one)
