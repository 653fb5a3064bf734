"""The figures that a run is judged by: each with its interval, and beside what it must be compared with."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

from qlib_ext.report import html
from qlib_ext.tracking.artifacts import RunArtifacts

REQUIRES = ("ranking/estimates.parquet", "ranking/summary.csv")
MOMENTUM = ("momentum/estimates.parquet", "momentum/summary.csv")
BACKTEST = ("backtest/estimates.parquet", "backtest/setup.json")
BENCHMARKS = ("benchmarks/estimates.parquet", "benchmarks/setup.json")
OPTIONAL = (*MOMENTUM, *BACKTEST, *BENCHMARKS, "data/summary.json")

# What a portfolio is held against: the beginning of its figures' names, and how a sentence calls it.
HELD_AGAINST = {
    "backtest": "the index",
    "benchmarks/equal_weight": "the universe at equal weight",
    "benchmarks/value_weight": "the universe weighted by value",
    "benchmarks/index_with_dividends": "the index with its dividends, as estimated",
}


OVER = (
    "The excess is the growth of the portfolio's value over the index's; the information ratio the mean daily difference to "
    "the index over its standard deviation, annualised. "
)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure of the run, and the interval that covers it with 95%; NaN where it has none."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies above or below zero; 0 where it does not tell."""
        return int(self.low > 0) - int(self.high < 0)


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure: what it is, its value, its interval, and what stands beside it."""

    name: str
    value: str
    interval: str = ""
    beside: str = ""


@dataclasses.dataclass(frozen=True)
class Group:
    """Figures that belong together, and how they are computed."""

    title: str
    rows: list[Row]
    note: str


def has(run: RunArtifacts, paths: Sequence[str]) -> bool:
    """Whether the run has all of these artifacts."""
    return all(run.has(path) for path in paths)


def estimates(run: RunArtifacts) -> dict[str, Estimate]:
    """Every headline figure with its interval, as the records of ranking, momentum and backtest left them.

    Names are those of the metrics on MLflow (`benchmarks/equal_weight/annualised_excess_return`), and `precision/<N>/over_base`, `momentum/over_persistence`: differences
    to what chance and persistence reach.
    """
    return read_estimates(
        run, *(paths[0] for paths in (REQUIRES, MOMENTUM, BACKTEST, BENCHMARKS) if has(run, paths))
    )


def read_estimates(run: RunArtifacts, *paths: str) -> dict[str, Estimate]:
    """The figures with their intervals of some tables of a run, as `records.estimates` wrote them; those that it has."""
    tables = [run.table(path) for path in paths if run.has(path)]
    return {
        str(row.Index): Estimate(row.value, row.low, row.high)
        for table in tables
        for row in table.itertuples()
    }


def groups(run: RunArtifacts, known: Mapping[str, Estimate] | None = None) -> list[Group]:
    """The headline table in its groups; the page and the terminal show the same.

    Parameters
    ----------
    run
        With at least `REQUIRES`.
    known
        From `estimates`, where the caller has them already.
    """
    known = estimates(run) if known is None else known
    found = [_ranking(run, known), _precision(known)]
    if has(run, MOMENTUM):
        found.append(_momentum(run, known))
    if has(run, BACKTEST):
        found.append(_backtest(run, known))
    return found


def excesses(known: Mapping[str, Estimate], figure: str = "annualised_excess_return") -> dict[str, Estimate]:
    """A figure over each of `HELD_AGAINST` that the run was held against, by what a sentence calls it."""
    return {
        called: known[f"{name}/{figure}"]
        for name, called in HELD_AGAINST.items()
        if f"{name}/{figure}" in known
    }


def tops(run: RunArtifacts) -> list[int]:
    """The numbers N of highest scored stocks that Precision@N was measured of."""
    return sorted(int(name.split("/")[1]) for name in run.metrics if re.fullmatch(r"precision/\d+", name))


# -- the table -----------------------------------------------------------------------------------------------------


def percent_row(
    name: str, estimate: Estimate, beside: str = "", digits: int = 2, *, signed: bool = False
) -> Row:
    """A row of a share."""
    interval = between(*(html.percent(end, digits, signed=signed) for end in (estimate.low, estimate.high)))
    return Row(name, html.percent(estimate.value, digits, signed=signed), interval, beside)


def number_row(name: str, estimate: Estimate, beside: str = "", digits: int = 4) -> Row:
    """A row of a number."""
    interval = between(*(html.number(end, digits) for end in (estimate.low, estimate.high)))
    return Row(name, html.number(estimate.value, digits), interval, beside)


def between(low: str, high: str) -> str:
    """An interval in words; empty where it has no ends."""
    return "" if html.NONE in (low, high) else f"{low} to {high}"


def _ranking(run: RunArtifacts, known: Mapping[str, Estimate]) -> Group:
    summary = run.table("ranking/summary.csv")
    formulas = run.json("data/summary.json").get("labels", {}) if run.has("data/summary.json") else {}
    first, *others = [str(label) for label in summary.index]

    def beside(column: str, digits: int) -> str:
        return ", ".join(f"{label} {html.number(summary.loc[label, column], digits)}" for label in others)

    rows = [number_row(name, known[name], beside(name, 4)) for name in ("IC", "ICIR", "RankIC", "RankICIR")]
    rows.append(number_row("t of the IC", Estimate(summary.loc[first, "t"]), beside("t", 2), 2))
    told = "; ".join(f"{label} is {formulas[label]}" for label in (first, *others) if formulas.get(label))
    return Group(
        f"Ranking against {first}",
        rows,
        "IC is Pearson's, RankIC Spearman's correlation of score and raw return across the stocks of a day, mean over "
        f"{html.count(summary.loc[first, 'days'])} days; the ratios divide by the standard deviation over days; t is Newey "
        f"and West's. {told}{'.' if told else ''}",
    )


def _precision(known: Mapping[str, Estimate]) -> Group:
    tops = [name for name in known if re.fullmatch(r"precision/\d+", name)]

    def beside(name: str) -> str:
        over = known[f"{name}/over_base"]
        ends = between(*(html.points(end) for end in (over.low, over.high)))
        base = html.percent(known[name].value - over.value)
        return f"base rate {base}, {html.points(over.value)}" + (f" ({ends})" if ends else "")

    return Group(
        "Precision of the top of the list",
        [percent_row(f"Precision@{name.split('/')[1]}", known[name], beside(name)) for name in tops],
        "Share of the N highest scored stocks of a day whose raw return is positive, mean over days. The base rate is the "
        "same share of all scored stocks; in brackets the interval of the difference.",
    )


def _momentum(run: RunArtifacts, known: Mapping[str, Estimate]) -> Group:
    summary = run.table("momentum/summary.csv")

    def share(rule: str) -> str:
        return html.percent(summary.loc[rule, "accuracy"])

    over = known["momentum/over_persistence"]
    ends = between(*(html.points(end) for end in (over.low, over.high)))
    return Group(
        "Momentum classes",
        [
            percent_row(
                "Accuracy",
                known["momentum/accuracy"],
                f"persistence {share('persistence')}, majority {share('majority')}",
            ),
            Row("Lead over persistence", html.points(over.value), ends, "mean over days"),
            number_row(
                "Macro F1",
                Estimate(summary.loc["model", "macro_f1"]),
                f"persistence {html.number(summary.loc['persistence', 'macro_f1'])}",
            ),
        ],
        "Share of stocks and days whose most probable class is the true one. Part of the line is known already, so the "
        "accuracy is no pure forecast: persistence assumes that the last known sign stays, majority always names the most "
        "frequent class.",
    )


def _backtest(run: RunArtifacts, known: Mapping[str, Estimate]) -> Group:
    m = run.metric
    days = run.json("backtest/setup.json")["days_per_year"]

    def of(name: str) -> Estimate:
        return known[f"backtest/{name}"]

    excess, ratio, index, fall = [], [], "", ""
    if "backtest/information_ratio" in known:
        before = of("annualised_excess_return_without_cost").value
        beside = f"before cost {html.percent(before, signed=True)}"
        excess = [
            percent_row(
                "Excess return a year, after cost", of("annualised_excess_return"), beside, signed=True
            )
        ]
        beside = f"before cost {html.number(of('information_ratio_without_cost').value, 2)}"
        ratio = [number_row("Information ratio, after cost", of("information_ratio"), beside, 2)]
        index = f"index {html.percent(m('backtest/annualised_benchmark_return'), signed=True)}"
        fall = f"index {html.percent(m('backtest/benchmark_max_drawdown'))}"
    over = [
        percent_row(f"Over {called}, after cost", estimate, signed=True)
        for called, estimate in excesses(known).items()
        if called != HELD_AGAINST["backtest"]
    ]
    rows = [
        *excess,
        *over,
        percent_row("Return a year, after cost", of("annualised_return"), index, signed=True),
        *ratio,
        number_row("Sharpe ratio, after cost", of("sharpe_ratio"), "", 2),
        percent_row("Max drawdown, after cost", Estimate(m("backtest/max_drawdown")), fall),
        percent_row("Turnover a day", of("turnover")),
        percent_row("Cost a year", of("annual_cost")),
    ]
    return Group(
        "Portfolio",
        rows,
        f"Returns compound, with {days:g} trading days a year. {OVER if excess else ''}Sharpe's ratio is the mean daily return "
        "over its standard deviation, annualised, with no riskless return. Turnover is bought plus sold value over the "
        "account's value of the day before. The deepest fall of one path has no interval of this kind.",
    )
