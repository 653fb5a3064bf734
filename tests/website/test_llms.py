from __future__ import annotations

from pathlib import Path

from website import llms

ROOT = Path(__file__).parents[2]


def test_the_file_is_current() -> None:
    written = (ROOT / "llms.txt").read_text(encoding="utf-8")
    assert written == llms.text(), "write it again: python -m website.llms"


def test_a_page_is_told_by_its_title_and_first_sentence(tmp_path: Path) -> None:
    (tmp_path / "mkdocs.yml").write_text("nav:\n  - Start:\n      - a.md\n      - Name: b/c.py\n")
    (tmp_path / "a.md").write_text("# A page\n\n![](x.png)\n\nIt [says](b.md) one\nthing. And another.\n")
    assert llms.text(tmp_path).endswith(
        "\n## Start\n\n- [A page](a.md): It says one thing\n- [b/c.py](b/c.py)\n"
    )
