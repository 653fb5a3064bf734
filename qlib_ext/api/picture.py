"""A picture that a notebook shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Picture:
    r"""A figure of matplotlib that shows itself in a notebook, whatever backend matplotlib has there.

    Parameters
    ----------
    figure
        The figure.

    Attributes
    ----------
    figure
        The same, to change it.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> Picture(Figure())._repr_png_()[:4]
    b'\x89PNG'
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure

    def save(self, path: str | Path) -> Path:
        """Write it, as PNG, SVG or PDF by the name; the file."""
        self.figure.savefig(path, dpi=150)
        return Path(path)

    def _repr_png_(self) -> bytes:
        from qlib_ext.report.figures import to_png

        return to_png(self.figure, dpi=100)
