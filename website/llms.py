"""llms.txt: the pages with their first sentence, for whoever reads by machine. `python -m website.llms` writes it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from website import navigation

ROOT = Path(__file__).parents[1]
HEAD = """# qlib-ext

> An end-to-end research and backtesting platform on Microsoft's Qlib: from daily bars to trained models that rank stocks, a
> backtest by the exchange's rules, an MLflow run and one HTML report. Look-ahead, luck, survivorship and cost are measured.

A workflow is one YAML file, run by `qrun FILE`. The command is `qlib-ext`, the package for notebooks `qlib_ext.api`. A part
(loss, backbone, strategy, ...) is one class in one file, named by its dotted path; there is no registry.
"""


def text(root: Path = ROOT, address: Callable[[str], str] = str) -> str:
    """The whole file; `address` says where a page of the repository lies."""
    return HEAD + "".join(_sections(navigation.read(root), root, address))


def _sections(nav: list[Any], root: Path, address: Callable[[str], str]) -> Iterator[str]:
    for section in nav:
        ((title, pages),) = section.items()
        yield f"\n## {title}\n\n"
        for path in navigation.paths(pages):
            if path.endswith(".md"):
                name, first = _summary((root / path).read_text(encoding="utf-8"))
                yield f"- [{name}]({address(path)}): {first}\n"
            else:
                yield f"- [{path}]({address(path if address is str else f'{path}.md')})\n"


def _summary(page: str) -> tuple[str, str]:
    """Title and first sentence of a page."""
    title = re.search(r"^# (.+)$", page, re.MULTILINE)
    plain = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    plain = re.sub(r"^(?:!\[|\||#).*$", "", plain, flags=re.MULTILINE)
    paragraph = next((part for part in re.split(r"\n\s*\n", plain) if part.strip()), "")
    joined = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", " ".join(paragraph.split()))
    sentence = re.split(r"(?<=[.:])\s", joined, maxsplit=1)[0].rstrip(".:")
    return (title[1] if title else ""), textwrap.shorten(sentence, 200, placeholder=" ...")


if __name__ == "__main__":
    (ROOT / "llms.txt").write_text(text(), encoding="utf-8")
