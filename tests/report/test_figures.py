from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.report import figures
from qlib_ext.report.charts import Bars, Chart, Heatmap, Histogram, Lines, Points

DAYS = pd.bdate_range("2020-01-01", periods=40)
TOLD: dict[str, Any] = {"alt": "what it is", "caption": "how it was made"}
GROWTH = pd.Series(np.linspace(1, 2, 40), DAYS)
TABLE = pd.DataFrame({"a": [0.1, -0.2, np.nan], "b": [0.3, 0.1, 0.2]}, index=["x", "y", "$z"])
CHARTS = [
    Lines(
        series={"a": GROWTH, "b": GROWTH - 2},
        filled=["b"],
        levels={"one": 1.0},
        marks={"turn": DAYS[5]},
        **TOLD,
    ),
    Lines(series={"a": GROWTH, "b": GROWTH * 2}, bands={"a": (GROWTH - 1, GROWTH + 1)}, hidden=["b"], **TOLD),
    Lines(series={"a": GROWTH, "b": GROWTH}, stacked=True, percent=True, **TOLD),
    Lines(series={"a": pd.Series([1.0, 2.0], [0, 1])}, dots=True, **TOLD),
    Bars(values=TABLE, low=TABLE - 0.1, high=TABLE + 0.1, percent=True, levels={"base": 0.1}, **TOLD),
    Bars(values=TABLE, horizontal=True, stacked=True, **TOLD),
    Bars(values=pd.DataFrame({"a": np.arange(60.0)}), **TOLD),
    Heatmap(values=TABLE, percent=True, **TOLD),
    Heatmap(values=pd.DataFrame(np.eye(20)), diverging=False, **TOLD),
    Histogram(samples={"a": np.arange(30.0), "b": np.arange(40.0)}, marks={"mean": 3.0}, **TOLD),
    Points(
        series={"a": pd.DataFrame({"x": [1, 2], "y": [2, 1], "text": ["p", "q"]})},
        diagonal=True,
        joined=True,
        **TOLD,
    ),
    Bars(values=TABLE, start=TABLE, horizontal=True, **TOLD),
]


class TestDrawn:
    @pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: type(chart).__name__)
    def test_every_kind_is_a_png_and_always_the_same(self, chart: Chart) -> None:
        first, second = (figures.to_png(figures.drawn(chart), dpi=40) for _ in range(2))
        assert first.startswith(b"\x89PNG")
        assert first == second

    def test_lines_are_the_series_that_are_not_hidden(self) -> None:
        (axes,) = figures.drawn(CHARTS[1]).axes
        (line,) = [line for line in axes.get_lines() if line.get_label() == "a"]
        np.testing.assert_array_equal(line.get_ydata(), GROWTH)
        assert "b" not in axes.get_legend_handles_labels()[1]

    def test_bars_pile_up_from_zero_on_both_sides(self) -> None:
        (axes,) = figures.drawn(Bars(values=TABLE, stacked=True, **TOLD)).axes
        bars = [bar for group in axes.containers for bar in group]
        found = [(bar.get_y(), bar.get_height()) for bar in bars[3:]]
        np.testing.assert_allclose(found, [(0.1, 0.3), (0.0, 0.1), (0.0, 0.2)])
        assert bars[1].get_height() == -0.2

    def test_bars_of_a_waterfall_begin_where_they_are_told(self) -> None:
        (axes,) = figures.drawn(Bars(values=TABLE, start=TABLE + 1, **TOLD)).axes
        bars = [bar for group in axes.containers for bar in group]
        np.testing.assert_allclose([bar.get_y() for bar in bars], (TABLE + 1).to_numpy().T.ravel())
        assert bars[0].get_x() == bars[3].get_x()

    def test_the_numbers_stand_in_the_cells(self) -> None:
        (axes,) = figures.drawn(CHARTS[7]).axes
        assert [cell.get_text() for cell in axes.texts] == ["10.0%", "30.0%", "−20.0%", "10.0%", "20.0%"]

    def test_ticks_are_not_rounded(self) -> None:
        (axes,) = figures.drawn(CHARTS[2]).axes
        written = axes.yaxis.get_major_formatter()
        assert [written(share, 0) for share in (0, -0.025, -0.1, 0.075)] == ["0%", "−2.5%", "−10%", "7.5%"]

    def test_an_unknown_kind(self) -> None:
        with pytest.raises(UserError, match="a chart must be one of Lines, Bars, Heatmap, Histogram, Points"):
            figures.drawn(Chart(**TOLD))


class TestColours:
    def test_a_charts_own_come_first(self) -> None:
        chart = Lines(series={"a": GROWTH}, colours=("#123456",), **TOLD)
        assert figures.series_colours(chart, 3) == ["#123456", figures.BLUE, figures.ORANGE]

    def test_ten_differ(self) -> None:
        assert len({*figures.series_colours(CHARTS[0], 10)}) == 10
