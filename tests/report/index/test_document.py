from __future__ import annotations

import re
from pathlib import Path

from qlib_ext.market.finding import QualityReport
from qlib_ext.report.index.data import DataState
from qlib_ext.report.index.document import relative
from qlib_ext.report.index.lists import NewestList
from tests.report.index.conftest import FIRST, page_of, run

EVIL = "</script><img src=x onerror=alert(1)> \"' & javascript:alert(2)"


def text_of(page: str) -> str:
    return re.sub(r"<[^>]+>", " ", page)


def test_a_row_a_run_with_what_differs_and_its_figures(tmp_path: Path) -> None:
    page = page_of(tmp_path, [run(0), run(1), run(2, experiment="second")]).read_text()
    head = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', page.partition("</thead>")[0])
    assert head == ["Run", "RankIC", "Excess return a year", "Experiment", "Method", "Seed", "Started"]
    assert "csi300" not in text_of(page.partition("Provenance")[0].partition("<main>")[2])
    assert "0.0010" in page
    assert "\N{MINUS SIGN}1.00%" in page


def test_a_report_is_linked_from_where_the_page_lies(tmp_path: Path) -> None:
    report = tmp_path / "runs" / "a b#?:" / "report.html"
    report.parent.mkdir(parents=True)
    report.touch()
    (tmp_path / "pages").mkdir()
    assert relative(report, tmp_path / "pages") == "../runs/a b#?:/report.html"
    page = page_of(tmp_path, [run(0, report=report), run(1)]).read_text()
    assert '<a href="runs/a%20b%23%3F%3A/report.html">run 0</a>' in page
    assert page.count("<a href=") == 1 + page.count('<a href="#')
    assert "1 run without a link has none on this machine" in page


def test_names_stay_text(tmp_path: Path) -> None:
    evil = run(0, EVIL, experiment=EVIL, traits={"method": EVIL, EVIL + ".x": EVIL})
    page = page_of(tmp_path, [evil, run(1)], EVIL, facts={EVIL: EVIL}).read_text()
    assert "<img" not in page
    assert page.count("</script>") == page.count("<script>") == 2


def test_it_asks_nothing_of_a_network_and_runs_its_own_scripts_alone(tmp_path: Path) -> None:
    page = page_of(tmp_path, [run(0)]).read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "default-src &#x27;none&#x27;; script-src &#x27;sha256-" in policy[1]
    assert not re.search(r'(src|href)="(https?:)?//', page)


def test_data_the_newest_list_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    audit = QualityReport.from_json({"store": {"root": "cn"}, "kinds": [], "findings": []})
    states = [
        DataState(FIRST, 3, run(0), "cn", "2008-01-02", "2020-09-25", "csi300", audit=audit),
        DataState("f" * 16, 1, run(1), "drawn", "2008-01-02", "2020-09-25", "csi300", synthetic=True),
    ]
    listed = NewestList(
        "2026-01-06", "0" * 32, "mine", "csi300", [{"instrument": "SH600000", "rank": 1.0}], ["old"], 2, None
    )
    page = text_of(page_of(tmp_path, [run(0)], data=states, listed=listed, more_data=2).read_text())
    assert "No real market" in page
    assert "drawn (synthetic)" in page
    assert (
        "csi300 at the close of 2026-01-06, by mine (00000000), 1 stock, with 2 orders of the next day"
        in page
    )
    assert "2 older states of the data are left out" in page
    assert "Look into this first" in page


def test_no_run_is_told(tmp_path: Path) -> None:
    assert "There is no run" in page_of(tmp_path, []).read_text()
