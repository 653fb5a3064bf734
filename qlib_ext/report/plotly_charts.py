"""Charts in plotly's own JSON.

Series are float32 in base64, which plotly.js reads as they are: seven digits,
and a quarter of the room that numbers written out take. Days are whole numbers since 1970, once for every index of a
chart, however many lines share it. `charts.js` puts both together and draws a chart when it comes into view.
"""

from __future__ import annotations

import base64
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from qlib_ext.checks import UserError
from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart, Heatmap, Histogram, Lines, Points, category
from qlib_ext.report.figures import DIVERGING, FEW, INK, QUIET, RISING, series_colours


def description(chart: Chart) -> dict[str, Any]:
    """What `charts.js` draws: plotly's traces and layout, the axes' shared values, and what stands in the legend.

    Returns
    -------
    traces
        Plotly's; `x` or `y` may be `{"axis": k}` for the k-th of `axes`.
    axes
        Values that traces share: `{"days": base64 of int32}`, `{"text": [...]}` or plotly's typed array.
    layout
        Plotly's.
    legend
        `name`, `colour`, the numbers of its `traces`, and whether it is `shown` at first.
    lines
        What else the legend names: straight lines, `dashed` or `dotted`.
    log
        Whether the reader can choose a logarithmic axis.
    """
    for kind, describe in _DESCRIBED.items():
        if isinstance(chart, kind):
            return describe(chart)
    raise UserError(f"a chart must be one of {', '.join(k.__name__ for k in _DESCRIBED)}, found {chart!r}")


# -- what charts have in common ----------------------------------------------------------------------------------


class _Axes:
    """Values of an axis that traces share, each written once."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        self._known: list[pd.Index] = []

    def of(self, index: pd.Index) -> dict[str, int]:
        """A reference to an index of days, of numbers or of texts."""
        for k, known in enumerate(self._known):
            if index is known or index.equals(known):
                return {"axis": k}
        self._known.append(index)
        self.written.append(_axis_values(index))
        return {"axis": len(self._known) - 1}


def _axis_values(index: pd.Index) -> dict[str, Any]:
    if isinstance(index, pd.DatetimeIndex):
        if (index == index.normalize()).all():
            days = ((index - pd.Timestamp(0)) // pd.Timedelta(days=1)).to_numpy().astype("<i4")
            return {"days": base64.b64encode(days.tobytes()).decode("ascii")}
        return {"text": [f"{moment:%Y-%m-%d %H:%M:%S}" for moment in index]}
    if pd.api.types.is_numeric_dtype(index):
        return _numbers(index.to_numpy())
    return {"text": [_plain(item) for item in index]}


def _numbers(values: npt.ArrayLike) -> dict[str, Any]:
    """Plotly's typed array: float32, row by row."""
    array = np.ascontiguousarray(values, dtype="<f4")
    packed = {"dtype": "f4", "bdata": base64.b64encode(array.tobytes()).decode("ascii")}
    return packed if array.ndim == 1 else packed | {"shape": ", ".join(map(str, array.shape))}


def _plain(name: object) -> str:
    """A text that plotly shows as it is: it takes a little HTML in texts for markup."""
    return str(name).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _written(chart: Chart, values: Iterable[npt.ArrayLike]) -> str:
    """The format of a value under the pointer, d3's: enough digits to tell neighbours apart."""
    if chart.percent:
        return ".2%"
    sizes = [np.abs(np.asarray(value, dtype=float)) for value in values]
    finite = np.concatenate([size[np.isfinite(size)].ravel() for size in sizes] or [np.zeros(0)])
    if not len(finite) or finite.max() == 0:
        return ",.4~f"
    digits = 3 - math.floor(math.log10(float(np.quantile(finite, 0.9)) or float(finite.max())))
    return f",.{min(max(digits, 0), 8)}~f"


def _layout(chart: Chart, **more: Any) -> dict[str, Any]:
    """What all charts share; `charts.js` adds fonts, colours and margins."""
    value: dict[str, Any] = {**_title(chart.ylabel), "zeroline": True}
    if chart.percent:
        value["tickformat"] = ".2~%"
    layout: dict[str, Any] = {"xaxis": _title(chart.xlabel), "yaxis": value, "hovermode": "closest"}
    for name, settings in more.items():
        known = layout.get(name)
        layout[name] = {**known, **settings} if isinstance(known, dict) else settings
    return layout


def _title(text: str) -> dict[str, Any]:
    return {"title": {"text": _plain(text)}} if text else {}


