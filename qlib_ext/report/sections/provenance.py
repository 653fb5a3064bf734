"""What the run was made from, so that it can be made again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.artifacts import RunArtifacts
from qlib_ext.report.sections.base import Section


class Provenance(Section):
    """Run, data, segments, coverage, versions and configuration."""

    title = "Provenance"
    requires = ("config.yaml", "environment.json", "data/summary.json", "data/coverage.parquet")

    def render(self, run: RunArtifacts) -> str:
        """Tables of facts, then the configuration."""
        summary = run.json("data/summary.json")
        coverage = run.table("data/coverage.parquet")
        return "".join(
            [
                html.heading("Run"),
                html.facts(_run(run)),
                html.heading("Data"),
                html.facts(_data(summary)),
                html.items(summary.get("notes", [])) if summary.get("notes") else "",
                html.heading("Segments and coverage"),
                _segments(summary["segments"], coverage),
                html.paragraph(
                    "Days and rows are those used. Purged days are left out at the end of a segment because their "
                    "labels reach into the next one. Coverage is the share of the universe's members of a day that "
                    "have a score or features: its mean and its lowest day.",
                    "note",
                ),
                html.heading("Versions"),
                html.facts(_versions(run.json("environment.json"))),
                html.details("Configuration", html.preformatted(run.text("config.yaml"))),
            ]
        )


def _run(run: RunArtifacts) -> list[tuple[str, str]]:
    facts = {
        "Experiment": run.info.get("experiment"),
        "Run": run.info.get("run_name"),
        "Run id": run.info.get("run_id"),
        "Started": run.info.get("started"),
        "Command": run.info.get("command"),
        "Git commit": run.tags.get("git_commit", "none: the working directory was no git repository"),
        "MLflow store": run.info.get("tracking_uri"),
        "Backbone": run.tags.get("backbone"),
        "Balancer": run.tags.get("balancer"),
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _data(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts: dict[str, Any] = {
        "Universe": summary["universe"],
        "Store": f"{summary['store_start']} to {summary['store_end']}",
        "Fingerprint of the data": summary["fingerprint"],
        "Index": summary.get("benchmark"),
        "Stocks": summary.get("instruments"),
        "Members without bars": summary.get("instruments_without_bars"),
        "Fields": ", ".join(summary.get("fields", [])),
        "Fields missing": ", ".join(summary.get("missing_fields", [])) or "none",
        "Days of history in a sample": summary.get("lookback_days"),
        "Labels": "; ".join(f"{name} = {formula}" for name, formula in summary.get("labels", {}).items()),
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]


def _segments(segments: Mapping[str, Mapping[str, Any]], coverage: pd.DataFrame) -> str:
    share = (coverage["scored"] / coverage["members"]).groupby(coverage["segment"])
    mean, low = share.mean(), share.min()
    rows = [
        (
            name,
            f"{segment['start']} to {segment['end']}",
            html.count(segment["days"]),
            html.count(segment["rows"]),
            html.count(segment["purged_days"]),
            html.percent(mean.get(name, float("nan")), 1),
            html.percent(low.get(name, float("nan")), 1),
        )
        for name, segment in segments.items()
    ]
    header = ["Segment", "Used", "Days", "Rows", "Purged days", "Coverage", "Lowest"]
    return html.table(header, rows, numbers=range(2, 7))


def _versions(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(name), str(version)) for name, version in environment.items()]
