"""`qlib-ext data universe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qlib_ext.checks import UserError, brief
from qlib_ext.cli.answer import Answer
from qlib_ext.cli.options import pairs, settings_of, words
from qlib_ext.terminal import say

if TYPE_CHECKING:
    from qlib_ext.market.store import QlibStore
    from qlib_ext.market.universes.universes import Universe


def universe(
    ctx: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The store, in Qlib's format.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the universe to make.")],
    constituents: Annotated[
        Path | None,
        typer.Option(help="CSV or Parquet of code, from, to, or of date, code; or a folder of dated files."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="code=COLUMN, from=COLUMN, to=COLUMN or date=COLUMN, where it is not recognised."),
    ] = None,
    until: Annotated[str, typer.Option(help="What `to` is: last-day or first-day-out.")] = "last-day",
    size: Annotated[int | None, typer.Option(help="Nominal size of the constituents.")] = None,
    top: Annotated[int | None, typer.Option(help="Choose the N stocks with the highest measure.")] = None,
    by: Annotated[str, typer.Option(help="The measure: amount or market_value.")] = "amount",
    of: Annotated[str | None, typer.Option(help="Choose among the members of this universe.")] = None,
    exchange: Annotated[
        str | None, typer.Option(help="Choose among codes of this exchange, such as SH.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Codes that are no stocks, A,B,...")] = None,
    window_days: Annotated[int, typer.Option(help="Days that the measure is a mean over.")] = 240,
    min_history_days: Annotated[int, typer.Option(help="Days with a close that a stock needs.")] = 60,
    delay_days: Annotated[int, typer.Option(help="Days from the last one looked at to the review.")] = 1,
    absent_days: Annotated[int, typer.Option(help="Days without a close after which a stock is out.")] = 60,
    on: Annotated[
        list[str] | None, typer.Option(help="Days of the reviews, 2015-06-15,2015-12-14,...")
    ] = None,
    every_months: Annotated[int | None, typer.Option(help="Months between reviews, instead.")] = None,
    review_months: Annotated[
        str | None,
        typer.Option(help="Months whose second Friday is followed by a review, instead.  [default: 6,12]"),
    ] = None,
    buffer: Annotated[float, typer.Option(help="Share of N by which a member may fall behind.")] = 0.0,
    refill: Annotated[
        bool, typer.Option("--refill", help="Replace a member that leaves between reviews.")
    ] = False,
    volume: Annotated[
        str, typer.Option(help="What volumes are where there is no amount: auto, raw or adjusted shares.")
    ] = "auto",
    compare_with: Annotated[
        list[str] | None, typer.Option(help="Print how many members it shares with these universes.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a universe of this name.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write a new store with it here, and leave DIR as it is.")
    ] = None,
) -> Answer:
    """Add a universe to a store: from a list of constituents, or the N most traded or largest stocks of each review."""
    from qlib_ext.market.store import QlibStore
    from qlib_ext.market.universes.constituents import read_constituents
    from qlib_ext.market.universes.top_universe import TopUniverse
    from qlib_ext.market.universes.universes import check_target, write_universe

    if (constituents is None) == (top is None):
        raise UserError(
            "a universe is made either from `--constituents FILE` or as `--top N`: give one of them"
        )
    store = QlibStore(directory)
    check_target(directory, name, replace=replace, out=out)
    others = {other: store.membership(other) for other in compare_with or []}
    if constituents is not None:
        made = read_constituents(
            store,
            name,
            constituents,
            columns=pairs("--column", column, "code=COLUMN", empty=False),
            until=until,
            size=size,
        )
    else:
        chosen = {"exclude": words(exclude), "on": words(on), "review_months": _months(review_months)}
        made = TopUniverse(**settings_of(ctx, TopUniverse) | chosen).choose(store)
    written = write_universe(directory, made, replace=replace, out=out)
    for line in _told(store, made):
        say(line)
    for other, spells in others.items():
        say(_compared(store, made, other, spells))
    for note in made.notes:
        say(f"  note: {note}")
    say(f"To use it: QLIB_DATA={written.root} with `instruments: {name}`")
    codes = made.spells["instrument"].nunique()
    return Answer(
        {"store": written.root, "universe": name, "rule": made.rule, "codes": codes, "notes": made.notes}
    )


def _told(store: QlibStore, made: Universe) -> list[str]:
    """What the universe is, in lines for the terminal."""
    from qlib_ext.market.spells import daily_size

    daily = daily_size(store.calendar, made.spells)
    there = daily[daily > 0]
    count = made.spells["instrument"].nunique()
    sizes = (
        f"  {count:,} codes; members a day: {there.min():,} at least, "
        f"{there.mean():,.1f} on average, {there.max():,} at most, on {len(there):,} days from "
        f"{there.index[0]:%Y-%m-%d} to {there.index[-1]:%Y-%m-%d}"
    )
    lines = [f"{made.name}: {made.rule}", sizes]
    if made.reviews is not None and len(made.reviews) > 1:
        later = made.reviews.iloc[1:]
        most = later["joined"].idxmax()
        lines.append(
            f"  {len(made.reviews)} reviews from {made.reviews.index[0]:%Y-%m-%d} to "
            f"{made.reviews.index[-1]:%Y-%m-%d}; after the first, {later['joined'].mean():.1f} members join and "
            f"{later['left'].mean():.1f} leave on average, at most {later['joined'].max()} join, on {most:%Y-%m-%d}"
        )
    return lines


def _compared(store: QlibStore, made: Universe, name: str, spells: object) -> str:
    from qlib_ext.market.spells import overlap

    daily = overlap(store.calendar, made.spells, spells)
    both = daily[(daily["members"] > 0) & (daily["other"] > 0)]
    if both.empty:
        return f"  no day has members of both it and {name}"
    share = both["both"] / both["members"]
    return (
        f"  {share.mean():.1%} of its members are in {name} on an average day ({both['both'].mean():.1f} of "
        f"{both['members'].mean():.1f}; {name} has {both['other'].mean():.1f}), at least {share.min():.1%} on "
        f"{share.idxmin():%Y-%m-%d}"
    )


def _months(given: str | None) -> list[int]:
    months = words([given or ""])
    if not all(word.isdecimal() for word in months):
        raise UserError(f"`--review-months` must be numbers of months such as 6,12, found {brief(given)}")
    return [int(word) for word in months]
