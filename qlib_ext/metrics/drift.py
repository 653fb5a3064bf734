"""How far a distribution has moved between two samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import integer

FLOOR = 1e-4  # a bin without a value counts as this share, or the index would be infinite


def population_stability_index(reference: npt.ArrayLike, sample: npt.ArrayLike, bins: int = 10) -> float:
    r"""Population stability index of a sample beside a reference: 0 where both fall into the same bins.

    Source: N. Siddiqi, *Credit Risk Scorecards* (2006), who takes below 0.1 for no change and above 0.25 for a large one.

    .. math:: \sum_b (s_b - r_b) \ln \frac{s_b}{r_b}

    with the shares :math:`r_b` of the reference and :math:`s_b` of the sample in bins between quantiles of the reference.

    Parameters
    ----------
    reference, sample
        Values; missing ones are left out of both.
    bins
        Bins of about as many values of the reference each; values that are the same share one.

    Returns
    -------
    The index; NaN where either has no value.

    Examples
    --------
    >>> round(population_stability_index([1, 2, 3, 4], [1, 1, 1, 4], bins=2), 3)
    0.275
    """
    integer("bins", bins, 2)
    first, second = (values[~np.isnan(values)] for values in map(_flat, (reference, sample)))
    if not len(first) or not len(second):
        return float("nan")
    edges = np.unique(np.quantile(first, np.linspace(0, 1, bins + 1)[1:-1]))
    r, s = (np.maximum(_shares(values, edges), FLOOR) for values in (first, second))
    return float(((s - r) * np.log(s / r)).sum())


def _flat(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).ravel()


def _shares(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    counts = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
    return counts / len(values)
