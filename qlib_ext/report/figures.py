"""Pictures: from series and tables to matplotlib figures, and from figures to bytes.

Numbers are made elsewhere, pages too. Nothing here touches matplotlib's global state, so that two reports can be
drawn side by side, and the same numbers give the same bytes.
"""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from qlib_ext.checks import UserError
from qlib_ext.report.charts import Bars, Chart, Heatmap, Histogram, Lines, Points, category

INK = "#22282f"
QUIET = "#8a9199"
GRID = "#e4e7ea"
# Told apart by the colour-blind, and by lightness on grey paper.
BLUE = "#1f5a93"
ORANGE = "#cf6a1c"
GREEN = "#3d8468"
PURPLE = "#7a5195"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
MORE_COLOURS = ("#2b8fa3", "#b03a48", "#8c7a1f", "#8a9199", "#3f3f8f", "#7f5539")
# Of a table in colours: white where nothing is, in the middle or at the low end.
DIVERGING = ((0.0, "#b35806"), (0.25, "#f1a340"), (0.5, "#ffffff"), (0.75, "#7fb0d8"), (1.0, BLUE))
RISING = ((0.0, "#f4f8fb"), (0.5, "#7fb0d8"), (1.0, BLUE))

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
    """The picture as PNG, for the run's artifacts; `savefig` would draw it twice, the first time for its layout alone."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.set_dpi(dpi)
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def to_data_uri(figure: Figure) -> str:
    """The picture as SVG in a data URI, for a page that needs no second file."""
    svg = _save(figure, "svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")


def series_colours(chart: Chart, count: int) -> list[str]:
    """A colour for each series of a chart: its own first, then the house's; from the eleventh on they repeat."""
    every = itertools.chain(chart.colours, itertools.cycle([*COLOURS, *MORE_COLOURS]))
    return [*itertools.islice(every, count)]


def drawn(chart: Chart) -> Figure:
    """A chart as a matplotlib figure, with all that `qlib_ext.report.interactive` shows at first.

    Raises
    ------
    UserError
        If the chart is of an unknown kind.
    """
    return drawn_together([chart])


def drawn_together(charts: Sequence[Chart]) -> Figure:
    """Charts below each other in one matplotlib figure, over one x axis.

    Raises
    ------
    UserError
        If a chart is of an unknown kind.
    """
    heights = [_inches(chart) for chart in charts]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights)))
        grid = figure.add_gridspec(len(charts), 1, height_ratios=heights)
        first: Axes | None = None
        for row, chart in enumerate(charts):
            axes = figure.add_subplot(grid[row], sharex=first)
            first = first or axes
            _drawing(chart)(chart, axes)
            axes.set_xlabel(axes.get_xlabel() or chart.xlabel)
            axes.set_ylabel(axes.get_ylabel() or chart.ylabel)
            if axes.get_legend_handles_labels()[1]:
                _legend_above(axes)
    return figure


def _drawing(chart: Chart) -> Callable[[Any, Axes], None]:
    for kind, draw in _DRAWN.items():
        if isinstance(chart, kind):
            return draw
    raise UserError(f"a chart must be one of {', '.join(k.__name__ for k in _DRAWN)}, found {chart!r}")


def _inches(chart: Chart) -> float:
    """The height on paper that the height on the page comes to, more where rows need it."""
    rows = 0
    if isinstance(chart, Heatmap) or (isinstance(chart, Bars) and chart.horizontal):
        rows = len(chart.values)
    return max(chart.height / 100, 0.24 * rows + 0.8)


