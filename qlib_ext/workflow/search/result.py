"""What a search has found, ready to be shown and to be run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import qlib_ext
from qlib_ext.checks import counted
from qlib_ext.terminal import visible
from qlib_ext.workflow.search.plan import ENOUGH_SEEDS, Plan
from qlib_ext.workflow.search.search import Search
from qlib_ext.workflow.search.study import Tried, best_of, importance

PAGE, TABLE, WORKFLOW = "search.html", "trials.csv", "best.yaml"
NAMES = {
    "rank_ic": "RankIC",
    "rank_icir": "RankICIR",
    "ic": "IC",
    "icir": "ICIR",
    "excess_return": "excess return a day",
    "information_ratio": "information ratio",
}


@dataclass(frozen=True)
class Found:
    """What a search has found so far.

    Attributes
    ----------
    name
        Of the workflow.
    plan
        Of the search.
    tried
        All trials, in their order.
    importance
        Parameter -> share.
    validations
        Fold -> first and last day of validation.
    read_too
        Days that were read and another fold scores, from the first to the last.
    facts
        What it was made from.
    notes
        What a reader must know beside.
    """

    name: str
    plan: Plan
    tried: tuple[Tried, ...]
    importance: Mapping[str, float]
    validations: Mapping[int, tuple[str, str]]
    read_too: tuple[str, str] | None
    facts: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, search: Search) -> Found:
        """What a search has by now."""
        days = search.tasks.validations.values()
        return cls(
            search.workflow.path.name,
            search.plan,
            tuple(search.study.tried()),
            importance(search.study),
            search.tasks.validations,
            search.tasks.read_too,
            {
                "Workflow": str(search.workflow.path),
                "Store": f"{search.store.root}, fingerprint {search.fingerprint}",
                "Universe": str(search.tasks.compared["universe"]),
                "Validation": f"{min(a for a, _ in days)} to {max(b for _, b in days)}"
                + (f", in {counted(len(days), 'fold')}" if len(days) > 1 else ""),
                "Objective": f"{NAMES[search.plan.objective]} against {search.plan.label}",
                "Sampler": f"{search.plan.sampler}, seed {search.plan.seed}",
                "Rungs": "; ".join(map(str, search.plan.rungs)),
                "Time": f"{search.study.seconds / 3600:.2f} hours of all calls",
                "Version": qlib_ext.__version__,
            },
            (
                *search.problems,
                *(["Every configuration of the space has been tried."] if search.study.exhausted else []),
            ),
        )

    @property
    def best(self) -> Tried | None:
        """The best of those on the last rung."""
        return best_of(self.tried)

    @property
    def own(self) -> Tried | None:
        """The workflow as it stood, where it was a trial."""
        return next((trial for trial in self.tried if trial.own), None)

    @property
    def ranked(self) -> list[Tried]:
        """The highest rung first, on each the best first; what was never judged last."""
        return sorted(
            self.tried,
            key=lambda trial: (-trial.rung, -trial.value if math.isfinite(trial.value) else math.inf),
        )

    def count(self, state: str) -> int:
        """Trials in a state."""
        return sum(trial.state == state for trial in self.tried)

    def table(self) -> pd.DataFrame:
        """A row a trial, in their order."""
        rows = [
            {
                "trial": trial.number,
                "state": trial.state,
                self.plan.objective: trial.value,
                "deviation": trial.deviation,
                "seeds": len(trial.by_seed),
                "rung": trial.rung,
                **{each.name: trial.words.get(each.name) for each in self.plan.space},
                "seconds": round(trial.seconds, 1),
                "own": trial.own,
                "error": trial.error,
            }
            for trial in self.tried
        ]
        return pd.DataFrame(rows)

    def sentences(self) -> list[str]:
        """What can be said of the best, and what cannot."""
        best = self.best
        said = [
            f"{counted(len(self.tried), 'configuration')} tried: {self.count('complete')} on the last rung, "
            f"{self.count('stopped')} stopped below it, {self.count('failed')} failed"
            + (f", {self.count('open')} still open." if self.count("open") else "."),
            self._of_test(),
        ]
        if best is None:
            return [*said, "No trial has come to the last rung yet, so none is named the best: search on."]
        if best.own:
            said.append("The workflow as it stood is the best of them: no other values beat it here.")
        if len(best.by_seed) < ENOUGH_SEEDS:
            said.append(
                f"The best was trained with {counted(len(best.by_seed), 'seed')}, which settles nothing: luck of the seed and "
                f"worth of the values cannot be told apart. Let the last rung have `seeds: {ENOUGH_SEEDS}`."
            )
        second = sorted((x.value for x in self.tried if x.state == "complete"), reverse=True)[1:2]
        if second and math.isfinite(best.deviation):
            ahead = best.value - second[0]
            more = "more" if ahead > best.deviation else "no more"
            said.append(
                f"It is {ahead:.4f} ahead of the next one on the last rung, {more} than its seeds differ among themselves "
                f"({best.deviation:.4f})."
            )
        said.append(
            "The best of many is good by luck in part: on days that nobody has looked at it will be worth less than here."
        )
        return said

    def _of_test(self) -> str:
        if self.read_too is None:
            return "No day of the test segment was read. To run the best workflow reads it: do so once, and last."
        first, last = self.read_too
        return (
            f"Folds are judged on their validation, whose labels hold prices up to {last}; no day after it was read. But the days from {first} to {last} are "
            "scored by earlier folds: the series that the best workflow puts together was looked at up to there."
        )


def header(found: Found, best: Tried) -> str:
    """Comments above the best workflow."""
    deviation = f" (deviation {best.deviation:.4f})" if math.isfinite(best.deviation) else ""
    tried = (
        f"Trial {best.number} of `qlib-ext search` on {found.name}, the best of {len(found.tried)}: {NAMES[found.plan.objective]} "
        f"{best.value:.4f} on validation, mean of {counted(len(best.by_seed), 'seed')}{deviation}."
    )
    lines = [
        tried,
        *found.sentences()[1:2],
        *(f"{name}: {word}" for name, word in best.words.items()),
    ]
    return "".join(f"# {visible(line)}\n" for line in lines)


def write(search: Search, found: Found, page: str) -> dict[str, Path]:
    """Write page, table and the best workflow, each in one step; name -> path, without a workflow where there is no best."""
    content = {PAGE: page, TABLE: found.table().to_csv(index=False)}
    best = found.best
    if best is not None:
        text = search.workflow.text(search.winning_values(best))
        content[WORKFLOW] = f"{header(found, best)}\n{text}"
    written: dict[str, Any] = {}
    for name, text in content.items():
        path = search.folder / name
        beside = path.with_suffix(f"{path.suffix}.part")
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
        written[name] = path
    return written
