"""The small market of the data's tests, for the engine."""

from __future__ import annotations

from tests.data.conftest import panel, qlib_reads_the_store, store, tiny, use

__all__ = ["panel", "qlib_reads_the_store", "store", "tiny", "use"]
