"""The page of a scorecard, and its sentences."""

from __future__ import annotations

import dataclasses
import re

import pytest

from qlib_ext.factors.charts import charts
from qlib_ext.factors.page import render
from qlib_ext.factors.scorecard import Scorecard
from qlib_ext.factors.words import alarms, remarks, summary
from tests.factors.conftest import FACTORS


@pytest.fixture(scope="module")
def page(found: Scorecard) -> str:
    return render(found)


class TestPage:
    def test_it_has_each_part_and_each_factor(self, page: str) -> None:
        headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", page)
        assert headings == [
            "Summary",
            "What they foretell",
            "Decay and turnover",
            "Year by year",
            "Exposures",
            "Noise",
            "Diversity",
            "Formulas",
            "Provenance",
        ]
        for name in FACTORS:
            assert f">{name}</th>" in page

    def test_look_ahead_is_in_a_box_and_in_no_list_of_the_best(self, page: str) -> None:
        assert '<div class="box" role="note"><h3>LOOK-AHEAD</h3>' in page
        before, formulas = page.split(">Formulas</h2>")
        assert ">AHEAD</th>" in formulas
        assert ">AHEAD</th>" not in before

    def test_every_chart_is_in_it(self, found: Scorecard, page: str) -> None:
        names = [*charts(found)]
        assert names == ["rank_ic", "years", "decay", "exposures", "correlation"]
        for name in names:
            assert page.count(f'id="chart-{name}"') == 1

    def test_names_are_text(self, found: Scorecard) -> None:
        evil = "<script>alert(1)</script>"
        other = dataclasses.replace(
            found,
            table=found.table.rename(index={"CANDLE": evil}),
            years=found.years.rename(index={"CANDLE": evil}),
            decay=found.decay.rename(index={"CANDLE": evil}),
            correlation=found.correlation.rename(index={"CANDLE": evil}, columns={"CANDLE": evil}),
        )
        assert evil not in render(other)

    def test_a_test_segment_that_was_read_is_said_first(self, found: Scorecard) -> None:
        other = dataclasses.replace(
            found, test_was_read=True, notes=["the segment `test` was read: choose nothing", *found.notes]
        )
        assert "<h3>The test segment was read</h3>" in render(other)

    def test_where_nothing_was_measured(self, found: Scorecard) -> None:
        table = found.table.assign(place=0, expression="", noise_correlation=float("nan"))
        page = render(dataclasses.replace(found, table=table, correlation=found.correlation.iloc[:1, :1]))
        assert "No factor could be measured." in page
        assert "Noise was not tried" in page
        assert "The factors came without formulas." in page


def test_the_summary_counts_what_was_tried(found: Scorecard) -> None:
    first, second, third = summary(found)
    assert "could not be measured" not in first
    table = found.table.assign(place=found.table["place"].where(found.table.index != "CANDLE", 0))
    told = next(summary(dataclasses.replace(found, table=table)))
    assert "(CANDLE could not be measured: no values, or the same for all stocks)" in told
    assert first.startswith("6 factors were tried (1 with look-ahead, which count")
    assert f"; {found.tell} foretell the label by q of at most 5%" in first
    assert f"The surest is {found.best.index[0]} with |t| = " in second
    assert f"about {found.luckiest:.1f}" in second
    assert f"as diverse as {found.effective_number:.1f} independent ones" in third


def test_what_a_set_says_of_all_its_features_is_an_alarm_too(found: Scorecard) -> None:
    said = "LOOK-AHEAD: missing bars are interpolated"
    other = dataclasses.replace(found, notes=[*found.notes, said])
    assert [*alarms(found)] == [f"AHEAD: {found.ahead['look_ahead'].iloc[0]}"]
    assert [*alarms(other)] == [*alarms(found), "missing bars are interpolated"]
    assert [*remarks(other)] == [*remarks(found)]
    assert not any("LOOK-AHEAD" in remark for remark in remarks(found))
