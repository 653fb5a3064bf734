"""What is known of stocks anyway, as far as the scorecard holds factors against it."""

from __future__ import annotations

from dataclasses import replace

from qlib_ext.factors.subject import Subject
from qlib_ext.features.exposures.style_exposures import REVERSAL_DAYS, Exposures, load_exposures

STYLES = ("size", "beta", "volatility", "reversal")


def exposures(subject: Subject) -> Exposures:
    """The exposures of a subject's stocks that the scorecard tells of, as far as the store has them."""
    known = load_exposures(subject.store, subject.market, subject.universe, subject.benchmark)
    told = {name: known.told[name] for name in (*STYLES, "industry")}
    told["reversal"] = (
        f"return of the last {REVERSAL_DAYS} days: below 0 a factor bets on reversal, above 0 on momentum"
    )
    if known.industry is not None:
        told["industry"] = (
            f"share of the spread of ranks that lies between {len(known.industry_names)} industries, adjusted for "
            "their number"
        )
    return replace(
        known, planes={name: known.planes[name] for name in STYLES if name in known.planes}, told=told
    )
