"""The page of a study: what was done, what came out, and whether any method beats equal weight."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.grid.page import Page
from benchmarks.sectors import pictures, tables
from benchmarks.sectors.forecast_months import MONTHS, halves, judged
from benchmarks.sectors.kept import SectorYear, read_all
from benchmarks.sectors.tables import PLAIN
from qlib_ext.checks import UserError

NONE = "–"
SURE = 0.05
TELLING = 0.3  # a rank correlation from which on it is said to tell something
FEW = 6  # methods that are named
DPI = 90
DRAWN = (
    "minimum variance",
    "maximum Sharpe",
    "HRP",
    "eigen portfolio",
    "autoencoder",
    "forecast: maximum Sharpe",
)


def write(
    out: Path, *, title: str, command: str, said: Sequence[str], families: Mapping[str, str], per_year: float
) -> list[Path]:
    """Make the page from what is kept in `out/runs`.

    Parameters
    ----------
    out
        Where it goes.
    title
        What the market is called.
    command
        How the study is made.
    said
        What was done, as sentences.
    families
        Method -> letter of its family, in the order in which methods are shown.
    per_year
        Trading days of a year.
    """
    found = read_all(out / "runs")
    if not found:
        raise UserError(
            f"a page needs sectors that were held, and {out / 'runs'} has none: run the study first"
        )
    order = [method for method in families if all(method in one.held for one in found)]
    for one in found:
        one.daily = one.daily[order]
        one.held = {method: one.held[method] for method in order}
    table, daily = tables.cells(found, per_year), tables.by_day(found)
    compared = tables.comparison(table, daily, per_year)
    sectors = tables.by_sector(found, per_year)
    page = Page(f"Sector studies: {title}")
    page.text(verdict(found, compared, sectors, tables.beats_plain(daily)))
    page.code(command)
    page.heading("What was done")
    page.items([*said, *_told(found)])
    page.heading("All sectors and years")
    page.table("methods", _compared(compared, families), left=2)
    page.text(
        "In training: means over sectors and years of the weights' own figures on the days that they were made from, restored every "
        "day, without cost. Held: the same money in each sector of a year, after cost. The difference to equal weight is that of mean "
        "daily returns times the days of a year, with an interval of 95% over days (stationary bootstrap); p after Holm's correction "
        "for the number of methods; MCS is the p-value of the model confidence set of returns. Sharpe difference: an interval that "
        "covers all methods at once with 95% (Bonferroni). Wins count sectors and years; those of one year go together, so that they are "
        "no independent trials."
    )
    page.text(_persistence(table))
    drawn = [method for method in DRAWN if method in order]
    page.figure(
        "wealth",
        pictures.wealth(daily, drawn),
        "Return after cost, compounded, the same money in each sector of a year.",
    )
    page.heading("By sector")
    page.table("sharpe_by_sector", _by_sector(sectors, order), left=2)
    page.text(
        "Sharpe ratio of the days held, and in training in brackets. Return, volatility, drawdown, turnover and p-values of each sector "
        "and method are in [by_sector.csv](by_sector.csv), each year in [cells.csv](cells.csv)."
    )
    page.figure(
        "sharpe",
        pictures.sharpes(sectors),
        "Sharpe ratio of the days held, less that of equal weight: blue is higher, orange lower.",
    )
    page.heading("By year")
    page.table("return_by_year", _by_year(table, order))
    page.text("Return of the year after cost, mean over its sectors.")
    last = [one for one in found if one.year == found[-1].year]
    shown = max(last, key=lambda one: np.mean(np.array(one.correlation)))
    page.heading(f"How stocks go together: training before {shown.year}")
    page.figure(
        "correlations",
        pictures.correlations(last),
        "Correlation of daily returns, and its mean, of each sector's stocks.",
    )
    page.text(f"{shown.sector} has the highest correlations, and is shown in the pictures that follow.")
    page.figure(
        "components",
        pictures.components(shown),
        "The first principal components of the correlation, and their share of it.",
    )
    page.figure("weights", pictures.weights(shown), f"Weights on the first day of {shown.year}.")
    page.figure(
        "frontier",
        pictures.efficient(shown),
        "The efficient frontier by the critical line, on the days of training. The methods lie where their weights were then.",
    )
    months = out / "runs" / MONTHS
    if months.is_file():
        _forecasts(page, pd.read_parquet(months))
    written = page.write(out, as_html=False, dpi=DPI)
    for name, whole in (("cells", table), ("by_sector", sectors)):
        written.append(out / f"{name}.csv")
        whole.to_csv(written[-1], index=False, float_format="%.4g")
    return written


def verdict(found: Sequence[SectorYear], compared: pd.DataFrame, sectors: pd.DataFrame, best: float) -> str:
    """Whether any method beats equal weight, in words."""
    rivals = compared[compared["method"] != PLAIN]
    sure = rivals[(rivals["holm"] < SURE) & (rivals["more"] > 0)]["method"].tolist()
    worse = rivals[(rivals["holm"] < SURE) & (rivals["more"] < 0)]["method"].tolist()
    years = sorted({one.year for one in found})
    across = f"{len(found)} sectors and years ({years[0]} to {years[-1]})"
    if sure:
        first = (
            f"**{', '.join(sure)} earned more than equal weight**, over {across}, after Holm's correction."
        )
    else:
        first = f"**No method earns more than equal weight beyond chance**, over {across}."
    parts = [first]
    parts.append(
        f"That the best of the {len(rivals)} methods is no better than equal weight has p = {best:.2f} (Hansen's test of superior "
        "predictive ability)."
    )
    if worse:
        parts.append(f"Worse beyond chance: {', '.join(worse)}.")
    ratio = rivals[rivals["sharpe_low"] > 0]["method"].tolist()
    parts.append(
        f"By the Sharpe ratio, {', '.join(ratio)} beat it with all methods counted."
        if ratio
        else "Nor has any a higher Sharpe ratio, with all methods counted."
        if not sure
        else "None has a surely higher Sharpe ratio, with all methods counted."
    )
    parts.append(
        f"All of this is of {len(years)} years: intervals over days know nothing of years that were not seen."
    )
    calm = rivals[rivals["calmer"] > 0.9 * rivals["of"]]["method"].tolist()
    if calm:
        parts.append(
            f"Calmer than equal weight in more than nine of ten sectors and years: {', '.join(calm)}."
        )
    pairs = sectors.dropna(subset="p")
    chance = (pairs["p"] < SURE) & (pairs["more"] > 0)
    held = (pairs["holm"] < SURE) & (pairs["more"] > 0)
    parts.append(
        f"Of {len(pairs)} pairs of sector and method {chance.sum()} look better at p < {SURE:.0%} taken alone, where chance alone makes "
        f"about {SURE / 2 * len(pairs):.0f}, and {held.sum()} after Holm's correction."
    )
    return " ".join(parts)


def _persistence(table: pd.DataFrame) -> str:
    """Whether methods, and sectors, that looked best in training were so after it."""
    kept = tables.rank_kept(table)
    rotation = tables.rotation(table)
    years = ", ".join(f"{year} {value:+.2f}" for year, value in rotation.items())
    what = (
        "what looked best in training says little of what was best after it"
        if abs(kept) < TELLING
        else "what looked best in training tended to be best after it"
        if kept > 0
        else "what looked best in training tended to be worst after it"
    )
    return (
        f"Within a sector and year the rank correlation of the methods' Sharpe ratios in training with those of the year held is "
        f"{kept:+.2f} on average: {what}. Across sectors, that of equal weight's return in training with its return in the year held "
        f"is {rotation.mean():+.2f} on average ({years}): above 0 is momentum of sectors, below 0 reversal."
    )


def _told(found: Sequence[SectorYear]) -> list[str]:
    """What portfolios said of their decisions, and of how many accounts, by method where it is not of most."""
    accounts: dict[str, dict[str, int]] = {}
    for one in found:
        for method, held in one.held.items():
            for said in {re.sub(r"\d[\d.,]*%?", "n", text.partition(":")[0]) for text in held.told}:
                accounts.setdefault(said, {}).setdefault(method, 0)
                accounts[said][method] += 1
    whole = sum(len(one.held) for one in found)
    lines = []
    for said, methods in accounts.items():
        few = len(methods) <= FEW
        who = f" ({', '.join(f'{method} {count}' for method, count in methods.items())})" if few else ""
        lines.append(f"Told of {sum(methods.values())} of {whole} accounts: {said}{who}.")
    return lines


def _compared(compared: pd.DataFrame, families: Mapping[str, str]) -> pd.DataFrame:
    rows = []
    for row in compared.itertuples(index=False):
        plain = row.method == PLAIN
        rows.append(
            {
                "method": row.method,
                "family": families[row.method],
                "return, training": _percent(row.train_return),
                "return, held": _percent(row[compared.columns.get_loc("return")]),
                "volatility, training": _percent(row.train_volatility),
                "volatility, held": _percent(row.volatility),
                "Sharpe, training": f"{row.train_sharpe:.2f}",
                "Sharpe, held": f"{row.sharpe:.2f}",
                "drawdown, training": _percent(row.train_drawdown),
                "drawdown, held": _percent(row.drawdown),
                "names": f"{row.names:.1f}",
                "turnover": f"{row.turnover:.2f}",
                "switch": _percent(row.switch),
                "cost": f"{row.cost:.2%}",
                "over equal weight": NONE if plain else f"{row.more:+.1%} [{row.low:+.1%}, {row.high:+.1%}]",
                "Holm": NONE if plain else f"{row.holm:.2f}",
                "MCS": f"{row.mcs:.2f}",
                "Sharpe difference": NONE
                if plain
                else f"{row.sharpe_more:+.2f} [{row.sharpe_low:+.2f}, {row.sharpe_high:+.2f}]",
                "wins": NONE if plain else f"{row.wins} of {row.of}",
                "calmer": NONE if plain else f"{row.calmer}",
                "better Sharpe": NONE if plain else f"{row.better}",
            }
        )
    return pd.DataFrame(rows)


def _by_sector(sectors: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    texts = sectors.assign(
        text=[
            f"{_number(a)} ({_number(b)})"
            for a, b in zip(sectors["sharpe"], sectors["train_sharpe"], strict=True)
        ]
    )
    wide = texts.pivot(index=["sector", "years"], columns="method", values="text")[[*order]]
    return wide.reset_index()


def _by_year(table: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    wide = table.pivot_table(index="method", columns="year", values="return", aggfunc="mean").loc[[*order]]
    return wide.map(_percent).reset_index().rename(columns=str)


def _forecasts(page: Page, months: pd.DataFrame) -> None:
    page.heading("Forecasts beside what came")
    page.table("forecasts", judged(months))
    page.text(
        "At the last close before each month, of the members of the universe and of each sector's stocks. Slope: of what came on what "
        "was forecast, over the stocks of all months; 1 where forecasts are of the right size. Halves: the mean of the stocks with the "
        "better forecasts less that of the others within each sector, mean over sectors and months, with an interval of 95% over months."
    )
    own = halves(months).groupby("day").mean()
    page.figure(
        "forecasts",
        pictures.forecast_months({"forecast": own["forecast"], "realised": own["realised"]}),
        "Better half of each sector's stocks by forecast less the other half: forecast and realised, mean over sectors.",
    )


def _number(value: float) -> str:
    return NONE if np.isnan(value) else f"{value:.2f}"


def _percent(value: float) -> str:
    return NONE if np.isnan(value) else f"{value:.1%}"
