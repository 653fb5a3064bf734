"""The README in Chinese keeps step with the English one: what can be compared is the same."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
BETWEEN = {"README.md", "README.zh-CN.md"}  # the links from one to the other


def code(page: str) -> list[str]:
    """What its blocks of code say, comments apart, and that a report may be in another language."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    plain = [re.sub(r"\s+#.*", "", block) if language != "yaml" else block for language, block in blocks]
    return [block.replace('lang="zh"', "") for block in plain]


def named(page: str) -> Counter[str]:
    """What stands between backticks outside of blocks of code."""
    text = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    return Counter(re.findall(r"`([^`\n]+)`", text))


def links(page: str) -> Counter[str]:
    return Counter(link for link in re.findall(r"\]\(([^)\s]+)\)", page) if link not in BETWEEN)


def headings(page: str) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^#+ .*$", text, flags=re.MULTILINE)


def test_they_lead_to_each_other() -> None:
    assert "](README.zh-CN.md)" in ENGLISH
    assert "](README.md)" in CHINESE


def test_the_same_headings_in_the_same_order() -> None:
    one, other = headings(ENGLISH), headings(CHINESE)
    assert [len(each.split()[0]) for each in one] == [len(each.split()[0]) for each in other]
    names = {"# qlib-ext", "## Docker"}
    assert [each for each in other if each not in names and not re.search(r"[\u4e00-\u9fff]", each)] == []


def test_the_same_commands() -> None:
    assert code(CHINESE) == code(ENGLISH)
    assert named(CHINESE) == named(ENGLISH)


def test_the_same_links_and_rows() -> None:
    assert links(CHINESE) == links(ENGLISH)
    one, other = (len(re.findall(r"^\|", page, flags=re.MULTILINE)) for page in (ENGLISH, CHINESE))
    assert one == other


def test_the_same_numbers() -> None:
    """Of the tables: what was measured."""
    one, other = (
        Counter(re.findall(r"\d[\d.,]*(?: min| s\b)", page.replace("CSI300", "")))
        for page in (ENGLISH, CHINESE)
    )
    assert one == other
