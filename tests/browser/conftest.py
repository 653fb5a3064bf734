"""Pages in a real browser: the Chromium that is installed, without a window, driven by playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qlib_ext.market.synthetic.sample import SampleMarket
from tests.interpreter import Interpreter, qrun

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Visit:
    """A page that a browser has open, and what it complained of and asked for.

    Attributes
    ----------
    page
        Playwright's.
    errors
        What stands in the console as an error, and what was thrown.
    requests
        Addresses beside the file itself that the page asked for.
    alerts
        Texts of dialogs that the page opened.
    """

    def __init__(self, page: Any, file: Path):
        self.page = page
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.alerts: list[str] = []
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda asked: self._asked(asked.url, file))
        page.on("dialog", self._dialog)
        page.goto(file.resolve().as_uri())

    def _asked(self, url: str, file: Path) -> None:
        if url != file.resolve().as_uri() and not url.startswith(("data:", "blob:")):
            self.requests.append(url)

    def _dialog(self, dialog: Any) -> None:
        self.alerts.append(dialog.message)
        dialog.dismiss()

    def draw_all(self) -> None:
        """Have every chart drawn, also those out of view."""
        self.page.evaluate("window.drawAllCharts()")
        self.until("[...document.querySelectorAll('figure.chart')].every((c) => c.dataset.drawn === 'yes')")

    def until(self, condition: str, seconds: float = 120) -> None:
        """Wait for a condition of the page's; playwright's own way to wait is a script that the page's policy forbids."""
        for _ in range(int(10 * seconds)):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"after {seconds:g} s it is still not so: {condition}")

    def evaluate(self, script: str) -> Any:
        """What a script of the test's own sees in the page."""
        return self.page.evaluate(script)

    def charts(self) -> list[dict[str, Any]]:
        """Of each chart: its name, how many values its traces hold, and how many marks were painted."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll('figure.chart')].map((chart) => {
                const plot = chart.querySelector('.plot');
                const painted = '.trace path, .trace .point, .heatmaplayer image, .barlayer path';
                const count = (values) => Array.from(values || []).flatMap((row) => typeof row === 'number' ? row : Array.from(row))
                    .filter(Number.isFinite).length;
                return {
                    name: chart.id,
                    drawn: chart.dataset.drawn === 'yes',
                    values: (plot._fullData || []).map((trace) => Math.max(...['x', 'y', 'z'].map((a) => count(trace[a])))),
                    shown: (plot._fullData || []).map((trace) => trace.visible),
                    marks: plot.querySelectorAll(painted).length,
                    width: plot.getBoundingClientRect().width,
                    svg: plot.querySelector('.main-svg') ? plot.querySelector('.main-svg').getBoundingClientRect().width : 0,
                };
            })"""
        )

    def overflow(self) -> float:
        """Pixels by which the page is wider than the window."""
        return self.page.evaluate(
            "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - window.innerWidth"
        )

    def check_quiet(self) -> None:
        """Nothing went wrong, nothing was asked of a network, no dialog was opened."""
        assert self.errors == []
        assert self.requests == []
        assert self.alerts == []


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The installed Chromium."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """Open a file of HTML: `visit(path, width=1280, height=900, **of the browser's context)`.

    A page stays open to the end of a module: to unpack and start the drawing library takes longer than to draw.
    """
    contexts = []

    def opened(file: Path, width: int = 1280, height: int = 900, **options: Any) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(120_000)  # a busy machine is slow, and no error
        contexts.append(context)
        return Visit(context.new_page(), file)

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sample market that reaches into all three segments of the workflows."""
    root = tmp_path_factory.mktemp("browser_market") / "tiny"
    SampleMarket(seed=3, stocks=24, start="2014-06-02", end="2017-03-31").write(root)
    return root


@pytest.fixture(scope="session")
def real_run(
    market: Path, interpreter: Interpreter, empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder in which a workflow was run by `qrun`, as a user does: `mlflow.db`, `mlruns`, `reports`."""
    folder = tmp_path_factory.mktemp("real_run")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_TRACKING")}
    given = {"QLIB_DATA": str(market), "N_EPOCHS": "2", "HIDDEN_SIZE": "4", "OMP_NUM_THREADS": "1"}
    shutil.copy(empty_database, folder / "mlflow.db")
    workflow = str(ROOT / "workflows" / "mimstocr_csi300.yaml")
    done = interpreter(*qrun(), workflow, cwd=folder, env=inherited | given)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="session")
def real_report(real_run: Path) -> Path:
    """The report of that run."""
    (report,) = real_run.glob("reports/runs/*/report.html")
    return report
