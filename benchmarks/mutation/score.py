"""A score from a sample of mutants, and how far it may be from that of all."""

from __future__ import annotations

import math

Z = 1.959963984540054
"""The normal quantile of 97.5 %, for a two-sided interval of 95 %."""


def wilson(hits: int, of: int) -> tuple[float, float]:
    """Wilson's interval of 95 % for a share, which stays within 0 and 1 and holds for few and for extreme cases.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.
    """
    if not 0 <= hits <= of or of < 1:
        raise ValueError(f"expected 0 <= hits <= of and of at least 1, found {hits} of {of}")
    share, weight = hits / of, Z * Z / of
    middle = (share + weight / 2) / (1 + weight)
    half = Z / (1 + weight) * math.sqrt(share * (1 - share) / of + weight / (4 * of))
    return max(0.0, middle - half), min(1.0, middle + half)
