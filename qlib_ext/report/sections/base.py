"""What a section of the report is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from qlib_ext.report import interactive
from qlib_ext.report.charts import Chart
from qlib_ext.tracking.artifacts import RunArtifacts


class LeftOut(NamedTuple):
    """A section that a run cannot feed, and the artifacts that it lacks."""

    title: str
    missing: tuple[str, ...]


class Section(ABC):
    """One part of the report: it names the artifacts that it reads and makes an HTML fragment of them.

    A new section is a new file with a subclass, named in a workflow by its dotted class. It builds its HTML with
    `qlib_ext.report.html`, which escapes, and describes its charts with `qlib_ext.report.charts`.

    Attributes
    ----------
    title : str
        Heading and entry in the contents.
    place : int or None
        Where it stands in the standard report, the lowest first; None for a section that stands there by `also` alone.
    open : bool
        Whether it starts open: what a reader needs first does. One with a box (`html.box`) does in any case.
    answers : str
        The question that it answers, beside its heading.
    requires : tuple of str
        Artifact paths without which it cannot be rendered; an instance may narrow them by its arguments. The standard
        report leaves a section out where the run lacks one of them, and says so.
    optional : tuple of str
        Artifact paths that it reads where the run has them; it asks by `run.has(path)`.
    """

    title: str
    place: int | None = None
    open: bool = False
    answers: str = ""
    requires: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Charts by file name without ending; they go into the page and beside it as PNG."""
        return {}

    @abstractmethod
    def render(self, run: RunArtifacts) -> str:
        """The HTML below the section's heading."""


def shown(name: str, chart: Chart) -> str:
    """A chart as part of the page, under the name that `charts` gives it."""
    return interactive.fragment(name, chart)
