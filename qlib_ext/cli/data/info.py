"""`qlib-ext data info`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd

    from qlib_ext.market.info import StoreInfo

VOLUMES = {
    "raw": "raw shares: traded value is close / factor x volume",
    "adjusted": "adjusted shares: traded value is close x volume",
}

MORE_COLOURS = ("#b03a48", "#2b8fa3", "#7f6a4f", "#8a9199")


def info(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The store, in Qlib's format.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the daily sizes of the universes into this PNG file.")
    ] = None,
    fingerprint: Annotated[
        bool, typer.Option("--fingerprint/--no-fingerprint", help="Read every file once more for it.")
    ] = True,
) -> None:
    """Say what is in a store: range, fields, universes, side data and where it comes from."""
    from qlib_ext.checks import UserError  # here, so that `qlib-ext --help` stays quick
    from qlib_ext.cli.progress import shown_progress
    from qlib_ext.market.info import store_info

    if plot is not None and (plot.suffix.lower() != ".png" or not plot.absolute().parent.is_dir()):
        raise UserError(f"`--plot` must be a file of PNG in a directory that is there, found `{plot}`")
    with shown_progress() as progress:
        found = store_info(directory, fingerprint=fingerprint, progress=progress)
    undrawn = _draw(found.daily, plot) if plot is not None else []
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False, allow_nan=False))
        return
    for line in _lines(found):
        typer.echo(line)
    if plot is not None:
        without = f", but for {', '.join(undrawn)}: too many for one picture" if undrawn else ""
        typer.echo(f"\nDaily sizes of the universes are drawn in {plot}{without}")


def _lines(found: StoreInfo) -> list[str]:
    """The answer for the terminal."""
    facts = [
        ("store", found.root),
        ("range", f"{found.first_day} to {found.last_day}, {found.days:,} trading days"),
        ("instruments", f"{found.instruments:,} with bars"),
        ("on disk", f"{found.bytes / 1e6:,.1f} MB in {found.files:,} files"),
    ]
    facts += [("fingerprint", found.fingerprint)] if found.fingerprint else []
    facts += [("of side data", found.side_fingerprint)] if found.side_fingerprint else []
    facts += [("volume", VOLUMES[found.volume])] if found.volume else []
    lines = [f"{name:<14}{fact}" for name, fact in facts]
    lines += ["", "Fields"]
    lines += _table(
        ["field", "instruments", "share", "missing"],
        [
            [field.name, f"{field.instruments:,}", f"{field.share:.1%}", f"{field.missing:.2%}"]
            for field in found.fields
        ],
    )
    lines += ["  missing: of the days from an instrument's first to its last, those without a value"]
    lines += ["", "Universes"]
    lines += _table(
        [
            "universe",
            "codes",
            "without bars",
            "from",
            "to",
            "least",
            "median",
            "most",
            "with a close",
            "nominal",
        ],
        [
            [
                universe.name,
                f"{universe.codes:,}",
                f"{universe.without_bars:,}",
                universe.first_day or "never",
                universe.last_day or "never",
                *(f"{size:,.0f}" for size in (universe.least, universe.median, universe.most)),
                f"{universe.median_with_close:,.0f}",
                "" if universe.size is None else f"{universe.size:,}",
            ]
            for universe in found.universes
        ],
    )
    lines += [
        "  least, median, most: members of a day; with a close: the median of those that have one that day"
    ]
    for universe in found.universes:
        if universe.rule:
            lines.append(f"  {universe.name}: {universe.rule}")
    if found.side:
        lines += ["", "Side data"]
        lines += _table(
            ["table", "shape", "size"],
            [[side.name, side.shape or "unknown", f"{side.bytes / 1e6:,.1f} MB"] for side in found.side],
        )
        lines += [f"  {side.problem}" for side in found.side if side.problem]
    if found.import_settings is not None:
        lines += ["", "Imported"]
        settings = found.import_settings.get("settings")
        told = settings if isinstance(settings, dict) else found.import_settings
        lines += [
            f"  {name:<16}{_said(value)}" for name, value in told.items() if value not in (None, "", {}, [])
        ]
    return lines


def _said(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns under their heads: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, *rows]
    ]


def _draw(daily: pd.DataFrame, path: Path) -> list[str]:
    """Draw the sizes; the universes for which there is no colour left are returned."""
    from qlib_ext.report.figures import COLOURS, over_time, to_png

    colours = (*COLOURS, *MORE_COLOURS)
    names = [*daily.columns]
    lines = {name: daily[name].where(daily[name] > 0).astype(float) for name in names[: len(colours)]}
    path.write_bytes(to_png(over_time(lines, ylabel="members", colours=colours)))
    return names[len(colours) :]
