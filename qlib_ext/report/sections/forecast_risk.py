"""Forecast risk beside what came, and where the forecast risk lies."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart, Lines
from qlib_ext.report.figures import BLUE, GREEN, ORANGE
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

RISK, SUMMARY, STOCKS = (
    "construction/risk.parquet",
    "construction/risk.csv",
    "portfolio_decisions/stocks.parquet",
)
INDUSTRIES, FACTORS = "construction/industries.parquet", "construction/factors.parquet"
NAMES = {"volatility": "Volatility", "deviation": "Tracking error"}
CHARTS = {"volatility": "forecast_volatility", "deviation": "forecast_tracking_error"}
LARGEST = 15  # stocks and industries
LINES = 8
SHARES = {"risk_share": "of the variance", "active_share": "of the squared tracking error"}


class ForecastRisk(Section):
    """Volatility and tracking error, forecast and realised; shares of stocks, industries and factors."""

    title = "Forecast risk"
    place = 74
    answers = "Did the risk come out as forecast, and where does it lie?"
    requires = (RISK, SUMMARY, STOCKS, "construction/setup.json")
    optional = (INDUSTRIES, FACTORS)

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Rolling forecasts and bias; contributions of the newest day and over time."""
        risk, summary = run.table(RISK), run.table(SUMMARY)
        setup = run.json("construction/setup.json")
        window, (low, high) = setup["window_days"], setup["right_bias"]
        charts: dict[str, Chart] = {}
        for name in summary.index:
            lines = _rolling(risk, name)
            if lines["forecast"].notna().any():
                charts[CHARTS[name]] = Lines(
                    series=lines,
                    percent=True,
                    colours=(ORANGE, BLUE),
                    ylabel=f"{NAMES[name].lower()} a year",
                    height=260,
                    alt=f"{NAMES[name]}, forecast and realised",
                    caption=f"Over the last {window} trading days: root of the mean forecast variance, and standard deviation of "
                    "what came, times the root of a year's days.",
                )
        bias = {NAMES[name]: risk[f"bias/{name}"] for name in summary.index}
        if any(line.notna().any() for line in bias.values()):
            charts["bias"] = Lines(
                series=bias,
                levels={"as forecast": 1.0, "lowest of a right forecast": low, "highest": high},
                colours=(BLUE, GREEN),
                ylabel="bias statistic",
                height=240,
                alt="Bias statistic over time",
                caption=f"Standard deviation of the last {window} daily returns, each over its forecast: above 1 the risk was "
                "forecast too low, below 1 too high. That of a right forecast lies between the outer lines in 95% of samples of "
                "normal returns.",
            )
        return charts | _contributions(run)

    def render(self, run: RunArtifacts) -> str:
        """The verdict in words, the table, the rolling charts, and the contributions."""
        summary, charts = run.table(SUMMARY), self.charts(run)

        def drawn(*names: str) -> str:
            return html.beside(*(shown(name, charts[name]) for name in names if name in charts))

        stocks = run.table(STOCKS)
        newest = stocks.index.get_level_values("datetime")[-1]
        return "".join(
            [
                *(html.paragraph(_said(name, row)) for name, row in summary.iterrows()),
                drawn(*CHARTS.values()),
                drawn("bias"),
                _table(summary),
                html.paragraph(_how(run.json("construction/setup.json")["window_days"]), "note"),
                html.heading("Where the risk lies"),
                html.paragraph(_lies(stocks.loc[newest], newest)),
                drawn("risk_by_stock", "risk_by_industry"),
                drawn("risk_by_factor", "risk_by_factor_over_time"),
                drawn("risk_by_industry_over_time"),
                _stocks(stocks.loc[newest]),
            ]
        )


def _rolling(risk: pd.DataFrame, name: str) -> dict[str, pd.Series]:
    return {"forecast": risk[f"rolling_forecast/{name}"], "realised": risk[f"rolling_realised/{name}"]}


def _said(name: str, row: pd.Series) -> str:
    verdict = "as forecast, as far as so many days can tell"
    if row["bias"] > row["high"]:
        verdict = "higher than forecast"
    elif row["bias"] < row["low"]:
        verdict = "lower than forecast"
    past = ""
    if pd.notna(row["qlike"]) and pd.notna(row["qlike_past"]):
        better = "better" if row["qlike"] < row["qlike_past"] else "worse"
        past = f" By QLIKE the forecast was {better} than the past volatility of the account."
    return (
        f"{NAMES[name]} came out {verdict}: {html.percent(row['forecast'], 1)} a year was forecast and "
        f"{html.percent(row['realised'], 1)} came, a bias statistic of {html.number(row['bias'], 2)} (of a right forecast "
        f"between {html.number(row['low'], 2)} and {html.number(row['high'], 2)} in 95% of samples).{past}"
    )


