"""The list of the day as files: a page, a mail, tables and JSON, each whole or not there."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from qlib_ext.checks import counted
from qlib_ext.files import write_whole
from qlib_ext.market.finding import QualityReport
from qlib_ext.masking import masked
from qlib_ext.recommend.recommendation import Recommendation
from qlib_ext.report import html
from qlib_ext.report.page import Part, page
from qlib_ext.report.sections.quality import audited, in_short
from qlib_ext.terminal import visible

STATUS, STATUS_TEXT, LATEST = "status.json", "status.txt", "latest"
WIDTH = 78  # of a mail
SHOWN_FINDINGS = 20
STANDING = {"suspended": "suspended", "limit_up": "limit up", "limit_down": "limit down", "new": "new"}


class Shown(Protocol):
    """What of the settings the files tell."""

    @property
    def run(self) -> str:
        """The run that was asked for."""

    @property
    def top(self) -> int:
        """Stocks to show."""


def list_path(out: Path, day: str) -> Path:
    """The JSON file of the list of a day, which is written last."""
    return out / f"{day}.json"


def write_list(
    out: Path, found: Recommendation, audit: QualityReport, config: Shown, fetched: Sequence[str]
) -> tuple[tuple[Path, ...], str, str]:
    """Write page, mail, tables and JSON of a day, and the page and the mail as `latest` too.

    Returns
    -------
    files : tuple of Path
    text : str
        The mail.
    headline : str
        Its first line.
    """
    day = str(found.source["day"])
    scored = int(found.listed["rank"].notna().sum())
    warned = f", {counted(len(found.warnings), 'warning')}" if found.warnings else ""
    headline = (
        f"qlib-ext daily: list of {day} by {found.source['run_name']}, {counted(scored, 'stock')}{warned}"
    )
    headline = visible(headline)
    text = mail(headline, found, audit, config.top, fetched)
    document = {
        "wanted": config.run,
        **found.source,
        "warnings": found.warnings,
        "notes": found.notes,
        "fetched": list(fetched),
        "audit": audit.counts,
        "list": _records(found.listed.reset_index()),
        "orders": None if found.orders is None else _records(found.orders),
    }
    whole = page(f"List of {day}", _subtitle(found), _parts(found, audit, config.top, fetched))
    contents = {f"{day}.csv": found.listed.to_csv()}
    if found.orders is not None:
        contents[f"{day}.orders.csv"] = found.orders.to_csv(index=False)
    contents |= {f"{day}.html": whole, f"{day}.txt": text}
    contents |= {f"{LATEST}.html": whole, f"{LATEST}.txt": text}
    contents[list_path(out, day).name] = (
        json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )
    return tuple(_write(out / name, content) for name, content in contents.items()), text, headline


def write_status(
    out: Path, status: int, headline: str, text: str, day: str | None, files: Iterable[Path]
) -> None:
    """Write what a call came to, for whoever watches it."""
    document = {
        "exit_status": int(status),
        "headline": masked(headline),
        "day": day,
        "at": f"{pd.Timestamp.now('UTC'):%Y-%m-%dT%H:%M:%SZ}",
        "files": [path.name for path in files],
    }
    _write(out / STATUS_TEXT, masked(text))
    _write(out / STATUS, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def mail(headline: str, found: Recommendation, audit: QualityReport, top: int, fetched: Sequence[str]) -> str:
    """The list as plain text, the headline first, in lines that a mail can hold."""
    lines = [headline, ""]
    for said in found.warnings:
        lines += _wrapped(f"WARNING: {said}")
    lines += [""] * bool(found.warnings)
    lines.append(f"{'rank':>4}  {'code':<10}{'score':>10}{'close':>10}  name, industry, standing")
    for code, row in found.listed.head(top).iterrows():
        rank = "" if pd.isna(row["rank"]) else f"{int(row['rank'])}"
        figures = f"{rank:>4}  {code:<10}{_number(row['score'], 5):>10}{_number(row['close'], 2):>10}"
        # Put before the rest as it is: wrapping makes one blank of many.
        lines += [
            f"{figures if k == 0 else ' ' * len(figures)}  {line}".rstrip()
            for k, line in enumerate(_wrapped(_about(row), "", WIDTH - len(figures) - 2))
        ]
    if found.orders is not None:
        lines += ["", "Orders of the next trading day, sized by the closes of this one:"]
        for row in found.orders.itertuples(index=False):
            lines += _wrapped(
                f"{row.side:<5}{row.instrument:<10}{row.shares:>12,.10g} at {row.price:,.2f}  {row.reason}",
                "     ",
            )
    lines += ["", *_wrapped(f"Audit: {in_short(audit)}")]
    lines += [line for said in (*fetched, *found.notes) for line in _wrapped(f"- {said}", "  ")]
    return "\n".join(lines) + "\n"


def _parts(found: Recommendation, audit: QualityReport, top: int, fetched: Sequence[str]) -> list[Part]:
    listed = _table(found.listed.head(top))
    if len(found.listed) > top:
        listed += html.paragraph(
            f"The first {top:,} of {len(found.listed):,} members of the universe; the file {found.source['day']}.csv has all.",
            "note",
        )
    warned = html.box("Look into this first", html.items(found.warnings)) if found.warnings else ""
    parts = [Part("The list", warned + listed, answers="Which stocks does the model rank first?")]
    if found.orders is not None:
        parts.append(
            Part(
                "Orders of the next trading day",
                _orders(found.orders),
                answers="What would the strategy of the run do?",
            )
        )
    parts.append(Part("Notes", html.items([*found.notes, *fetched]), answers="What should be known of it?"))
    parts.append(
        Part("Data", audited(audit, SHOWN_FINDINGS), open=False, answers="What is wrong with the data?")
    )
    return parts


def _subtitle(found: Recommendation) -> str:
    source = found.source
    return (
        f"{source['universe']} at the close of {source['day']}, by {source['run_name']} ({source['run'][:8]}). It is traded on the "
        "next trading day."
    )


def _table(listed: pd.DataFrame) -> str:
    rows = [
        (
            code,
            html.NONE if pd.isna(row["rank"]) else int(row["rank"]),
            _number(row["score"], 5),
            _number(row["close"], 2),
            _about(row) or html.NONE,
        )
        for code, row in listed.iterrows()
    ]
    return html.table(["Code", "Rank", "Score", "Close", "About"], rows, numbers=[1, 2, 3])


def _orders(orders: pd.DataFrame) -> str:
    if orders.empty:
        return html.paragraph("None.")
    rows = [
        (
            row.instrument,
            row.side,
            f"{row.shares:,.10g}",
            f"{row.price:,.2f}",
            f"{row.value:,.0f}",
            row.reason,
        )
        for row in orders.itertuples(index=False)
    ]
    return html.table(["Code", "Side", "Shares", "Close", "Value", "Why"], rows, numbers=[2, 3, 4])


def _about(row: pd.Series) -> str:
    told = [str(row[name]) for name in ("name", "industry") if name in row and isinstance(row[name], str)]
    return visible(", ".join([*told, *(said for name, said in STANDING.items() if row[name])]))


def _number(value: Any, digits: int) -> str:
    return "" if pd.isna(value) else f"{value:.{digits}f}"


def _wrapped(text: str, indent: str = "  ", width: int = WIDTH) -> list[str]:
    return textwrap.wrap(text, max(width, 20), subsequent_indent=indent, break_on_hyphens=False) or [""]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them, None where there is nothing."""
    return json.loads(table.to_json(orient="records", date_format="iso", double_precision=10))


def _write(path: Path, content: str) -> Path:
    write_whole(path, content)
    return path
