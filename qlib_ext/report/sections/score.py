"""How steady the score is: what is left of a day's ranking on later days."""

from __future__ import annotations

from collections.abc import Mapping

from qlib_ext.report import html
from qlib_ext.report.charts import Chart, Lines
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.report.smoothing import smooth, window_days
from qlib_ext.tracking.artifacts import RunArtifacts

FOLDER = "signal_analysis"


class Score(Section):
    """Autocorrelation and turnover of the score."""

    title = "Steadiness of the score"
    place = 160
    answers = "How much does the ranking change from day to day?"
    requires = (f"{FOLDER}/daily.parquet", f"{FOLDER}/autocorrelation.csv", f"{FOLDER}/turnover.csv")

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Autocorrelation by lag, and the turnover of the lists over time."""
        by_lag = run.table(f"{FOLDER}/autocorrelation.csv").dropna(subset=["autocorrelation"])
        daily = run.table(f"{FOLDER}/daily.parquet")
        found: dict[str, Chart] = {}
        if len(by_lag):
            found["score_autocorrelation"] = Lines(
                series={"rank autocorrelation": by_lag["autocorrelation"]},
                bands={
                    "rank autocorrelation": (by_lag["autocorrelation_low"], by_lag["autocorrelation_high"])
                },
                dots=True,
                xlabel="lag, trading days",
                ylabel="mean correlation",
                height=260,
                alt="Rank autocorrelation of the score by lag",
                caption="Mean correlation of the ranks of a day with those of some days before, among the stocks scored on "
                "both: 1 if the ranking never changes, 0 if it is a new one. The band is the 95% interval of the mean.",
            )
        lists = [str(column) for column in daily.columns if str(column).startswith("turnover/top")]
        window = window_days(len(daily))
        lines = {f"top {name.removeprefix('turnover/top')}": smooth(daily[name], window) for name in lists}
        if any(values.notna().any() for values in lines.values()):
            found["score_turnover"] = Lines(
                series=lines,
                percent=True,
                ylabel="replaced in a day",
                height=260,
                alt="Turnover of the highest scored stocks over time",
                caption="Share of the N highest scored stocks that were not among them the day before, mean of "
                f"{window} days. A strategy that always held them would buy and sell this share of its holdings a day.",
            )
        return found

    def render(self, run: RunArtifacts) -> str:
        """The charts, and turnover over one and more days."""
        turnover = run.table(f"{FOLDER}/turnover.csv")
        days = [str(column).removeprefix("days_") for column in turnover.columns]
        rows = [
            (str(name).replace("quantile", "group"), *(html.percent(value, 1) for value in row))
            for name, row in turnover.iterrows()
        ]
        header = ["Replaced within", *(f"{day} day" + ("s" if day != "1" else "") for day in days)]
        return (
            html.beside(*(shown(name, chart) for name, chart in self.charts(run).items()))
            + html.table(header, rows, numbers=range(1, len(header)))
            + html.paragraph(
                "Mean share of a list, or of a group of equal size by score (1 has the lowest scores), that was not in "
                "it so many trading days before.",
                "note",
            )
        )
