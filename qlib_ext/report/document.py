"""The report of a run: one self-contained HTML file out of sections."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from qlib_ext.checks import UserError
from qlib_ext.report import figures
from qlib_ext.report.language import ENGLISH, Language
from qlib_ext.report.page import Part, page
from qlib_ext.report.sections.base import Section
from qlib_ext.tracking.artifacts import RunArtifacts, missing_message, reading


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
        """Artifact paths that the sections cannot do without, each once."""
        return [*dict.fromkeys(path for section in self.sections for path in section.requires)]

    @property
    def reads(self) -> list[str]:
        """Artifact paths that the sections read, where the run has them, each once."""
        optional = (path for section in self.sections for path in section.optional)
        return [*dict.fromkeys([*self.requires, *optional])]

    def check(self, run: RunArtifacts) -> None:
        """Raise a UserError that names the artifacts that are missing and what writes them."""
        for section in self.sections:
            missing = [path for path in section.requires if not run.has(path)]
            if missing:
                raise UserError(
                    missing_message(f"the report's section `{section.title}`", missing, run.makers)
                )

    def render(self, run: RunArtifacts, language: Language = ENGLISH) -> str:
        """The whole page: one file that opens without a network, on a screen of any width and on paper.

        Raises
        ------
        UserError
            If the run lacks an artifact, or a section of the package finds in one what no version of it writes.
        """
        self.check(run)
        parts = []
        for section in self.sections:
            with _reading(section, run):
                parts.append(Part(section.title, section.render(run), section.open, section.answers))
        with reading("the head of the report", ["data/summary.json"]):
            subtitle = _subtitle(run)
        return page(str(run.info.get("experiment", "Report")), subtitle, parts, language)

    def pictures(self, run: RunArtifacts) -> dict[str, bytes]:
        """Every chart of the sections as PNG, by file name.

        Raises
        ------
        UserError
            If the run lacks an artifact, or two sections give a chart the same name.
        """
        self.check(run)
        found: dict[str, bytes] = {}
        for section in self.sections:
            with _reading(section, run):
                charts = section.charts(run)
            for name, chart in charts.items():
                file = f"{name}.png"
                if file in found:
                    raise UserError(f"two sections draw a chart `{name}`: give each its own name")
                found[file] = figures.to_png(figures.drawn(chart))
        return found


def _reading(section: Section, run: RunArtifacts) -> contextlib.AbstractContextManager[None]:
    """For a section of the package; what goes wrong in a user's own is shown as it is."""
    if not type(section).__module__.startswith("qlib_ext."):
        return contextlib.nullcontext()
    paths = [path for path in (*section.requires, *section.optional) if run.has(path)]
    return reading(f"the report's section `{section.title}`", paths)


def _subtitle(run: RunArtifacts) -> str:
    parts = []
    if run.has("data/summary.json"):
        summary = run.json("data/summary.json")
        test = summary["segments"].get("test")
        parts += [summary["universe"], f"test {test['start']} to {test['end']}" if test else ""]
    if run.info.get("run_id"):
        parts.append(f"run {run.info['run_id'][:8]} of {run.info.get('started', 'an unknown day')}")
    return " \N{MIDDLE DOT} ".join(filter(None, parts))
