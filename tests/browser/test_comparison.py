"""The comparison of runs as its readers see it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qlib_ext.report.comparison.document import render
from tests.browser.test_report import CUT, check_every_chart
from tests.interpreter import Interpreter
from tests.report.comparison.conftest import EQUAL, Shelf

ROOT = Path(__file__).parents[2]
EVIL = "</script><script>alert(2)</script><img src=x onerror=alert(1)><b>bold</b>&amp; \"' onload=alert(3) <!-- ]]>"


def page_of(shelf: Shelf, folder: Path, title: str = "Comparison") -> Path:
    file = folder / "comparison.html"
    file.write_text(render(shelf.compared(draws=100), title, {EVIL: EVIL}), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def seeds(visit: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three groups of three seeds over 1,000 days, with HTML in every name."""
    home = tmp_path_factory.mktemp("seeds")
    shelf = Shelf(home)
    for seed in range(3):
        shelf.run(f"{EVIL} {seed}", seed=seed, skill=0.02, days=1000, experiment=EVIL)
        shelf.run(f"equal {seed}", seed=seed, days=1000, params=EQUAL)
        shelf.run(f"evil {seed}", seed=seed, days=1000, params={"model.kwargs.balancer.class": EVIL})
    opened = visit(page_of(shelf, home, EVIL))
    opened.draw_all()
    return opened


class TestSeeds:
    def test_nothing_goes_wrong_and_nothing_is_asked_of_a_network(self, seeds: Any) -> None:
        seeds.check_quiet()

    def test_every_chart_is_drawn_with_data(self, seeds: Any) -> None:
        names = [chart["name"] for chart in seeds.charts()]
        assert len(names) == 9
        assert {"chart-cumulative_return", "chart-cumulative_rank_ic", "chart-difference_ic"} <= {*names}
        check_every_chart(seeds)

    def test_each_group_has_a_line_and_the_band_of_its_seeds(self, seeds: Any) -> None:
        traces = seeds.evaluate(
            "document.querySelector('#chart-cumulative_ic .plot')._fullData.map((t) => [t.fill || '', t.y.length])"
        )
        assert len(traces) == 9
        assert sum(fill == "tonexty" for fill, _ in traces) == 3
        assert {length for _, length in traces} == {1000}

    def test_html_in_names_stays_text(self, seeds: Any) -> None:
        assert seeds.evaluate("document.querySelectorAll('main img, main b').length") == 0
        assert EVIL in seeds.evaluate("document.querySelector('h1').textContent")
        cells = seeds.evaluate(
            "[...document.querySelectorAll('tbody th, td')].map((cell) => cell.textContent)"
        )
        assert f"{EVIL} 0" in cells
        shown = seeds.evaluate(
            "[...document.querySelectorAll('.legend button')].map((made) => made.textContent)"
        )
        assert EVIL in shown

    def test_a_group_is_switched_off_with_its_band_and_on_again(self, seeds: Any) -> None:
        shown = "document.querySelector('#chart-cumulative_ic .plot')._fullData.map((trace) => trace.visible === true)"
        first = seeds.page.locator("#chart-cumulative_ic .legend button").first
        assert all(seeds.evaluate(shown))
        first.click()
        assert seeds.evaluate(shown) == [False] * 3 + [True] * 6
        first.click()
        assert all(seeds.evaluate(shown))

    def test_the_value_can_be_seen_on_a_logarithmic_axis(self, seeds: Any) -> None:
        axis = "document.querySelector('#chart-cumulative_return .plot')._fullLayout.yaxis.type"
        made = seeds.page.locator("#chart-cumulative_return button.log")
        assert seeds.evaluate(axis) == "linear"
        made.click()
        seeds.page.wait_for_function(f"{axis} === 'log'")
        made.click()
        seeds.page.wait_for_function(f"{axis} === 'linear'")

    def test_the_accounts_are_on_the_first_screens(self, seeds: Any) -> None:
        assert seeds.evaluate("document.querySelector('figure.chart').id") == "chart-cumulative_return"

    @pytest.mark.parametrize("width", [390, 1400])
    def test_no_table_is_cut(self, seeds: Any, width: int) -> None:
        seeds.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
        seeds.page.set_viewport_size({"width": width, "height": 900})
        seeds.until(f"innerWidth === {width}")
        assert seeds.evaluate(CUT) == []
        assert seeds.overflow() <= 0
        seeds.evaluate(
            "document.querySelectorAll('details details').forEach((fold) => { fold.open = false; })"
        )
        seeds.page.set_viewport_size({"width": 1280, "height": 900})

    def test_shared_parameters_open(self, seeds: Any) -> None:
        details = seeds.page.locator("details details").first
        assert details.get_attribute("open") is None
        details.locator("summary").click()
        assert "record.BacktestRecord.strategy.kwargs.topk" in details.inner_text()


class TestSizes:
    def test_three_days_on_a_telephone(self, visit: Callable[..., Any], tmp_path: Path) -> None:
        shelf = Shelf(tmp_path)
        shelf.run(days=3)
        shelf.run(days=3, params=EQUAL)
        opened = visit(page_of(shelf, tmp_path), width=390, height=800)
        opened.draw_all()
        opened.check_quiet()
        check_every_chart(opened)
        assert opened.overflow() <= 0


class TestRealRun:
    def test_what_the_command_makes_of_a_real_run(
        self, real_run: Path, visit: Callable[..., Any], interpreter: Interpreter, tmp_path: Path
    ) -> None:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_TRACKING")}
        command = ("-m", "qlib_ext.cli.main", "compare", "mimstocr_csi300", "--out", str(tmp_path / "x"))
        done = interpreter(*command, cwd=real_run, env=inherited)
        assert done.returncode == 0, done.stderr[-3000:]
        opened = visit(tmp_path / "x" / "comparison.html")
        opened.draw_all()
        opened.check_quiet()
        check_every_chart(opened)
        drawn = {chart["name"] for chart in opened.charts()}
        assert {"chart-cumulative_return", "chart-cumulative_rank_ic"} <= drawn
        text = opened.evaluate("document.body.innerText")
        assert "TopkDropout" in opened.evaluate("document.querySelector('details details').textContent")
        assert "1 run in 1 group" in text
