"""A page on disk that a notebook shows inline."""

from __future__ import annotations

import os
import webbrowser
from pathlib import Path

HEIGHT = 720  # pixels of a notebook


class Report:
    """A report or a comparison as one HTML file, which needs no network.

    In a notebook it shows in a frame, where the file lies below the notebook's folder; its path stands above it in any case.

    Parameters
    ----------
    path
        The page.
    left_out
        Titles of sections for which the run had no artifacts.

    Attributes
    ----------
    path, left_out
        The same.

    Examples
    --------
    >>> Report(Path("reports/runs/mine/report.html"))
    Report('reports/runs/mine/report.html')
    """

    def __init__(self, path: Path, left_out: list[str] | None = None) -> None:
        self.path = path
        self.left_out = left_out or []

    def __repr__(self) -> str:
        return f"Report({str(self.path)!r})"

    def open(self) -> bool:
        """Open it in a browser of this machine; whether there is one."""
        return webbrowser.open(self.path.resolve().as_uri())

    def _repr_html_(self) -> str:
        from qlib_ext.report.html import text

        source = text(Path(os.path.relpath(self.path)).as_posix())
        return (
            f'<p><a href="{source}" target="_blank">{text(self.path)}</a></p>'
            f'<iframe src="{source}" width="100%" height="{HEIGHT}" style="border: 1px solid #ccc"></iframe>'
        )
