"""What each month and each year brought."""

from __future__ import annotations

import calendar
from collections.abc import Mapping

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Chart, Heatmap
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

MONTHS = [calendar.month_abbr[k] for k in range(1, 13)]


class MonthsAndYears(Section):
    """Compounded returns of months as heatmaps, and of years as a table."""

    title = "Months and years"
    place = 50
    requires = ("portfolio/monthly.csv", "portfolio/yearly.csv")

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """The portfolio's months, and those over the index."""
        months = run.table("portfolio/monthly.csv")
        return {
            "monthly_returns": Heatmap(
                values=_calendar(months["portfolio_with_cost"]),
                percent=True,
                alt="Return of the portfolio after cost by month",
                caption="Compounded return of the portfolio after cost in each month, in per cent. The first and the last "
                "month may have but a few days of trading.",
            ),
            "monthly_excess": Heatmap(
                values=_calendar(months["excess_with_cost"]),
                percent=True,
                alt="Return of the portfolio over the index, after cost, by month",
                caption="The same over the index: (1 + portfolio) / (1 + index) - 1, in per cent.",
            ),
        }

    def render(self, run: RunArtifacts) -> str:
        """A sentence, the heatmaps and the table of years."""
        months, years = run.table("portfolio/monthly.csv"), run.table("portfolio/yearly.csv")
        own, excess = months["portfolio_with_cost"], months["excess_with_cost"]
        said = html.paragraph(
            f"Of {len(months)} months {(own > 0).sum()} ended with a gain after cost and {(excess > 0).sum()} ahead of the "
            f"index. The best was {own.idxmax()} with {html.percent(own.max(), signed=True)}, the worst {own.idxmin()} with "
            f"{html.percent(own.min(), signed=True)}."
        )
        charts = "".join(shown(name, chart) for name, chart in self.charts(run).items())
        return said + charts + html.heading("By year") + _years(years)


def _calendar(months: pd.Series) -> pd.DataFrame:
    """Years in the rows, months in the columns."""
    dates = pd.PeriodIndex(months.index, freq="M")
    table = pd.DataFrame({"year": dates.year.astype(str), "month": dates.month, "value": months.to_numpy()})
    wide = table.pivot(index="year", columns="month", values="value").reindex(columns=range(1, 13))
    return wide.set_axis(MONTHS, axis=1)


def _years(years: pd.DataFrame) -> str:
    def row(year: object, values: pd.Series) -> tuple[str, ...]:
        return (
            str(year),
            html.count(values["days"]),
            html.percent(values["portfolio_with_cost"], signed=True),
            html.percent(values["benchmark"], signed=True),
            html.percent(values["excess_with_cost"], signed=True),
            html.percent(values["volatility"]),
            html.number(values["sharpe_ratio"], 2),
            html.number(values["information_ratio"], 2),
            html.percent(values["max_drawdown"]),
        )

    header = [
        "Year",
        "Days",
        "After cost",
        "Index",
        "Over the index",
        "Volatility",
        "Sharpe ratio",
        "Information ratio",
        "Max drawdown",
    ]
    note = (
        "Returns of a year compound over its trading days and are not annualised, so a year of few days shows what those "
        "brought. Over the index, volatility (of a year), ratios and drawdown are after cost; a drawdown is measured from the "
        "highest value within the year."
    )
    body = [row(year, values) for year, values in years.iterrows()]
    return html.table(header, body, numbers=range(1, len(header))) + html.paragraph(note, "note")
