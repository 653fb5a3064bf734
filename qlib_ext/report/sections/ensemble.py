"""The members of an ensemble beside each other, and what each adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart, Heatmap
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

TABLE, CORRELATION, COMBINER = "ensemble/members.csv", "ensemble/correlation.csv", "ensemble/combiner.json"
ALL = "ensemble"  # the row of all together


class Ensemble(Section):
    """Weight, IC and gain of each member, and how alike their scores are."""

    title = "Ensemble"
    place = 137
    answers = "Is it better than its members, and which of them does it need?"
    requires = (TABLE, CORRELATION, COMBINER)

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """RankIC of each member and of all; correlation of their scores, where there are several."""
        table, correlation = run.table(TABLE), run.table(CORRELATION)
        columns = {"RankIC": "test", "RankIC/valid": "validation"}
        there = {told: table[name].to_numpy() for name, told in columns.items() if name in table}
        charts: dict[str, Chart] = {
            "ensemble_rank_ic": Bars(
                values=pd.DataFrame(there, index=table.index.astype(str)),
                xlabel="member, and all together",
                ylabel="RankIC",
                height=280,
                alt="RankIC of each member alone and of the ensemble",
                caption="Mean daily RankIC of each member's scores alone, and of the ensemble's. Weights that are learned are "
                "learned on the validation, whose bar is therefore the friendlier one.",
            )
        }
        if len(correlation) > 1:
            charts["ensemble_correlation"] = Heatmap(
                values=correlation.set_axis(correlation.columns, axis=0),
                diverging=False,
                digits=2,
                alt="Rank correlation of the members' scores",
                caption="Mean daily rank correlation of each two members' scores. Members that say the same cannot correct each "
                "other.",
            )
        return charts

    def render(self, run: RunArtifacts) -> str:
        """Sentences, charts, and a row a member."""
        table, correlation = run.table(TABLE), run.table(CORRELATION)
        drawn = [shown(name, chart) for name, chart in self.charts(run).items()]
        return "".join(
            [
                html.paragraph(_said(table, correlation, run.json(COMBINER)["combiner"])),
                html.beside(*drawn) if len(drawn) > 1 else drawn[0],
                _figures(table),
            ]
        )


def _said(table: pd.DataFrame, correlation: pd.DataFrame, combiner: str) -> str:
    alone = table["RankIC"].drop(ALL)
    whole = table.loc[ALL, "RankIC"]
    said = (
        f"{len(alone)} {'member' if len(alone) == 1 else 'members'}, combined by {combiner}. RankIC of all together is "
        f"{html.number(whole)}; alone it is {html.number(alone.mean())} on the mean member and {html.number(alone.max())} for the "
        f"best, {alone.idxmax()}, which nobody could have named before."
    )
    if len(alone) == 1:
        return said
    matrix = correlation.to_numpy()
    others = (matrix.sum() - matrix.trace()) / (len(matrix) * (len(matrix) - 1))
    said += f" Scores of two members go together by {html.number(others, 2)} on the mean."
    if "gain_low" in table:
        sure = table.index[table["gain_low"] > 0]
        harm = table.index[table["gain_high"] < 0]
        said += (
            f" The interval of the gain lies above zero for {', '.join(map(str, sure)) or 'none of them'}"
            f"{', and below for ' + ', '.join(map(str, harm)) if len(harm) else ''}."
        )
    return said


def _figures(table: pd.DataFrame) -> str:
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "weight": ("Weight", lambda value: html.percent(value, 1)),
        "IC": ("IC", html.number),
        "RankIC": ("RankIC", html.number),
        "RankICIR": ("RankICIR", lambda value: html.number(value, 3)),
        "RankIC/valid": ("on validation", html.number),
        "scored": ("Scored", lambda value: html.percent(value, 0)),
    }
    there = {name: told for name, told in columns.items() if name in table}
    has_gain = "gain" in table
    rows = [
        (
            member,
            *(write(row[name]) for name, (_, write) in there.items()),
            *([_gain(row)] if has_gain else []),
        )
        for member, row in table.iterrows()
    ]
    head = ["Member", *(told for told, _ in there.values()), *(["Gain (95 %)"] if has_gain else [])]
    return html.table(head, rows, numbers=range(1, len(head))) + html.paragraph(
        "Gain is the mean daily RankIC of all members less that of all but this one, whose weights are then learned without it. "
        "Scored is the share of the ensemble's scores that the member has one of."
    )


def _gain(row: pd.Series) -> str:
    if pd.isna(row["gain"]):
        return ""
    bounds = (html.number(row[name], signed=True) for name in ("gain_low", "gain_high"))
    return f"{html.number(row['gain'], signed=True)} ({' to '.join(bounds)})"
