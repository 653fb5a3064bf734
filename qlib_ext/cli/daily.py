"""`qlib-ext daily`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from qlib_ext.cli.answer import Answer, exits
from qlib_ext.cli.options import TrackingUri, pairs, words
from qlib_ext.masking import masked
from qlib_ext.terminal import say


@exits(
    {
        0: "the list was made",
        3: "no new day",
        4: "the source failed or contradicts the store",
        5: "the audit has errors",
        6: "no list of the day",
        7: "another call is at it",
    }
)
def daily(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG.yaml", help="Settings by the names of these options; an option comes before."
        ),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Store to bring up to date and score.")
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Run: id, first digits of it, name, or experiment (its newest).")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Whom to ask for new days, as `data fetch` takes it; none: the store is taken as it is."
        ),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE for the source, such as per_minute=50. Repeat.")
    ] = None,
    universe: Annotated[
        list[str] | None, typer.Option(help="Index whose members to bring in. Repeat, or divide by commas.")
    ] = None,
    holdings: Annotated[
        Path | None, typer.Option(help="CSV of what is held (code, shares), for the orders of the next day.")
    ] = None,
    cash: Annotated[float | None, typer.Option(help="Cash of the account, in currency.")] = None,
    memory: Annotated[
        Path | None,
        typer.Option(help="File in which the strategy keeps what it remembers from call to call."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the lists; `daily` by default.")
    ] = None,
    top: Annotated[int | None, typer.Option(help="Stocks to show; the file has all of them.", min=1)] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            help="Error of the audit that a person has looked at: KIND, or KIND:CODE of one stock. Repeat, or divide by commas."
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Make the list of the newest day again, though it is there.")
    ] = False,
    tracking_uri: TrackingUri = None,
) -> Answer:
    """Fetch, update, check and recommend, and write the list as page, mail, table and JSON: for a cron job."""
    from qlib_ext.terminal import quiet_imports, shown_progress

    with quiet_imports():  # here, so that `qlib-ext --help` stays quick
        from qlib_ext.recommend.daily import DailyConfig
        from qlib_ext.recommend.daily import daily as run_daily

    logging.getLogger("qlib_ext").addHandler(logging.NullHandler())  # what matters is in the text
    given: dict[str, Any] = {
        "store": _text(store),
        "run": run,
        "source": source,
        "options": pairs("--option", option, "per_minute=50") or None,
        "universes": words(universe) or None,
        "holdings": _text(holdings),
        "cash": cash,
        "memory": _text(memory),
        "out": _text(out),
        "top": top,
        "accept": words(accept) or None,
        "tracking_uri": tracking_uri,
    }
    given = {name: value for name, value in given.items() if value is not None}
    settings = DailyConfig.of(given, "the options") if config is None else DailyConfig.read(config, **given)
    with shown_progress() as progress:
        outcome = run_daily(settings, again=again, progress=progress)
    say(masked(outcome.text).rstrip("\n"), lines=True)
    if outcome.files:
        say()
        say(f"Written: {', '.join(str(path) for path in outcome.files)}")
    document = {
        "headline": masked(outcome.headline),
        "day": outcome.day,
        "text": masked(outcome.text),
        "files": outcome.files,
    }
    return Answer({"exit_status": outcome.status, **document}, int(outcome.status))


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
