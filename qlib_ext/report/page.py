"""One self-contained HTML file out of titled parts: the report of a run, a comparison of runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import NamedTuple

from qlib_ext.report import html, interactive
from qlib_ext.report.language import ENGLISH, Language

# A browser that obeys this fetches nothing and runs only the scripts whose hashes are named, even if a part of the
# page should hold another.
POLICY = "default-src 'none'; {scripts}img-src data: blob:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
NOSCRIPT = "The charts of this page are drawn by its own scripts, which this browser does not run. Text and tables are complete."
FOOTER = (
    "Historical simulation on recorded prices. It is research, not investment advice, and says nothing certain about the "
    "future."
)
OF_SCRIPT = ("Fold all", "Unfold all")  # texts in page.js


class Part(NamedTuple):
    """A section of a page, which the reader folds and unfolds.

    Attributes
    ----------
    heading
        Text, in the contents too.
    content
        HTML below it.
    open
        Whether it starts open; one with a box that the eye must not miss does in any case.
    answers
        Text beside the heading: the question that the section answers; empty for none.
    """

    heading: str
    content: str
    open: bool = True
    answers: str = ""


def page(
    title: str,
    subtitle: str,
    parts: Sequence[Part],
    language: Language = ENGLISH,
    *,
    scripts: Sequence[str] = (),
) -> str:
    """The whole page: it opens without a network, on a screen of any width and on paper.

    Parameters
    ----------
    title
        Text of the heading.
    subtitle
        Text below it; empty for none.
    parts
        In their order; contents lead to them where there are several.
    language
        Of what the reader sees; addresses within the page are those of the English headings.
    scripts
        Further files of this folder that the page runs, beside those of its charts and its contents.
    """
    several = len(parts) > 1
    titled = {f"{k}-{slug(part.heading)}": part for k, part in enumerate(parts, 1)}
    body = language.html(
        "".join(_section(anchor, part, is_open=not several) for anchor, part in titled.items())
    )
    contents = language.html(_contents(titled)) if several else ""
    written, hashes = interactive.scripts() if 'class="chart"' in body else ("", ())
    noscript = html.paragraph(language.text(NOSCRIPT), "notice")
    noscript = f"<noscript>{noscript}</noscript>" if written else ""
    for name in [*reversed(scripts), *(["page.js"] if several else [])]:
        own = language.script(_file(name), OF_SCRIPT)
        written, hashes = f"<script>{own}</script>{written}", (interactive.hash_of(own.encode()), *hashes)
    policy = POLICY.format(scripts=f"script-src {' '.join(hashes)}; " if hashes else "")
    return (
        "<!DOCTYPE html>\n"
        f'<html lang="{language.tag}"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{html.text(policy)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{html.text(title)}</title><link rel="icon" href="data:,">'
        f"<style>{_file('style.css')}{language.style}</style></head>\n"
        f"<body><header><h1>{html.text(title)}</h1>{html.paragraph(language.text(subtitle), 'subtitle') if subtitle else ''}</header>"
        f"{contents}<main>{noscript}{body}</main>"
        f"<footer><p>{language.text(FOOTER)}</p></footer>{written}</body></html>\n"
    )


def _section(anchor: str, part: Part, *, is_open: bool) -> str:
    """A part under its heading, which opens it and closes it; `is_open` where it starts open in any case."""
    is_open |= part.open or html.BOX in part.content
    answers = f'<span class="answers">{html.text(part.answers)}</span>' if part.answers else ""
    return (
        f'<section id="{anchor}" aria-labelledby="{anchor}-title"><details{" open" if is_open else ""}>'
        f'<summary><h2 id="{anchor}-title">{html.text(part.heading)}</h2>{answers}</summary>'
        f"{part.content}</details></section>"
    )


def _contents(titled: Mapping[str, Part]) -> str:
    """Links to the sections: a column at the side of a wide screen, a bar that unfolds on a narrow one."""
    links = "".join(
        f'<li><a href="#{anchor}">{html.text(part.heading)}</a></li>' for anchor, part in titled.items()
    )
    return (
        f'<nav aria-label="Contents"><details><summary>Contents</summary><ol>{links}</ol>'
        '<button type="button" class="all" hidden></button></details></nav>'
    )


def _file(name: str) -> str:
    return resources.files("qlib_ext.report").joinpath(name).read_text(encoding="utf-8")


def slug(title: str) -> str:
    """A text as a part of an address: lower case letters and digits, joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
