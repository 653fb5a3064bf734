"""`qlib-ext data download`."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from qlib_ext.cli.answer import Answer
from qlib_ext.cli.data.summary import audit, described, facts
from qlib_ext.terminal import say


def download(
    out: Annotated[Path, typer.Option(help="Directory to make, in Qlib's format.")],
    region: Annotated[str, typer.Option(help="cn or us.")] = "cn",
    name: Annotated[str, typer.Option(help="qlib_data, or qlib_data_simple, which is small.")] = "qlib_data",
    version: Annotated[
        str | None, typer.Option(help="Of the data, such as v1; without it, what Qlib takes.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the store at --out; its own side data are kept.")
    ] = False,
) -> Answer:
    """Download daily bars with Qlib's own getter, whole or not at all, and audit them."""
    from qlib_ext.market.importing.download import download  # here, so that `qlib-ext --help` stays quick

    began = time.perf_counter()
    # Qlib's bars of progress are for eyes; its messages come all the same.
    with contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO()):
        store = download(out, region=region, name=name, version=version, replace=replace)
    say(f"{out}: {described(store)} ({time.perf_counter() - began:.1f} s)")
    audited = audit(out)
    say(f"To use it: QLIB_DATA={out}")
    return Answer({"store": out, **facts(store), "audit": audited}, then=f"qlib-ext data info {out}")
