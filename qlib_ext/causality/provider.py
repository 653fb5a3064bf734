"""Which store Qlib reads, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qlib.config import C
from qlib.data.cache import H
from qlib.workflow import R


@contextmanager
def reading(root: Path) -> Iterator[None]:
    """Let Qlib read the store at `root`, with nothing in its memory of another one; afterwards as before."""
    before = C["provider_uri"], C["mount_path"]
    C["provider_uri"] = {C.DEFAULT_FREQ: str(root)}
    C["mount_path"] = {C.DEFAULT_FREQ: None}
    H.clear()
    try:
        yield
    finally:
        C["provider_uri"], C["mount_path"] = before
        H.clear()


class _Silent:
    """Takes the place of Qlib's recorder: what is trained for a look leaves no run behind."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


@contextmanager
def unrecorded() -> Iterator[None]:
    """Let what is trained log to nobody."""
    before = R._provider
    R._provider = _Silent()
    try:
        yield
    finally:
        R._provider = before
