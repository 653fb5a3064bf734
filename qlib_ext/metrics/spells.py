"""How long stocks are held."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError


def spells(held: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of days on which a stock is held.

    Parameters
    ----------
    held
        Whether a stock is held at the close of a day: bool ``[D, S]`` (days x stocks).

    Returns
    -------
    stock, first, after : int arrays ``[R]``
        Column of the stock, its first day of the run, and the first day after it (D where the run lasts to the end):
        `after - first` days. By stock, then by day.

    Raises
    ------
    UserError
        If `held` is not a table of true and false.
    """
    held = np.asarray(held)
    if held.ndim != 2 or held.dtype != bool:
        raise UserError(f"`held` must be bool [D, S], found {held.dtype} of shape {held.shape}")
    edges = np.diff(np.pad(held.astype(np.int8), ((1, 1), (0, 0))), axis=0).T  # [N, D + 1]
    stock, first = np.nonzero(edges == 1)
    _, after = np.nonzero(edges == -1)
    return stock, first, after
