"""The report as its readers see it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.report import html, standard
from qlib_ext.report.charts import Bars, Heatmap, Histogram, Lines, Points
from qlib_ext.report.document import Document
from qlib_ext.report.page import Part, page
from qlib_ext.report.sections.base import shown
from tests.report.conftest import MadeUpRun

EVIL = "</script><script>alert(2)</script><img src=x onerror=alert(1)><b>bold</b>&amp; \"' onload=alert(3) <!-- ]]>"


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every kind of chart and every option, and names that are HTML."""
    file = tmp_path_factory.mktemp("kinds") / "page.html"
    file.write_text(page("Kinds", EVIL, [Part("Charts", "".join(shown(*pair) for pair in kinds().items()))]))
    return file


def kinds() -> dict[str, Any]:
    days = pd.bdate_range("2020-01-01", periods=300)
    draw = np.random.default_rng(2)
    growth = pd.Series(np.cumprod(1 + draw.normal(0, 0.01, 300)), days)
    told = {"alt": EVIL, "caption": EVIL}
    table = pd.DataFrame(draw.normal(0, 0.02, (3, 12)), index=[2019, 2020, EVIL])
    return {
        "lines": Lines(
            series={EVIL: growth, "other": growth * 1.1, "third": growth * 0.9},
            bands={EVIL: (growth * 0.95, growth * 1.05)},
            marks={EVIL: days[100]},
            levels={EVIL: 1.0},
            hidden=["third"],
            log_choice=True,
            **told,
        ),
        "stacked": Lines(
            series={"a": growth * 0 + 0.4, "b": growth * 0 + 0.6}, stacked=True, percent=True, **told
        ),
        "epochs": Lines(series={"x": pd.Series([0.0005, np.nan, 0.0007, 0.0006])}, marks={"kept": 2}, **told),
        "bars": Bars(
            values=table.T,
            low=table.T - 0.01,
            high=table.T + 0.01,
            levels={"zero": 0.0},
            percent=True,
            **told,
        ),
        "lying": Bars(values=table[[0]], horizontal=True, **told),
        "heatmap": Heatmap(values=table, percent=True, **told),
        "histogram": Histogram(samples={EVIL: draw.normal(size=500)}, marks={"mean": 0.0}, **told),
        "points": Points(
            series={"p": pd.DataFrame({"x": [0.1, 0.2], "y": [0.2, 0.1], "text": [EVIL, "b"]})},
            diagonal=True,
            **told,
        ),
    }


def check_every_chart(opened: Any) -> None:
    """All are drawn, with data, as wide as their place."""
    for chart in opened.charts():
        assert chart["drawn"], chart
        assert sum(chart["values"]) > 0, chart
        assert chart["marks"] > 0, chart
        assert chart["svg"] == pytest.approx(chart["width"], abs=2), chart


CUT = """[...document.querySelectorAll('.table')].filter((box) => box.scrollWidth > box.clientWidth + 1
    || [...box.querySelectorAll('tbody th, td')].some((cell) => cell.scrollWidth > cell.clientWidth + 1
        || cell.getBoundingClientRect().right > innerWidth)).map((box) => box.textContent.slice(0, 80))"""
"""Tables, or cells of them, that are wider than their place."""


