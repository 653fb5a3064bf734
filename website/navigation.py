"""The navigation of mkdocs.yml, read without mkdocs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Takes what mkdocs.yml says to Python, such as the function that makes anchors, for nothing."""


_Loader.add_multi_constructor("", lambda *_: None)


def read(root: Path) -> list[Any]:
    """Return `nav` of a repository's mkdocs.yml."""
    return yaml.load((root / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)["nav"]  # noqa: S506 - a SafeLoader


def paths(nav: Any) -> Iterator[str]:
    """Every file that it names, in order."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        yield from paths([*nav.values()])
    else:
        for item in nav or []:
            yield from paths(item)
