from __future__ import annotations

import pytest

from website import diagrams


def test_each_diagram_has_its_drawing_and_no_other_is_kept() -> None:
    wanted = {diagrams.place(text) for text in diagrams.blocks()}
    assert wanted == {*diagrams.FOLDER.glob("*.svg")}, "draw them again: see website/diagrams.py"


def test_a_page_has_drawings_in_their_place() -> None:
    text = next(diagrams.blocks())
    found = diagrams.drawn(f"Before.\n\n```mermaid\n{text}```\n\nAfter.", "a.md")
    assert found.startswith('Before.\n\n<div class="diagram"><svg')
    assert found.endswith("</svg></div>\n\n\nAfter.")


def test_one_without_a_drawing_is_told() -> None:
    with pytest.raises(FileNotFoundError, match=r"a diagram of a\.md has no drawing"):
        diagrams.drawn("```mermaid\nflowchart LR\n```", "a.md")
