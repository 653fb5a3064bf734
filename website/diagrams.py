"""Mermaid diagrams as drawings, so that the site needs no library of another server.

The forge draws ```` ```mermaid ```` blocks itself. For the site each was drawn once, by

    npm install --prefix /tmp/mermaid mermaid@11
    python -m website.diagrams /tmp/mermaid/node_modules/mermaid/dist/mermaid.min.js

and lies in `website/diagrams`, under the hash of its text.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).parent / "diagrams"
BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SETTINGS = "{startOnLoad: false, theme: 'neutral', flowchart: {htmlLabels: false, useMaxWidth: true}}"


def place(text: str) -> Path:
    """The drawing of a diagram."""
    return FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.svg"


def drawn(markdown: str, page: str) -> str:
    """A page with drawings in the place of its diagrams."""

    def drawing(match: re.Match[str]) -> str:
        svg = place(match[1])
        if not svg.exists():
            raise FileNotFoundError(
                f"a diagram of {page} has no drawing; how to make it: website/diagrams.py"
            )
        return f'<div class="diagram">{svg.read_text(encoding="utf-8")}</div>\n'

    return BLOCK.sub(drawing, markdown)


def blocks(root: Path = ROOT) -> Iterator[str]:
    """Every diagram of the repository's pages."""
    for path in [*root.glob("*.md"), *(root / "docs").rglob("*.md")]:
        yield from BLOCK.findall(path.read_text(encoding="utf-8"))


def main(library: str) -> None:
    """Draw what has no drawing yet, and remove what is no diagram any more."""
    from playwright.sync_api import sync_playwright

    FOLDER.mkdir(exist_ok=True)
    texts = {place(text): text for text in blocks()}
    for svg in {*FOLDER.glob("*.svg")} - {*texts}:
        svg.unlink()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page()
        page.add_script_tag(path=library)
        page.evaluate(f"mermaid.initialize({SETTINGS})")
        for svg, text in texts.items():
            if not svg.exists():
                made = page.evaluate(
                    "async ([id, text]) => (await mermaid.render(id, text)).svg", [f"d{svg.stem}", text]
                )
                svg.write_text(made, encoding="utf-8")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
