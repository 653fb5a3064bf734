"""What became of the account, beside the index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qlib_ext.report import headline, html
from qlib_ext.report.charts import Chart, Lines, all_positive
from qlib_ext.report.figures import BLUE, GREEN, QUIET
from qlib_ext.report.fold_marks import FOLDS, fold_marks
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

SERIES = {
    "portfolio_with_cost": "Portfolio, after cost",
    "portfolio_without_cost": "Portfolio, before cost",
    "benchmark": "Index",
    "excess_with_cost": "Over the index, after cost",
    "excess_without_cost": "Over the index, before cost",
}
# What may stand beside exchange rules and takes the place of a part of them.
REPLACED = (
    "commission",
    "open_cost",
    "close_cost",
    "min_cost",
    "impact_cost",
    "limit_threshold",
    "volume_threshold",
    "trade_unit",
)


class CumulativeReturn(Section):
    """Cumulative return of the portfolio with and without cost, of the index, and of the one over the other."""

    title = "Cumulative return"
    place = 20
    open = True
    answers = "What became of the account, beside the index, with and without cost?"
    requires = ("backtest/series.parquet", "backtest/summary.csv", "backtest/setup.json")
    optional = (FOLDS,)

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """The three values in one chart, the value over the index in another."""
        setup = run.json("backtest/setup.json")
        table = run.table("backtest/series.parquet")
        there = {name: table[f"wealth/{key}"] for key, name in SERIES.items() if f"wealth/{key}" in table}
        values = {name: line for name, line in there.items() if not name.startswith("Over")}
        over = {name: line for name, line in there.items() if name.startswith("Over")}
        index = setup["benchmark"]
        charts = {
            "cumulative_return": Lines(
                series=values,
                ylabel="value of 1 invested",
                colours=(BLUE, GREEN, QUIET),
                log_choice=all_positive(values),
                levels={"start": 1.0},
                marks=fold_marks(run),
                height=340,
                alt="Value of 1 invested in the portfolio, after and before cost"
                + (", and in the index" if index else ""),
                caption="What 1 became at the close of each day: daily returns of the account, cash included, "
                + (f"and of the index {index}, " if index else "")
                + "compounded. 1.5 is a return of 50%.",
            ),
        }
        if not over:
            return charts
        return charts | {
            "excess_return": Lines(
                series=over,
                ylabel="value in units of the index",
                colours=(BLUE, GREEN),
                log_choice=all_positive(over),
                levels={"start": 1.0},
                marks=fold_marks(run),
                height=260,
                alt="Value of the portfolio in units of the index, after and before cost",
                caption="Value of the portfolio over the value of the index, both 1 at the start: where the line rises, the "
                "portfolio beats the index. 1.1 is 10% more than the index.",
            ),
        }

    def render(self, run: RunArtifacts) -> str:
        """What was traded and how in a sentence, the charts and the table."""
        setup = run.json("backtest/setup.json")
        summary = run.table("backtest/summary.csv")
        rows = [
            (
                name,
                html.percent(summary.loc[key, "cumulative_return"], signed=True),
                html.percent(summary.loc[key, "annualised_return"], signed=True),
                html.percent(summary.loc[key, "annualised_volatility"]),
                html.number(summary.loc[key, "ratio"], 2),
                html.percent(summary.loc[key, "max_drawdown"]),
            )
            for key, name in SERIES.items()
            if key in summary.index
        ]
        header = ["", "Return", "Return a year", "Volatility a year", "Ratio", "Max drawdown"]
        return "".join(
            [
                html.paragraph(_told(setup)),
                _rules(setup),
                "" if headline.has(run, headline.REQUIRES) else _notes(setup),
                *(shown(name, chart) for name, chart in self.charts(run).items()),
                html.table(header, rows, numbers=range(1, 6)),
                html.paragraph(
                    f"A year is {setup['days_per_year']:g} trading days. Returns compound. The ratio is the mean over the "
                    "volatility of daily returns, Sharpe's with no riskless return"
                    + (
                        "; in the rows over the index both are of the daily differences to it, which makes it the "
                        "information ratio."
                        if setup["benchmark"]
                        else "."
                    ),
                    "note",
                ),
            ]
        )


def _notes(setup: Mapping[str, Any]) -> str:
    """What the backtest has to say, for a report without a summary, which a run without a ranking has."""
    return html.items(f"{note[0].upper()}{note[1:]}." for note in setup["notes"]) if setup["notes"] else ""


def _told(setup: Mapping[str, object]) -> str:
    strategy = setup["strategy"]
    exchange = setup["exchange"]
    assert isinstance(strategy, Mapping)
    assert isinstance(exchange, Mapping)
    name = str(strategy["class"]).rpartition(".")[2]
    arguments = _words(strategy.get("kwargs") or {})
    return (
        f"{name} ({arguments}) trades from {setup['start']} to {setup['end']}, each day on the scores of the day before, "
        f"with {float(str(setup['account'])):,.0f} to begin with. Orders fill at the day's {exchange['deal_price']}; "
        f"{_by_rules(setup, exchange) if setup.get('rules') else _flat(setup, exchange)}."
    )


def _words(value: object) -> str:
    """An argument: of a part its class without the modules that it lies in, and what it was given."""
    if isinstance(value, Mapping):
        if "class" in value:
            given = _words(value.get("kwargs") or {})
            return str(value["class"]).rpartition(".")[2] + (f" ({given})" if given else "")
        return ", ".join(f"{key} {_words(each)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value))
    return str(value)


def _flat(setup: Mapping[str, object], exchange: Mapping[str, object]) -> str:
    """Costs, limit and lots that are the same for all stocks and days."""
    buy, sell = (html.percent(float(str(exchange[name]))) for name in ("open_cost", "close_cost"))
    return (
        f"to buy costs {buy} of the value, to sell {sell}, at least {exchange['min_cost']} each; "
        f"{_limited(exchange['limit_threshold'])}; lots of {setup['trade_unit']} shares"
    )


def _limited(limit: object) -> str:
    if isinstance(limit, float):
        return f"no trade beyond a move of {html.percent(limit, 1)} or on a day without volume"
    return "no price limit" if limit is None else f"limits {limit}"


def _by_rules(setup: Mapping[str, object], exchange: Mapping[str, object]) -> str:
    """Which rules hold, and what the workflow put in the place of parts of them."""
    rules = setup["rules"]
    assert isinstance(rules, Mapping)
    told = (
        f"price limits, suspensions, lots, the day of resale and costs are those of the exchange rules {rules['name']} "
        f"({rules['market']}) by date"
    )
    own = [f"{name} {exchange[name]}" for name in REPLACED if name in exchange]
    return f"{told}, but for {', '.join(own)}" if own else told


def _rules(setup: Mapping[str, object]) -> str:
    """The rules that were in force, to unfold; nothing for a run without."""
    rules = setup.get("rules")
    if not isinstance(rules, Mapping):
        return ""
    rows = [[row[key] for key in ("rule", "of", "from", "says", "source")] for row in rules["in_force"]]
    return html.details(
        f"Exchange rules {rules['name']} in force, {len(rows)} rows (digest {rules['digest']})",
        html.table(["Rule", "Of", "From", "Says", "Source"], rows),
    )
