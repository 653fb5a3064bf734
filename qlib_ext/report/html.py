"""HTML fragments from plain text: what comes in is text, and comes out escaped."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
DATE = re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d)?")
MOST_COLUMNS = 3  # that a telephone has room for beside each other
LONG = 26  # characters of a cell that has a card's whole width
BOX = '<div class="box"'  # how a box begins


class Link(NamedTuple):
    """Text that leads to a file near the page.

    Attributes
    ----------
    said
        The text.
    to
        The way to the file, relative to the folder of the page.
    """

    said: str
    to: str

    def __str__(self) -> str:
        return self.said


def text(content: object) -> str:
    """Escape text, quotes too, so that it may stand in an element or in an attribute."""
    return html.escape(str(content), quote=True)


def link(content: Link) -> str:
    """A link; its address is a path, whatever it is made of, and names neither a scheme nor a host."""
    return f'<a href="{text(quote(content.to.lstrip("/"), safe="/"))}">{text(content.said)}</a>'


def linked(content: Link) -> str:
    """A paragraph that is a link."""
    return f"<p>{link(content)}</p>"


def paragraph(content: object, kind: str = "") -> str:
    """A paragraph of text; `kind` is its class in the style sheet."""
    return f"<p{_class(kind)}>{text(content)}</p>"


def heading(content: object) -> str:
    """A heading inside a section."""
    return f"<h3>{text(content)}</h3>"


def items(contents: Iterable[object]) -> str:
    """A list of texts."""
    return "<ul>" + "".join(f"<li>{text(content)}</li>" for content in contents) + "</ul>"


def preformatted(content: object) -> str:
    """Text with its own line breaks, such as a file."""
    return f"<pre>{text(content)}</pre>"


def claims(contents: Iterable[tuple[str, object, object]]) -> str:
    """Answers with their reasons: each is `yes`, `no` or `unclear`, a sentence, and what it rests on."""
    marks = {"yes": "\N{CHECK MARK}", "no": "\N{MULTIPLICATION X}", "unclear": "?"}
    return (
        '<ul class="claims">'
        + "".join(
            f'<li class="{text(answer)}"><span class="mark" aria-hidden="true">{marks[answer]}</span>'
            f"<div><strong>{text(said)}</strong> {text(because)}</div></li>"
            for answer, said, because in contents
        )
        + "</ul>"
    )


def box(title: object, inner: str) -> str:
    """A fragment that the eye must not miss."""
    return f'{BOX} role="note"><h3>{text(title)}</h3>{inner}</div>'


def beside(*charts: str) -> str:
    """Charts next to each other, where the page is wide enough."""
    return f'<div class="charts">{"".join(charts)}</div>'


def details(summary: object, inner: str) -> str:
    """A fragment that the reader may open; on paper it is always open."""
    return f"<details><summary>{text(summary)}</summary>{inner}</details>"


def table(header: Sequence[object], rows: Iterable[Sequence[object]], *, numbers: Iterable[int] = ()) -> str:
    """A table of text. On a narrow screen one of many columns shows each row as a card, its cells under their headings.

    Parameters
    ----------
    header
        Texts of the columns.
    rows
        Texts of the cells, or links; the first of each row names the row.
    numbers
        Columns to align right, counted from 0.
    """
    right = {*numbers}
    cards = len(header) > MOST_COLUMNS

    def cell(column: int, content: object) -> str:
        looks = ["number"] if column in right else ["date"] if DATE.fullmatch(str(content)) else []
        looks += ["long"] if cards and len(str(content)) > LONG else []
        inner = link(content) if isinstance(content, Link) else text(content)
        if column == 0:
            return f'<th scope="row"{_class(" ".join(looks))}>{inner}</th>'
        label = f' data-label="{text(header[column])}"' if cards else ""
        return f"<td{_class(' '.join(looks))}{label}>{inner}</td>"

    head = "".join(
        f'<th scope="col"{_class("number" if k in right else "")}>{text(name)}</th>'
        for k, name in enumerate(header)
    )
    body = "".join(
        "<tr>" + "".join(cell(k, content) for k, content in enumerate(row)) + "</tr>" for row in rows
    )
    return (
        f'<div class="table"><table{_class("cards" if cards else "")}><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def facts(rows: Iterable[Sequence[object]]) -> str:
    """A table of names and what they are, without a head."""
    body = "".join(f'<tr><th scope="row">{text(name)}</th><td>{text(what)}</td></tr>' for name, what in rows)
    return f'<div class="table"><table class="facts"><tbody>{body}</tbody></table></div>'


def large_figures(shown: Iterable[tuple[object, object, object]]) -> str:
    """A few figures in large print: name, value and what stands beside it."""
    return (
        '<dl class="figures">'
        + "".join(
            f'<div><dt>{text(name)}</dt><dd>{text(value)}</dd><dd class="beside">{text(beside)}</dd></div>'
            for name, value, beside in shown
        )
        + "</dl>"
    )


def picture(source: str, *, alt: object, caption: object) -> str:
    """A picture with its caption; `source` is a data URI."""
    if not source.startswith("data:image/"):
        raise ValueError(f"a picture of the report must be a data URI, found {source[:40]!r}")
    return f'<figure><img src="{source}" alt="{text(alt)}"><figcaption>{text(caption)}</figcaption></figure>'


def percent(share: float, digits: int = 2, *, signed: bool = False) -> str:
    """A share in per cent, `0.1234` as `12.34%`; an en dash for NaN."""
    return NONE if _undefined(share) else _signed(100 * share, digits, signed) + "%"


def number(value: float, digits: int = 4, *, signed: bool = False) -> str:
    """A number with fixed decimals; an en dash for NaN."""
    return NONE if _undefined(value) else _signed(value, digits, signed)


def points(difference: float, digits: int = 2) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return NONE if _undefined(difference) else _signed(100 * difference, digits, True) + " pp"


def count(value: float) -> str:
    """A whole number with separators of thousands."""
    return NONE if _undefined(value) else f"{int(value):,}"


def _undefined(value: float) -> bool:
    return value is None or math.isnan(value)


def _signed(value: float, digits: int, signed: bool) -> str:
    written = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    if float(written.replace(",", "")) == 0:  # no minus zero
        written = written.lstrip("+-")
    return written.replace("-", MINUS)


def _class(kind: str) -> str:
    return f' class="{text(kind)}"' if kind else ""
