"""The page of the court: a verdict a pipeline, and what leaks are worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.leaks.cases import read_cases
from benchmarks.leaks.worth import LEAKS, MEMBERS, NONE
from benchmarks.trainings import kinds as kept
from benchmarks.trainings.kinds import RANK_IC, YEAR, extent, with_interval
from benchmarks.trainings.runs import place


def write(out: Path) -> Path:
    """Write README.md from `verdicts` and `runs` under `out`, with `head.md` first."""
    head = out / "head.md"
    lines = [head.read_text(encoding="utf-8")] if head.is_file() else ["# A court for leaks", ""]
    lines += ["## Verdicts", ""]
    left = []
    for case in read_cases().values():
        file = place(out / "verdicts", case.name).with_suffix(".json")
        if not file.is_file():
            left.append(case.name)
            continue
        lines += verdict(case.name, case.source, case.commit, json.loads(file.read_text(encoding="utf-8")))
    if left:
        lines += [f"Not looked at yet: {'; '.join(left)}.", ""]
    lines += ["## What a leak is worth", "", *kept.table(worth(out / "runs")), ""]
    page = out / "README.md"
    out.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines), encoding="utf-8")
    return page


def verdict(name: str, source: str, commit: str, found: dict[str, Any]) -> list[str]:
    """What was looked at, each finding with its way out, and the notes."""
    findings = [f"- **{each['kind']}**: {each['message']}" for each in found["findings"]]
    where = (
        f"{source}; commit `{commit[:12]}`. {found['dates']} dates from {found['first']} to {found['last']} on "
        f"{found['changed_markets']} changed markets."
    )
    return [
        f"### {name}",
        "",
        where,
        "",
        *(findings or ["Nothing that is called known on a day follows from what came after it."]),
        *(f"- note: {note}" for note in found["notes"]),
        "",
    ]


def worth(runs: Path) -> list[dict[str, str]]:
    """RankIC and return with each leak, and how much more that is than without."""
    kinds = kept.read(runs, [*LEAKS, MEMBERS])
    rows = []
    for leak, trained in kinds.items():
        by_seed = trained.of(RANK_IC).mean(axis=1)
        row = {
            "leak": leak,
            "seeds": str(len(trained)),
            "RankIC": f"{by_seed.mean():.4f}",
            "by seed": extent(by_seed, "{:.4f}"),
            "more than without": "",
            "return a year, more": "",
        }
        if leak != NONE and NONE in kinds:
            row["more than without"] = with_interval(
                *kept.difference(trained, kinds[NONE], RANK_IC), "{:+.4f}"
            )
            row["return a year, more"] = with_interval(
                *kept.difference(trained, kinds[NONE], "portfolio"), "{:+.1%}", YEAR
            )
        rows.append(row)
    return rows
