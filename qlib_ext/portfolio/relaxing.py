"""What gives way on a day on which no weights keep to all limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Relaxed:
    """A limit that gave way.

    Attributes
    ----------
    name
        Of the constraint.
    words
        What it was and what it became, in words.
    before, after
        The bound as it was stated and as it was widened, in its own unit.
    """

    name: str
    words: str
    before: float
    after: float
