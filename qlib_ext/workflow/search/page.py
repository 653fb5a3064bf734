"""A search as one self-contained HTML file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.checks import counted
from qlib_ext.report import html, interactive
from qlib_ext.report.charts import Bars, Chart, Points
from qlib_ext.report.page import Part, page
from qlib_ext.workflow.search.result import NAMES, Found
from qlib_ext.workflow.search.space import Parameter
from qlib_ext.workflow.search.study import FEWEST_FOR_IMPORTANCE, Tried

FEW = 15  # rows of a table that stands open
SLICES = 12  # parameters that are drawn, the most important first
IMPORTANCE = (
    "Importance is PED-ANOVA's (Watanabe, Bansal and Hutter, 2023), by Optuna: how much each parameter alone sets the best tenth of "
    "the trials apart, as shares of 1. It is of values on the first rung, on which all trials were judged alike, and says nothing of "
    "parameters that act together."
)
HALVING = (
    "Successive halving: from each rung a trial goes on if it is among the best of those that have come there so far, 1 in {factor}. "
    "The first trials have few to be held against. A model that can goes on from its checkpoint, so a rung costs what it adds."
)
SEEDS = (
    "A trial's value is the mean over its seeds, and over folds where there are several; the spread is the standard deviation over "
    "seeds. Only trials on the last rung had the same seeds and the same training, so the best is chosen among them alone."
)


def render(found: Found) -> str:
    """The whole page: it opens without a network, on a screen of any width and on paper."""
    slices = _slices(found)
    parts = [
        Part("Summary", _summary(found) + _drawn("history", _history(found))),
        Part("The best", _best(found), answers="Which values, and what were they worth?"),
        Part(
            "Trials",
            _trials(found) + html.paragraph(SEEDS, "note"),
            answers="What was tried, and how far do seeds differ?",
        ),
        Part(
            "Parameters", _importance(found) + slices, answers="Which of them matter, and where is it good?"
        ),
        Part(
            "Stopped trials",
            _rungs(found) + html.paragraph(HALVING.format(factor=found.plan.factor), "note"),
            answers="Who was stopped where, and what did it save?",
        ),
        Part("Provenance", html.facts(found.facts.items()), open=False),
    ]
    days = found.facts["Validation"]
    return page(f"Search of {found.name}", f"{counted(len(found.tried), 'trial')}, validation {days}", parts)


def _summary(found: Found) -> str:
    best, own = found.best, found.own
    what = NAMES[found.plan.objective]
    figures: list[tuple[object, object, object]] = [
        (
            f"{what} of the best",
            html.NONE if best is None else html.number(best.value),
            "" if best is None else f"trial {best.number}, {counted(len(best.by_seed), 'seed')}",
        ),
        (
            "Spread of its seeds",
            html.NONE if best is None else html.number(best.deviation),
            "standard deviation",
        ),
        (
            "The workflow as it stood",
            html.NONE if own is None else html.number(own.value),
            "was no trial" if own is None else f"trial {own.number}, {_ended(found, own)}",
        ),
        ("Configurations tried", html.count(len(found.tried)), f"{found.count('stopped')} stopped early"),
    ]
    lines = [*found.sentences(), *found.notes]
    return html.large_figures(figures) + "".join(html.paragraph(line) for line in lines)


def _history(found: Found) -> Chart | None:
    judged = [trial for trial in found.tried if math.isfinite(trial.value)]
    if not judged:
        return None
    top = [trial for trial in judged if trial.state == "complete"]
    lower = [trial for trial in judged if trial.state != "complete"]
    series = {name: _points(group) for name, group in (("last rung", top), ("below it", lower)) if group}
    if top:
        best = pd.Series({trial.number: trial.value for trial in top}).cummax()
        numbers = range(int(best.index[0]), judged[-1].number + 1)
        so_far = best.reindex(numbers).ffill()
        series = {"best so far": pd.DataFrame({"x": so_far.index, "y": so_far.to_numpy()}), **series}
    what = NAMES[found.plan.objective]
    return Points(
        series=series,
        xlabel="trial",
        ylabel=f"{what} on validation",
        alt=f"{what} of each trial, and the best so far",
        caption=f"Each trial's {what} on the highest rung that it was judged on, and the best of the last rung by then. Values of "
        "different rungs are of different trainings.",
    )


def _points(trials: Sequence[Tried]) -> pd.DataFrame:
    return pd.DataFrame({"x": [trial.number for trial in trials], "y": [trial.value for trial in trials]})


def _best(found: Found) -> str:
    best, own = found.best, found.own
    if best is None:
        return html.paragraph("No trial has come to the last rung yet.")
    rows = [
        [
            parameter.name,
            _word(best.words.get(parameter.name)),
            html.NONE if own is None else _word(own.words.get(parameter.name)),
            str(parameter),
        ]
        for parameter in found.plan.space
    ]
    seeds = [[str(seed), html.number(value)] for seed, value in sorted(best.by_seed.items())]
    what = NAMES[found.plan.objective]
    return (
        html.table(["Parameter", "Best", "As it stood", "Searched"], rows)
        + html.table(["Seed", f"{what} on validation"], seeds, numbers=[1])
        + html.paragraph(
            f"best.yaml beside this page is the whole workflow with these values and those of the last rung ({found.plan.last}); "
            "`qrun best.yaml` trains it and reads its test segment.",
            "note",
        )
    )


def _trials(found: Found) -> str:
    names = [parameter.name for parameter in found.plan.space]
    header = [
        "Trial",
        NAMES[found.plan.objective],
        "Spread",
        "Seeds",
        "Ended",
        *map(_short, names),
        "Seconds",
    ]
    rows = [
        [
            f"{trial.number}{' (as it stood)' if trial.own else ''}",
            html.number(trial.value),
            html.number(trial.deviation),
            html.count(len(trial.by_seed)),
            _ended(found, trial),
            *(_word(trial.words.get(name)) for name in names),
            html.count(trial.seconds),
        ]
        for trial in found.ranked
    ]
    if not rows:
        return html.paragraph("No trial has begun.")
    numbers = [1, 2, 3, len(header) - 1]
    shown = html.table(header, rows[:FEW], numbers=numbers)
    if len(rows) > FEW:
        shown += html.details(f"All {len(rows)} trials", html.table(header, rows, numbers=numbers))
    failed = [f"Trial {trial.number}: {trial.error}" for trial in found.tried if trial.error]
    return shown + (html.details(counted(len(failed), "failed trial"), html.items(failed)) if failed else "")


def _ended(found: Found, trial: Tried) -> str:
    last = len(found.plan.rungs)
    where = f"rung {trial.rung + 1} of {last}"
    if trial.state == "complete":
        return "last rung" if last > 1 else "complete"
    return f"{trial.state}, {where}" if trial.rung >= 0 else trial.state


def _importance(found: Found) -> str:
    if not found.importance:
        return html.paragraph(
            f"Importance needs {FEWEST_FOR_IMPORTANCE} trials or more that differ in value, found "
            f"{sum(0 in trial.values for trial in found.tried)}."
        )
    shares = pd.DataFrame({"importance": found.importance}).rename(index=_short)
    chart = Bars(
        values=shares,
        horizontal=True,
        percent=True,
        xlabel="",
        ylabel="share",
        alt="Importance of the parameters",
        caption=IMPORTANCE,
    )
    return _drawn("importance", chart)


def _slices(found: Found) -> str:
    order = sorted(found.plan.space, key=lambda parameter: -found.importance.get(parameter.name, 0.0))
    drawn = []
    for k, parameter in enumerate(order[:SLICES]):
        chart = _slice(found, parameter)
        if chart is not None:
            drawn.append(interactive.fragment(f"slice-{k}", chart))
    left = f" The {SLICES} most important of {len(order)} are drawn." if len(order) > SLICES else ""
    return html.beside(*drawn) + (html.paragraph(left.strip(), "note") if left else "")


def _slice(found: Found, parameter: Parameter) -> Chart | None:
    """A parameter's values beside what trials were worth on the first rung."""
    seen = [
        trial
        for trial in found.tried
        if parameter.name in trial.words and math.isfinite(trial.values.get(0, math.nan))
    ]
    if not seen:
        return None
    name, what = _short(parameter.name), NAMES[found.plan.objective]
    about: dict[str, Any] = {
        "ylabel": f"{what}, first rung",
        "alt": f"{what} on the first rung by {name}",
        "height": 260,
    }
    if parameter.kind == "choice":
        values = pd.Series([trial.values[0] for trial in seen])
        grouped = values.groupby([_word(trial.words[parameter.name]) for trial in seen])
        frames = [figure.to_frame(what) for figure in (grouped.mean(), grouped.min(), grouped.max())]
        caption = f"{name}: mean over the trials of each choice, from the lowest to the highest."
        return Bars(values=frames[0], low=frames[1], high=frames[2], caption=caption, **about)
    groups = {
        "went on": [trial for trial in seen if trial.rung > 0 or trial.state != "stopped"],
        "stopped": [trial for trial in seen if trial.rung == 0 and trial.state == "stopped"],
    }
    series = {
        group: pd.DataFrame(
            {
                "x": [_place(parameter, trial.words[parameter.name]) for trial in trials],
                "y": [trial.values[0] for trial in trials],
            }
        )
        for group, trials in groups.items()
        if trials
    }
    axis = f"{name}, log10" if parameter.log else name
    return Points(series=series, xlabel=axis, caption=f"{axis}: each point is a trial.", **about)


