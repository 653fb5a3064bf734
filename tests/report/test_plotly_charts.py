from __future__ import annotations

import base64
import re

import numpy as np
import pandas as pd
import pytest

from qlib_ext.report.charts import CROWDED, Bars, Heatmap, Histogram, Lines, Points
from qlib_ext.report.interactive import fragment
from qlib_ext.report.plotly_charts import description
from tests.report.drawn import DAYS, TOLD, lines, numbers


class TestLines:
    def test_values_come_back_to_seven_digits(self) -> None:
        made = description(lines())
        np.testing.assert_allclose(numbers(made["traces"][1]["y"]), np.linspace(2, 4, 40), rtol=1e-7)

    def test_days_stand_there_once_however_many_lines_share_them(self) -> None:
        made = description(lines(bands={"a": (pd.Series(0.0, DAYS), pd.Series(3.0, DAYS))}))
        assert [trace["x"] for trace in made["traces"]] == [{"axis": 0}] * 4
        (axis,) = made["axes"]
        days = np.frombuffer(base64.b64decode(axis["days"]), dtype="<i4").astype("datetime64[D]")
        np.testing.assert_array_equal(days, DAYS.to_numpy().astype("datetime64[D]"))

    def test_two_indexes_are_two_axes(self) -> None:
        chart = Lines(series={"a": pd.Series([1.0, 2.0], [0, 1]), "b": pd.Series([1.0], [5])}, **TOLD)
        made = description(chart)
        assert [numbers(axis).tolist() for axis in made["axes"]] == [[0, 1], [5]]

    def test_moments_of_a_day_keep_their_hours(self) -> None:
        hours = pd.date_range("2020-01-01", periods=3, freq="6h")
        made = description(Lines(series={"a": pd.Series([1.0, 2.0, 3.0], hours)}, **TOLD))
        assert made["axes"][0]["text"][1] == "2020-01-01 06:00:00"

    def test_a_gap_stays_a_gap(self) -> None:
        made = description(Lines(series={"a": pd.Series([1.0, np.nan, 3.0])}, **TOLD))
        assert np.isnan(numbers(made["traces"][0]["y"])[1])

    def test_a_band_belongs_to_its_line_in_the_legend(self) -> None:
        made = description(lines(bands={"b": (pd.Series(0.0, DAYS), pd.Series(3.0, DAYS))}, hidden=["b"]))
        assert [(entry["name"], entry["traces"], entry["shown"]) for entry in made["legend"]] == [
            ("a", [0], True),
            ("b", [1, 2, 3], False),
        ]
        assert [trace["visible"] for trace in made["traces"]] == [True, False, False, False]
        assert made["traces"][2]["fill"] == "tonexty"

    def test_levels_and_marks_are_drawn_and_named_with_their_place(self) -> None:
        made = description(lines(levels={"base": 0.5}, marks={"turn": DAYS[3]}, percent=True))
        assert [entry["name"] for entry in made["lines"]] == ["base, 50%", "turn, 2020-01-06"]
        assert [(shape["y0"], shape["x0"]) for shape in made["layout"]["shapes"]] == [
            (0.5, 0),
            (0, "2020-01-06"),
        ]

    def test_a_level_that_has_no_value_is_left_out(self) -> None:
        made = description(lines(levels={"base": float("nan")}))
        assert made["lines"] == made["layout"]["shapes"] == []

    def test_few_days_are_named_one_by_one(self) -> None:
        made = description(Lines(series={"a": pd.Series([1.0, 2.0, 3.0], DAYS[:3])}, **TOLD))
        assert made["layout"]["xaxis"]["ticktext"] == ["2020-01-01", "2020-01-02", "2020-01-03"]
        assert made["traces"][0]["mode"] == "lines+markers"

    @pytest.mark.parametrize(
        ("values", "percent", "written"),
        [
            ([0.1, 0.2], True, ".2%"),
            ([0.031, 0.042], False, ",.5~f"),
            ([1.0, 2.0], False, ",.3~f"),
            ([1e8, 2e8], False, ",.0~f"),
            ([0.0, 0.0], False, ",.4~f"),
        ],
    )
    def test_the_pointer_is_told_digits_that_differ(
        self, values: list[float], percent: bool, written: str
    ) -> None:
        made = description(Lines(series={"a": pd.Series(values)}, percent=percent, **TOLD))
        assert made["traces"][0]["hovertemplate"] == f"%{{y:{written}}}"


