"""Pictures of a report for the docs, as a browser shows it.

    python benchmarks/report_pictures.py reports/runs/<run>/report.html docs/pictures

Needs Chromium and the Python package playwright.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

# Name -> heading of the section at its top, and its height in pixels.
WIDE = {
    "report_summary": ("Summary", 1000),
    "report_return": ("Cumulative return", 1000),
    "report_signal": ("Returns by score", 1000),
    "report_training": ("Training", 900),
}
MOST_BYTES = 250_000


def main() -> None:
    """Write a PNG for each section named above, and one of the page on a telephone."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium is installed: apt-get install chromium")
    given.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = _opened(browser, given.report, 1080)
        for name, (heading, height) in WIDE.items():
            top = _top(page, heading)
            if top is None:
                print(f"{name} is left out: the report has no section `{heading}`", file=sys.stderr)
                continue
            if heading == "Summary":
                top = 0
            area = {"x": 0, "y": top, "width": 1080, "height": height}
            _write(given.out / f"{name}.png", page.screenshot(clip=area, full_page=True))
        phone = _opened(browser, given.report, 390)
        parts = [
            phone.screenshot(
                clip={"x": 0, "y": _top(phone, heading) or 0, "width": 390, "height": 800}, full_page=True
            )
            for heading in ("Summary", "Cumulative return", "Information coefficient")
        ]
        _write(given.out / "report_phone.png", _beside(parts))
        browser.close()


def _opened(browser: Any, report: Path, width: int) -> Any:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(300_000)
    page.goto(report.resolve().as_uri())
    page.evaluate("window.drawAllCharts()")
    page.wait_for_timeout(1000)
    return page


def _top(page: Any, heading: str) -> float | None:
    """Where a section begins on the page; None where there is none."""
    found = page.get_by_role("heading", name=heading, exact=True, level=2)
    return found.bounding_box()["y"] - 24 if found.count() else None


def _beside(pictures: list[bytes]) -> bytes:
    """Pictures in a row."""
    opened = [Image.open(io.BytesIO(picture)) for picture in pictures]
    width = sum(picture.width for picture in opened) + 24 * (len(opened) - 1)
    row = Image.new("RGB", (width, max(picture.height for picture in opened)), "#d9dde1")
    left = 0
    for picture in opened:
        row.paste(picture, (left, 0))
        left += picture.width + 24
    buffer = io.BytesIO()
    row.save(buffer, format="PNG")
    return buffer.getvalue()


def _write(path: Path, picture: bytes) -> None:
    """In a palette of 128 colours: a third of the bytes, and no difference to the eye."""
    small = Image.open(io.BytesIO(picture)).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        sys.exit(f"{path} has {path.stat().st_size:,} bytes, more than {MOST_BYTES:,}")
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
