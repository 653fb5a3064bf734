"""Pictures: from series and tables to matplotlib figures, and from figures to bytes.

Numbers are made elsewhere, pages too. Nothing here touches matplotlib's global state, so that two reports can be
drawn side by side, and the same numbers give the same bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

INK = "#22282f"
QUIET = "#8a9199"
GRID = "#e4e7ea"
# Told apart by the colour-blind, and by lightness on grey paper.
BLUE = "#1f5a93"
ORANGE = "#cf6a1c"
GREEN = "#3d8468"
PURPLE = "#7a5195"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE)

WIDTH = 9.0  # inches; pictures are scaled to the page
FEW = 15  # fewer points than these are drawn one by one
STYLE: Any = {
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.solid_joinstyle": "round",
    "path.simplify_threshold": 0.3,
    "svg.fonttype": "path",
    "svg.hashsalt": "qlib_ext",
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "xtick.color": QUIET,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": QUIET,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
}


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """The picture as PNG, for the run's artifacts."""
    return _save(figure, "png", dpi=dpi, metadata={"Software": None})


def to_data_uri(figure: Figure) -> str:
    """The picture as SVG in a data URI, for a page that needs no second file."""
    svg = _save(figure, "svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")


def over_time(
    lines: Mapping[str, pd.Series],
    *,
    ylabel: str,
    colours: Sequence[str] = COLOURS,
    percent: bool = False,
    fill: str | None = None,
    height: float = 3.1,
) -> Figure:
    """Lines over dates.

    Parameters
    ----------
    lines
        Legend text -> values [D] indexed by date; NaN leaves a gap.
    ylabel
        What the values are, with their unit.
    colours
        One a line.
    percent
        Whether to print a share as per cent.
    fill
        The line to fill down to zero.
    height
        In inches.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.add_subplot()
        axes.axhline(0, color=QUIET, linewidth=0.8)
        for (name, values), colour in zip(lines.items(), colours, strict=False):
            _curve(axes, values, label=name, color=colour)
            if name == fill:
                axes.fill_between(values.index, values.to_numpy(), 0, color=colour, alpha=0.15, linewidth=0)
        _dates(axes, next(iter(lines.values())).index)
        axes.set_ylabel(ylabel)
        if percent:
            axes.yaxis.set_major_formatter(FuncFormatter(_percent))
        _legend_above(axes)
    return figure


def daily_and_cumulative(
    daily: Mapping[str, pd.Series], *, ylabel: str, window: int, height: float = 5.2
) -> Figure:
    """Daily values, their moving averages and their running sums, each on its own scale.

    Parameters
    ----------
    daily
        Legend text -> values [D] indexed by date; NaN on a day without a value.
    ylabel
        What the values are.
    window
        Days of the moving average; at least half of them must have a value.
    height
        In inches.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        each, averaged, summed = figure.subplots(3, 1, sharex=True)
        for (name, values), colour in zip(daily.items(), COLOURS, strict=False):
            mean = values.rolling(window, min_periods=max(1, window // 2)).mean()
            total = values.fillna(0.0).cumsum()
            _curve(each, values, color=colour, alpha=0.5, linewidth=0.6, label=name)
            _curve(averaged, mean, color=colour, label=f"{name}, mean of {window} days")
            _curve(summed, total, color=colour, label=f"{name}, running sum")
        for axes, text in ((each, ylabel), (averaged, "mean"), (summed, "sum")):
            axes.axhline(0, color=QUIET, linewidth=0.8)
            axes.set_ylabel(text)
            _legend_above(axes)
        figure.align_ylabels()
        _dates(summed, next(iter(daily.values())).index)
    return figure


def dots_against_base(
    values: Mapping[str, float], base: float, *, ylabel: str, base_name: str, height: float = 2.6
) -> Figure:
    """A dot for each share, on a stem from a line that marks what chance gives.

    The distance to the line is what is read, so the axis need not begin at zero.

    Parameters
    ----------
    values
        Text under the dot -> share; NaN leaves its place empty.
    base
        The share that the line marks.
    ylabel, base_name
        Texts of the axis and of the line.
    height
        In inches.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.add_subplot()
        shares = np.array([*values.values()], dtype=float)
        places = np.arange(len(shares))
        axes.axhline(base, color=ORANGE, linewidth=1.4, linestyle=(0, (5, 2)), label=base_name)
        axes.vlines(places, base, shares, color=BLUE, linewidth=2.5, alpha=0.45)
        axes.plot(places, shares, "o", color=BLUE, markersize=8)
        for place, share in zip(places, shares, strict=True):
            if np.isfinite(share):
                up = share >= base
                axes.annotate(
                    f"{share:.1%}",
                    (place, share),
                    (0, 8 if up else -8),
                    textcoords="offset points",
                    ha="center",
                    va="bottom" if up else "top",
                    fontsize=8.5,
                )
        axes.margins(y=0.25)
        axes.set_xlim(-0.6, len(shares) - 0.4)
        axes.set_xticks(places, [*values])
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
        axes.set_ylabel(ylabel)
        _legend_above(axes)
    return figure


def by_epoch(
    panels: Mapping[str, Mapping[str, pd.Series]],
    *,
    best: int | None,
    dashed: str = "train",
    height: float = 2.2,
) -> Figure:
    """Small panels of curves over epochs, the best epoch marked in each.

    Parameters
    ----------
    panels
        Title -> legend text -> values indexed by epoch.
    best
        The epoch to mark.
    dashed
        Lines whose text begins so are dashed.
    height
        Of one row, in inches.
    """
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = -(-len(panels) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height * rows))
        grid = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
        for axes, (title, lines) in zip(grid, panels.items(), strict=False):
            for (name, values), colour in zip(lines.items(), COLOURS, strict=False):
                style = (0, (4, 2)) if name.startswith(dashed) else "-"
                _curve(axes, values, label=name, color=colour, linestyle=style)
                epochs = values.index
            if best is not None:
                axes.axvline(best, color=QUIET, linewidth=1.0, linestyle=(0, (1, 2)))
            axes.set_title(_short(title))
            if len(epochs) < FEW:
                axes.set_xticks(epochs)
                axes.set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
            else:
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel("epoch")
            axes.legend(loc="best")
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
    return figure


def _curve(axes: Axes, values: pd.Series, label: str, **style: Any) -> None:
    """A line, with its points where they are too few to make one."""
    marker = "o" if values.notna().sum() < FEW else None
    axes.plot(values.index, values.to_numpy(), label=_short(label), marker=marker, markersize=3.5, **style)


def _short(text: str, length: int = 36) -> str:
    """A name that leaves the picture its place, whatever a user calls things."""
    return text if len(text) <= length else text[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _dates(axes: Axes, days: pd.Index) -> None:
    if len(days) < FEW:
        axes.set_xticks(days, [f"{day:%Y-%m-%d}" for day in days], rotation=0 if len(days) < 8 else 30)
        axes.margins(x=0.05)
        return
    locator = AutoDateLocator(minticks=3, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.margins(x=0.01)


def _legend_above(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, borderaxespad=0.2, handlelength=1.6)


def _percent(share: float, _: int | None = None) -> str:
    """As many decimals as the tick needs: 2.5% is not 2%."""
    return f"{round(100 * share, 6):g}%".replace("-", "\N{MINUS SIGN}")


def _save(figure: Figure, kind: str, **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, **kwargs)
    return buffer.getvalue()
