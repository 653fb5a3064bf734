"""What the score is made of: how much worse it ranks without a feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from qlib_ext.checks import counted
from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

FOLDER = "importance"
SEGMENTS = {"valid": "validation", "test": "test"}
TOP = 20
BY_CHANCE = 0.025  # of the 95% intervals about zero lie above it
DROP = "drop of RankIC"
CHOOSE = (
    "Choose features by the column of validation. Test was read once the training was over, to describe it: whoever chooses "
    "by it has no test left. The model itself was chosen on validation, so that the drops there are a little too high."
)


class Importance(Section):
    """Permutation importance by feature and by group, on validation and on test, beside LightGBM's own."""

    title = "Feature importance"
    place = 185
    answers = "Which features does the score live on, and does it on test too?"
    requires = (f"{FOLDER}/features.csv", f"{FOLDER}/summary.json")
    optional = (f"{FOLDER}/groups.csv",)

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Bars of the highest features and groups on validation, with those of test beside them."""
        tables = {"feature": _features(run), "group": _groups(run)}
        return {
            f"importance_{kind}s": _bars(_moving(table).head(TOP), kind)
            for kind, table in tables.items()
            if len(_moving(table))
        }

    def render(self, run: RunArtifacts) -> str:
        """What stands out in a sentence, the charts, and the tables."""
        charts = {name: shown(name, chart) for name, chart in self.charts(run).items()}
        features, groups = _features(run), _groups(run)
        summary = run.json(f"{FOLDER}/summary.json")
        parts = [
            html.paragraph(_told(features)),
            charts.get("importance_features", ""),
            html.details(f"All {counted(len(features), 'feature')}", _table(features, "Feature", features)),
        ]
        if len(groups):
            parts += [
                html.heading("By group"),
                charts.get("importance_groups", ""),
                _table(groups, "Group", features),
                html.paragraph(_grouped(groups, summary), "note"),
            ]
        parts += [html.paragraph(said, "note") for said in _notes(features, summary)]
        return "".join(parts)


def _features(run: RunArtifacts) -> pd.DataFrame:
    return _sorted(run.table(f"{FOLDER}/features.csv"))


def _groups(run: RunArtifacts) -> pd.DataFrame:
    path = f"{FOLDER}/groups.csv"
    return _sorted(run.table(path)) if run.has(path) else pd.DataFrame(columns=[*SEGMENTS])


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    """From the highest on validation, never on test; of equals as the model has them."""
    table = table.set_axis(table.index.astype(str))
    return table.sort_values("valid", ascending=False, kind="stable")


def _moving(table: pd.DataFrame) -> pd.DataFrame:
    """Those that were measured and with which the ranking changes; LightGBM leaves many features alone."""
    found = table.filter(regex="^(valid|test)").astype(float).fillna(0.0)
    return table[(found != 0).any(axis=1)]


def _bars(table: pd.DataFrame, kind: str) -> Chart:
    def of(end: str) -> pd.DataFrame:
        return pd.DataFrame({name: table[f"{segment}{end}"] for segment, name in SEGMENTS.items()})

    which = (
        f"The {len(table)} {kind}s with the largest drop on validation" if len(table) > 1 else f"The {kind}"
    )
    return Bars(
        values=of(""),
        low=of("_low"),
        high=of("_high"),
        horizontal=True,
        ylabel=DROP,
        height=260,
        alt=f"Drop of RankIC where a {kind} is shuffled",
        caption=f"{which}: how far the mean daily RankIC falls where the {kind} is shuffled among the stocks of each day, "
        "with its 95% interval. An interval that holds 0 leaves open whether the score needs it; below 0 the score ranks "
        "better without.",
    )


def _told(features: pd.DataFrame) -> str:
    """What is beyond chance, and whether it lasts."""
    moving = _moving(features)
    if not len(moving):
        return f"The ranking changes with none of the {counted(len(features), 'feature')}."
    beyond = {segment: moving[f"{segment}_low"] > 0 for segment in SEGMENTS}
    top = min(TOP, len(moving))
    chance = BY_CHANCE * len(moving)
    expected = f"about {chance:.0f}" if chance >= 1 else "fewer than one"
    return (
        f"The ranking changes with {len(moving)} of the {counted(len(features), 'feature')}. On validation "
        f"{_beyond(int(beyond['valid'].sum()), 'them')}, that is, the 95% interval of the drop lies above zero; of as many "
        f"features without any worth {expected} would be. On test "
        f"{_beyond(int(beyond['test'].head(top).sum()), f'the {top} with the largest drop on validation')}."
    )


def _beyond(count: int, of: str) -> str:
    return f"{count or 'none'} of {of} {'are' if count > 1 else 'is'} beyond chance"


def _table(table: pd.DataFrame, kind: str, features: pd.DataFrame) -> str:
    header = [kind, "On validation", "95% interval", "On test", "95% interval"]
    boosted = "gain" in table
    if "features" in table:
        header.insert(1, "Features")
    if boosted:
        header += ["Share of gain", "Splits"]
    total = features["gain"].sum() if boosted else 0.0
    rows = []
    for name, row in table.iterrows():
        cells = [str(name)]
        if "features" in table:
            cells.append(html.count(row["features"]))
        for segment in SEGMENTS:
            cells += [html.number(row[segment], signed=True), _interval(row, segment)]
        if boosted:
            cells.append(html.percent(row["gain"] / total, 1) if total else html.NONE)
            cells.append(html.count(row["splits"]))
        rows.append(cells)
    return html.table(header, rows, numbers=range(1, len(header)))


def _interval(row: pd.Series, segment: str) -> str:
    low, high = (row[f"{segment}_{end}"] for end in ("low", "high"))
    if pd.isna(low):
        return html.NONE
    return f"{html.number(low, signed=True)} to {html.number(high, signed=True)}"


def _grouped(groups: pd.DataFrame, summary: Mapping[str, Any]) -> str:
    said = (
        "The features of a group are shuffled together, by one order of the stocks. A feature loses little alone where others "
        "tell the same; its group then loses much."
    )
    alone = summary["in_no_group"]
    if alone:
        said += f" In no group: {', '.join(alone[:TOP])}{', ...' if len(alone) > TOP else ''}."
    return said


def _notes(features: pd.DataFrame, summary: Mapping[str, Any]) -> list[str]:
    """How it was measured, and what may follow from it."""
    segments = {SEGMENTS[name]: found for name, found in summary["segments"].items()}
    days = " and ".join(
        f"{found['days']} of {found['of_days']} days of {name} ({found['start']} to {found['end']}, RankIC "
        f"{html.number(_value(found['rank_ic']))})"
        for name, found in segments.items()
    )
    scored, epoch = summary["scored_days"], summary["evaluation_days"]
    measured = (
        f"Measured against {summary['label']} on {days}, spread evenly, each feature shuffled "
        f"{counted(summary['repeats'], 'time')} a day with seed {summary['seed']}; each stock's whole window of a feature moves, "
        "with all its lags. Intervals are from the stationary bootstrap over these days, paired by day. That took "
        f"{counted(scored, 'scored day')}, {scored / max(1, epoch):.1f} times the days of train and validation together."
    )
    notes = [CHOOSE, measured]
    same = [*features.index[features["valid"].isna() & features["test"].isna()]]
    if same:
        notes.append(
            f"Not measured, as all stocks of a day have the same or no RankIC is there: {', '.join(same[:TOP])}"
            f"{', ...' if len(same) > TOP else ''}."
        )
    if "gain" in features:
        notes.append(
            "Gain is what the splits of LightGBM's trees on a feature took off its loss in training, as a share of all; it "
            "says what the trees used, not what it was worth on other days."
        )
    return notes


def _value(found: float | None) -> float:
    return float("nan") if found is None else found
