"""What the audit looks for, and what it found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from qlib_ext.tracking.artifacts import reading


@dataclasses.dataclass(frozen=True)
class Kind:
    """One way in which the future gets into the past.

    Attributes
    ----------
    name
        In kebab case.
    what
        What is wrong, as the rest of a sentence.
    way_out
        What a user does about it.
    """

    name: str
    what: str
    way_out: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "feature-looks-ahead",
            "features of a day change with bars of later days",
            "look for `Ref` with a negative number, centred windows, filling backwards or between two values, and "
            "scaling by all days",
        ),
        Kind(
            "label-in-features",
            "a feature is a label, or ranks the stocks as a label does",
            "take the column out of the features",
        ),
        Kind(
            "batch-mixes-days",
            "what a model is given as a day is not that day",
            "give one day at a time, with its own rows",
        ),
        Kind(
            "rows-look-ahead",
            "which stocks a day has changes with bars of later days",
            "choose the stocks of a day by what its close knew: a stock that stops trading later is still there",
        ),
        Kind(
            "membership-looks-ahead",
            "a day changes with who joins or leaves the universe later",
            "take the members of each day, not those of the last: `instruments/NAME.txt` has them by date",
        ),
        Kind(
            "member-before-listing",
            "stocks are members of the universe long before their first bar",
            "bring the universe in with its dates (`qlib-ext data universe`): a list of one day, used for all days, "
            "holds those that were to do well",
        ),
        Kind(
            "side-looks-ahead",
            "features of a day change with side data that were known later",
            "join side data by the day on which they were known (`release_date`), carry them forward only",
        ),
        Kind(
            "released-at-period-end",
            "figures of months, quarters or years count as known on the day on which their period ends",
            "give real release dates, or a lag (`qlib-ext data side-data DIR NAME FILE --lag ...`)",
        ),
        Kind(
            "market-value-looks-ahead",
            "market values of a day change with what was known later",
            "take the newest market value dated the day or before",
        ),
        Kind(
            "market-value-of-a-later-day",
            "market values move with the return of the day after",
            "date each market value with the day whose close it was made of",
        ),
        Kind(
            "side-of-a-later-day",
            "numbers of side data move with the return of the day after",
            "date each row with the day at whose close it was known: bring the table in with its time stamps, or with "
            "`qlib-ext data side-data ... --after-close`",
        ),
        Kind(
            "concepts-look-ahead",
            "industries or concepts of a day change with what was known later",
            "take the spell that covers the day; fit clusters on the days before",
        ),
        Kind(
            "market-status-looks-ahead",
            "features of the whole market change with what was known later",
            "take bars of the indices up to the day, and fit on the training days only",
        ),
        Kind(
            "levels-hold-later-splits",
            "features change when a share is split after all days",
            "use ratios of prices (`form: change`, or divide by the day's close): vendors adjust old prices for "
            "later splits",
        ),
        Kind(
            "statistics-look-ahead",
            "what is fitted for training changes with later days",
            "fit on the training days only (`fit_start_time`, `fit_end_time`)",
        ),
        Kind(
            "fit-range",
            "the days to fit on have days of other segments than `train`",
            "set `fit_start_time` and `fit_end_time` to the first and last day of `train`",
        ),
        Kind(
            "segment-order",
            "a segment of training comes after one that it is judged by",
            "put `train` first, then `valid`, then `test`",
        ),
        Kind(
            "segments-overlap",
            "two segments have days in common",
            "give each segment its own days",
        ),
        Kind(
            "not-purged",
            "labels of a segment's last days reach into the next segment",
            "set `purge: true`, or end the segment as many days earlier as the labels reach",
        ),
        Kind(
            "training-data-look-ahead",
            "what training is given changes with days of later segments",
            "make training rows of training days only",
        ),
        Kind(
            "label-longer-than-declared",
            "labels reach further than their expressions say",
            "say how far the label reaches in its expression (`Ref($close, -5)`), so that segments are purged by it; "
            "look at processors that shift or smooth labels",
        ),
        Kind(
            "score-looks-ahead",
            "scores of a day change with later days, though the features of that day do not",
            "look for scores that are shifted, smoothed or normalised over days, and for models that see other days",
        ),
        Kind(
            "score-depends-on-other-days",
            "scores of a day depend on which other days are scored with it",
            "put the model in evaluation mode, and score each day by itself",
        ),
        Kind(
            "score-not-repeatable",
            "the same day gets other scores when it is scored again",
            "turn dropout off when scoring (evaluation mode), and fix the seed",
        ),
        Kind(
            "changes-with-history",
            "features or scores of a day change with how many days of bars were loaded before it",
            "take windows of a fixed length in the place of what remembers all days so far (`EMA` over a long span, sums and "
            "ranks since the first bar), or have the features say how many days they need",
        ),
        Kind(
            "fit-reads-test",
            "a model that is trained gives other scores when only later segments change",
            "let `fit` read `train` and `valid` only",
        ),
        Kind(
            "fold-learns-of-its-test",
            "a fold of a walk-forward, or a split of a cross-validation, was trained or chosen on days that it scores, or on "
            "labels that reach them",
            "let `segments: {walk_forward: ...}`, or `{combinatorial: ...}`, make the segments, and leave `purge` true",
        ),
        Kind(
            "store-not-read",
            "features do not come from the store that Qlib reads, so that nothing can be seen",
            "let the handler read the store: a file or a cache of its own may hold anything",
        ),
        Kind(
            "scores-too-good",
            "given scores go with the returns of later days more closely than forecasts do",
            "look for prices, returns or members of later days in what made the scores: a score dated t must be known at "
            "the close of t",
        ),
        Kind(
            "declared-look-ahead",
            "the workflow says itself that its features read the future",
            "keep it for comparison with a paper that does so, and trust no backtest of it",
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One leak.

    Attributes
    ----------
    kind
        A name in `KINDS`.
    what
        What leaks: a column, a table, a segment; one sentence with what it follows from.
    first_date
        The first date on which it was seen, ISO; None where it is no matter of dates.
    dates
        On how many of the dates that were looked at.
    size
        How large it is, in words.
    """

    kind: str
    what: str
    first_date: str | None = None
    dates: int = 0
    size: str = ""

    @property
    def way_out(self) -> str:
        """What to do about it."""
        return KINDS[self.kind].way_out

    @property
    def message(self) -> str:
        """What leaks, since when, how much and the way out, in one line."""
        when = [] if self.first_date is None else [f"first on {self.first_date}"]
        seen = [f"on {self.dates:,} of the dates looked at"] if self.dates else []
        facts = ", ".join([*when, *seen, *([self.size] if self.size else [])])
        return f"{self.what}{f' ({facts})' if facts else ''}: {self.way_out}"


