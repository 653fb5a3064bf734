"""Run the tutorial: every command and file of its pages, in their order, in one empty folder.

    python -m website.tutorial FOLDER

A block of `sh` is run; a block of `python` or `yaml` whose first line is a comment with a name is written to that file. What is
only shown is a block of another language.
"""

from __future__ import annotations

import re
import subprocess
import sys
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


def script(pages: list[Path]) -> str:
    """All that the pages ask for, as one script of bash, each command echoed before its run."""
    return "set -euo pipefail\n" + "\n".join(part for page in pages for part in _parts(page))


def _parts(page: Path) -> Iterator[str]:
    yield f"echo '=== {page.name}'"
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        name = NAMED.match(text)
        if language == "sh":
            yield f"set -x\n{text}{{ set +x; }} 2> /dev/null"
        elif name:
            yield f"cat > {name[1]} << 'END OF FILE'\n{text}END OF FILE"
        else:
            raise ValueError(
                f"{page.name}: a block of {language} must begin with a comment that names its file"
            )


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True)
    sys.exit(subprocess.run(["bash", "-c", script(pages())], cwd=sys.argv[1], check=False).returncode)
