"""Which store Qlib reads, for a while."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qlib
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


def start(settings: Mapping[str, Any]) -> None:
    """Let Qlib read what the `qlib_init` of a workflow says; no experiment is begun, and Qlib says errors only."""
    given = {key: value for key, value in settings.items() if key != "exp_manager"}
    qlib.init(**{**given, "logging_level": logging.ERROR})