def _place(parameter: Parameter, value: float) -> float:
    return float(np.log10(value)) if parameter.log else float(value)


def _rungs(found: Found) -> str:
    rows = []
    for k, rung in enumerate(found.plan.rungs):
        came = [trial for trial in found.tried if k in trial.values]
        stopped = [trial for trial in came if trial.state == "stopped" and trial.rung == k]
        on = [trial.values[k] for trial in came if trial not in stopped]
        rows.append(
            [
                str(k + 1),
                str(rung),
                html.count(len(came)),
                html.count(len(stopped)),
                html.number(min(on, default=math.nan)),
                html.number(max((trial.values[k] for trial in came), default=math.nan)),
            ]
        )
    header = ["Rung", "Trained on", "Came", "Stopped", "Lowest that went on", "Highest"]
    hours = sum(trial.seconds for trial in found.tried) / 3600
    return html.table(header, rows, numbers=[2, 3, 4, 5]) + html.paragraph(
        f"All trainings together took {hours:.2f} hours by the clock of their processes."
    )


def _drawn(name: str, chart: Chart | None) -> str:
    return "" if chart is None else interactive.fragment(name, chart)


def _short(name: str) -> str:
    """The last word of a path, with the one before it where that is a number or says nothing."""
    parts = [part for part in name.split(".") if part not in ("kwargs", "task") and not part.isdigit()]
    return parts[-1]


def _word(word: Any) -> str:
    if word is None:
        return html.NONE
    return f"{word:.6g}" if isinstance(word, float) else str(word)
