from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from qlib_ext.checks import UserError
from qlib_ext.report import html
from qlib_ext.report.document import Document
from qlib_ext.report.page import Part
from qlib_ext.report.page import page as page_of
from qlib_ext.report.sections.base import Section
from qlib_ext.report.sections.cumulative_return import CumulativeReturn
from qlib_ext.report.sections.drawdown import Drawdown
from qlib_ext.report.sections.information_coefficient import InformationCoefficient
from qlib_ext.report.sections.precision import Precision
from qlib_ext.report.sections.provenance import Provenance
from qlib_ext.report.sections.summary import Summary
from qlib_ext.report.sections.training import Training
from qlib_ext.tracking.artifacts import RunArtifacts

ALL = [Summary, CumulativeReturn, Drawdown, InformationCoefficient, Precision, Training, Provenance]
VOID = {"meta", "link", "img", "br", "hr"}


class Reader(HTMLParser):
    """Reads a page, and holds that every element is closed in its order."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def document() -> Document:
    return Document([section() for section in ALL])


def drawn(made: Any) -> int:
    """How many charts the sections describe."""
    return sum(len(section().charts(made.view())) for section in ALL)


@pytest.fixture(scope="module")
def page(made: Any) -> str:
    return document().render(made.view())


class TestPage:
    def test_it_is_one_whole_page(self, page: str) -> None:
        read = Reader(page)
        assert page.startswith("<!DOCTYPE html>")
        headings = [section.title for section in ALL]
        assert re.findall(r"<h2 [^>]*>([^<]*)</h2>", page) == headings
        targets = {attrs["href"] for tag, attrs in read.elements if tag == "a"}
        anchors = {f"#{attrs['id']}" for tag, attrs in read.elements if tag == "section"}
        assert targets == anchors
        assert len(anchors) == len(ALL)

    def test_it_asks_the_network_for_nothing(self, page: str) -> None:
        read = Reader(page)
        assert not {"iframe", "object", "embed", "form"} & {tag for tag, _ in read.elements}
        for tag, attrs in read.elements:
            for name in ("src", "href", "srcset", "action", "data"):
                if attrs.get(name):
                    assert str(attrs[name]).startswith(("data:", "#")), f"{tag} {name}"
        written = re.sub(r'<script type="text/plain" id="library">[\w+/=]+</script>', "", page)
        assert len(written) < len(page)
        assert not re.search(r"https?://|url\(|@import", written)

    def test_it_runs_its_own_scripts_and_no_others(self, page: str) -> None:
        (policy,) = [str(attrs["content"]) for _, attrs in Reader(page).elements if "http-equiv" in attrs]
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        assert rules["default-src"] == "'none'"
        assert "unsafe" not in rules["script-src"]
        own = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
        assert len(own) == 2  # of the page and of its charts
        (packed,) = re.findall(r'id="library">([^<]+)<', page)
        library = gzip.decompress(base64.b64decode(packed))
        assert b"plotly.js v" in library[:200]
        hashes = [
            f"'sha256-{base64.b64encode(hashlib.sha256(code).digest()).decode()}'"
            for code in (library, *(code.encode() for code in own))
        ]
        assert {*rules["script-src"].split()} == {*hashes}

    def test_every_chart_is_described(self, page: str, made: Any) -> None:
        charts = [attrs for tag, attrs in Reader(page).elements if attrs.get("class") == "chart"]
        assert len(charts) == drawn(made) >= 17
        assert all(attrs["aria-label"] for attrs in charts)
        assert len({attrs["id"] for attrs in charts}) == len(charts)
        for described in re.findall(r'<script type="application/json">(.*?)</script>', page):
            assert json.loads(described)["traces"]

    def test_it_is_small_enough_to_mail(self, page: str) -> None:
        assert len(page) < 2.5e6

    def test_the_same_run_gives_the_same_bytes(self, made: Any, page: str) -> None:
        assert document().render(made.view()) == page

    def test_it_is_told_for_which_run_it_is(self, page: str) -> None:
        text = Reader(page).text
        for fact in (
            "mimstocr_csi300",
            "run 3f1c0a9e of 2026-03-02 10:15",
            "test 2017-01-03 to 2020-12-31",
            "qrun workflows/mimstocr_csi300.yaml",
            "9c1185a5c5e9fc54",
            "5f0c1d7",
            "qlib_ext.model.balancers.cqb.CQB",
            "The store has no `vwap`",
            "338,211",
        ):
            assert fact in text


class TestFolding:
    def test_what_says_so_or_has_a_box_starts_open(self) -> None:
        box = html.box("Look", "")
        made = page_of(
            "x", "", [Part("a", ""), Part("b", "", open=False), Part("c", box, open=False, answers="Why?")]
        )
        assert re.findall(r"<details( open)?><summary><h2 [^>]*>(\w)<", made) == [
            (" open", "a"),
            ("", "b"),
            (" open", "c"),
        ]
        assert '</h2><span class="answers">Why?</span></summary>' in made

    def test_a_page_of_one_part_is_open_and_needs_no_contents(self) -> None:
        made = page_of("x", "", [Part("a", "", open=False)])
        assert "<details open>" in made
        assert "<nav" not in made
        assert "<script" not in made


class TestNames:
    """Whatever a user calls things stays text."""

    EVIL = "<script>alert('x')</script> & \"<b>\" $x$ <img src=x onerror=alert(1)>"

    def test_names_with_html_stay_text(self, make: Callable[..., Any]) -> None:
        run = make(days=30, epochs=3)
        evil = self.EVIL
        for path, old in (
            ("data/summary.json", "csi300"),
            ("ranking/summary.csv", "NEXT_RETURN"),
            ("backtest/setup.json", "SH000300"),
            ("environment.json", "Linux"),
        ):
            file = run.root / path
            new = evil.replace('"', '""') if path.endswith("csv") else evil.replace('"', '\\"')
            quoted = f'"{new}"' if path.endswith("csv") else new
            file.write_text(file.read_text().replace(old, quoted))
        (run.root / "config.yaml").write_text(evil)
        daily = run.view().table("ranking/daily.parquet")
        run.put("ranking/daily.parquet", daily.rename(columns=lambda name: name.replace("NEXT_RETURN", evil)))
        history = run.view().table("training/history.parquet")
        run.put(
            "training/history.parquet", history.rename(columns=lambda name: name.replace("momentum", evil))
        )
        for path in ("backtest/positions.parquet", "backtest/orders.parquet"):
            if run.view().has(path):  # every stock has a name of HTML, as a store of somebody else's could
                table = run.view().table(path)
                codes = table.index.get_level_values("instrument").unique() if path.count("positions") else []
                run.put(path, table.rename(index={code: f"{evil}{k}" for k, code in enumerate(codes)}))
        page = document().render(run.view(experiment=evil, command=evil, run_id=evil))
        read = Reader(page)
        assert "<script>alert" not in page
        assert "img" not in {tag for tag, _ in read.elements}
        assert all("onerror" not in attrs for _, attrs in read.elements)
        assert read.text.count("<script>alert('x')</script>") >= 6

    @pytest.mark.parametrize("source", ["https://example.org/x.png", "x.png", 'data:text/html,"'])
    def test_a_picture_must_be_in_the_page(self, source: str) -> None:
        with pytest.raises(ValueError, match=r"must be a data URI"):
            html.picture(source, alt="", caption="")


class TestSizes:
    @pytest.mark.parametrize(("days", "epochs"), [(3, 1), (60, 2)])
    def test_short_and_long_runs(self, make: Callable[..., Any], days: int, epochs: int) -> None:
        page = document().render(make(days=days, epochs=epochs).view())
        assert f"{epochs} epoch" in Reader(page).text


class TestMissing:
    def test_what_is_missing_and_who_writes_it_are_named(self, make: Callable[..., Any]) -> None:
        run = make(days=5, epochs=1)
        (run.root / "backtest/series.parquet").unlink()
        with pytest.raises(
            UserError,
            match=r"the report's section `Drawdown` needs artifacts that this run does not have: "
            "`backtest/series.parquet`, written by qlib_ext.records.backtest.BacktestRecord",
        ):
            Document([Drawdown()]).render(run.view())

    @pytest.mark.parametrize("content", ["[]", "null", "{}", '{"segments": "many", "start": 7}', "[" * 9999])
    @pytest.mark.parametrize("path", ["backtest/setup.json", "data/summary.json"])
    def test_what_no_version_writes_is_one_sentence(
        self, make: Callable[..., Any], path: str, content: str
    ) -> None:
        run = make(days=5, epochs=1)
        (run.root / path).write_text(content)
        with pytest.raises(UserError, match=f"`{path}`.*again by a run of the workflow") as caught:
            document().render(run.view())
        assert "\n" not in str(caught.value)

    def test_what_goes_wrong_in_a_user_s_own_section_is_shown_as_it_is(
        self, make: Callable[..., Any]
    ) -> None:
        class Mine(Section):
            title = "Mine"

            def render(self, run: Any) -> str:
                raise KeyError("of my own")

        with pytest.raises(KeyError, match="of my own"):
            Document([Mine()]).render(make(days=5, epochs=1).view())

    def test_a_metric_that_was_not_logged(self, make: Callable[..., Any]) -> None:
        run = make(days=5, epochs=1)
        del run.metrics["base_rate"]
        with pytest.raises(UserError, match="the run has no metric `base_rate`; it has IC, ICIR, "):
            Document([Summary()]).render(run.view())

    def test_no_section(self) -> None:
        with pytest.raises(UserError, match="`sections` must name at least one section"):
            Document([])

    def test_a_section_of_an_artifact_of_ones_own(self, make: Callable[..., Any]) -> None:
        class Rain(Section):
            title = "Rain"
            requires = ("weather/rain.csv",)

            def render(self, run: Any) -> str:
                return f"<p>{run.table('weather/rain.csv')['mm'].sum()} mm</p>"

        run = make(days=5, epochs=1).view()
        with pytest.raises(UserError, match=r"`weather/rain.csv`, written by no record that is known"):
            Document([Rain()]).render(run)
        (run.root / "weather").mkdir()
        (run.root / "weather" / "rain.csv").write_text("day,mm\n1,2\n2,3\n")
        assert "<p>5 mm</p>" in Document([Rain()]).render(run)


class TestPictures:
    def test_png_beside_the_page(self, made: Any) -> None:
        pictures = document().pictures(made.view())
        names = {name.partition("-")[0].removesuffix(".png") for name in pictures}
        assert names >= {
            "cumulative_return",
            "excess_return",
            "drawdown",
            "information_coefficient",
            "precision",
        }
        assert len(pictures) == drawn(made)
        assert all(content.startswith(b"\x89PNG") for content in pictures.values())

    def test_two_of_a_name_are_refused(self, made: Any) -> None:
        with pytest.raises(UserError, match="two sections draw a chart `drawdown`"):
            Document([Drawdown(), Drawdown()]).pictures(made.view())


def test_a_section_is_one_small_class(made: Any) -> None:
    class Greeting(Section):
        title = "Greeting"

        def render(self, run: RunArtifacts) -> str:
            return html.paragraph(f"IC & more: {run.metric('IC'):.2f}")

    page = Document([Greeting()]).render(made.view())
    assert "<p>IC &amp; more: 0.0" in page