class TestBars:
    def test_intervals_are_lengths_from_the_bar(self) -> None:
        values = pd.DataFrame({"s": [0.5, 0.6]}, index=["x", "y"])
        made = description(Bars(values=values, low=values - 0.1, high=values + 0.2, **TOLD))
        ends = made["traces"][0]["error_y"]
        np.testing.assert_allclose(numbers(ends["array"]), 0.2, rtol=1e-6)
        np.testing.assert_allclose(numbers(ends["arrayminus"]), 0.1, rtol=1e-6)
        np.testing.assert_allclose(
            numbers(made["traces"][0]["customdata"]), [[0.4, 0.7], [0.5, 0.8]], rtol=1e-6
        )

    def test_bars_of_a_waterfall_begin_where_they_are_told(self) -> None:
        values = pd.DataFrame({"whole": [0.5, np.nan], "part": [np.nan, 0.1]}, index=["x", "y"])
        made = description(Bars(values=values, start=pd.DataFrame(0.2, ["x", "y"], values.columns), **TOLD))
        np.testing.assert_allclose(numbers(made["traces"][1]["base"]), 0.2, rtol=1e-6)
        assert made["layout"]["barmode"] == "overlay"

    def test_lying_bars_change_the_axes_and_have_room(self) -> None:
        values = pd.DataFrame({"s": np.arange(40.0)}, index=[f"stock {k}" for k in range(40)])
        chart = Bars(values=values, horizontal=True, ylabel="share", percent=True, **TOLD)
        made = description(chart)
        assert made["axes"][0]["text"][0] == "stock 0"
        assert made["layout"]["xaxis"]["title"]["text"] == "share"
        assert made["layout"]["xaxis"]["tickformat"] == ".2~%"
        assert made["layout"]["yaxis"]["type"] == "category"
        assert made["layout"]["yaxis"]["autorange"] == "reversed"
        assert int(re.findall(r"height:(\d+)px", fragment("c", chart))[0]) >= 800


class TestHeatmap:
    def test_of_many_columns_the_colours_stand_alone(self) -> None:
        few, many = (Heatmap(values=pd.DataFrame(np.eye(size)), **TOLD) for size in (CROWDED, CROWDED + 1))
        assert "texttemplate" in description(few)["traces"][0]
        assert "texttemplate" not in description(many)["traces"][0]
        assert description(many)["traces"][0]["xgap"] == 0

    def test_zero_is_the_middle(self) -> None:
        values = pd.DataFrame([[0.1, -0.4], [np.nan, 0.2]])
        trace = description(Heatmap(values=values, percent=True, **TOLD))["traces"][0]
        np.testing.assert_allclose(numbers(trace["z"]), values, rtol=1e-6)
        assert (trace["zmin"], trace["zmax"]) == (-0.4, 0.4)
        assert trace["texttemplate"] == "%{z:.1%}"

    def test_nothing_but_gaps(self) -> None:
        trace = description(Heatmap(values=pd.DataFrame([[np.nan]]), **TOLD))["traces"][0]
        assert (trace["zmin"], trace["zmax"]) == (-1, 1)


class TestHistogram:
    def test_counts_are_numpys(self) -> None:
        sample = np.random.default_rng(0).normal(size=300)
        made = description(Histogram(samples={"s": np.r_[sample, np.nan]}, bins=20, **TOLD))
        count, edges = np.histogram(sample, bins=20)
        np.testing.assert_array_equal(numbers(made["traces"][0]["y"]), count)
        np.testing.assert_allclose(
            numbers(made["axes"][0]), (edges[1:] + edges[:-1]) / 2, rtol=1e-5, atol=1e-6
        )

    @pytest.mark.parametrize("sample", [[], [np.nan], [2.0, 2.0]])
    def test_samples_without_a_spread(self, sample: list[float]) -> None:
        made = description(Histogram(samples={"s": np.array(sample)}, **TOLD))
        assert numbers(made["traces"][0]["y"]).sum() == np.isfinite(sample).sum()


class TestPoints:
    def test_the_diagonal_spans_both_axes(self) -> None:
        table = pd.DataFrame({"x": [0.0, 1.0], "y": [-1.0, 3.0]})
        (line,) = description(Points(series={"p": table}, diagonal=True, **TOLD))["layout"]["shapes"]
        assert (line["x0"], line["y1"]) == (-1, 3)


class TestConstantLines:
    def test_a_small_constant_is_told_from_zero(self) -> None:
        decay = Lines(alt="a", caption="c", series={"decay": pd.Series([3e-4, 3e-4])})
        assert description(decay)["layout"]["yaxis"]["range"] == [0.0, 6e-4]

    def test_what_moves_chooses_its_own_axis(self) -> None:
        moving = Lines(alt="a", caption="c", series={"decay": pd.Series([3e-4, 4e-4])})
        assert "range" not in description(moving)["layout"]["yaxis"]
