"""What the run was made from, so that it and its report can be made again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Chart, Lines
from qlib_ext.report.sections.base import LeftOut, Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

# Artifacts that follow from a model, and not from scores alone.
OF_A_MODEL = ("training/", "importance/", "momentum/", "direction/")

REASONED = ("construction", "sweeps")  # records whose setup has a `note` where they wrote nothing else


class Provenance(Section):
    """Run, data, segments, coverage, versions, configuration, what is not in the report, and how to make it again."""

    title = "Provenance"
    place = 210
    answers = "What was it made from, and how is it made again?"
    optional = (
        "config.yaml",
        "environment.json",
        "data/summary.json",
        "data/coverage.parquet",
        *(f"{folder}/setup.json" for folder in REASONED),
    )

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Share of the universe's members with a score or features, by day."""
        if not run.has("data/coverage.parquet"):
            return {}
        coverage = run.table("data/coverage.parquet")
        share = _share(coverage)
        return {
            "coverage": Lines(
                series={
                    str(name): share[coverage["segment"] == name] for name in coverage["segment"].unique()
                },
                ylabel="share of the members",
                percent=True,
                height=220,
                alt="Share of the universe's members with a score or features, by day",
                caption="Stocks with features (train, valid) or a score (test) over the universe's members that have bars in "
                "the store, by day.",
            )
        }

    def render(self, run: RunArtifacts) -> str:
        """Tables of facts, the chart of coverage, then the configuration."""
        parts = [
            html.heading("Run"),
            html.facts(_run(run)),
            html.heading("To make this report again"),
            html.preformatted(again(run)),
            html.paragraph(
                "It needs the run's artifacts and no market data. The command of the run itself stands above; with the same "
                "commit, fingerprint and configuration it gives the same figures.",
                "note",
            ),
        ]
        summary = run.json("data/summary.json") if run.has("data/summary.json") else None
        if summary is not None:
            parts += [html.heading("Data"), html.facts(_data(summary))]
            if summary.get("notes"):
                parts.append(
                    html.items(note[0].upper() + note[1:] + "." for note in summary["notes"] if note)
                )
            parts += [
                html.heading("Segments and coverage"),
                _segments(summary["segments"], _coverage(run)),
                html.paragraph(
                    "Days and rows are those used. Purged days are left out at the end of a segment because their "
                    "labels reach into the next one. Coverage is the share of the universe's members of a day that "
                    "have a score or features: its mean and its lowest day.",
                    "note",
                ),
            ]
        parts += [shown(name, chart) for name, chart in self.charts(run).items()]
        left_out: tuple[LeftOut, ...] = run.info.get("left_out", ())
        if left_out:
            parts += [html.heading("Not in this report"), html.items(_told(part, run) for part in left_out)]
        if run.has("environment.json"):
            parts += [html.heading("Versions"), html.facts(_texts(run.json("environment.json").items()))]
        if run.has("config.yaml"):
            parts.append(html.details("Configuration", html.preformatted(run.text("config.yaml"))))
        return "".join(parts)


def again(run: RunArtifacts) -> str:
    """The command that makes the report again from the run."""
    command = ["qlib-ext", "report", str(run.info.get("run_id", "RUN"))]
    if run.info.get("tracking_uri"):
        command += ["--tracking-uri", str(run.info["tracking_uri"])]
    return shlex.join(command)


def _told(left_out: LeftOut, run: RunArtifacts) -> str:
    if "scores" in run.tags and left_out.missing[0].startswith(OF_A_MODEL):
        return (
            f"{left_out.title}: nothing was trained here, the scores were given ({_given(run.tags)}) without the model and "
            "without classes."
        )
    reason = f"{left_out.missing[0].partition('/')[0]}/setup.json"
    if run.has(reason) and (note := run.json(reason).get("note")):
        return f"{left_out.title}: {note}."
    lacking = "; ".join(f"{path}, written by {run.maker(path)}" for path in left_out.missing)
    return f"{left_out.title}: the run has no {lacking}."


def _given(tags: Mapping[str, str]) -> str:
    """What gave the scores of a run that made none: a file, or another run with its id."""
    return f"{tags['scores']}, run {tags['scores_of']}" if "scores_of" in tags else tags["scores"]


def _run(run: RunArtifacts) -> list[tuple[str, str]]:
    facts = {
        "Experiment": run.info.get("experiment"),
        "Run": run.info.get("run_name"),
        "Run id": run.info.get("run_id"),
        "Started": run.info.get("started"),
        "Command": run.info.get("command"),
        "Git commit": run.tags.get("git_commit", "none: the working directory was no git repository"),
        "MLflow store": run.info.get("tracking_uri"),
        "Scores given by": _given(run.tags) if "scores" in run.tags else None,
        "Backbone": run.tags.get("backbone"),
        "Balancer": run.tags.get("balancer"),
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _data(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    horizon = summary.get("label_horizon_days")
    facts: dict[str, Any] = {
        "Universe": summary["universe"],
        "Store": f"{summary['store_start']} to {summary['store_end']}",
        "Fingerprint of the data": summary["fingerprint"],
        "Index": summary.get("benchmark"),
        "Stocks": summary.get("instruments"),
        "Members without bars": summary.get("instruments_without_bars"),
        "Fields": ", ".join(summary.get("fields", [])),
        "Fields missing": ", ".join(summary.get("missing_fields", [])) or "none",
        "Days of history in a sample": None if summary.get("fields") == [] else summary.get("lookback_days"),
        "Labels": "; ".join(f"{name} = {formula}" for name, formula in summary.get("labels", {}).items()),
        "Labels look ahead": None if horizon is None else f"{horizon} days",
    }
    return _texts(facts.items())


def _coverage(run: RunArtifacts) -> pd.DataFrame:
    """Mean and lowest coverage by segment; empty where the run has none."""
    if not run.has("data/coverage.parquet"):
        return pd.DataFrame(columns=["mean", "min"], dtype=float)
    coverage = run.table("data/coverage.parquet")
    return _share(coverage).groupby(coverage["segment"]).agg(["mean", "min"])


def _share(coverage: pd.DataFrame) -> pd.Series:
    return coverage["scored"] / coverage["members"].where(coverage["members"] > 0)


def _segments(segments: Mapping[str, Mapping[str, Any]], coverage: pd.DataFrame) -> str:
    rows = [
        (
            name,
            f"{segment['start']} to {segment['end']}",
            html.count(segment["days"]),
            html.count(segment["rows"]),
            html.count(segment["purged_days"]),
            html.percent(coverage["mean"].get(name, float("nan")), 1),
            html.percent(coverage["min"].get(name, float("nan")), 1),
        )
        for name, segment in segments.items()
    ]
    header = ["Segment", "Used", "Days", "Rows", "Purged days", "Coverage", "Lowest"]
    return html.table(header, rows, numbers=range(2, 7))


def _texts(facts: Iterable[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in facts if value not in (None, "")]
