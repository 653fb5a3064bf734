"""Where the rows of a feature set lie: in memory, or in a file that is mapped."""

from __future__ import annotations

import mmap
from collections.abc import Callable

import numpy as np

Allocate = Callable[[tuple[int, ...]], np.ndarray]  # from a shape to a float32 array, with any content


def in_memory(shape: tuple[int, ...]) -> np.ndarray:
    """An array as numpy gives it."""
    return np.empty(shape, np.float32)


def forget_pages(array: np.ndarray) -> None:
    """Take the pages of a mapped file, which were worked through, out of this process; they stay in the file.

    Nothing where the array is in memory. What was written to a map that is private (mode `c`) would be lost.
    """
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
