"""The audit of many trainings: that of each fold, and whether a fold or a split learned of days that it scores."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.tracking import MlflowClient

from qlib_ext.lookahead.findings import Check, Finding, Result
from qlib_ext.tracking.artifacts import RunArtifacts, stored

AUDIT, SUMMARY = "lookahead/audit.json", "data/summary.json"


def of_runs(runs: Sequence[Mapping[str, Any]], client: MlflowClient, calendar: pd.DatetimeIndex) -> Result:
    """What the folds' own audits found, together, and what lies across their borders.

    Parameters
    ----------
    runs
        `fold`, `run_id` and `scores` of each fold, as `model.walk_forward.WalkForward` has them.
    client
        Of the MLflow store that has the runs.
    calendar
        Of the market.
    """
    audits, findings = {}, []
    for run in runs:
        summary, audit = _of_run(run["run_id"], client)
        findings += across_border(run["fold"], run["scores"], summary, calendar)
        if audit is not None:
            audits[run["fold"]] = audit
    what = "the last day that each fold learned of, and those that its labels reach, before the first that it scores"
    return _with_borders(together(audits, len(runs), "fold"), findings, what)


def of_splits(runs: Sequence[Mapping[str, Any]], client: MlflowClient, calendar: pd.DatetimeIndex) -> Result:
    """The audit of the split that is trained before all that it scores, and the borders of all splits.

    The features of a day, its labels and the order of training, scoring and judging are the same in all splits. That most learn
    of days after those that they score is what they are for, and no finding.

    Parameters
    ----------
    runs
        `split` and `run_id` of each split, as `model.combinatorial.CrossValidated` has them.
    client
        Of the MLflow store that has the runs.
    calendar
        Of the market.
    """
    audits, findings = {}, []
    for run in runs:
        summary, audit = _of_run(run["run_id"], client)
        findings += inside_split(run["split"], summary, calendar)
        if audit is not None:
            audits[run["split"]] = audit
    what = (
        "what the labels of each split's training, validation and test reach, against the days of the others"
    )
    return _with_borders(together(audits, len(runs), "split"), findings, what)


def inside_split(split: int, summary: Mapping[str, Any], calendar: pd.DatetimeIndex) -> list[Finding]:
    """Whether labels of a split's training or validation reach days that it scores, or the other way round.

    Parameters
    ----------
    split
        Its number.
    summary
        `data/summary.json` of its run.
    calendar
        Of the market.
    """
    reach = int(summary["label_horizon_days"])
    days = {name: _positions(each, calendar) for name, each in summary["segments"].items()}
    found = []
    for name in ("train", "valid"):
        for one, other in ((name, "test"), ("test", name)):
            reached = np.unique(np.add.outer(days[one], np.arange(reach + 1)))
            common = np.intersect1d(reached, days[other])
            if len(common):
                first = f"{calendar[common[0]]:%Y-%m-%d}"
                what = (
                    f"split {split}: the labels of its segment `{one}` reach {len(common)} days of `{other}`"
                )
                found.append(Finding("fold-learns-of-its-test", what, first))
    return found


def _positions(segment: Mapping[str, Any], calendar: pd.DatetimeIndex) -> np.ndarray:
    """The days of a segment, as a run describes it, in a calendar."""
    stretches = segment.get("stretches") or [[segment["start"], segment["end"]]]
    bounds = [(int(calendar.get_loc(a)), int(calendar.get_loc(b))) for a, b in stretches]
    return np.concatenate([np.arange(first, last + 1) for first, last in bounds])


def _of_run(run_id: str, client: MlflowClient) -> tuple[Mapping[str, Any], Result | None]:
    """What a training was made of, and its audit, where it has one."""
    there = stored(client, run_id, [AUDIT, SUMMARY])
    with tempfile.TemporaryDirectory() as folder:
        kept = RunArtifacts.download(client, run_id, there, Path(folder))
        audit = Result.from_json(kept.json(AUDIT), f"of the run {run_id}") if kept.has(AUDIT) else None
        return kept.json(SUMMARY), audit


def _with_borders(found: Result, findings: Sequence[Finding], what: str) -> Result:
    return dataclasses.replace(
        found, findings=(*findings, *found.findings), checks=(*found.checks, Check("borders", what))
    )


def across_border(
    fold: int, scores: Sequence[str], summary: Mapping[str, Any], calendar: pd.DatetimeIndex
) -> list[Finding]:
    """Whether a fold learned of days that it scores, by the segments that its run had.

    Parameters
    ----------
    fold
        Its number.
    scores
        First and last day of which its scores count.
    summary
        `data/summary.json` of its run.
    calendar
        Of the market.
    """
    border = int(calendar.searchsorted(pd.Timestamp(scores[0])))
    found = []
    for name in ("train", "valid"):
        last = int(calendar.get_loc(pd.Timestamp(summary["segments"][name]["end"])))
        beyond = last + int(summary["label_horizon_days"]) - border
        if beyond >= 0:
            what = f"fold {fold} scores {scores[0]}, and the labels of its segment `{name}` reach {beyond} days beyond"
            found.append(Finding("fold-learns-of-its-test", what, scores[0]))
    return found


def together(audits: Mapping[int, Result], number: int, what: str) -> Result:
    """Audits of folds or members, by their number, as one; `what` they are, and how many of them there are."""
    if not audits:
        return Result(
            {"store": "", "universe": "", "first": "", "last": "", "changed_markets": 0, "changed": []},
            0,
            (),
            (),
            (f"no {what} keeps an audit of its own: put LookaheadRecord among the records",),
        )
    facts = [result.facts for result in audits.values()]
    checks: dict[tuple[str, str], int] = {}
    for result in audits.values():
        for check in result.checks:
            checks[check.name, check.what] = checks.get((check.name, check.what), 0) + check.dates
    numbers = ", ".join(map(str, audits))
    alone = "each with its own days of training" if what in ("fold", "split") else "each by itself"
    notes = [f"{what}s {numbers} of {number} were looked at, {alone}"]
    notes += [f"{what} {k}: {note}" for k, result in audits.items() for note in result.notes]
    return Result(
        {
            **facts[0],
            "first": min(str(each["first"]) for each in facts),
            "last": max(str(each["last"]) for each in facts),
            "changed_markets": sum(int(each["changed_markets"]) for each in facts),
            "changed": list(dict.fromkeys(what for each in facts for what in each["changed"])),
            f"{what}s": [*audits],
        },
        sum(result.dates for result in audits.values()),
        tuple(
            dataclasses.replace(finding, what=f"{what} {k}: {finding.what}")
            for k, result in audits.items()
            for finding in result.findings
        ),
        tuple(Check(name, of, dates) for (name, of), dates in checks.items()),
        tuple(dict.fromkeys(notes)),
    )
