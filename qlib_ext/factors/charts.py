"""Charts of a scorecard."""

from __future__ import annotations

import pandas as pd

from qlib_ext.factors.scorecard import Scorecard
from qlib_ext.report.charts import Bars, Chart, Heatmap, Lines

BARS = 20  # factors that are drawn, the surest first
LINES = 8  # lines that a reader can follow at once
EXPOSURES = {
    "size": "size",
    "beta": "beta",
    "volatility": "volatility",
    "reversal": "past return",
}


def charts(found: Scorecard) -> dict[str, Chart]:
    """The charts that there are figures for, by name."""
    best = found.best.head(BARS)
    made: dict[str, Chart] = {}
    if len(best):
        made |= {"rank_ic": _rank_ic(best), "years": _years(found, best)}
        made["decay"] = _decay(found)
        exposed = best[[*EXPOSURES]].rename(columns=EXPOSURES).dropna(axis=1, how="all")
        if exposed.size:
            made["exposures"] = Heatmap(
                values=exposed,
                digits=2,
                alt="Rank correlation of the surest factors with what is known of stocks anyway",
                caption="Mean daily rank correlation with each exposure; blue goes with it, orange against it.",
            )
    alike = found.correlation.dropna(how="all").dropna(axis=1, how="all")
    if len(alike) > 1:
        made["correlation"] = Heatmap(
            values=alike,
            digits=2,
            alt="Rank correlation of all factors, those that go together beside each other",
            caption="Mean daily rank correlation of each two factors, those that go together beside each other: a block of one "
            "colour is one idea. Blue together, orange against each other.",
        )
    return made


def _rank_ic(best: pd.DataFrame) -> Chart:
    def column(name: str) -> pd.DataFrame:
        return best[[name]].set_axis(["RankIC"], axis=1)

    return Bars(
        values=column("rank_ic"),
        low=column("rank_ic_low"),
        high=column("rank_ic_high"),
        horizontal=True,
        ylabel="mean daily rank correlation with the label",
        alt="RankIC of the surest factors with intervals",
        caption=f"The {len(best)} surest factors by |t|, with intervals of 95%. A factor below 0 is used with the other sign.",
    )


def _decay(found: Scorecard) -> Chart:
    chosen = found.best_of_clusters.index[:LINES]
    return Lines(
        series={str(name): found.decay.loc[name] for name in chosen},
        xlabel="days later",
        ylabel="mean rank correlation",
        dots=True,
        alt="Decay of the surest factor of each cluster",
        caption="The surest factor of each of the first clusters: mean rank correlation with the label that many days later.",
    )


def _years(found: Scorecard, best: pd.DataFrame) -> Chart:
    return Heatmap(
        values=found.years.loc[best.index],
        digits=3,
        alt="RankIC of the surest factors by year",
        caption="Mean daily RankIC of each year; blue above 0, orange below.",
    )