@dataclasses.dataclass(frozen=True)
class Check:
    """Something that was looked at, found or not: what, and on how many dates (0 where it is no matter of dates)."""

    name: str
    what: str
    dates: int = 0


@dataclasses.dataclass(frozen=True)
class Result:
    """The audit of a workflow.

    Attributes
    ----------
    facts
        Universe, store, first and last date looked at, how many markets were made, ready for JSON.
    dates
        On how many dates t everything after t was changed and t compared.
    findings, checks, notes
        What leaks; what was looked at; what a reader should know, as sentences.
    """

    facts: Mapping[str, Any]
    dates: int
    findings: tuple[Finding, ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, content: Mapping[str, Any], note: str) -> Result:
        """An audit as `to_json` gave it, with one more note; a UserError where it is none."""
        own = {"dates", "alarms", "findings", "checks", "notes"}
        facts = {name: value for name, value in content.items() if name not in own}
        with reading("the audit", ["lookahead/audit.json"]):
            names = [field.name for field in dataclasses.fields(Finding)]
            findings = tuple(Finding(**{name: each[name] for name in names}) for each in content["findings"])
            checks = tuple(Check(**each) for each in content["checks"])
            return cls(facts, int(content["dates"]), findings, checks, (*content["notes"], note))

    def to_json(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            **self.facts,
            "dates": self.dates,
            "alarms": len(self.findings),
            "findings": [
                {**dataclasses.asdict(finding), "way_out": finding.way_out, "message": finding.message}
                for finding in self.findings
            ],
            "checks": [dataclasses.asdict(check) for check in self.checks],
            "notes": list(self.notes),
        }
