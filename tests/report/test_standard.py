from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.records.makers import makers
from qlib_ext.report import standard
from qlib_ext.report.charts import Bars, Lines
from qlib_ext.report.document import Document
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.report.standard import folder_name

DOCS = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")


class TestSections:
    def test_all_build_with_titles_of_their_own(self) -> None:
        titles = [section.title for section in standard.sections()]
        assert len({*titles}) == len(titles) == 30
        assert len({section.place for section in standard.sections()}) == len(titles)
        assert titles[0] == "Summary"
        assert titles[-1] == "Provenance"

    def test_what_they_read_is_written_by_somebody(self) -> None:
        for path in Document(standard.sections()).reads:
            assert path in makers(), path

    def test_the_docs_tell_of_each_in_the_order_of_the_page(self) -> None:
        told = re.findall(r"^\| ([A-Z][\w ]+) \| ([^|]+) \| ", DOCS, flags=re.MULTILINE)
        assert told == [(section.title, section.answers) for section in standard.sections()]

    def test_what_a_reader_needs_first_starts_open(self) -> None:
        assert [section.title for section in standard.sections() if section.open] == [
            "Summary",
            "Cumulative return",
        ]


class TestFed:
    class Needs(Section):
        title = "Needs"
        requires = ("a", "b")
        optional = ("c",)

        def render(self, run: Any) -> str:
            return ""

    def test_kept_where_all_that_it_requires_is_there(self) -> None:
        section = self.Needs()
        assert standard.fed([section], {"a", "b"}) == ([section], ())

    def test_left_out_with_what_is_missing(self) -> None:
        kept, left_out = standard.fed([self.Needs()], {"a", "c"})
        assert kept == []
        assert [(part.title, part.missing) for part in left_out] == [("Needs", ("b",))]

    def test_one_that_was_asked_for_stays(self) -> None:
        section = self.Needs()
        assert standard.fed([section], set(), always=[section]) == ([section], ())


class TestPage:
    def test_a_folder_is_called_by_experiment_and_run(self, made: Any) -> None:
        assert folder_name(made.view(experiment="a/b c")) == "a-b-c-3f1c0a9e"
        long = folder_name(made.view(experiment="x" * 300))
        assert len(long) == 109
        assert long.startswith("xxxx")
        assert long.endswith("-3f1c0a9e")

    def test_forty_five_charts_of_a_thousand_days_fit_into_six_megabytes(self, made: Any) -> None:
        days = pd.bdate_range("2017-01-02", periods=1000)
        draw = np.random.default_rng(0)
        stocks = pd.DataFrame({"a": draw.normal(size=300)}, index=[f"SH{600000 + k}" for k in range(300)])

        class Large(Section):
            title = "Large"

            def render(self, run: Any) -> str:
                lines = {
                    f"l{k}": Lines(
                        series={f"s{j}": pd.Series(draw.normal(size=1000), days) for j in range(6)},
                        alt="",
                        caption="",
                    )
                    for k in range(40)
                }
                bars = {f"b{k}": Bars(values=stocks, alt="", caption="") for k in range(5)}
                return "".join(shown(name, chart) for name, chart in (lines | bars).items())

        assert len(Document([Large()]).render(made.view()).encode()) < 6e6
