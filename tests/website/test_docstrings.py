from __future__ import annotations

from pathlib import Path

import pytest

from website import docstrings

ROOT = Path(__file__).parents[2]
MODULES = [path for path in sorted((ROOT / "qlib_ext").rglob("*.py")) if "math:" in path.read_text("utf-8")]


def test_every_formula_of_the_package_can_be_drawn() -> None:
    found = [
        formula
        for path in MODULES
        for pattern in (docstrings.BLOCK, docstrings.INLINE)
        for formula in pattern.findall(_left(path.read_text(encoding="utf-8")))
    ]
    assert len(found) > 150
    drawn = [docstrings.markdown(f":math:`{' '.join(formula.split())}`") for formula in found]
    assert not [formula for formula, made in zip(found, drawn, strict=True) if "<mtext>\\" in made]


@pytest.mark.parametrize(
    ("text", "made"),
    [
        (".. math:: a = b\n\nText.", '<div class="formula"><math'),
        (".. math::\n\n    a &= b \\\\\n    c &= d\n\nText.", "<mtr>"),
        ("So :math:`a_1` is.", "So <math"),
        ("A.\n\nReturns\n-------\n``[D]``.", "Returns\u00a0\n--------\n``[D]``."),
    ],
)
def test_what_markdown_does_not_know_is_turned(text: str, made: str) -> None:
    found = docstrings.markdown(text)
    assert made in found
    assert "math:" not in found
    assert found.endswith(text[-4:])


def _left(source: str) -> str:
    """The source with what is indented as docstrings are, moved to the left."""
    return "\n".join(line.removeprefix("    ").removeprefix("    ") for line in source.splitlines())