class TestRealRun:
    """In one window from test to test, as a reader goes through it."""

    @pytest.fixture(scope="class")
    def opened(self, visit: Callable[..., Any], real_report: Path) -> Any:
        return visit(real_report)

    def test_only_what_is_in_view_is_drawn_at_first(self, opened: Any) -> None:
        opened.page.locator("figure.chart").first.scroll_into_view_if_needed()
        opened.page.wait_for_selector("figure.chart[data-drawn]")
        drawn = [chart["drawn"] for chart in opened.charts()]
        assert drawn[0]
        assert not all(drawn)

    def test_the_account_is_on_the_first_screen(self, opened: Any) -> None:
        first = opened.page.locator("figure.chart").first
        assert first.get_attribute("id") == "chart-account"
        assert first.bounding_box()["y"] < 700
        assert opened.evaluate("document.documentElement.scrollHeight") < 7000

    def test_what_is_folded_opens_by_a_key_and_is_drawn(self, opened: Any) -> None:
        fold = opened.page.locator("section[id$=drawdown] > details")
        assert fold.get_attribute("open") is None
        fold.locator("summary").first.focus()
        opened.page.keyboard.press("Enter")
        opened.until("document.querySelector('#chart-drawdown').dataset.drawn === 'yes'")
        assert opened.page.get_by_role("heading", name="Drawdown", level=2).is_visible()

    def test_a_link_of_the_contents_opens_its_section_and_leads_to_it(self, opened: Any) -> None:
        assert not opened.evaluate("document.querySelector('section[id$=provenance] > details').open")
        link = opened.page.get_by_role("navigation").get_by_role("link", name="Provenance")
        link.focus()
        opened.page.keyboard.press("Enter")
        opened.until("location.hash.includes('provenance')")
        opened.until("document.querySelector('section[id$=provenance]').getBoundingClientRect().top < 50")
        assert opened.evaluate("document.querySelector('section[id$=provenance] > details').open")

    def test_the_contents_stay_in_view_and_say_what_is_read(self, opened: Any) -> None:
        current = "[...document.querySelectorAll('nav a[aria-current]')].map((link) => link.textContent)"
        for where, name in (("0", "Summary"), ("document.body.scrollHeight", "Provenance")):
            opened.evaluate(f"scrollTo(0, {where})")
            opened.until(f"{current}.join() === '{name}'")
            box = opened.page.get_by_role("navigation").get_by_role("link", name="Summary").bounding_box()
            assert 0 <= box["y"] < 200

    def test_all_sections_unfold_and_fold(self, opened: Any) -> None:
        folded = "document.querySelectorAll('section > details:not([open])').length"
        press = opened.page.locator("nav .all")
        press.click()
        opened.until(f"{folded} === 0")
        opened.until("document.querySelector('nav .all').textContent === 'Fold all'")
        press.click()
        opened.until(f"{folded} === document.querySelectorAll('section').length")

    def test_paper_has_what_is_folded(self, opened: Any) -> None:
        folded = "document.querySelectorAll('main details:not([open])').length"
        before = opened.evaluate(folded)
        opened.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert opened.evaluate(folded) == 0
        opened.until("[...document.querySelectorAll('figure.chart')].every((c) => c.dataset.drawn === 'yes')")
        opened.evaluate("dispatchEvent(new Event('afterprint'))")
        assert opened.evaluate(folded) == before > 0

    @pytest.mark.parametrize("width", [390, 720, 1000, 1400])
    def test_no_table_is_cut(self, opened: Any, width: int) -> None:
        opened.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
        opened.page.set_viewport_size({"width": width, "height": 900})
        opened.until(f"innerWidth === {width} && document.querySelectorAll('.table').length > 30")
        assert opened.evaluate(CUT) == []
        assert opened.overflow() <= 0
        opened.page.set_viewport_size({"width": 1280, "height": 900})

    def test_on_a_telephone_the_contents_fold(self, visit: Callable[..., Any], real_report: Path) -> None:
        opened = visit(real_report, width=390, height=844, has_touch=True)
        assert opened.page.locator("figure.chart").first.bounding_box()["y"] < 1000
        contents = opened.page.locator("nav summary")
        link = opened.page.get_by_role("navigation").get_by_role("link", name="Capacity")
        assert not link.is_visible()
        contents.tap()
        link.tap()
        opened.until("location.hash.includes('capacity')")
        opened.until("document.querySelector('section[id$=capacity] > details').open")
        opened.until(
            "Math.abs(document.querySelector('section[id$=capacity]').getBoundingClientRect().top) < 80"
        )
        assert not link.is_visible()
        assert contents.bounding_box()["y"] < 20  # the bar stays
        opened.check_quiet()

    def test_it_opens_alone_and_every_chart_has_data(self, opened: Any) -> None:
        opened.draw_all()
        assert len(opened.charts()) >= 10
        check_every_chart(opened)
        titles = opened.page.locator("h2").all_inner_texts()
        assert titles[0] == "Summary"
        assert titles[-1] == "Provenance"
        assert opened.overflow() <= 0
        opened.check_quiet()

    def test_on_paper_the_charts_have_the_width_of_the_sheet(self, opened: Any, tmp_path: Path) -> None:
        widest = "Math.max(...[...document.querySelectorAll('.plot .main-svg')].map((s) => s.getBoundingClientRect().width))"
        assert opened.evaluate(widest) > 700
        opened.page.emulate_media(media="print")
        opened.until(f"{widest} <= 681")
        opened.page.pdf(path=str(tmp_path / "report.pdf"), format="A4")
        assert (tmp_path / "report.pdf").stat().st_size > 50_000
        opened.page.emulate_media(media="screen")
        opened.until(f"{widest} > 700")
        check_every_chart(opened)
        opened.check_quiet()

    def test_before_printing_all_charts_are_drawn_on_a_narrow_screen_too(
        self, visit: Callable[..., Any], real_report: Path
    ) -> None:
        opened = visit(real_report, width=360, height=740, has_touch=True)
        opened.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        opened.until(
            "[...document.querySelectorAll('figure.chart')].every((chart) => chart.dataset.drawn === 'yes')"
        )
        opened.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert opened.evaluate("document.querySelectorAll('section > details:not([open])').length") > 5
        opened.until(
            "[...document.querySelectorAll('.plot .main-svg')].every((s) => s.getBoundingClientRect().width <= 360)"
        )
        assert opened.overflow() <= 0
        opened.page.set_viewport_size({"width": 820, "height": 740})
        opened.evaluate("document.querySelectorAll('main details').forEach((fold) => { fold.open = true; })")
        opened.until(
            "[...document.querySelectorAll('.plot')].every((plot) => Math.abs(plot.getBoundingClientRect().width"
            " - plot.querySelector('.main-svg').getBoundingClientRect().width) < 2)"
        )
        assert opened.overflow() <= 0
        opened.check_quiet()

    def test_without_scripts_it_says_so_and_keeps_its_tables(
        self, visit: Callable[..., Any], real_report: Path
    ) -> None:
        opened = visit(real_report, java_script_enabled=False)
        assert opened.page.locator("noscript .notice").is_visible()
        assert opened.page.locator("table").count() > 30
        opened.page.get_by_role("link", name="Provenance").click()
        fold = opened.page.locator("section[id$=provenance] > details")
        fold.locator("summary").first.click()
        assert fold.locator("table").first.is_visible()


