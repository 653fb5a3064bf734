"""Universes of a store: what is known of them, how large they are by day, and how one is added.

A universe is a file of spells of membership, `instruments/<name>.txt`. How it came to be stands beside it, in
`universes.json` at the root of the store::

    {"csi100": {"size": 100, "rule": "the 100 of csi300 with ...", "command": "qlib-ext data universe DIR csi100 ..."}}

`size` is the nominal number of members, null where none is known. A store without the file is as good: nobody has
said anything of its universes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from qlib_ext.checks import UserError, brief, short
from qlib_ext.market.replace import check_place, copy_store, locked
from qlib_ext.market.store import QlibStore, StoreError, read_mapping, write_membership

RULES = "universes.json"
COMMAND = ("qlib-ext", "data", "universe", "DIR")
# `all` is the list of what the store has, not a choice from it.
RESERVED = ("all",)


@dataclass(frozen=True)
class Universe:
    """Members of a universe, and where they come from.

    Parameters
    ----------
    name
        Letters, digits, `_`, `-` and `.`: it becomes a file name.
    spells
        Columns `instrument` (upper-case), `start` and `end` (trading days, both included).
    size
        Nominal number of members, None where there is none.
    rule
        In one sentence, how the members are chosen.
    command
        The command that makes it again.
    notes
        What was mended or left out, in counted sentences.
    reviews
        By day of a review (index): `size`, and how many members `joined` and `left`; None where there are none.

    Raises
    ------
    UserError
        If `name` cannot be that of a universe.
    """

    name: str
    spells: pd.DataFrame
    size: int | None
    rule: str
    command: str = ""
    notes: tuple[str, ...] = field(default=())
    reviews: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        check_name(self.name)


def check_name(name: str) -> str:
    """Return `name` if a universe may be called so; otherwise a UserError."""
    if not re.fullmatch(r"\w[\w.-]*", name, flags=re.ASCII) or name.lower() in RESERVED:
        raise UserError(
            "the name of a universe must be made of letters, digits, `_`, `-` and `.`, and not be "
            f"{' or '.join(RESERVED)}; found {brief(name)}"
        )
    return short("name of a universe", name)


def check_target(
    root: str | Path, name: str, *, replace: bool = False, out: str | Path | None = None
) -> None:
    """Check, before any long work, that `write_universe` may write.

    Raises
    ------
    UserError
        If the store has the universe and `replace` is not set, or `out` is not a new or an empty directory, or cannot be
        written.
    """
    check_name(name)
    if name in QlibStore(root).universes() and not replace:
        raise UserError(f"`{root}` has a universe `{name}` already: choose another name, or add --replace")
    if out is not None:
        out = Path(out).expanduser()
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"`out` must be a new or an empty directory, found something at `{out}`")
    check_place(root if out is None else out)


def write_universe(
    root: str | Path, universe: Universe, *, replace: bool = False, out: str | Path | None = None
) -> QlibStore:
    """Add a universe to a store, whole or not at all; the store that has it.

    `replace` says whether a universe of the same name may be replaced. `out` is where to write a new store instead: the
    bars of `root`, which is left as it is, and the universe. Its files are hard links where the file system allows.

    Raises
    ------
    UserError
        If the store has the universe and `replace` is not set, or `out` is not a new or an empty directory.
    """
    source = Path(root).expanduser()
    target = source if out is None else Path(out).expanduser()
    path = Path("instruments") / f"{universe.name}.txt"
    said = {"size": universe.size, "rule": universe.rule, "command": universe.command}
    with locked(target) as lock:
        check_target(source, universe.name, replace=replace, out=out)
        rules = universe_rules(source) | {universe.name: said}
        with lock.replaced() as new:
            _fill(new, source, path, universe, rules)
    return QlibStore(target)


def _fill(new: Path, source: Path, path: Path, universe: Universe, rules: dict[str, dict[str, Any]]) -> None:
    """Make the new version of a store: what is in `source`, with the universe at `path` and what is said of it."""
    copy_store(source, new, leave_out=lambda relative: relative in (path, Path(RULES)))
    write_membership(new / path, universe.spells)
    content = json.dumps(rules, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    (new / RULES).write_text(content, encoding="utf-8")


def universe_rules(root: str | Path) -> dict[str, dict[str, Any]]:
    """What `universes.json` of a store says, by universe; nothing where there is no such file.

    Raises
    ------
    StoreError
        If the file is not what this module writes.
    """
    path = Path(root).expanduser() / RULES
    found = read_mapping(path)
    if not all(isinstance(said, dict) for said in found.values()):
        raise StoreError(
            f"`{path}` must name universes, each with `size` and `rule`; delete it if nothing in it is needed"
        )
    return found
