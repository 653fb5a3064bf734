"""The run in short, as Markdown: what MLflow shows as a run's description."""

from __future__ import annotations

import re

from qlib_ext.report import headline, html, verdict
from qlib_ext.tracking.artifacts import RunArtifacts

TAG = "mlflow.note.content"
LONGEST = 5000  # characters; what every version of MLflow's databases takes in a tag
_MARKS = re.compile(r"([\\`*_{}\[\]<>#|])")


def note(run: RunArtifacts) -> str:
    """Verdict, warnings and headline figures of a run.

    Parameters
    ----------
    run
        With `headline.REQUIRES`; what it lacks of `headline.OPTIONAL` and `verdict.OPTIONAL` is not spoken of.

    Returns
    -------
    Markdown: the verdict and the warnings as lists, the figures as one table, as far as they fit. What comes from the
    run stays text, whatever marks are in it.
    """
    known = headline.estimates(run)
    synthetic = verdict.synthetic(run)
    lines = [f"**{plain(synthetic)}**", ""] if synthetic else []
    lines += [f"- **{plain(claim.said)}** {plain(claim.because)}" for claim in verdict.claims(run, known)]
    warnings = [remark.text for remark in verdict.remarks(run, known) if remark.kind == "warning"]
    if warnings:
        lines += ["", "Look at this first:", "", *(f"- {plain(warning)}" for warning in warnings)]
    lines += ["", "| Measure | Value | 95% interval | Beside it |", "|---|---:|---:|---|"]
    for group in headline.groups(run, known):
        lines.append(f"| **{plain(group.title)}** | | | |")
        lines += [
            f"| {plain(row.name)} | {plain(row.value)} | {plain(row.interval or html.NONE)} | {plain(row.beside)} |"
            for row in group.rows
        ]
    end = ["", "The whole report: Artifacts, `report/report.html`.", ""]
    while len("\n".join([*lines, *end])) > LONGEST:
        lines.pop()
    return "\n".join([*lines, *end])


def plain(content: object) -> str:
    """Text that Markdown leaves as it is, on one line."""
    return _MARKS.sub(r"\\\1", " ".join(str(content).split()))
