"""Charts as a part of a page that a reader can zoom, point at and switch on and off.

Everything is in the one HTML file: it opens from a mail or a memory stick, years later, without a network. plotly.js
draws; it comes out of the installed plotly package. As it is it would add 4.8 MB to every report, so it stands in the
page gzipped and in base64 (2.0 MB), and the browser's own `DecompressionStream` unpacks it, which all browsers have
had since May 2023. An older one says so in the place of each chart and shows the text and the tables. A smaller
bundle of plotly.js (basic, cartesian) would do as well, but the Python package has only the whole one, and a second
copy of a library in this repository would have to be kept up to date by hand.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from qlib_ext.checks import UserError
from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart, Heatmap
from qlib_ext.report.plotly_charts import description

NAME = re.compile(r"[A-Za-z0-9_.-]+")


def fragment(name: str, chart: Chart) -> str:
    """A chart as HTML: a box that `charts.js` fills, what goes into it, and the caption.

    Parameters
    ----------
    name
        Its name in the page: letters, digits, `_`, `-` and dots.
    chart
        What is to be seen.

    Raises
    ------
    UserError
        If the name has other signs, or the chart is of an unknown kind.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"a chart's name must be of letters, digits, `_`, `-` and dots, found `{name}`")
    described = description(chart)
    return (
        f'<figure class="chart" id="chart-{name}" aria-label="{html.text(chart.alt)}">{_tools(described)}'
        f'<div class="plot" style="height:{_height(chart)}px"></div>'
        f'<script type="application/json">{_embedded(described)}</script>'
        f"<figcaption>{html.text(chart.caption)}</figcaption></figure>"
    )


def _tools(described: Mapping[str, Any]) -> str:
    """The legend and the choice of the axis: buttons of the page, so that keys and screen readers reach them.

    They stand in the page from the start, for a page whose charts are drawn while it is read must not move.
    """
    legend, parts = described["legend"], []
    if len(legend) > 1:
        switches = "".join(
            f'<button type="button" aria-pressed="{str(entry["shown"]).lower()}" '
            f'title="Show or hide; double click: only this one">{_swatch(entry)}{html.text(entry["name"])}</button>'
            for entry in legend
        )
        parts.append(f'<div class="legend" role="group" aria-label="Series">{switches}</div>')
    named = [*(legend if len(legend) == 1 and described["lines"] else []), *described["lines"]]
    parts += [f'<span class="only">{_swatch(entry)}{html.text(entry["name"])}</span>' for entry in named]
    if described["log"]:
        parts.append('<button type="button" class="log" aria-pressed="false">Logarithmic axis</button>')
    return f'<div class="tools">{"".join(parts)}</div>' if parts else ""


def _swatch(entry: Mapping[str, Any]) -> str:
    if "line" in entry:
        return (
            f'<span class="swatch {entry["line"]}" style="border-color:{html.text(entry["colour"])}"></span>'
        )
    return f'<span class="swatch" style="background:{html.text(entry["colour"])}"></span>'


@functools.cache
def scripts() -> tuple[str, tuple[str, ...]]:
    """What a page with charts carries at its end, and the hashes under which its policy lets it run."""
    library = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    own = resources.files("qlib_ext.report").joinpath("charts.js").read_text(encoding="utf-8")
    packed = base64.b64encode(gzip.compress(library, 9, mtime=0)).decode("ascii")
    written = f'<script type="text/plain" id="library">{packed}</script><script>{own}</script>'
    return written, (hash_of(library), hash_of(own.encode("utf-8")))


def hash_of(script: bytes) -> str:
    """Under what a page's policy lets a script run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode('ascii')}'"


def _embedded(content: Any) -> str:
    """JSON that stays inside its script element, whatever the names in it."""
    written = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return written.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _height(chart: Chart) -> int:
    """A chart with rows takes the room that its rows need."""
    if isinstance(chart, Bars) and chart.horizontal:
        rows = len(chart.values) * (1 if chart.stacked else max(1, len(chart.values.columns)) ** 0.5)
        return max(chart.height, round(20 * rows) + 70)
    if isinstance(chart, Heatmap):
        around = 60 + (20 if chart.xlabel else 0)
        rows = len(chart.values)
        if chart.crowded:
            return around + min(22 * rows, max(500, 5 * rows))
        return max(22 * rows + around, min(chart.height, 44 * rows + around))
    return chart.height
