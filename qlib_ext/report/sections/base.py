"""What a section of the report is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from matplotlib.figure import Figure

from qlib_ext.report.artifacts import RunArtifacts
from qlib_ext.report.figures import to_data_uri
from qlib_ext.report.html import picture


class Section(ABC):
    """One part of the report: it names the artifacts that it reads and makes an HTML fragment of them.

    A new section is a new file with a subclass, named in a workflow by its dotted class. It builds its HTML with
    `qlib_ext.report.html`, which escapes, and its pictures with `qlib_ext.report.figures`.

    Attributes
    ----------
    title : str
        Heading and entry in the contents.
    requires : tuple of str
        Artifact paths without which it cannot be rendered; an instance may narrow them by its arguments.
    """

    title: str
    requires: tuple[str, ...] = ()

    def figures(self, run: RunArtifacts) -> Mapping[str, Figure]:
        """Pictures by file name without ending; they go into the page and beside it as PNG."""
        return {}

    @abstractmethod
    def render(self, run: RunArtifacts) -> str:
        """The HTML below the section's heading."""


def shown(figure: Figure, *, alt: str, caption: str) -> str:
    """A figure as part of the page."""
    return picture(to_data_uri(figure), alt=alt, caption=caption)
