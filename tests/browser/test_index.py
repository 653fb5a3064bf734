"""The index of runs as its readers use it: sorted, filtered, grouped, on a telephone and without scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.test_report import CUT
from tests.report.index.conftest import page_of, run

EVIL = "</script><script>alert(2)</script><img src=x onerror=alert(1)>"
NAMES = "[...document.querySelectorAll('.sortable tbody tr:not(.group) th')].map((cell) => cell.textContent)"


@pytest.fixture(scope="module")
def index(visit: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Twelve runs of two methods, one with HTML for a name and one without a figure."""
    home = tmp_path_factory.mktemp("index")
    report = home / "a b" / "report.html"
    report.parent.mkdir()
    report.write_text("<title>the report</title>")
    runs = [run(k, report=report if k == 3 else None) for k in range(10)]
    runs += [run(10, EVIL, experiment=EVIL), run(11, "no figure")]
    runs[-1].metrics.pop("RankIC")  # type: ignore[attr-defined]
    return visit(page_of(home, runs, EVIL))


@pytest.fixture(autouse=True)
def anew(index: Any) -> None:
    index.page.reload()


def test_it_is_quiet_and_names_stay_text(index: Any) -> None:
    index.check_quiet()
    assert index.evaluate("document.querySelectorAll('main img').length") == 0
    assert EVIL in index.evaluate(NAMES)


def test_a_click_on_a_heading_sorts_and_another_turns_it(index: Any) -> None:
    heading = index.page.locator("thead button", has_text="RankIC")
    heading.click()
    assert index.evaluate(NAMES)[:2] == [EVIL, "run 9"]
    assert index.evaluate(NAMES)[-1] == "no figure"
    heading.click()
    assert index.evaluate(NAMES)[:2] == ["run 0", "run 1"]
    assert index.evaluate(NAMES)[-1] == "no figure"
    assert index.evaluate("document.querySelector('[aria-sort]').ariaSort") == "ascending"


def test_a_negative_percentage_is_a_number(index: Any) -> None:
    index.page.locator("thead button", has_text="Excess return").click()
    assert index.evaluate(NAMES)[:2] == ["run 0", "run 1"]


def test_words_and_values_filter(index: Any) -> None:
    index.page.locator("input[type=search]").fill("RUN cqb")
    assert index.evaluate(NAMES) == ["run 1", "run 3", "run 5", "run 7", "run 9"]
    assert index.evaluate("document.querySelector('.told').textContent") == "5 of 12 runs"
    index.page.locator("label", has_text="Seed").last.locator("select").select_option(label="0")
    assert index.evaluate(NAMES) == ["run 3", "run 9"]


def test_groups_have_their_means(index: Any) -> None:
    index.page.locator("label", has_text="Group by").locator("select").select_option(label="Method")
    heads = "[...document.querySelectorAll('tr.group')].map((row) => [...row.cells].map((cell) => cell.textContent))"
    (first, second) = index.evaluate(heads)
    assert first[0] == "EqualWeighting (6 runs)"
    assert first[1] == "0.0050"  # the mean of 0, 2, ... 10 thousandths
    assert second[0] == "CQB (6 runs)"
    assert second[2] == "\N{MINUS SIGN}6.00%"


def test_on_a_telephone_a_list_sorts(index: Any) -> None:
    index.page.locator("label", has_text="Sort by").locator("select").select_option(
        label="RankIC, lowest first"
    )
    assert index.evaluate(NAMES)[:2] == ["run 0", "run 1"]


def test_many_runs_are_laid_out_when_they_are_asked_for(visit: Callable[..., Any], tmp_path: Path) -> None:
    opened = visit(page_of(tmp_path, [run(k) for k in range(250)]))
    assert len(opened.evaluate(NAMES)) == 200
    assert opened.evaluate("document.querySelector('.told').textContent") == "250 runs"
    opened.page.locator("button.more", has_text="Show all 250 runs").click()
    assert len(opened.evaluate(NAMES)) == 250
    assert not opened.page.locator("button.more").is_visible()


def test_the_name_of_a_run_leads_to_its_report(index: Any) -> None:
    index.page.locator("a", has_text="run 3").click()
    assert index.page.title() == "the report"
    index.page.go_back()


@pytest.mark.parametrize("width", [390, 800, 1400])
def test_no_table_is_cut(index: Any, width: int) -> None:
    index.page.set_viewport_size({"width": width, "height": 900})
    index.until(f"innerWidth === {width}")
    index.page.locator("label", has_text="Group by").locator("select").select_option(label="Method")
    assert index.evaluate(CUT) == []
    assert index.overflow() <= 0


def test_without_scripts_the_table_is_whole(visit: Callable[..., Any], tmp_path: Path) -> None:
    opened = visit(page_of(tmp_path, [run(0), run(1)]), java_script_enabled=False)
    assert opened.page.locator("tbody tr").count() >= 2
    assert opened.page.locator(".controls").count() == 0