def _draw_lines(chart: Lines, axes: Axes) -> None:
    shown = {name: values for name, values in chart.series.items() if name not in chart.hidden}
    colours = dict(zip(chart.series, series_colours(chart, len(chart.series)), strict=True))
    indexes = [values.index for values in shown.values()]
    if chart.stacked:
        table = pd.DataFrame(shown).fillna(0.0)
        axes.stackplot(
            table.index,
            *(table[name] for name in table),
            colors=[colours[name] for name in table],
            labels=[_short(str(name)) for name in table],
            alpha=0.75,
            linewidth=0,
        )
        axes.set_ylim(bottom=0)
    else:
        if not chart.log_choice:
            axes.axhline(0, color=QUIET, linewidth=0.8)
        for name, values in shown.items():
            style = {"marker": "o", "markersize": 3.5} if chart.dots else {}
            _curve(axes, values, label=name, color=colours[name], **style)
            if name in chart.filled:
                axes.fill_between(
                    values.index, values.to_numpy(), 0, color=colours[name], alpha=0.15, linewidth=0
                )
            if name in chart.bands:
                low, high = (bound.reindex(values.index).to_numpy() for bound in chart.bands[name])
                axes.fill_between(values.index, low, high, color=colours[name], alpha=0.18, linewidth=0)
    if indexes and isinstance(indexes[0], pd.DatetimeIndex):
        _dates(axes, max(indexes, key=len))
    elif indexes and pd.api.types.is_integer_dtype(indexes[0]):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _levels(axes, chart.levels)
    _marks(axes, chart.marks)
    if chart.percent:
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))


