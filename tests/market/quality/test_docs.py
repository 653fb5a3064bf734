from __future__ import annotations

from pathlib import Path

from qlib_ext.market.quality.check import KINDS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "data" / "quality.md").read_text(encoding="utf-8")


def test_the_page_explains_every_kind_as_the_code_does() -> None:
    lines = PAGE[PAGE.index("## Every kind") :].splitlines()
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines if line.startswith("| ")
    ]
    told = [row for row in rows if row[0] != "kind"]
    assert told == [(kind.name, kind.severity, kind.what, kind.why, kind.fix or "–") for kind in KINDS]


def test_no_cell_breaks_the_table() -> None:
    assert not [kind.name for kind in KINDS for text in (kind.what, kind.why, kind.fix or "") if "|" in text]


def test_the_readme_counts_them() -> None:
    assert f"the audit: {len(KINDS)} kinds of fault" in (ROOT / "README.md").read_text(encoding="utf-8")
