"""How different several factors are from each other, by the matrix of their correlations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError, between
from qlib_ext.metrics.cross_section import Floats, matrix


class Clusters(NamedTuple):
    """Factors that go together.

    Attributes
    ----------
    order
        ``[F]`` positions, so that neighbours are alike.
    number
        ``[F]`` the cluster of each factor, from 1 in that order.
    """

    order: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]


def clusters(correlation: npt.ArrayLike, least: float = 0.7) -> Clusters:
    r"""Group factors by average linkage on the distance :math:`1 - |\rho|`.

    A factor and its negative are one and the same, so the sign does not count.

    Parameters
    ----------
    correlation
        ``[F, F]``, symmetric; NaN counts as 0.
    least
        Average correlation, in [0, 1], down to which factors are one cluster.

    Returns
    -------
    `Clusters`; the order puts the most alike beside each other (Bar-Joseph and others 2001, "Fast optimal leaf ordering").

    Raises
    ------
    UserError
        If `correlation` is not square, or `least` out of its range.

    Examples
    --------
    >>> clusters([[1.0, 0.1, -0.9], [0.1, 1.0, 0.0], [-0.9, 0.0, 1.0]]).number.tolist()
    [2, 1, 2]
    """
    from scipy.cluster.hierarchy import fcluster, leaves_list, linkage  # here: it takes long to import
    from scipy.spatial.distance import squareform

    between("least", least, 0, 1)
    size = np.abs(_square(correlation))
    if len(size) < 2:
        return Clusters(np.arange(len(size)), np.ones(len(size), dtype=np.int64))
    distance = squareform(np.clip(1 - (size + size.T) / 2, 0, 1), checks=False)
    tree = linkage(distance, "average", optimal_ordering=True)
    order = leaves_list(tree).astype(np.int64)
    found = fcluster(tree, 1 - least, "distance")
    _, first, place = np.unique(found[order], return_index=True, return_inverse=True)
    number = np.empty(len(size), dtype=np.int64)
    number[order] = np.argsort(np.argsort(first))[place] + 1
    return Clusters(order, number)


def effective_number(correlation: npt.ArrayLike) -> float:
    r"""How many independent factors would be as diverse.

    .. math:: F^2 / \sum_{ij} \rho_{ij}^2 = \left(\sum_i \lambda_i\right)^2 / \sum_i \lambda_i^2

    with the eigenvalues of the matrix: F where no two go together, 1 where all are the same.

    Parameters
    ----------
    correlation
        ``[F, F]``; NaN counts as 0.

    Returns
    -------
    In [1, F]; 0 without a factor.
    """
    square = _square(correlation)
    np.fill_diagonal(square, 1.0)
    return float(len(square) ** 2 / max((square**2).sum(), 1e-300)) if len(square) else 0.0


def nearest(correlation: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], Floats]:
    """The other factor that each goes with most, by absolute value ``[F]``, and the correlation; -1 and NaN for none."""
    square = _square(correlation, missing=np.nan)
    np.fill_diagonal(square, np.nan)
    size = np.where(np.isnan(square), -1.0, np.abs(square))
    if len(square) < 2:
        return np.full(len(square), -1), np.full(len(square), np.nan)
    place = size.argmax(axis=1)
    found = square[np.arange(len(square)), place]
    return np.where(np.isnan(found), -1, place), found


def _square(correlation: npt.ArrayLike, missing: float = 0.0) -> Floats:
    square = matrix("correlation", correlation)
    if square.shape[0] != square.shape[1]:
        raise UserError(f"`correlation` must be a square [factors, factors], found the shape {square.shape}")
    return np.where(np.isnan(square), missing, square)
