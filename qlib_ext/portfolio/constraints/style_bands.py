"""How far a portfolio leans towards small firms, past winners, calm stocks and so on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qlib_ext.checks import UserError, at_least, brief, instance, nearest, one_of
from qlib_ext.features.exposures.style_exposures import HISTORY_DAYS, STYLES, standardised, styles
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.constraints.centre import SAID, centre, missing
from qlib_ext.portfolio.constraints.limits import Limit, Linear, within
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk

AGAINST = ("benchmark", "equal", "nothing")


class StyleBands(Constraint):
    """The portfolio's exposure to each of some styles lies in a band around that of a benchmark.

    Exposures are the risk model's, where it has a factor of this name; else they are made of the store's bars, as standard
    deviations from the mean of the stocks with a score. A stock whose exposure is not known counts as the mean, and it is told.

    Parameters
    ----------
    bands
        Style -> `[low, high]`: names of the risk model's factors, or size, beta, momentum, volatility, reversal, liquidity.
    against
        `benchmark`, that of the portfolio; `equal`, every stock with a score at the same weight; or `nothing`, for the exposure
        itself.
    name
        What it is called, where a portfolio has two of the kind.

    Raises
    ------
    UserError
        If a band has no two numbers in order, or a style is not known.
    """

    days_back = HISTORY_DAYS

    def __init__(
        self, bands: Mapping[str, Sequence[float]], against: str = "benchmark", name: str = "style"
    ) -> None:
        self.name = instance("name", name, str)
        if not isinstance(bands, Mapping) or not bands:
            raise UserError(f"`bands` must be a mapping from styles to [low, high], found {brief(bands)}")
        for style, band in bands.items():
            if not isinstance(band, list | tuple) or len(band) != 2:
                raise UserError(f"`bands.{style}` must be [low, high], found {brief(band)}")
            at_least(f"bands.{style}[1]", band[1], at_least(f"bands.{style}[0]", band[0], -100))
        self.bands = {style: (float(low), float(high)) for style, (low, high) in bands.items()}
        self.against = one_of("against", against, AGAINST)

    def check_store(self, store: QlibStore, factors: set[str] | None) -> None:
        """A band is of a factor of the risk model, or of a style."""
        if factors is None:
            return
        known = sorted({*factors, *STYLES})
        for style in self.bands:
            if style not in known:
                raise UserError(
                    f"`bands` must name factors of the risk model or styles, {', '.join(known)}; found {style!r}"
                    f"{nearest(str(style), known)}"
                )

    def limits(self, known: KnownDay, risk: Risk) -> list[Limit]:
        """A sum a style; what the benchmark has is taken off by the share that is invested."""
        exposures = np.array([np.nan_to_num(one) for one in self._exposures(known, risk).values()])
        of_centre = np.zeros(len(exposures))
        words = "exposures in their bands"
        if self.against != "nothing":
            of_centre = exposures @ centre(known, self.against, "a style band")
            words += f" around {SAID[self.against]}"
        low, high = np.array([*self.bands.values()]).T
        rows = tuple(f"exposure to {style}" for style in self.bands)
        said = " and ".join(
            f"{style} {within(*band, in_percent=False)}" for style, band in self.bands.items()
        )
        matrix = exposures - of_centre[:, None]
        return [Linear(self.name, f"{words} ({said})", matrix, low, high, rows, of_centre, percent=False)]

    def notes(self, known: KnownDay, risk: Risk) -> list[str]:
        """Of how many an exposure is not known."""
        found = self._exposures(known, risk).items()
        return [
            note
            for style, exposure in found
            for note in missing(f"the exposure to {style}", np.isnan(exposure), "the mean's is taken")
        ]

    def _exposures(self, known: KnownDay, risk: Risk) -> dict[str, Floats]:
        """Style -> `[N]`, NaN where it is not known."""
        found = {} if risk.loadings is None else dict(zip(risk.factors, risk.loadings.T, strict=True))
        if set(self.bands) - set(found):
            found = _of_bars(known) | found
        for style in self.bands:
            if style not in found:
                raise UserError(
                    f"`bands` must name factors of the risk model or styles that the store has, {', '.join(sorted(found))}; "
                    f"found {style!r}{nearest(style, sorted({*found, *STYLES}))}"
                )
        return {style: found[style] for style in self.bands}


def _of_bars(known: KnownDay) -> dict[str, Floats]:
    """Style -> today's exposures `[N]`, NaN where they are not known."""
    close, size = known.plane("close"), known.planes.get("market_value")
    planes = styles(close, known.market, size, known.planes.get("traded_value"))
    members = np.isfinite(known.score)[None]
    today = {style: plane[-1:] for style, plane in planes.items()}
    return {
        style: np.where(np.isfinite(plane), standardised(plane, members), np.nan)[0]
        for style, plane in today.items()
    }