def _along(indexes: Sequence[pd.Index]) -> dict[str, Any]:
    """The x axis of lines: days, numbers or texts."""
    first = indexes[0]
    if isinstance(first, pd.DatetimeIndex):
        days = functools.reduce(pd.Index.union, indexes)
        if len(days) < FEW:
            shown = [f"{day:%Y-%m-%d}" for day in days]
            return {"type": "date", "tickmode": "array", "tickvals": shown, "ticktext": shown}
        return {"type": "date", "hoverformat": "%Y-%m-%d"}
    if pd.api.types.is_numeric_dtype(first):
        whole = all((np.mod(index.to_numpy(dtype=float), 1) == 0).all() for index in indexes)
        span = max(index.max() for index in indexes) - min(index.min() for index in indexes)
        return ({"tickformat": ",d"} if whole else {}) | ({"dtick": 1} if whole and span <= 12 else {})
    return {"type": "category"}


def _straight(ends: Mapping[str, Any], colour: str, width: float, dash: str) -> dict[str, Any]:
    return {"type": "line", **ends, "line": {"color": colour, "width": width, "dash": dash}}


def _levels(levels: Mapping[str, float], *, across: bool = False) -> list[dict[str, Any]]:
    """Straight lines at a value; `across` for bars that lie."""
    value, other = ("x", "y") if across else ("y", "x")
    whole = {f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper"}
    return [
        _straight({f"{value}0": level, f"{value}1": level, **whole}, INK, 1.3, "dash")
        for level in levels.values()
        if np.isfinite(level)
    ]


def _marks(marks: Mapping[str, object]) -> list[dict[str, Any]]:
    """Upright lines."""
    whole = {"y0": 0, "y1": 1, "yref": "paper"}
    places = map(_place, marks.values())
    return [_straight({"x0": place, "x1": place, **whole}, QUIET, 1.4, "dot") for place in places]


def _named(chart: Chart, levels: Mapping[str, float], marks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Entries of the legend for straight lines: what they are, and where they stand."""
    found = []
    for name, level in levels.items():
        if np.isfinite(level):
            found.append(
                {"name": f"{name}, {_said(level, percent=chart.percent)}", "colour": INK, "line": "dashed"}
            )
    for name, mark in marks.items():
        where = _place(mark)
        percent = chart.percent and isinstance(chart, Histogram)
        said = where if isinstance(where, str) else _said(where, percent=percent)
        found.append({"name": f"{name}, {said}", "colour": QUIET, "line": "dotted"})
    return found


def _said(value: float, *, percent: bool) -> str:
    written = f"{round(100 * value, 2):,.4g}%" if percent else f"{value:,.4g}"
    return written.replace("-", html.MINUS)


def _place(place: Any) -> Any:
    if isinstance(place, (pd.Timestamp, np.datetime64)) or hasattr(place, "strftime"):
        return f"{pd.Timestamp(place):%Y-%m-%d}"
    return float(place)


def _entry(name: object, colour: str, traces: Sequence[int], shown: bool = True) -> dict[str, Any]:
    return {"name": str(name), "colour": colour, "traces": [*traces], "shown": shown}


def _faded(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


# -- each kind -----------------------------------------------------------------------------------------------------


def _lines(chart: Lines) -> dict[str, Any]:
    axes = _Axes()
    traces: list[dict[str, Any]] = []
    legend: list[dict[str, Any]] = []
    written = _written(chart, chart.series.values())
    for (name, values), colour in zip(
        chart.series.items(), series_colours(chart, len(chart.series)), strict=True
    ):
        shown = name not in chart.hidden
        mine = []
        for k, bound in enumerate(chart.bands.get(name, ())):
            mine.append(len(traces))
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": axes.of(bound.index),
                    "y": _numbers(bound),
                    "line": {"width": 0},
                    "hoverinfo": "skip",
                    "visible": shown,
                }
                | ({"fill": "tonexty", "fillcolor": _faded(colour, 0.16)} if k else {})
            )
        mine.append(len(traces))
        dotted = chart.dots or values.notna().sum() < FEW
        trace: dict[str, Any] = {
            "type": "scatter",
            "mode": "lines+markers" if dotted else "lines",
            "name": _plain(name),
            "x": axes.of(values.index),
            "y": _numbers(values),
            "line": {"color": colour, "width": 1.6},
            "hovertemplate": f"%{{y:{written}}}",
            "visible": shown,
        }
        if dotted:
            trace["marker"] = {"size": 5, "color": colour}
        if chart.stacked:
            trace |= {"stackgroup": "all", "fillcolor": _faded(colour, 0.55)}
            trace["line"] = {"color": colour, "width": 0.5}
        elif name in chart.filled:
            trace |= {"fill": "tozeroy", "fillcolor": _faded(colour, 0.14)}
        traces.append(trace)
        legend.append(_entry(name, colour, mine, shown))
    layout = _layout(
        chart,
        xaxis=_along([values.index for values in chart.series.values()]),
        hovermode="x unified",
        shapes=_levels(chart.levels) + _marks(chart.marks),
    )
    if (height := _constant(chart)) and not chart.levels:
        layout["yaxis"] |= {"range": sorted((0.0, 2 * height))}
    lines = _named(chart, chart.levels, chart.marks)
    return _described(traces, axes, layout, legend, lines=lines, log=chart.log_choice)


def _constant(chart: Lines) -> float:
    """The one value that all lines have, where it is so; plotly would draw it on an axis of a unit either way."""
    values = {float(value) for series in chart.series.values() for value in series.dropna().unique()}
    return values.pop() if len(values) == 1 else 0.0


def _bars(chart: Bars) -> dict[str, Any]:
    axes = _Axes()
    traces: list[dict[str, Any]] = []
    legend: list[dict[str, Any]] = []
    names = [category(item) for item in chart.values.index]
    ends = [table for table in (chart.low, chart.high) if table is not None]
    written = _written(chart, [chart.values.to_numpy(dtype=float)])
    value, across = ("x", "y") if chart.horizontal else ("y", "x")
    for column, colour in zip(
        chart.values.columns, series_colours(chart, len(chart.values.columns)), strict=True
    ):
        values = chart.values[column].to_numpy(dtype=float)
        trace: dict[str, Any] = {
            "type": "bar",
            "name": _plain(column),
            across: axes.of(pd.Index(names)),
            value: _numbers(values),
            "marker": {"color": colour},
            "hovertemplate": f"%{{{across}}}: %{{{value}:{written}}}",
        }
        if chart.horizontal:
            trace["orientation"] = "h"
        if chart.start is not None:
            trace |= {"base": _numbers(chart.start[column]), "customdata": _numbers(values)}
            trace["hovertemplate"] = (
                f"%{{{across}}}: %{{customdata:{written}}}"  # else plotly tells the end of the bar
            )
        if ends:
            low = values if chart.low is None else chart.low[column].to_numpy(dtype=float)
            high = values if chart.high is None else chart.high[column].to_numpy(dtype=float)
            trace[f"error_{value}"] = {
                "type": "data",
                "symmetric": False,
                "array": _numbers(high - values),
                "arrayminus": _numbers(values - low),
                "color": INK,
                "thickness": 1.2,
                "width": 4,
            }
            trace["customdata"] = _numbers(np.column_stack([low, high]))
            trace["hovertemplate"] += f" (%{{customdata[0]:{written}}} to %{{customdata[1]:{written}}})"
        trace["hovertemplate"] += "<extra>%{fullData.name}</extra>"
        legend.append(_entry(column, colour, [len(traces)]))
        traces.append(trace)
    layout = _layout(
        chart,
        shapes=_levels(chart.levels, across=chart.horizontal),
        barmode="overlay" if chart.start is not None else "relative" if chart.stacked else "group",
        bargap=0.25,
    )
    if chart.horizontal:
        layout["xaxis"], layout["yaxis"] = layout["yaxis"], layout["xaxis"]
        layout["yaxis"] |= {"autorange": "reversed"}
    layout[f"{across}axis"] |= {"type": "category"}
    return _described(traces, axes, layout, legend, lines=_named(chart, chart.levels, {}))


def _heatmap(chart: Heatmap) -> dict[str, Any]:
    axes = _Axes()
    values = chart.values.to_numpy(dtype=float)
    digits = f".{chart.digits}%" if chart.percent else f",.{chart.digits}f"
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": axes.of(pd.Index([category(item) for item in chart.values.columns])),
        "y": axes.of(pd.Index([category(item) for item in chart.values.index])),
        "z": _numbers(values),
        "colorscale": [[*stop] for stop in (DIVERGING if chart.diverging else RISING)],
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "texttemplate": f"%{{z:{digits}}}",
        "hovertemplate": f"%{{y}}, %{{x}}: %{{z:{digits}}}<extra></extra>",
        "hoverongaps": False,
    }
    if chart.crowded:
        trace |= {"xgap": 0, "ygap": 0}
        del trace["texttemplate"]
    if chart.diverging:
        limit = chart.limit()
        trace |= {"zmin": -limit, "zmax": limit}
    layout = _layout(
        chart,
        xaxis={"type": "category", "showgrid": False},
        yaxis={"type": "category", "autorange": "reversed", "showgrid": False, "zeroline": False},
    )
    layout["yaxis"].pop("tickformat", None)
    return _described([trace], axes, layout, [])


def _histogram(chart: Histogram) -> dict[str, Any]:
    axes = _Axes()
    traces: list[dict[str, Any]] = []
    legend: list[dict[str, Any]] = []
    edges, counts = chart.binned()
    centres = pd.Index((edges[1:] + edges[:-1]) / 2)
    ends = np.column_stack([edges[:-1], edges[1:]])
    written = _written(chart, [edges])
    for (name, count), colour in zip(counts.items(), series_colours(chart, len(counts)), strict=True):
        legend.append(_entry(name, colour, [len(traces)]))
        traces.append(
            {
                "type": "bar",
                "name": _plain(name),
                "x": axes.of(centres),
                "y": _numbers(count),
                "width": float(edges[1] - edges[0]),
                "marker": {"color": colour, "opacity": 0.55 if len(counts) > 1 else 0.85},
                "customdata": _numbers(ends),
                "hovertemplate": f"%{{customdata[0]:{written}}} to %{{customdata[1]:{written}}}: %{{y:,.0f}}"
                "<extra>%{fullData.name}</extra>",
            }
        )
    layout = _layout(chart, barmode="overlay", bargap=0.0, shapes=_marks(chart.marks))
    layout["xaxis"] |= {"tickformat": ".2~%"} if chart.percent else {}
    layout["yaxis"].pop("tickformat", None)
    return _described(traces, axes, layout, legend, lines=_named(chart, {}, chart.marks))


def _points(chart: Points) -> dict[str, Any]:
    axes = _Axes()
    traces: list[dict[str, Any]] = []
    legend: list[dict[str, Any]] = []
    tables = [*chart.series.values()]
    written = {axis: _written(chart, [table[axis] for table in tables]) for axis in ("x", "y")}
    names = {"x": _plain(chart.xlabel) or "x", "y": _plain(chart.ylabel) or "y"}
    for (name, table), colour in zip(
        chart.series.items(), series_colours(chart, len(chart.series)), strict=True
    ):
        trace: dict[str, Any] = {
            "type": "scatter",
            "mode": "lines+markers" if chart.joined else "markers",
            "name": _plain(name),
            "x": _numbers(table["x"]),
            "y": _numbers(table["y"]),
            "marker": {"color": colour, "size": _size(chart, table), "opacity": 0.75},
            "line": {"color": colour, "width": 1.4},
            "hovertemplate": f"{names['x']} %{{x:{written['x']}}}<br>{names['y']} %{{y:{written['y']}}}"
            "<extra>%{fullData.name}</extra>",
        }
        if "text" in table:
            trace["text"] = [_plain(text) for text in table["text"]]
            trace["hovertemplate"] = "%{text}<br>" + str(trace["hovertemplate"])
        legend.append(_entry(name, colour, [len(traces)]))
        traces.append(trace)
    shapes = []
    if chart.diagonal:
        low, high = chart.extent()
        ends = {"x0": low, "x1": high, "y0": low, "y1": high}
        shapes.append(_straight(ends, QUIET, 1.2, "dash") | {"layer": "below"})
    layout = _layout(chart, shapes=shapes)
    layout["xaxis"] |= {"zeroline": False} | ({"tickformat": ".2~%"} if chart.percent else {})
    layout["yaxis"] |= {"zeroline": False}
    return _described(traces, axes, layout, legend)


def _size(chart: Points, table: pd.DataFrame) -> int:
    """Of a marker: one beside a line of others must be seen."""
    if chart.joined and len(table) == 1:
        return 10
    return 6 if len(table) < 400 else 4


def _described(
    traces: list[dict[str, Any]],
    axes: _Axes,
    layout: dict[str, Any],
    legend: list[dict[str, Any]],
    *,
    lines: Sequence[dict[str, Any]] = (),
    log: bool = False,
) -> dict[str, Any]:
    return {
        "traces": traces,
        "axes": axes.written,
        "layout": layout,
        "legend": legend,
        "lines": [*lines],
        "log": log,
    }


_DESCRIBED: Mapping[type[Chart], Callable[[Any], dict[str, Any]]] = {
    Lines: _lines,
    Bars: _bars,
    Heatmap: _heatmap,
    Histogram: _histogram,
    Points: _points,
}
