"""The data of a run in parts, each by its hash, so that of two markets that differ one can say what does."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from qlib_ext.checks import counted
from qlib_ext.market.store import QlibStore
from qlib_ext.verify.content import read_content

SIDE = "side"
MOST_SHOWN = 3


def data_parts(store: QlibStore) -> dict[str, str]:
    """Part -> 16 hex digits: the calendar, each universe, each field, each stock, each table of side data.

    Beside `QlibStore.fingerprint`, which is one for all bars and members, these name the side data too.
    """
    calendar = store.calendar
    said = f"{calendar[0]:%Y-%m-%d} to {calendar[-1]:%Y-%m-%d}, {counted(len(calendar), 'day')}"
    days = _hash("\n".join(calendar.strftime("%Y-%m-%d")).encode())
    found = {"calendar": f"{days} {said}"}
    for universe in store.universes():
        spells = store.membership(universe)
        rows = spells["instrument"].str.cat(
            [spells[end].dt.strftime("%Y-%m-%d") for end in ("start", "end")], ","
        )
        found[f"universe {universe}"] = _hash("\n".join(rows).encode())
    fields: dict[str, hashlib._Hash] = {}
    for code in store.instruments():
        stock = hashlib.sha256()
        for field in store.fields(code):
            content = f"\0{code}\0{field}\0".encode() + store.file_of_bars(code, field)
            stock.update(content)
            fields.setdefault(field, hashlib.sha256()).update(content)
        found[f"stock {code}"] = stock.hexdigest()[:16]
    found |= {f"field {name}": digest.hexdigest()[:16] for name, digest in sorted(fields.items())}
    return found | side_parts(store.root)


def side_parts(root: Path) -> dict[str, str]:
    """Those of the side data, by what their tables say."""
    return {
        f"side data {file.stem}": read_content(file, f"{SIDE}/{file.name}").digest()
        for file in sorted((root / SIDE).glob("*.parquet"))
    }


def other_parts(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """What of the data differs, in words, the calendar first; nothing where no part does."""
    said = []
    if expected.get("calendar") != found.get("calendar"):
        here = found.get("calendar", "none").partition(" ")[2]
        said.append(f"the calendar is {here}, and was {expected.get('calendar', 'none').partition(' ')[2]}")
    for kind in ("universe", "field", "stock", "side data"):
        old, new = (
            {
                name.removeprefix(kind + " "): digest
                for name, digest in parts.items()
                if name.startswith(kind + " ")
            }
            for parts in (expected, found)
        )
        for word, names in (
            ("missing", [name for name in old if name not in new]),
            ("more", [name for name in new if name not in old]),
            ("other", [name for name in old if name in new and old[name] != new[name]]),
        ):
            if names:
                shown = ", ".join(names[:MOST_SHOWN]) + (", ..." if len(names) > MOST_SHOWN else "")
                said.append(
                    f"{word} {kind}{'s' if kind != 'side data' and len(names) > 1 else ''}: {len(names)} ({shown})"
                )
    return said


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
