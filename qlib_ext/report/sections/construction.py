"""How the portfolio came to its weights: what it held and leant to, why it traded, and which limits stood in the way."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from qlib_ext.checks import counted
from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart, Lines
from qlib_ext.report.figures import BLUE, COLOURS, MORE_COLOURS, ORANGE
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

MADE, STOCKS = "construction/rebalancings.parquet", "portfolio_decisions/stocks.parquet"
LIMITS, FACTORS = "construction/limits.csv", "construction/factors.parquet"
LARGEST = 10  # stocks with a colour of their own
LEANINGS = 8  # factors with a line of their own
REST, FAINT = "all others", "#d5d9de"
ROWS = 10  # of a table of days
CAUSES = {
    "turnover/left": "left the universe",
    "turnover/new": "new",
    "turnover/out": "sold out",
    "turnover/changed": "weight changed",
}


class Construction(Section):
    """Weights, exposures, turnover by cause, and limits that bound or gave way."""

    title = "Portfolio construction"
    place = 72
    answers = "How did it come to its weights, and what stood in the way?"
    requires = (MADE, STOCKS, "construction/setup.json")
    optional = (LIMITS, FACTORS)

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Weights, exposures, turnover and limits, each as far as there is something."""
        made = run.table(MADE)
        charts: dict[str, Chart] = {"target_weights": _weights(run.table(STOCKS))}
        if run.has(FACTORS):
            charts["active_exposures"] = _exposures(run.table(FACTORS))
        if made["beta"].notna().any():
            charts["portfolio_beta"] = _beta(made)
        if len(made) > 1:
            charts["turnover_by_cause"] = _turnover(made.iloc[1:])
        if run.has(LIMITS):
            charts["limits"] = _limits(run.table(LIMITS))
        return charts

    def render(self, run: RunArtifacts) -> str:
        """What happened in words, then the charts with their tables."""
        made, setup, charts = run.table(MADE), run.json("construction/setup.json"), self.charts(run)

        def drawn(*names: str) -> str:
            return html.beside(*(shown(name, charts[name]) for name in names if name in charts))

        parts = [html.paragraph(_said(made)), drawn("target_weights")]
        if "active_exposures" in charts or "portfolio_beta" in charts:
            parts += [html.heading("Exposures"), drawn("active_exposures", "portfolio_beta")]
        parts += [html.heading("Why it traded"), html.paragraph(_why(made)), drawn("turnover_by_cause")]
        parts.append(_turnover_table(made, setup["days_per_year"]))
        parts += [html.heading("Limits"), html.paragraph(_bound(made, run)), drawn("limits")]
        if run.has(LIMITS):
            parts.append(_limits_table(run.table(LIMITS)))
        parts += [
            _days("Days on which limits gave way", made[made["relaxed"] != ""], "relaxed"),
            _days("Days on which the account was kept as it was", made[made["kept"]], "told"),
        ]
        if made["told"].iloc[-1]:
            parts += [
                html.heading("Of the newest decision"),
                html.items(made["told"].iloc[-1].splitlines()),
            ]
        return "".join(parts)


def _said(made: pd.DataFrame) -> str:
    often = counted(len(made), "time")
    apart = made["period_days"].iloc[:-1]
    between = f", every {html.number(apart.mean(), 1)} trading days on average" if len(apart) else ""
    return (
        f"The portfolio was rebalanced {often}{between}. It aimed at {html.number(made['names'].mean(), 1)} stocks on average "
        f"({html.count(made['names'].min())} to {html.count(made['names'].max())}) with "
        f"{html.percent(made['invested'].mean(), 1)} of the account."
    )


def _weights(stocks: pd.DataFrame) -> Chart:
    wide = stocks["weight"].unstack("instrument").fillna(0.0)
    order = wide.abs().mean().sort_values(ascending=False, kind="stable").index
    largest = [*order[:LARGEST]]
    shares = {code: wide[code] for code in largest}
    if len(order) > LARGEST:
        shares[REST] = wide[order[LARGEST:]].sum(axis=1)
    return Lines(
        series=shares,
        stacked=bool((wide >= 0).all(axis=None)),
        colours=(*(*COLOURS, *MORE_COLOURS)[: len(largest)], FAINT),
        percent=True,
        ylabel="share of the account",
        height=340,
        alt="Target weights over time",
        caption=f"Weights that each rebalancing aimed at. The {len(largest)} stocks that are heaviest on average have a colour "
        "of their own; what is missing to 100% is cash.",
    )


def _exposures(factors: pd.DataFrame) -> Chart:
    active = (factors["portfolio"] - factors["benchmark"]).dropna().unstack("factor")
    order = active.abs().mean().sort_values(ascending=False, kind="stable").index[:LEANINGS]
    more = f" The {len(order)} largest on average are shown." if len(order) < active.shape[1] else ""
    return Lines(
        series={str(name): active[name] for name in order},
        levels={"as the benchmark": 0.0},
        ylabel="exposure over the benchmark's",
        height=300,
        alt="Exposures to the risk model's factors, beside the benchmark",
        caption="Exposure of the weights to the factors of the risk model, less that of the benchmark: of an industry the "
        f"difference of weights, of a style in standard deviations across stocks.{more}",
    )


