"""`qlib-ext data info`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qlib_ext.cli.answer import Answer
from qlib_ext.terminal import say

if TYPE_CHECKING:
    import pandas as pd

MORE_COLOURS = ("#b03a48", "#2b8fa3", "#7f6a4f", "#8a9199")


def info(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The store, in Qlib's format.")],
    plot: Annotated[
        Path | None, typer.Option(help="Draw the daily sizes of the universes into this PNG file.")
    ] = None,
    fingerprint: Annotated[
        bool, typer.Option("--fingerprint/--no-fingerprint", help="Read every file once more for it.")
    ] = True,
) -> Answer:
    """Say what is in a store: range, fields, universes, side data and where it comes from."""
    from qlib_ext.checks import UserError  # here, so that `qlib-ext --help` stays quick
    from qlib_ext.market.info import store_info
    from qlib_ext.market.info_lines import lines
    from qlib_ext.paths import writable
    from qlib_ext.terminal import shown_progress

    if plot is not None and (plot.suffix.lower() != ".png" or not plot.absolute().parent.is_dir()):
        raise UserError(f"`--plot` must be a file of PNG in a directory that is there, found `{plot}`")
    if plot is not None:
        writable(plot.absolute().parent, name="the folder of `--plot`", way_out="name another")
    with shown_progress() as progress:
        found = store_info(directory, fingerprint=fingerprint, progress=progress)
    for line in lines(found):
        say(line)
    undrawn = _draw(found.daily, plot) if plot is not None else []
    if plot is not None:
        without = f", but for {', '.join(undrawn)}: too many for one picture" if undrawn else ""
        say()
        say(f"Daily sizes of the universes are drawn in {plot}{without}")
    return Answer(found.to_json())


def _draw(daily: pd.DataFrame, path: Path) -> list[str]:
    """Draw the sizes; the universes for which there is no colour left are returned."""
    from qlib_ext.report.charts import Lines
    from qlib_ext.report.figures import COLOURS, drawn, to_png

    colours = (*COLOURS, *MORE_COLOURS)
    names = [*daily.columns]
    lines = {name: daily[name].where(daily[name] > 0).astype(float) for name in names[: len(colours)]}
    chart = Lines(series=lines, ylabel="members", colours=colours, alt="Members by day", caption="")
    path.write_bytes(to_png(drawn(chart)))
    return names[len(colours) :]