def _draw_bars(chart: Bars, axes: Axes) -> None:
    table = chart.values.astype(float)
    places = np.arange(len(table))
    count = 1 if chart.stacked or chart.start is not None else len(table.columns)
    width = 0.78 / count
    ends = {"low": np.zeros(len(table)), "high": np.zeros(len(table))}  # of the piles so far
    for k, (name, colour) in enumerate(
        zip(table.columns, series_colours(chart, len(table.columns)), strict=True)
    ):
        values = table[name].to_numpy()
        at = places + (0.0 if count == 1 else (k - (count - 1) / 2) * width)
        style: dict[str, Any] = {"color": colour, "label": _short(str(name))}
        start = np.zeros(len(values)) if chart.start is None else chart.start[name].to_numpy(dtype=float)
        if chart.stacked and chart.start is None:
            start = np.where(values < 0, ends["low"], ends["high"])
            ends["low"] += np.nan_to_num(np.minimum(values, 0))
            ends["high"] += np.nan_to_num(np.maximum(values, 0))
        errors = None
        if chart.low is not None or chart.high is not None:
            low = values if chart.low is None else chart.low[name].to_numpy(dtype=float)
            high = values if chart.high is None else chart.high[name].to_numpy(dtype=float)
            errors = np.vstack([values - low, high - values])
            style["error_kw"] = {"elinewidth": 1.0, "capsize": 2.5, "ecolor": INK}
        if chart.horizontal:
            axes.barh(at, values, width, left=start, xerr=errors, **style)
        else:
            axes.bar(at, values, width, bottom=start, yerr=errors, **style)
    names = [_short(category(item), 24) for item in table.index]
    values_axis = axes.xaxis if chart.horizontal else axes.yaxis
    if chart.horizontal:
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.axvline(0, color=QUIET, linewidth=0.8)
        axes.set_xlabel(chart.ylabel)
        axes.set_ylabel(chart.xlabel or " ")
    else:
        step = -(-len(names) // 24)
        crowded = sum(map(len, names[::step])) > 110
        axes.set_xticks(places[::step], names[::step], rotation=40 if crowded else 0)
        axes.axhline(0, color=QUIET, linewidth=0.8)
    if chart.percent:
        values_axis.set_major_formatter(FuncFormatter(_percent))
    axes.grid(visible=False, axis="y" if chart.horizontal else "x")
    _levels(axes, chart.levels, across=chart.horizontal)
    if len(table.columns) == 1 and not chart.levels:
        for handle in axes.containers:
            handle.set_label("_")


def _draw_heatmap(chart: Heatmap, axes: Axes) -> None:
    values = chart.values.to_numpy(dtype=float)
    colours = LinearSegmentedColormap.from_list("house", [*(DIVERGING if chart.diverging else RISING)])
    low, high = (-chart.limit(), chart.limit()) if chart.diverging else (None, None)
    mesh = axes.pcolormesh(values, cmap=colours, edgecolors="white", linewidth=1, vmin=low, vmax=high)
    axes.invert_yaxis()
    axes.set_xticks(np.arange(values.shape[1]) + 0.5, [_short(category(c), 12) for c in chart.values.columns])
    axes.set_yticks(np.arange(values.shape[0]) + 0.5, [_short(category(r), 24) for r in chart.values.index])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    crowded = values.shape[1] > 16
    if crowded:
        axes.tick_params(axis="x", rotation=60)
    for row, column in np.argwhere(np.isfinite(values)) if not crowded else ():
        shown = 100 * values[row, column] if chart.percent else values[row, column]
        red, green, blue, _ = mesh.cmap(mesh.norm(values[row, column]))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
        axes.text(
            column + 0.5,
            row + 0.5,
            f"{shown:,.{chart.digits}f}{'%' if chart.percent else ''}".replace("-", "\N{MINUS SIGN}"),
            ha="center",
            va="center",
            fontsize=7.5,
            color="white" if dark else INK,
        )


def _draw_histogram(chart: Histogram, axes: Axes) -> None:
    edges, counts = chart.binned()
    for (name, count), colour in zip(counts.items(), series_colours(chart, len(counts)), strict=True):
        label = _short(str(name)) if len(counts) > 1 else "_"
        axes.stairs(
            count, edges, fill=True, color=colour, alpha=0.5 if len(counts) > 1 else 0.85, label=label
        )
    _marks(axes, chart.marks)
    if chart.percent:
        axes.xaxis.set_major_formatter(FuncFormatter(_percent))


def _draw_points(chart: Points, axes: Axes) -> None:
    for (name, table), colour in zip(
        chart.series.items(), series_colours(chart, len(chart.series)), strict=True
    ):
        few = len(table) < 400
        axes.plot(
            table["x"].to_numpy(dtype=float),
            table["y"].to_numpy(dtype=float),
            "o-" if chart.joined else "o",
            color=colour,
            markersize=8 if chart.joined and len(table) == 1 else 4.5 if few else 2.5,
            markeredgewidth=0,
            alpha=0.8,
            label=_short(str(name)) if len(chart.series) > 1 else "_",
        )
        if "text" in table and len(table) <= FEW:
            for row in table.itertuples():
                axes.annotate(
                    _short(str(row.text), 20), (row.x, row.y), (4, 4), textcoords="offset points", fontsize=8
                )
    if chart.diagonal:
        axes.plot(
            chart.extent(), chart.extent(), color=QUIET, linewidth=1.0, linestyle=(0, (5, 2)), label="_"
        )
    if chart.percent:
        axes.xaxis.set_major_formatter(FuncFormatter(_percent))
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))


def _levels(axes: Axes, levels: Mapping[str, float], *, across: bool = False) -> None:
    line = axes.axvline if across else axes.axhline
    for name, level in levels.items():
        if np.isfinite(level):
            line(level, color=INK, linewidth=1.2, linestyle=(0, (5, 2)), label=_short(str(name)))


def _marks(axes: Axes, marks: Mapping[str, Any]) -> None:
    for name, place in marks.items():
        axes.axvline(place, color=QUIET, linewidth=1.2, linestyle=(0, (1, 2)), label=_short(str(name)))


def _save(figure: Figure, kind: str, **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, **kwargs)
    return buffer.getvalue()


_DRAWN: Mapping[type[Chart], Callable[[Any, Axes], None]] = {
    Lines: _draw_lines,
    Bars: _draw_bars,
    Heatmap: _draw_heatmap,
    Histogram: _draw_histogram,
    Points: _draw_points,
}


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
    marker = {"marker": "o" if values.notna().sum() < FEW else None, "markersize": 3.5}
    axes.plot(values.index, values.to_numpy(), label=_short(str(label)), **marker | style)


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
