"""Docstrings for the reference: their formulas as MathML, which browsers draw without a library, and results in words."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from griffe import Extension, Object
from latex2mathml.converter import convert

BLOCK = re.compile(r"^\.\. math::(.*(?:\n+[ \t]+.+)*)$", re.MULTILINE)
INLINE = re.compile(r":math:`([^`]+)`")
RESULT = re.compile(r"^(Returns|Yields)\n-+$", re.MULTILINE)


class Docstrings(Extension):
    """Turns what is reStructuredText in a docstring into what Markdown takes."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of what was read."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(docstring: str) -> str:
    """The docstring with formulas as MathML.

    What a function returns is said in words here, where numpy's style would have a type first: a space that does not break
    keeps the heading from being taken for that section.
    """
    text = BLOCK.sub(lambda found: f'<div class="formula">{_display(found[1])}</div>\n', docstring)
    text = INLINE.sub(lambda found: convert(found[1]), text)
    return RESULT.sub(lambda found: f"{found[1]}\u00a0\n--------", text)


def _display(formula: str) -> str:
    tex = textwrap.dedent(formula).strip()
    if "\\\\" in tex and "\\begin" not in tex:
        tex = rf"\begin{{align*}}{tex}\end{{align*}}"
    return convert(" ".join(tex.split()), display="block")
