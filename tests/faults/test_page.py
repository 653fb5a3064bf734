"""docs/faults.md: every test that it names is there, and every file of these tests is named."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.faults.conftest import ROOT

PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[^`]*::[^`]*)`", PAGE)
ROWS = [
    line
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| fault |", "| what differs |"))
]


def functions(path: Path) -> set[str]:
    """The tests of a file, `Class::test` where they stand in one."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {f"{prefix}{part.name}" for part in inner if isinstance(part, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("name", NAMED)
def test_what_it_names_is_there(name: str) -> None:
    path, _, test = name.partition("::")
    assert test in functions(ROOT / path)


def test_every_row_names_one() -> None:
    assert len(ROWS) > 25
    assert [row for row in ROWS if "`tests/" not in row] == []


def test_no_file_of_these_is_left_out() -> None:
    files = {f"tests/faults/{path.name}" for path in Path(__file__).parent.glob("test_*.py")}
    assert files - {"tests/faults/test_page.py"} <= {name.partition("::")[0] for name in NAMED}
