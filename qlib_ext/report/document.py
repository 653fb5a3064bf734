"""One self-contained HTML file out of sections."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources

from qlib_ext.checks import UserError
from qlib_ext.report import figures, html
from qlib_ext.report.artifacts import RunArtifacts, missing_message
from qlib_ext.report.sections.base import Section

# A browser that obeys this fetches nothing, even if a section should ask it to.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


class Document:
    """The report: a head, contents and the sections in their order.

    Parameters
    ----------
    sections
        At least one.

    Raises
    ------
    UserError
        If there is no section.
    """

    def __init__(self, sections: Sequence[Section]):
        if not sections:
            raise UserError("`sections` must name at least one section, found none")
        self.sections = [*sections]

    @property
    def requires(self) -> list[str]:
        """Artifact paths that the sections read, each once."""
        return [*dict.fromkeys(path for section in self.sections for path in section.requires)]

    def check(self, run: RunArtifacts) -> None:
        """Raise a UserError that names the artifacts that are missing and what writes them."""
        for section in self.sections:
            missing = [path for path in section.requires if not run.has(path)]
            if missing:
                raise UserError(missing_message(f"the report's section `{section.title}`", missing))

    def render(self, run: RunArtifacts) -> str:
        """The whole page: one file that opens without a network, on a screen of any width and on paper.

        Raises
        ------
        UserError
            If the run lacks an artifact.
        """
        self.check(run)
        anchors = [f"{k}-{_slug(section.title)}" for k, section in enumerate(self.sections, 1)]
        contents = "".join(
            f'<li><a href="#{anchor}">{html.text(section.title)}</a></li>'
            for anchor, section in zip(anchors, self.sections, strict=True)
        )
        body = "".join(
            f'<section id="{anchor}"><h2>{html.text(section.title)}</h2>{section.render(run)}</section>'
            for anchor, section in zip(anchors, self.sections, strict=True)
        )
        title = str(run.info.get("experiment", "Report"))
        style = resources.files("qlib_ext.report").joinpath("style.css").read_text(encoding="utf-8")
        return (
            "<!DOCTYPE html>\n"
            '<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{html.text(POLICY)}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{html.text(title)}</title><link rel="icon" href="data:,">'
            f"<style>{style}</style></head>\n"
            f"<body><header><h1>{html.text(title)}</h1>{_subtitle(run)}</header>"
            f'<nav aria-label="Contents"><ol>{contents}</ol></nav>'
            f"<main>{body}</main>"
            "<footer><p>Historical simulation on recorded prices. It is research, not investment advice, and says "
            "nothing certain about the future.</p></footer></body></html>\n"
        )

    def pictures(self, run: RunArtifacts) -> dict[str, bytes]:
        """Every figure of the sections as PNG, by file name.

        Raises
        ------
        UserError
            If the run lacks an artifact, or two sections give a figure the same name.
        """
        self.check(run)
        found: dict[str, bytes] = {}
        for section in self.sections:
            for name, figure in section.figures(run).items():
                file = f"{name}.png"
                if file in found:
                    raise UserError(f"two sections draw a figure `{name}`: give each its own name")
                found[file] = figures.to_png(figure)
        return found


def _subtitle(run: RunArtifacts) -> str:
    parts = []
    if run.has("data/summary.json"):
        summary = run.json("data/summary.json")
        test = summary["segments"].get("test")
        parts += [summary["universe"], f"test {test['start']} to {test['end']}" if test else ""]
    if run.info.get("run_id"):
        parts.append(f"run {run.info['run_id'][:8]} of {run.info.get('started', 'an unknown day')}")
    return html.paragraph(" \N{MIDDLE DOT} ".join(filter(None, parts)), "subtitle")


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
