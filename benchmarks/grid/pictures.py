"""Pictures of runs side by side."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import matplotlib.lines
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qlib_ext.report import figures
from qlib_ext.report.charts import Lines

COLOURS = (*figures.COLOURS, "#b03a5b", "#5f6b2e", "#8a9199", "#2b2b2b", "#c9a227")


def losses(histories: Mapping[str, pd.DataFrame], ours: str) -> Figure:
    """Losses of each task by epoch, a colour a method: train dashed, validation, test dotted where it is there.

    The kept epoch is marked, and `ours` is drawn wider.
    """
    tasks = dict.fromkeys(
        column.rpartition("/")[2]
        for history in histories.values()
        for column in history
        if column.startswith("train/loss/")
    )
    with mpl.rc_context(figures.STYLE):
        figure = Figure(figsize=(figures.WIDTH, 3.4))
        grid = figure.subplots(1, len(tasks), squeeze=False)[0]
        for axes, task in zip(grid, tasks, strict=True):
            for (method, history), colour in zip(histories.items(), _colours(histories, ours), strict=True):
                if f"train/loss/{task}" not in history:
                    continue
                width = 2.2 if method == ours else 1.2
                axes.plot(
                    history["epoch"], history[f"train/loss/{task}"], "--", color=colour, linewidth=width * 0.7
                )
                valid = history[f"valid/loss/{task}"]
                axes.plot(history["epoch"], valid, color=colour, linewidth=width, label=method)
                if f"test/loss/{task}" in history:
                    axes.plot(
                        history["epoch"], history[f"test/loss/{task}"], ":", color=colour, linewidth=width
                    )
                kept = history.loc[history["best"], "epoch"].max()
                axes.plot(kept, valid[history["epoch"] == kept], "o", color=colour, markersize=5)
            axes.set_title(f"loss of {task}")
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        lines = {
            method: mpl.lines.Line2D([], [], color=colour)
            for method, colour in zip(histories, _colours(histories, ours), strict=True)
        }
        figure.legend([*lines.values()], [*lines], loc="outside upper center", ncols=min(6, len(lines)))
    return figure


def cumulative(daily: Mapping[str, pd.DataFrame], ours: str) -> Figure:
    """Compounded return after cost of every method, and of the index."""
    lines: dict[str, pd.Series] = {}
    for method, table in daily.items():
        lines[method] = (1.0 + table["return"] - table["cost"]).cumprod() - 1.0
    index = next(iter(daily.values()))["benchmark"]
    lines["index"] = (1.0 + index).cumprod() - 1.0
    colours = [*_colours(daily, ours), figures.INK]
    chart = Lines(
        series=lines,
        ylabel="cumulative return",
        colours=colours,
        percent=True,
        height=360,
        alt="Compounded return after cost of every method",
        caption="",
    )
    return figures.drawn(chart)


def _colours(methods: Mapping[str, object], ours: str) -> list[str]:
    """One a method; `ours` is always the purple one."""
    rest = iter([colour for colour in COLOURS if colour != figures.PURPLE] * 3)
    return [figures.PURPLE if method == ours else next(rest) for method in methods]