def _beta(made: pd.DataFrame) -> Chart:
    return Lines(
        series={"beta": made["beta"]},
        levels={"as the market": 1.0},
        colours=(BLUE,),
        ylabel="beta",
        height=300,
        alt="Beta of the target weights",
        caption="Slope of the past returns of the weights on those of the market, over the days that the risk model saw.",
    )


def _turnover(made: pd.DataFrame) -> Chart:
    return Lines(
        series={words: made[name] for name, words in CAUSES.items()},
        stacked=True,
        percent=True,
        ylabel="share of the account",
        height=260,
        alt="Turnover of each rebalancing by cause",
        caption="Bought and sold weight that each rebalancing after the first asked for: of stocks that left the universe, that "
        "were not held before, that were sold whole, and of those that stay.",
    )


def _why(made: pd.DataFrame) -> str:
    later = made.iloc[1:]
    if later.empty:
        return f"There was one rebalancing, which bought {html.percent(made['turnover'].iloc[0], 1)} of the account."
    parts = ", ".join(f"{words} {html.percent(later[name].mean(), 1)}" for name, words in CAUSES.items())
    return (
        f"The first rebalancing bought {html.percent(made['turnover'].iloc[0], 1)} of the account. Each later one asked for "
        f"{html.percent(later['turnover'].mean(), 1)} of it on average, bought and sold together: {parts}. Beside it, "
        f"{html.percent(later['drift'].mean(), 1)} would have taken the account back to the weights before, from which prices "
        "and unfilled orders had moved it."
    )


def _turnover_table(made: pd.DataFrame, per_year: float) -> str:
    later = made.iloc[1:]
    if later.empty:
        return ""
    years = later["period_days"].sum() / per_year
    rows = [
        (
            words[0].upper() + words[1:],
            html.percent(later[name].mean(), 2),
            html.percent(later[name].max(), 1),
            html.percent(later[name].sum() / years, 0) if years else html.NONE,
        )
        for name, words in (
            CAUSES
            | {
                "turnover": "all that was asked for",
                "traded": "traded until the next rebalancing",
                "drift": "drift since the one before",
            }
        ).items()
    ]
    return html.table(["Bought and sold", "Mean", "Most", "A year"], rows, numbers=(1, 2, 3))


def _limits(table: pd.DataFrame) -> Chart:
    return Bars(
        values=table[["binding", "relaxed"]].rename(columns={"relaxed": "gave way"}),
        horizontal=True,
        percent=True,
        colours=(BLUE, ORANGE),
        ylabel="share of the rebalancings",
        height=140,
        alt="How often each limit bound, and gave way",
        caption="Share of the rebalancings on which the weights lay at the limit, and on which it gave way, since no weights "
        "kept to all.",
    )


def _bound(made: pd.DataFrame, run: RunArtifacts) -> str:
    setup = run.json("construction/setup.json")
    table = run.table(LIMITS) if run.has(LIMITS) else None
    said = []
    if table is None or not (table["binding"] > 0).any():
        said.append("No limit bound the weights.")
    else:
        first = table.index[0]
        said.append(
            f"The weights lay most often at the limit \N{LEFT DOUBLE QUOTATION MARK}{first}\N{RIGHT DOUBLE QUOTATION MARK}: on {html.percent(table['binding'].iloc[0], 0)} of the "
            "rebalancings."
        )
    for count, words in (
        (setup["relaxed"], "limits gave way, since no weights kept to all of them"),
        (setup["kept"], "nothing was found, and the account was kept as it was"),
        (setup["moved"], "the optimiser's own weights broke a limit, and those nearest to them were taken"),
    ):
        if count:
            said.append(f"On {counted(count, 'day')} of {len(made)} {words}.")
    if not setup["relaxed"] and not setup["kept"]:
        said.append("No limit ever gave way, and no rebalancing was left out.")
    return " ".join(said)


def _limits_table(table: pd.DataFrame) -> str:
    often = table["often"].fillna("")
    several = bool((often != "").any())
    rows = [
        (
            name,
            html.percent(row["binding"], 1),
            html.percent(row["relaxed"], 1),
            html.number(row["stocks"], 1) if row["stocks"] else html.NONE,
            *([often[name] or html.NONE] if several else []),
            row["words"],
        )
        for name, row in table.iterrows()
    ]
    header = ["Limit", "Bound", "Gave way", "Stocks at it"]
    header += [*(["Most often"] if several else []), "In words, the last time"]
    return html.table(header, rows, numbers=(1, 2, 3))


def _days(heading: str, days: pd.DataFrame, column: str) -> str:
    """Days with what is said of them, the newest first; those beyond the first few are folded."""
    if days.empty:
        return ""
    rows = [
        (f"{day:%Y-%m-%d}", ". ".join(text.splitlines())) for day, text in days[column].iloc[::-1].items()
    ]
    found = html.heading(heading) + html.table(["Traded on", "What was said"], rows[:ROWS])
    if len(rows) > ROWS:
        found += html.details(
            f"{len(rows) - ROWS} more", html.table(["Traded on", "What was said"], rows[ROWS:])
        )
    return found