class TestTables:
    def test_what_is_too_wide_for_any_screen_scrolls_in_its_box(
        self, visit: Callable[..., Any], tmp_path: Path
    ) -> None:
        header = ["Stock", *(f"Column{k}" for k in range(60))]
        wide = html.table(header, [[f"{k}.12345678" for k in range(61)]], numbers=range(1, 61))
        long = html.table(["Name", "What"], [["x" * 300, "y" * 300]])
        (tmp_path / "page.html").write_text(page("Wide", "", [Part("Tables", wide + long)]))
        opened = visit(tmp_path / "page.html", width=1400)
        assert opened.overflow() <= 0
        assert [cut[:5] for cut in opened.evaluate(CUT)] == ["Stock"]
        assert "gradient" in opened.evaluate(
            "getComputedStyle(document.querySelector('.table')).backgroundImage"
        )
        opened.page.set_viewport_size({"width": 390, "height": 900})
        opened.until(f"{CUT}.length === 0")  # as cards
        assert opened.overflow() <= 0
        told = "getComputedStyle(document.querySelectorAll('td')[3], '::before').content"
        assert opened.evaluate(told) == '"Column3"'


class TestCharts:
    @pytest.fixture(scope="class")
    def opened(self, visit: Callable[..., Any], every_kind: Path) -> Any:
        opened = visit(every_kind)
        opened.draw_all()
        return opened

    def test_every_kind_is_drawn(self, opened: Any) -> None:
        check_every_chart(opened)
        opened.check_quiet()

    def test_names_with_html_stay_text(self, opened: Any) -> None:
        assert opened.page.locator("img").count() == 0
        assert opened.page.locator("b").count() == 0
        legend = opened.page.locator("#chart-lines .legend button").first.inner_text()
        assert legend.strip() == EVIL
        # in plotly's own texts too, where a little HTML is markup
        opened.page.locator("#chart-points .point").first.hover(force=True)
        opened.page.wait_for_selector("#chart-points .hoverlayer text")
        assert EVIL in opened.page.locator("#chart-points .hoverlayer").text_content()
        assert EVIL in opened.page.locator("#chart-heatmap .plot").text_content()
        opened.check_quiet()

    def test_a_click_in_the_legend_switches_a_line_with_its_band(self, opened: Any) -> None:
        def visible() -> list[bool]:
            return opened.evaluate(
                "document.querySelector('#chart-lines .plot')._fullData.map((t) => t.visible)"
            )

        switches = opened.page.locator("#chart-lines .legend button")
        assert visible() == [
            True,
            True,
            True,
            True,
            False,
        ]  # a band is two traces, and the third line is hidden
        switches.nth(0).click()
        assert visible() == [False, False, False, True, False]
        assert switches.nth(0).get_attribute("aria-pressed") == "false"
        switches.nth(2).focus()
        opened.page.keyboard.press("Space")
        assert visible() == [False, False, False, True, True]
        switches.nth(0).dblclick()
        assert visible() == [True, True, True, False, False]
        switches.nth(0).dblclick()
        assert visible() == [True] * 5
        opened.check_quiet()

    def test_the_axis_can_be_logarithmic(self, opened: Any) -> None:
        def kind() -> str:
            return opened.evaluate("document.querySelector('#chart-lines .plot')._fullLayout.yaxis.type")

        press = opened.page.locator("#chart-lines .log")
        assert kind() == "linear"
        press.click()
        assert kind() == "log"
        press.click()
        assert kind() == "linear"
        assert opened.page.locator(".log").count() == 1
        opened.check_quiet()

    def test_a_chart_is_zoomed_and_reset(self, opened: Any) -> None:
        seen = "document.querySelector('#chart-stacked .plot')._fullLayout.xaxis.range"
        whole = opened.evaluate(seen)
        area = opened.page.locator("#chart-stacked .nsewdrag")
        area.scroll_into_view_if_needed()
        box, mouse = area.bounding_box(), opened.page.mouse
        middle = box["y"] + box["height"] / 2
        mouse.move(box["x"] + 100, middle)
        mouse.down()
        mouse.move(box["x"] + 300, middle, steps=4)
        mouse.up()
        opened.until(f"{seen}[0] !== {whole[0]!r}")
        low, high = (pd.Timestamp(end) for end in opened.evaluate(seen))
        assert pd.Timestamp(whole[0]) < low < high < pd.Timestamp(whole[1])
        mouse.dblclick(box["x"] + 200, middle)
        opened.until(f"{seen}[0] === {whole[0]!r}")
        opened.check_quiet()

    def test_the_pointer_is_told_day_and_value(self, opened: Any) -> None:
        opened.page.locator("#chart-stacked .nsewdrag").hover()
        opened.page.wait_for_selector("#chart-stacked .hoverlayer text")
        told = opened.page.locator("#chart-stacked .hoverlayer").text_content()
        assert re.search(r"2020-\d\d-\d\d|2021-\d\d-\d\d", told)
        assert "40.00%" in told

    def test_a_script_that_is_not_ours_does_not_run(
        self, visit: Callable[..., Any], every_kind: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "page.html"
        evil = (
            "<main><script>alert(1)</script><img src=x onerror=alert(2)><img src='http://localhost:9/y.png'>"
        )
        file.write_text(every_kind.read_text().replace("<main>", evil))
        opened = visit(file)
        opened.page.wait_for_selector("figure.chart[data-drawn]")
        assert opened.alerts == []
        assert sum("Content Security Policy" in error for error in opened.errors) >= 3

    def test_an_old_browser_is_told(self, browser: Any, every_kind: Path) -> None:
        context = browser.new_context()
        context.add_init_script("delete window.DecompressionStream")
        page = context.new_page()
        page.goto(every_kind.as_uri())
        page.evaluate("window.drawAllCharts()")
        assert "too old to draw the charts" in page.locator("#chart-lines .plot").inner_text()
        context.close()


class TestSizes:
    @pytest.mark.parametrize(("days", "epochs"), [(3, 1), (1000, 41)])
    def test_short_and_long_runs(
        self, visit: Callable[..., Any], tmp_path: Path, days: int, epochs: int
    ) -> None:
        run = MadeUpRun(tmp_path / "run", days=days, epochs=epochs)
        there = {path.relative_to(run.root).as_posix() for path in run.root.rglob("*") if path.is_file()}
        sections, _ = standard.fed(standard.sections(), there)
        file = tmp_path / "report.html"
        file.write_text(Document(sections).render(run.view()), encoding="utf-8")
        assert file.stat().st_size < 6e6
        opened = visit(file)
        opened.draw_all()
        check_every_chart(opened)
        opened.check_quiet()
