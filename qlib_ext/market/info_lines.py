"""What `qlib_ext.market.info` found, in lines for a terminal or a page."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence

from qlib_ext.market.info import StoreInfo, UniverseInfo
from qlib_ext.market.store import synthetic_note

VOLUMES = {
    "raw": "raw shares: traded value is close / factor x volume",
    "adjusted": "adjusted shares: traded value is close x volume",
}
COLUMNS = 80  # of a terminal


def lines(found: StoreInfo) -> Iterator[str]:
    """All of it, a line each of at most 80 columns where names are not longer."""
    if found.sample is not None:
        yield synthetic_note(found.sample.get("seed"))
    facts = {
        "store": found.root,
        "range": f"{found.first_day} to {found.last_day}, {found.days:,} trading days",
        "instruments": f"{found.instruments:,} with bars",
        "on disk": f"{found.bytes / 1e6:,.1f} MB in {found.files:,} files",
        "fingerprint": found.fingerprint,
        "of side data": found.side_fingerprint,
        "volume": found.volume and VOLUMES[found.volume],
    }
    yield from (f"{name:<14}{fact}" for name, fact in facts.items() if fact)
    if found.links_out:
        more = f" and {len(found.links_out) - 3:,} more" if len(found.links_out) > 3 else ""
        yield f"{'links':<14}{len(found.links_out):,} lead out of the store: {', '.join(found.links_out[:3])}{more}"
    yield from ("", "Fields")
    fields = [
        [field.name, f"{field.instruments:,}", f"{field.share:.1%}", f"{field.missing:.2%}"]
        for field in found.fields
    ]
    yield from _table("field, instruments, share, missing", fields)
    yield "  missing: days from an instrument's first to its last that have no value"
    yield from ("", "Universes")
    yield from _table(
        "universe, codes, without bars, from, to, nominal",
        [_universe(universe) for universe in found.universes],
    )
    yield from ("", "Members of a day")
    yield from _table(
        "universe, least, median, most, with a close", [_sizes(universe) for universe in found.universes]
    )
    yield "  with a close: the median of the members that have one that day"
    yield from (f"  {universe.name}: {universe.rule}" for universe in found.universes if universe.rule)
    if found.side:
        yield from ("", "Side data")
        sizes = [[side.name, side.shape or "unknown", f"{side.bytes / 1e6:,.1f} MB"] for side in found.side]
        yield from _table("table, shape, size", sizes)
        yield from (f"  {side.problem}" for side in found.side if side.problem)
    if found.import_settings is not None:
        yield from ("", "Imported")
        settings = found.import_settings.get("settings")
        told = settings if isinstance(settings, dict) else found.import_settings
        there = {name: value for name, value in told.items() if value not in (None, "", {}, [])}
        yield from (f"  {name:<16}{_said(value)}" for name, value in there.items())


def _universe(universe: UniverseInfo) -> list[str]:
    """A row of the table of universes."""
    return [
        universe.name,
        *(f"{count:,}" for count in (universe.codes, universe.without_bars)),
        *(day or "never" for day in (universe.first_day, universe.last_day)),
        "" if universe.size is None else f"{universe.size:,}",
    ]


def _sizes(universe: UniverseInfo) -> list[str]:
    """A row of the table of members."""
    sizes = universe.least, universe.median, universe.most, universe.median_with_close
    return [universe.name, *(f"{size:,.0f}" for size in sizes)]


def _said(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(heads: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns under their heads: the first to the left, the others to the right; a long name on lines of its own."""
    table = [heads.split(", "), *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    widths[0] = min(widths[0], COLUMNS - sum(width + 2 for width in widths[1:]) - 2)
    for first, *others in table:
        *above, last = textwrap.wrap(first, widths[0]) or [""]
        yield from (f"  {part}" for part in above)
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield ("  " + "  ".join([last.ljust(widths[0]), *cells])).rstrip()
