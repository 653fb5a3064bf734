"""docs/licences.md: the licence of every distribution that constraints.txt pins, from what each says of itself.

    python -m benchmarks.licences

What is not installed here in its pinned version keeps its row of the page; without one it is named as unknown.
"""

from __future__ import annotations

import importlib.metadata as metadata
import re
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from qlib_ext.files import read_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
UNKNOWN = "unknown"
# Classifier, or what stands in the field of the licence -> the name of SPDX.
NAMES = {
    "Apache": "Apache-2.0",
    "BSD": "BSD",
    "GNU General Public License v2 or later": "GPL-2.0-or-later",
    "GNU Library or Lesser General Public License": "LGPL",
    "GNU Lesser General Public License v3": "LGPL-3.0",
    "GPLv3": "GPL-3.0",
    "ISC": "ISC",
    "MIT": "MIT",
    "Mozilla Public License 2.0": "MPL-2.0",
    "PSF": "PSF-2.0",
    "Python Software Foundation": "PSF-2.0",
}
# What asks for something when it is passed on, and what cannot be told.
COPYLEFT = re.compile(r"GPL|MPL|unknown", re.IGNORECASE)
_ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)

_TEXT = """\
# Licences of what this package depends on

Of all that `constraints.txt` pins, from what each distribution says of itself. `make licences` writes this page;
`tests/benchmarks/test_licences.py` holds it against the pins. This package itself is under [MIT](../LICENSE). None of these is part of
its wheel: pip installs them beside it.

Not pinned, and so not here, are the libraries that a CUDA build of torch brings: those of NVIDIA are under NVIDIA's own terms.

`core` is what `pip install qlib-ext` brings; an [extra](install.md#extras) is named where it alone brings a distribution.

## Those that ask for something

GPL, LGPL and MPL ask for something of whoever passes them on. `unknown` says nothing that a program can read.

{copyleft}

{without}

## All

{every}
"""


def pins() -> dict[str, str]:
    """Distribution -> version, as constraints.txt has them."""
    lines = read_text(ROOT / "constraints.txt", 1_000_000).splitlines()
    found = [line.partition("==") for line in lines if "==" in line and not line.startswith("#")]
    return {name: version for name, _, version in found}


def licence(name: str, version: str) -> str | None:
    """What a distribution says of its licence; None where it is not installed in this version."""
    try:
        of = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    if of["Version"].partition("+")[0] != version:  # torch's is 2.13.0+cpu, or another build
        return None
    if "License-Expression" in of:
        return of["License-Expression"]
    classifiers = [text for text in of.get_all("Classifier") or [] if text.startswith("License ::")]
    named = [_short(text.rpartition(" :: ")[2]) for text in classifiers]
    field = of["License"].strip() if "License" in of else ""
    said = [text for text in (*named, _short(field)) if text]
    return " or ".join(dict.fromkeys(named)) if any(named) else next(iter(said), None) or _of_file(name)


def _short(text: str) -> str:
    """The name of SPDX in a classifier or in the first line of a licence; empty where there is none."""
    line = next(iter(text.splitlines()), "")
    expression = re.fullmatch(r"[A-Za-z0-9.+-]+-[\d.]+(?:-Clause)?(?: (?:AND|OR) [\w.+-]+)*", line)
    if expression:
        return line
    return next((short for name, short in NAMES.items() if re.search(rf"\b{name}\b", line)), "")


def _of_file(name: str) -> str:
    """What the first lines of its licence's file say."""
    for file in metadata.files(name) or []:
        path = Path(str(file.locate()))
        if re.match(r"LICEN[CS]E|COPYING", file.name, re.IGNORECASE) and path.is_file():
            head = " ".join(read_text(path, 1_000_000).split())[:400]
            short = _short(head) or ("MIT" if "Permission is hereby granted, free of charge" in head else "")
            if short:
                return short
    return UNKNOWN


def closure(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """The canonical names of a distribution and all that it brings, as far as it is installed."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting: list[tuple[str, frozenset[str]]] = [(canonicalize_name(name), extras)]
    while waiting:
        each = waiting.pop()
        if each not in seen:
            seen.add(each)
            waiting.extend(_asked_for(*each))
    return {found for found, _ in seen}


def _asked_for(name: str, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    try:
        wanted = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for requirement in map(Requirement, wanted):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield canonicalize_name(requirement.name), frozenset(requirement.extras)


def parts(project: dict[str, list[str]]) -> dict[str, list[str]]:
    """Canonical name -> `core`, or the extras that bring it; `project` maps each of them to what it asks for."""
    reached = {
        part: set().union(*(closure(each.name, frozenset(each.extras)) for each in map(Requirement, wanted)))
        for part, wanted in project.items()
    }
    core = reached.pop("core")
    found = {name: ["core"] for name in core}
    for part, names in reached.items():
        for name in names - core:
            found.setdefault(name, []).append(part)
    return found


def rows(page: str) -> dict[str, tuple[str, str, str]]:
    """Distribution -> (version, licence, part) of a page."""
    _, _, every = page.partition("## All")
    return {name: (version, said, part) for name, version, said, part in _ROW.findall(every)}


def page(before: str, project: dict[str, list[str]]) -> str:
    """The page; `before` is the one that is there."""
    old, of_part = rows(before), parts(project)
    found: dict[str, tuple[str, str, str]] = {}
    for name, version in pins().items():
        kept = old.get(name)
        if kept is None or kept[0] != version:
            kept = (version, UNKNOWN, UNKNOWN)
        part = ", ".join(of_part.get(canonicalize_name(name), [])) or kept[2]
        found[name] = (version, licence(name, version) or kept[1], part)
    special = {name: row for name, row in found.items() if COPYLEFT.search(row[1])}
    core = [name for name, row in special.items() if row[2] == "core" and re.search(r"(?<!L)GPL", row[1])]
    without = (
        f"Of the core, under the GPL: {', '.join(core)}." if core else "Nothing of the core is under the GPL."
    )
    return _TEXT.format(copyleft=_table(special), without=without, every=_table(found))


def _table(found: dict[str, tuple[str, str, str]]) -> str:
    lines = ["| distribution | version | licence | brought by |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {' | '.join(row)} |" for name, row in found.items())])


def _project() -> dict[str, list[str]]:
    import tomllib

    of = tomllib.loads(read_text(ROOT / "pyproject.toml", 1_000_000))["project"]
    extras = {
        name: [text for text in wanted if not text.startswith("qlib-ext[")]
        for name, wanted in of["optional-dependencies"].items()
        if name != "all"
    }
    return {"core": of["dependencies"], **extras}


def main() -> None:
    """Write the page."""
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    PAGE.write_text(page(before, _project()), encoding="utf-8")


if __name__ == "__main__":
    main()
