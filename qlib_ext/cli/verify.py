"""`qlib-ext verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qlib_ext.cli.answer import Answer, exits
from qlib_ext.terminal import quiet_imports, say

if TYPE_CHECKING:
    from qlib_ext.verify.verdict import Verdict

SAME, DIFFERENT = 0, 1
MOST_SHOWN = 5


@exits(
    {
        SAME: "the same",
        DIFFERENT: "different, with the first difference",
        2: "it is refused, or cannot be executed",
    }
)
def verify(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="A file of `qlib-ext bundle`.", show_default=False)
    ],
    store: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Your copy of the data; by default where those of the run lay."),
    ] = None,
    train: Annotated[
        bool,
        typer.Option(
            "--train", help="Train again from the seed, instead of taking the weights of the bundle."
        ),
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="PUBLIC",
            help="A public key of minisign, or its file: the signature beside must be of it.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Where versions or machine differ: difference that counts as the same, as a share of the number or of the "
            "standard deviation of its column.",
            show_default="0.0001",
        ),
    ] = None,
) -> Answer:
    """Execute a bundle again, and say whether it comes to the same."""
    with quiet_imports():  # all here, so that `qlib-ext --help` stays quick
        from qlib_ext.verify.verdict import TOLERANCE
        from qlib_ext.verify.verdict import verify as verified
    found = verified(
        bundle, store, train=train, key=key, tolerance=TOLERANCE if tolerance is None else tolerance
    )
    _show(found)
    return Answer(found.document(), SAME if found.same else DIFFERENT)


def _show(found: Verdict) -> None:
    say(f"run      {found.name} ({found.run})")
    say(f"bundle   sha256 {found.digest}{', signed by that key' if found.signed else ''}")
    for said in found.environment:
        say(f"other    {said}")
    for note in found.notes:
        say(f"note     {note}")
    for what, path in (("scores", "signal/predictions.parquet"), ("orders", "backtest/orders.parquet")):
        old, new = found.compared.get(path, (None, None))
        if old is not None:
            say(f"{what}   {old} in the bundle, {new or 'none'} here")
    if found.not_compared:
        say(
            f"left     {len(found.not_compared)} tables that this level does not make: {', '.join(found.not_compared[:MOST_SHOWN])}"
        )
    if found.first is not None:
        say(f"first    {found.first}")
        others = [each.path for each in found.differing[1:]]
        if others:
            more = f" and {len(others) - MOST_SHOWN} more" if len(others) > MOST_SHOWN else ""
            say(f"also     {', '.join(others[:MOST_SHOWN])}{more}")
    say(f"verdict  {found.sentence()}")
