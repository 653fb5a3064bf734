"""Docstrings have their sections in one order and spelling, so that a reader knows where to look."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Before them come the summary, a paragraph that begins with `Source:` where something is taken from a publication, and
# the formula.
SECTIONS = (
    "Parameters",
    "Attributes",
    "Shapes",
    "Returns",
    "Yields",
    "Raises",
    "Notes",
    "Departures",
    "Examples",
)


def headings(docstring: str) -> list[str]:
    """The lines that are underlined."""
    lines = docstring.splitlines()
    return [
        above.strip()
        for above, line in itertools.pairwise(lines)
        if above.strip() and re.fullmatch(r"\s*-{3,}", line)
    ]


def faults(docstring: str) -> Iterator[str]:
    """What is wrong with the sections of one docstring."""
    found = headings(docstring)
    for heading in found:
        if heading not in SECTIONS:
            yield f"the section `{heading}` is none of {', '.join(SECTIONS)}"
        if not re.search(rf"^\s*{re.escape(heading)}\n\s*{'-' * len(heading)}$", docstring, re.MULTILINE):
            yield f"the line under `{heading}` must be as long as the word"
    known = [SECTIONS.index(heading) for heading in found if heading in SECTIONS]
    if known != sorted(set(known)):
        yield f"the order must be {', '.join(SECTIONS)}, each once; found {', '.join(found)}"
    places = [docstring.find(sign) for sign in ("Source:", ".. math::")]
    before = len(docstring.partition(f"\n{found[0]}\n")[0]) if found else len(docstring)
    if places[0] > before:
        yield "the source must stand before the sections"
    if -1 < places[1] < places[0]:
        yield "the source must stand before the formula"


def test_sections_have_one_order_and_spelling() -> None:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    wrong = [
        f"{path.relative_to(ROOT)}, {getattr(node, 'name', path.stem)}: {fault}"
        for path in sorted((ROOT / "qlib_ext").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, documented)
        for fault in faults(ast.get_docstring(node) or "")
    ]
    assert not wrong


class TestReader:
    """The reader above sees what it should."""

    @pytest.mark.parametrize(
        ("docstring", "fault"),
        [
            ("A.\n\nShape\n-----\nx", "the section `Shape` is none of"),
            ("A.\n\nRaises\n------\nx\n\nParameters\n----------\ny", "the order must be"),
            ("A.\n\nNotes\n-----\nx\n\nNotes\n-----\ny", "the order must be"),
            ("A.\n\nNotes\n---\nx", "the line under `Notes`"),
            ("A.\n\nNotes\n-----\nx\n\nSource: y", "the source must stand before the sections"),
            ("A.\n\n.. math:: x\n\nSource: y", "the source must stand before the formula"),
        ],
    )
    def test_it_sees_a_fault(self, docstring: str, fault: str) -> None:
        (found,) = faults(docstring)
        assert fault in found

    def test_it_lets_the_rest_pass(self) -> None:
        text = "A.\n\nSource: x\n\n.. math:: y\n\nParameters\n----------\nz\n\nExamples\n--------\nu\n"
        assert list(faults(text)) == []
        assert list(faults("A.")) == []
