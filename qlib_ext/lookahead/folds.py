"""The audit of a walk-forward: that of each fold, and whether a fold learned of days that it scores."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
        there = stored(client, run["run_id"], [AUDIT, SUMMARY])
        with tempfile.TemporaryDirectory() as folder:
            kept = RunArtifacts.download(client, run["run_id"], there, Path(folder))
            findings += across_border(run["fold"], run["scores"], kept.json(SUMMARY), calendar)
            if kept.has(AUDIT):
                audits[run["fold"]] = Result.from_json(kept.json(AUDIT), f"of the run {run['run_id']}")
    found = together(audits, len(runs), "fold")
    what = "the last day that each fold learned of, and those that its labels reach, before the first that it scores"
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
    alone = "each with its own days of training" if what == "fold" else "each by itself"
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
