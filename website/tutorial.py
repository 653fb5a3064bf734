"""The tutorial as commands: every block of its pages, in their order.

A block of `sh` is run; a block of `python` or `yaml` whose first line is a comment with a name is written to that file. What is
only shown is a block of another language. `website/transcript.py` runs all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from website import navigation

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(sh|python|yaml)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"# ([\w/]+\.(?:py|yaml))\n")


def pages(root: Path = ROOT) -> list[Path]:
    """The pages of the tutorial, in their order."""
    return [
        root / path for path in navigation.paths(navigation.read(root)) if path.startswith("docs/tutorial/")
    ]


def parts(page: Path) -> Iterator[tuple[str, str, str]]:
    """Language, text and the bash that does it, of each block of a page."""
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        name = NAMED.match(text)
        if language == "sh":
            yield language, text, text
        elif name:
            yield language, text, f"cat > {name[1]} << 'END OF FILE'\n{text}END OF FILE\n"
        else:
            raise ValueError(
                f"{page.name}: a block of {language} must begin with a comment that names its file"
            )
