"""A part of a market that is looked at in place of the whole, where Qlib's own handlers would take hours over it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from qlib_ext.config.build import in_one_form, locate
from qlib_ext.data.handlers.panel import PanelHandler
from qlib_ext.lookahead.provider import reading
from qlib_ext.market.store import QlibStore, read_list

STOCKS = 80  # of the universe; at a time about half of them are members of an index such as CSI300
OTHERS = 40  # who may join it, and indices


@contextmanager
def sampled(task: Mapping[str, Any], store: QlibStore, root: Path) -> Iterator[tuple[QlibStore, str]]:
    """Let Qlib read a part of the market where that costs much less, and say so.

    Qlib computes each feature of each stock apart, and 158 of them take 75 s for 650 stocks, on each of the markets
    that an audit loads. What follows from a later day does so in a market of fewer stocks too: a processor of the
    whole day sees the whole day of the smaller market, before and after a change. The package's own handlers compute
    all stocks at once, and see all of them.

    Parameters
    ----------
    task
        The `task` of a workflow.
    store
        The store that Qlib reads; it is only read.
    root
        A directory that does not exist yet, for the part: links and shorter lists of members.

    Yields
    ------
    The store that Qlib reads until the end of the block, and a sentence on it, empty where it is the whole.

    Notes
    -----
    A leak that reaches single stocks alone is not seen where they are not among those that are looked at.
    """
    universe = _universe(task)
    members = _members(store, universe)
    if len(members) < 2 * STOCKS:
        yield store, ""
        return
    others = sorted({*store.instruments()} - {*members})
    named = {code for code in others if f"'{code}'" in repr(task)}
    kept = {*_spread(members, STOCKS), *_spread(others, OTHERS), *named}
    write_sample(store, root, kept)
    with reading(root):
        yield (
            QlibStore(root),
            f"{STOCKS} of the {len(members)} stocks of `{universe}` were looked at, spread over their codes",
        )


def write_sample(store: QlibStore, root: Path, kept: set[str]) -> None:
    """Write a store of fewer stocks: their bars are links, and lists name no other."""
    root.mkdir(parents=True)
    for part in ("calendars", "side"):
        if (store.root / part).is_dir():
            (root / part).symlink_to((store.root / part).resolve())
    (root / "features").mkdir()
    for folder in sorted((store.root / "features").iterdir()):
        if folder.name.upper() in kept:
            (root / "features" / folder.name).symlink_to(folder.resolve())
    (root / "instruments").mkdir()
    for name in store.universes():
        lines = read_list(store.root / "instruments" / f"{name}.txt").splitlines()
        there = [line for line in lines if line.split("\t")[0].upper() in kept]
        (root / "instruments" / f"{name}.txt").write_text("".join(f"{x}\n" for x in there), encoding="utf-8")


def _universe(task: Mapping[str, Any]) -> str | None:
    """The universe of a handler of Qlib's or a user's; None of the package's own, and where none is named."""
    handler = task["dataset"].get("kwargs", {}).get("handler")
    if not isinstance(handler, Mapping):
        return None
    config = in_one_form(handler, "dataset.kwargs.handler")
    if "." not in config["class"]:
        return None
    found = locate(config["class"], name="dataset.kwargs.handler")
    if issubclass(found, PanelHandler):
        return None
    parameter = inspect.signature(found).parameters.get("instruments")
    given = config["kwargs"].get("instruments", None if parameter is None else parameter.default)
    return given if isinstance(given, str) else None


def _members(store: QlibStore, universe: str | None) -> list[str]:
    if universe is None or universe not in store.universes():
        return []
    return sorted({*store.membership(universe)["instrument"]} & {*store.instruments()})


def _spread(codes: list[str], number: int) -> list[str]:
    """About as many of the codes, evenly."""
    if len(codes) <= number:
        return codes
    return [codes[k] for k in np.linspace(0, len(codes) - 1, number).round().astype(int)]
