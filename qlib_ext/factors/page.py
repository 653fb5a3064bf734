"""The scorecard as one self-contained HTML file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd

from qlib_ext.checks import counted
from qlib_ext.factors.charts import EXPOSURES, charts
from qlib_ext.factors.measurement import AUTOCORRELATION_DAYS, LAGS
from qlib_ext.factors.scorecard import LEVEL, Scorecard
from qlib_ext.factors.words import alarms, remarks, summary
from qlib_ext.report import html, interactive
from qlib_ext.report.page import Part, page

_Table = tuple[list[str], list[list[str]]]  # heads and cells
FEW = 10  # rows of a table that stands open
METHOD = (
    "On each day the stocks are the universe's members that have a close. IC is Pearson's and RankIC Spearman's correlation "
    "over them of the factor with the label. Intervals of 95% are from the stationary bootstrap of days (2,000 draws), t from "
    "Newey and West, both with blocks and lags that allow for the days that labels of several days share. p is two-sided and "
    "normal; q is Benjamini and Hochberg's over all factors that were tried, those that look ahead apart."
)
DECAY = (
    f"Mean rank correlation of the factor of day t with the label of day t + k, for k = 0 to {LAGS}: the label's return, that "
    "many days later, not the return over all days up to then. Half-life is the first k with at most half of what k = 0 has."
)
TURNOVER = (
    f"Turnover is the share of the fifth that the factor's sign would buy that was not in it the day before. Alike after is the "
    f"mean rank correlation with the factor {', '.join(map(str, AUTOCORRELATION_DAYS))} days before. Coverage is the share of "
    "the day's members with a value."
)
LEFT = (
    "Mean daily rank correlation with each exposure. Left is the RankIC of what the exposures and industries do not explain of "
    "the factor's ranks, by least squares on each day."
)
NOISE = (
    "Each price of the bars is multiplied by 1 + e, with e of 10 basis points, and each volume and amount by one of 5%, drawn "
    "from the seed. Like itself is the mean rank correlation of the factor with that of these bars."
)
DIVERSITY = (
    "Mean daily rank correlation of each two factors, ordered by average linkage on 1 - |correlation|. A factor and its negative "
    "are one cluster."
)


def render(found: Scorecard) -> str:
    """The whole page: it opens without a network, on a screen of any width and on paper."""
    drawn = {name: interactive.fragment(name, chart) for name, chart in charts(found).items()}
    best = found.best
    parts = [
        Part("Summary", _summary(found) + drawn.get("rank_ic", "")),
        Part(
            "What they foretell",
            _listed(_foretell, best) + html.paragraph(METHOD, "note"),
            answers="Which factors tell returns apart, and how sure is that?",
        ),
        Part(
            "Decay and turnover",
            drawn.get("decay", "") + _listed(_decay, best) + html.paragraph(f"{DECAY} {TURNOVER}", "note"),
            answers="How long does it last, and what does it cost to follow?",
        ),
        Part(
            "Year by year",
            drawn.get("years", "") + _listed(_steady, best, 0),
            answers="Is it the work of one year?",
        ),
        Part(
            "Exposures",
            drawn.get("exposures", "")
            + _listed(_exposed, best, 0)
            + html.facts((EXPOSURES.get(name, name), what) for name, what in found.told.items())
            + html.paragraph(LEFT, "note"),
            answers="Is it size, beta, volatility, past return or industry by another name?",
        ),
        Part("Noise", _noise(found), answers="Would a little noise in its inputs undo it?"),
        Part(
            "Diversity",
            drawn.get("correlation", "") + _clusters(found) + html.paragraph(DIVERSITY, "note"),
            answers="Which of them are one and the same?",
        ),
        Part("Formulas", _formulas(found), open=False),
        Part("Provenance", html.facts(found.facts.items()), open=False),
    ]
    subtitle = (
        f"{counted(len(found.table), 'factor')}, {found.facts['Universe']}, {found.facts['Days judged']}"
    )
    return page(f"Factors of {found.name}", subtitle, parts)


def _summary(found: Scorecard) -> str:
    best = found.best
    parts = []
    alarming = [*alarms(found)]
    if alarming:
        parts.append(html.box("LOOK-AHEAD", html.items(alarming)))
    if found.test_was_read:
        parts.append(html.box("The test segment was read", html.items(found.notes[:1])))
    tell = found.tell
    surest = (best.index[0], html.number(best["rank_ic"].iloc[0])) if len(best) else ("", html.NONE)
    looks = f"{len(found.ahead):,} with look-ahead" if found.checked else "look-ahead was not checked"
    figures = [
        ("Factors tried", html.count(len(found.table)), looks),
        ("Foretell the label", html.count(tell), f"q at most {LEVEL:.0%}"),
        ("RankIC of the surest", surest[1], surest[0]),
        ("Independent factors", html.number(found.effective_number, 1), "as diverse as all together"),
    ]
    parts += [html.large_figures(figures), *(html.paragraph(line) for line in summary(found))]
    return "".join(parts) + html.items(f"{note[:1].upper()}{note[1:]}" for note in remarks(found))


def _listed(rows: Callable[[pd.DataFrame], _Table], best: pd.DataFrame, most: int = FEW) -> str:
    """The first factors in a table, and all of them in one that unfolds."""
    return _unfolding(*rows(best), "factors", most)


def _unfolding(header: list[str], cells: list[list[str]], what: str, most: int, texts: int = 0) -> str:
    """The first rows of a table, and the whole of it unfolding; the last `texts` columns hold no numbers."""
    numbers = range(1, len(header) - texts)
    if not cells:
        return html.paragraph("No factor could be measured.")
    shown = html.table(header, cells[:most], numbers=numbers) if most else ""
    if len(cells) <= most:
        return shown
    return shown + html.details(f"All {len(cells)} {what}", html.table(header, cells, numbers=numbers))


def _foretell(best: pd.DataFrame) -> _Table:
    header = ["Factor", "RankIC", "95% interval", "t", "q", "IC", "RankICIR", "ICIR", "Days"]
    rows = [
        [
            str(name),
            html.number(row["rank_ic"]),
            _interval(row["rank_ic_low"], row["rank_ic_high"]),
            html.number(row["t"], 1),
            _small(row["q"]),
            html.number(row["ic"]),
            html.number(row["rank_icir"], 2),
            html.number(row["icir"], 2),
            html.count(row["days"]),
        ]
        for name, row in best.iterrows()
    ]
    return header, rows


def _decay(best: pd.DataFrame) -> _Table:
    lags = [name for name in best if str(name).startswith("decay_")]
    header = [
        "Factor",
        "Half-life",
        *(f"After {str(name).removeprefix('decay_')} d" for name in lags),
        "Turnover a day",
        *(f"Alike after {lag} d" for lag in AUTOCORRELATION_DAYS),
        "Coverage",
        "Coverage, worst year",
    ]
    rows = [
        [
            str(name),
            _days(row["half_life_days"]),
            *(html.number(row[lag]) for lag in lags),
            html.percent(row["turnover"], 1),
            *(html.number(row[f"autocorrelation_{lag}"], 2) for lag in AUTOCORRELATION_DAYS),
            html.percent(row["coverage"], 1),
            html.percent(row["coverage_worst_year"], 1),
        ]
        for name, row in best.iterrows()
    ]
    return header, rows


def _steady(best: pd.DataFrame) -> _Table:
    header = ["Factor", "Years of the same sign", "Worst year", "RankIC then"]
    rows = [
        [
            str(name),
            f"{html.percent(row['years_same_sign'], 0)} of {row['years']}",
            str(row["worst_year"] or html.NONE),
            html.number(row["worst_year_rank_ic"]),
        ]
        for name, row in best.iterrows()
    ]
    return header, rows


def _exposed(best: pd.DataFrame) -> _Table:
    header = [
        "Factor",
        "Size",
        "Beta",
        "Volatility",
        "Past return",
        "Industry",
        "RankIC",
        "Left",
        "95% interval",
    ]
    rows = [
        [
            str(name),
            *(html.number(row[each], 2) for each in ("size", "beta", "volatility", "reversal")),
            html.percent(row["industry"], 1),
            html.number(row["rank_ic"]),
            html.number(row["neutral_rank_ic"]),
            _interval(row["neutral_low"], row["neutral_high"]),
        ]
        for name, row in best.iterrows()
    ]
    return header, rows


def _noise(found: Scorecard) -> str:
    if found.table["noise_correlation"].isna().all():
        return html.paragraph("Noise was not tried: it belongs into what ready values were made from.")
    frail = found.best.sort_values("noise_correlation")
    return _listed(_frail, frail) + html.paragraph(f"The frailest first. {NOISE}", "note")


def _frail(best: pd.DataFrame) -> _Table:
    header = ["Factor", "Like itself", "RankIC", "RankIC with noise"]
    rows = [
        [
            str(name),
            html.number(row["noise_correlation"], 3),
            html.number(row["rank_ic"]),
            html.number(row["noise_rank_ic"]),
        ]
        for name, row in best.iterrows()
    ]
    return header, rows


def _clusters(found: Scorecard) -> str:
    header = [
        "Surest of the cluster",
        "RankIC",
        "Factors",
        "The others (with their nearest)",
    ]
    rows = []
    for first, row in found.best_of_clusters.iterrows():
        of = found.best[found.best["cluster"] == row["cluster"]]
        others = [
            f"{name} ({html.number(each['nearest_correlation'], 2)})"
            for name, each in of.iterrows()
            if name != first
        ]
        rows.append([str(first), html.number(row["rank_ic"]), html.count(len(of)), _some(others)])
    return _unfolding(header, rows, "clusters", FEW, texts=1)


def _some(names: Sequence[str], most: int = 12) -> str:
    if not names:
        return html.NONE
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _formulas(found: Scorecard) -> str:
    texts = found.table["expression"]
    if not texts.any():
        return html.paragraph("The factors came without formulas.")
    return html.table(["Factor", "Formula"], [(name, text or html.NONE) for name, text in texts.items()])


def _interval(low: float, high: float) -> str:
    return html.NONE if math.isnan(low) else f"{html.number(low)} to {html.number(high)}"


def _days(days: float) -> str:
    if math.isinf(days):
        return f"over {LAGS} d"
    return html.NONE if math.isnan(days) else f"{days:.0f} d"


def _small(value: float) -> str:
    return "below 0.001" if value < 0.001 else html.number(value, 3)
