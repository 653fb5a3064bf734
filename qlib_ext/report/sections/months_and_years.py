"""What each month and each year brought."""

from __future__ import annotations

import calendar
from collections.abc import Callable, Mapping

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Chart, Heatmap
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

EXCESS = "excess_with_cost"
MONTHS = [calendar.month_abbr[k] for k in range(1, 13)]


class MonthsAndYears(Section):
    """Compounded returns of months as heatmaps, and of years as a table."""

    title = "Months and years"
    place = 50
    answers = "When was it earned?"
    requires = ("portfolio/monthly.csv", "portfolio/yearly.csv")

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """The portfolio's months, and those over the index."""
        months = run.table("portfolio/monthly.csv")
        charts = {
            "monthly_returns": Heatmap(
                values=_calendar(months["portfolio_with_cost"]),
                percent=True,
                alt="Return of the portfolio after cost by month",
                caption="Compounded return of the portfolio after cost in each month, in per cent. The first and the last "
                "month may have but a few days of trading.",
            ),
        }
        if EXCESS not in months:
            return charts
        return charts | {
            "monthly_excess": Heatmap(
                values=_calendar(months[EXCESS]),
                percent=True,
                alt="Return of the portfolio over the index, after cost, by month",
                caption="The same over the index: (1 + portfolio) / (1 + index) - 1, in per cent.",
            ),
        }

    def render(self, run: RunArtifacts) -> str:
        """A sentence, the heatmaps and the table of years."""
        months, years = run.table("portfolio/monthly.csv"), run.table("portfolio/yearly.csv")
        own = months["portfolio_with_cost"]
        ahead = f" and {(months[EXCESS] > 0).sum()} ahead of the index" if EXCESS in months else ""
        said = html.paragraph(
            f"Of {len(months)} months {(own > 0).sum()} ended with a gain after cost{ahead}. The best was {own.idxmax()} with {html.percent(own.max(), signed=True)}, the worst {own.idxmin()} with "
            f"{html.percent(own.min(), signed=True)}."
        )
        charts = html.beside(*(shown(name, chart) for name, chart in self.charts(run).items()))
        return said + charts + html.heading("By year") + _years(years)


def _calendar(months: pd.Series) -> pd.DataFrame:
    """Years in the rows, months in the columns."""
    dates = pd.PeriodIndex(months.index, freq="M")
    table = pd.DataFrame({"year": dates.year.astype(str), "month": dates.month, "value": months.to_numpy()})
    wide = table.pivot(index="year", columns="month", values="value").reindex(columns=range(1, 13))
    return wide.set_axis(MONTHS, axis=1)


def _years(years: pd.DataFrame) -> str:
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "days": ("Days", html.count),
        "portfolio_with_cost": ("After cost", _signed),
        "benchmark": ("Index", _signed),
        EXCESS: ("Over the index", _signed),
        "volatility": ("Volatility", html.percent),
        "sharpe_ratio": ("Sharpe ratio", _ratio),
        "information_ratio": ("Information ratio", _ratio),
        "max_drawdown": ("Max drawdown", html.percent),
    }
    there = {name: told for name, told in columns.items() if name in years}
    header = ["Year", *(head for head, _ in there.values())]
    note = (
        "Returns of a year compound over its trading days and are not annualised, so a year of few days shows what those "
        f"brought. {'Over the index, volatility' if EXCESS in years else 'Volatility'} (of a year), ratios and drawdown are after cost; a drawdown is measured from the "
        "highest value within the year."
    )
    body = [
        (str(year), *(write(values[name]) for name, (_, write) in there.items()))
        for year, values in years.iterrows()
    ]
    return html.table(header, body, numbers=range(1, len(header))) + html.paragraph(note, "note")


def _signed(value: float) -> str:
    return html.percent(value, signed=True)


def _ratio(value: float) -> str:
    return html.number(value, 2)