def _table(summary: pd.DataFrame) -> str:
    rows = [
        (
            NAMES[str(name)],
            html.percent(row["forecast"]),
            html.percent(row["realised"]),
            html.number(row["bias"], 3),
            f"{html.number(row['low'], 2)} to {html.number(row['high'], 2)}",
            html.number(row["qlike"], 3),
            html.number(row["qlike_past"], 3),
            html.count(row["days"]),
        )
        for name, row in summary.iterrows()
    ]
    header = [
        "",
        "Forecast a year",
        "Realised",
        "Bias",
        "Of a right forecast",
        "QLIKE",
        "QLIKE of the past",
        "Days",
    ]
    return html.table(header, rows, numbers=range(1, 8))


def _how(window: int) -> str:
    return (
        "The forecast of a decision holds from the day after its trade to the day of the next. What came is the account's return "
        "before cost; the tracking error is against the portfolio's own benchmark, the universe by the weights that the decision "
        "knew. QLIKE is the mean of the log of the forecast variance and the squared return over it: the lower, the better; that "
        f"of the past takes the standard deviation of the {window} days before for the forecast."
    )


def _lies(stocks: pd.DataFrame, day: pd.Timestamp) -> str:
    shares = stocks["risk_share"].sort_values(ascending=False)
    return (
        f"At the rebalancing of {day:%Y-%m-%d} the ten stocks that add most make {html.percent(shares.iloc[:10].sum(), 0)} of the "
        f"forecast variance, with {html.percent(stocks.loc[shares.index[:10], 'weight'].sum(), 0)} of the account. A share can be "
        "below zero: such a stock makes the portfolio calmer."
    )


def _contributions(run: RunArtifacts) -> dict[str, Chart]:
    stocks = run.table(STOCKS)
    newest = stocks.index.get_level_values("datetime")[-1]
    last = stocks.loc[newest]
    found: dict[str, Chart] = {"risk_by_stock": _bars(_top(last), "stock", newest)}
    if run.has(INDUSTRIES):
        table = run.table(INDUSTRIES)
        found["risk_by_industry"] = _bars(_top(table.loc[newest]), "industry", newest)
        found["risk_by_industry_over_time"] = _over_time(table, "industry")
    if run.has(FACTORS):
        table = run.table(FACTORS)
        found["risk_by_factor"] = _bars(_top(table.loc[newest]), "factor", newest)
        found["risk_by_factor_over_time"] = _over_time(table, "factor")
    return found


def _top(table: pd.DataFrame) -> pd.DataFrame:
    there = table[[name for name in SHARES if table[name].notna().any()] or ["risk_share"]]
    order = there.abs().max(axis=1).sort_values(ascending=False, kind="stable").index[:LARGEST]
    return there.loc[order].sort_values(there.columns[0], ascending=False, kind="stable")


def _bars(shares: pd.DataFrame, what: str, day: pd.Timestamp) -> Chart:
    return Bars(
        values=shares.rename(columns=SHARES),
        horizontal=True,
        percent=True,
        colours=(BLUE, ORANGE),
        ylabel="share",
        alt=f"Shares in the forecast risk by {what}",
        caption=f"Share of each {what} in the forecast variance of the weights of {day:%Y-%m-%d}, and in that of their "
        f"difference from the benchmark; the {len(shares)} largest.",
    )


def _over_time(table: pd.DataFrame, what: str) -> Chart:
    wide = table["risk_share"].unstack(what)
    order = wide.abs().mean().sort_values(ascending=False, kind="stable").index[:LINES]
    return Lines(
        series={str(name): wide[name] for name in order},
        percent=True,
        ylabel="share of the variance",
        height=300,
        alt=f"Shares in the forecast variance by {what}, over time",
        caption=f"Share of each {what} in the forecast variance of the weights; the {len(order)} largest on average.",
    )


def _stocks(stocks: pd.DataFrame) -> str:
    order = stocks["risk_share"].sort_values(ascending=False, kind="stable").index[:LARGEST]
    industry = stocks["industry"].notna().any()
    rows = [
        (
            code,
            *([row["industry"] or html.NONE] if industry else []),
            html.percent(row["weight"]),
            html.percent(row["benchmark"]),
            html.percent(row["risk_share"], 1),
            html.percent(row["active_share"], 1),
        )
        for code, row in stocks.loc[order].iterrows()
    ]
    names = ["Weight", "In the benchmark", "Of the variance", "Of the squared tracking error"]
    header = ["Stock", *(["Industry"] if industry else []), *names]
    start = 2 if industry else 1
    return html.table(header, rows, numbers=range(start, start + 4))
