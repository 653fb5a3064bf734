"""What a picture shows, apart from how it is drawn.

A chart is described once, by one of the classes below. `qlib_ext.report.interactive` makes of it the part of a page
that a reader can zoom, point at and switch on and off; `qlib_ext.report.figures` makes of it a PNG. Numbers are made
elsewhere: a chart only holds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError

CROWDED = 30  # columns of a table in colours


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What all charts have.

    Attributes
    ----------
    alt
        What is to be seen, for those who do not see it.
    caption
        What stands below it: what is shown, in which unit, how computed.
    ylabel, xlabel
        What the axes are, with units.
    percent
        Whether values are shares, to be written as per cent.
    height
        Of the drawing, in pixels on the page.
    colours
        Of the series in their order; empty for the house's own.
    """

    alt: str
    caption: str
    ylabel: str = ""
    xlabel: str = ""
    percent: bool = False
    height: int = 300
    colours: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Lines(Chart):
    """Lines over days or over numbers.

    Attributes
    ----------
    series
        Name -> values on an index of dates or of numbers; the indexes may differ. NaN leaves a gap.
    bands
        Name of a line -> its lower and upper bound, drawn as a shade in the line's colour.
    marks
        Name -> place on the x axis of a vertical line.
    levels
        Name -> height of a horizontal line, such as a base rate.
    filled
        Lines to fill down to zero.
    stacked
        Whether the lines are shares that pile up.
    hidden
        Lines that are shown when the reader asks for them.
    log_choice
        Whether the reader can choose a logarithmic axis; all values must then be positive.
    dots
        Whether every point is drawn as a dot too.
    """

    series: Mapping[str, pd.Series]
    bands: Mapping[str, tuple[pd.Series, pd.Series]] = field(default_factory=dict)
    marks: Mapping[str, object] = field(default_factory=dict)
    levels: Mapping[str, float] = field(default_factory=dict)
    filled: Sequence[str] = ()
    stacked: bool = False
    hidden: Sequence[str] = ()
    log_choice: bool = False
    dots: bool = False

    def __post_init__(self) -> None:
        _some("series", self.series)
        _among("bands", self.bands, self.series)
        _among("filled", self.filled, self.series)
        _among("hidden", self.hidden, self.series)
        if self.log_choice:
            for name, values in self.series.items():
                if (values <= 0).any():
                    raise UserError(
                        f"a logarithmic axis needs positive values, `{name}` has {values.min():g}"
                    )


@dataclass(frozen=True, kw_only=True)
class Bars(Chart):
    """Bars, side by side where there are several series.

    Attributes
    ----------
    values
        Categories in the rows, a series a column; NaN leaves a bar out.
    low, high
        Ends of the intervals, of the same shape; None draws none.
    start
        Where each bar begins, of the same shape, as in a waterfall; None at 0. Series then lie over each other.
    levels
        Name -> height of a horizontal line.
    horizontal
        Whether the bars lie, which leaves long names their room.
    stacked
        Whether the series pile up.
    """

    values: pd.DataFrame
    low: pd.DataFrame | None = None
    high: pd.DataFrame | None = None
    start: pd.DataFrame | None = None
    levels: Mapping[str, float] = field(default_factory=dict)
    horizontal: bool = False
    stacked: bool = False

    def __post_init__(self) -> None:
        _some("values", self.values.columns)


@dataclass(frozen=True, kw_only=True)
class Heatmap(Chart):
    """A table in colours.

    Attributes
    ----------
    values
        Rows from the top, columns from the left; NaN stays white.
    diverging
        Whether 0 is the middle of two colours; otherwise the colour deepens from the lowest value on.
    digits
        Decimals of the numbers in the cells; of per cent, where `percent`.
    """

    values: pd.DataFrame
    diverging: bool = True
    digits: int = 1

    def __post_init__(self) -> None:
        _some("values", self.values.columns)

    @property
    def crowded(self) -> bool:
        """Whether it has more columns than numbers have room for: colours alone are drawn."""
        return len(self.values.columns) > CROWDED

    def limit(self) -> float:
        """The largest absolute value, where a diverging colour is deepest; 1 where there is none."""
        sizes = np.abs(self.values.to_numpy(dtype=float))
        sizes = sizes[np.isfinite(sizes)]
        return float(sizes.max()) if len(sizes) and sizes.max() > 0 else 1.0


@dataclass(frozen=True, kw_only=True)
class Histogram(Chart):
    """How often values lie where.

    Attributes
    ----------
    samples
        Name -> values; NaN is left out. The bins are computed here, in Python, so that a page stays small.
    bins
        How many, over the range of all samples.
    marks
        Name -> place of a vertical line, such as the mean.
    """

    samples: Mapping[str, np.ndarray]
    bins: int = 60
    marks: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _some("samples", self.samples)

    def binned(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Edges `[bins + 1]` over the range of all samples, and how many values of each lie in which bin.

        Where no sample has a value, one bin about zero holds none.
        """
        samples = {name: np.asarray(values, dtype=float) for name, values in self.samples.items()}
        samples = {name: values[np.isfinite(values)] for name, values in samples.items()}
        every = np.concatenate([*samples.values()])
        edges = np.histogram_bin_edges(every, bins=self.bins) if len(every) else np.array([-0.5, 0.5])
        return edges, {name: np.histogram(values, bins=edges)[0] for name, values in samples.items()}


@dataclass(frozen=True, kw_only=True)
class Points(Chart):
    """Points, each with an x and a y.

    Attributes
    ----------
    series
        Name -> table with the columns `x` and `y`, and `text` where a point has a name.
    diagonal
        Whether the line y = x is drawn.
    joined
        Whether the points of a series are joined by a line.
    """

    series: Mapping[str, pd.DataFrame]
    diagonal: bool = False
    joined: bool = False

    def __post_init__(self) -> None:
        _some("series", self.series)
        for name, table in self.series.items():
            if not {"x", "y"} <= {*table.columns}:
                raise UserError(f"the points `{name}` need the columns `x` and `y`, found {[*table.columns]}")

    def extent(self) -> tuple[float, float]:
        """Lowest and highest of all x and y, between which the diagonal runs; 0 and 1 where there is no point."""
        every = np.concatenate([t[["x", "y"]].to_numpy(dtype=float).ravel() for t in self.series.values()])
        finite = every[np.isfinite(every)]
        return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def all_positive(lines: Mapping[str, pd.Series]) -> bool:
    """Whether a logarithmic axis can show all of them: an account that lost everything has none."""
    return all((line > 0).all() for line in lines.values())


def category(item: object) -> str:
    """A row or a column of a chart as its axis names it."""
    return f"{item:%Y-%m-%d}" if isinstance(item, pd.Timestamp) else str(item)


def _some(name: str, given: object) -> None:
    if not len(given):  # type: ignore[arg-type]
        raise UserError(f"a chart needs at least one series in `{name}`, found none")


def _among(name: str, given: Mapping[str, object] | Sequence[str], known: Mapping[str, object]) -> None:
    for key in given:
        if key not in known:
            raise UserError(f"`{name}` names `{key}`, which is none of the lines {[*known]}")
