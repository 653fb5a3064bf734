"""One self-contained HTML file out of titled parts: the report of a run, a comparison of runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources

from qlib_ext.report import html, interactive

# A browser that obeys this fetches nothing and runs only the scripts whose hashes are named, even if a part of the
# page should hold another.
POLICY = "default-src 'none'; {scripts}img-src data: blob:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
NOSCRIPT = "The charts of this page are drawn by its own scripts, which this browser does not run. Text and tables are complete."
FOOTER = (
    "Historical simulation on recorded prices. It is research, not investment advice, and says nothing certain about the "
    "future."
)


def page(title: str, subtitle: str, parts: Sequence[tuple[str, str]]) -> str:
    """The whole page: it opens without a network, on a screen of any width and on paper.

    Parameters
    ----------
    title
        Text of the heading.
    subtitle
        Text below it; empty for none.
    parts
        Heading (text) and content (HTML) of each part, in their order.
    """
    anchors = [f"{k}-{slug(heading)}" for k, (heading, _) in enumerate(parts, 1)]
    contents = "".join(
        f'<li><a href="#{anchor}">{html.text(heading)}</a></li>'
        for anchor, (heading, _) in zip(anchors, parts, strict=True)
    )
    body = "".join(
        f'<section id="{anchor}" aria-labelledby="{anchor}-title"><h2 id="{anchor}-title">{html.text(heading)}</h2>'
        f"{inner}</section>"
        for anchor, (heading, inner) in zip(anchors, parts, strict=True)
    )
    style = resources.files("qlib_ext.report").joinpath("style.css").read_text(encoding="utf-8")
    scripts, hashes = interactive.scripts() if 'class="chart"' in body else ("", ())
    policy = POLICY.format(scripts=f"script-src {' '.join(hashes)}; " if hashes else "")
    noscript = f'<noscript><p class="notice">{html.text(NOSCRIPT)}</p></noscript>' if scripts else ""
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{html.text(policy)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{html.text(title)}</title><link rel="icon" href="data:,">'
        f"<style>{style}</style></head>\n"
        f"<body><header><h1>{html.text(title)}</h1>{html.paragraph(subtitle, 'subtitle') if subtitle else ''}</header>"
        f'<nav aria-label="Contents"><ol>{contents}</ol></nav>'
        f"{noscript}<main>{body}</main>"
        f"<footer><p>{FOOTER}</p></footer>{scripts}</body></html>\n"
    )


def slug(title: str) -> str:
    """A text as a part of an address: lower case letters and digits, joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
