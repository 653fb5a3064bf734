"""Members of an ensemble beside each other: how alike their scores are, and what each adds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError
from qlib_ext.metrics.cross_section import Floats, spearman


def score_correlation(scores: npt.ArrayLike) -> Floats:
    """Mean over days of the rank correlation between the scores of each two members.

    Parameters
    ----------
    scores
        ``[M, D, S]``, NaN where a member has none.

    Returns
    -------
    ``[M, M]``, 1 on the diagonal; NaN where two members share no day.

    Examples
    --------
    >>> score_correlation([[[1.0, 2.0, 3.0]], [[3.0, 2.0, 1.0]]]).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    given = _members(scores)
    found = np.eye(len(given))
    for one in range(len(given)):
        for other in range(one):
            daily = spearman(given[one], given[other])
            known = daily[~np.isnan(daily)]
            found[one, other] = found[other, one] = known.mean() if len(known) else np.nan
    return found


def leave_one_out(
    scores: npt.ArrayLike, truth: npt.ArrayLike, combine: Callable[[Floats, list[int]], npt.ArrayLike]
) -> Floats:
    """What each member adds: the daily RankIC of all members, less that of all but one.

    Parameters
    ----------
    scores
        ``[M, D, S]``, NaN where a member has none.
    truth
        Returns ``[D, S]``.
    combine
        Of members' scores ``[m, D, S]`` and their positions the scores ``[D, S]``.

    Returns
    -------
    ``[M, D]``: above 0 on a day on which the ensemble is better with the member. NaN for the only member.
    """
    given = _members(scores)
    everyone = [*range(len(given))]
    whole = spearman(combine(given, everyone), truth)
    found = np.full((len(given), len(whole)), np.nan)
    for one in everyone if len(given) > 1 else ():
        others = [member for member in everyone if member != one]
        found[one] = whole - spearman(combine(given[others], others), truth)
    return found


def _members(scores: npt.ArrayLike) -> Floats:
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 3:
        raise UserError(f"`scores` must be [members, days, stocks], found the shape {array.shape}")
    return array
