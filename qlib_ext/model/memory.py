"""A device without room: smaller parts of a day where these give the same figures, else what to set. Memory that is used again."""

from __future__ import annotations

import ctypes
import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from qlib_ext.checks import UserError
from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.backbones.base import Backbone

logger = logging.getLogger(__name__)

WHAT_TO_SET = (
    "take a smaller `hidden_size` (HIDDEN_SIZE), `precision: bfloat16` (PRECISION), a smaller universe or `device: cpu` "
    "(DEVICE=cpu), or end what else runs on the device"
)

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
KEPT = 2_000_000_000  # bytes, at most
GIVEN_BACK = 1 << 30  # bytes: blocks of this size go back at once


def reuse_freed_memory() -> None:
    """Let this process keep what a training step frees for the step that comes next.

    A step's tensors are tens of megabytes each. glibc gives blocks of this size back to the system at once and asks for them again,
    and the system clears every page anew, which took a quarter of an LSTM's epoch (`python -m benchmarks.seeds`). From this call on the process keeps
    up to 2 GB that it has freed; blocks of 1 GB or more go back as before. With another C library nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(MMAP_THRESHOLD, GIVEN_BACK)
    mallopt(TRIM_THRESHOLD, KEPT)


@contextmanager
def oom_as_user_error(doing: str) -> Iterator[None]:
    """Turn what a GPU says when it has no room into what to set.

    Raises
    ------
    UserError
        In the place of torch's `OutOfMemoryError`.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the device is out of memory while {doing}: {WHAT_TO_SET} ({_first_line(error)})"
        ) from error


class ChunkedEmbedding:
    """Embeds a day in evaluation, in parts where the device has no room for all of it.

    Parts are halved until one fits, and later days begin with the size that did. Only a backbone whose stocks do not
    see each other is cut: of any other, the embeddings of a part are not those of the day.
    """

    def __init__(self) -> None:
        self.stocks_at_once: int | None = None  # all

    def __call__(self, backbone: Backbone, panel: DailyPanel) -> Tensor:
        """Embeddings `[N, E]`.

        Raises
        ------
        UserError
            If there is no room, and the day cannot be cut, or not any more.
        """
        while True:
            size = min(self.stocks_at_once or len(panel), len(panel))
            failed = None
            try:
                return _embed(backbone, panel, size)
            except torch.OutOfMemoryError as error:
                # the error itself must not outlive this block: it holds the frames, and these what fills the device
                failed = _first_line(error)
            if backbone.stocks_see_each_other:
                raise UserError(
                    f"the device is out of memory while evaluating the {len(panel)} stocks of {panel.date:%Y-%m-%d}, and "
                    f"{type(backbone).__name__} needs all stocks of a day at once: {WHAT_TO_SET} ({failed})"
                )
            if size <= 1:
                raise UserError(
                    f"the device is out of memory while evaluating a single stock of {panel.date:%Y-%m-%d}: "
                    f"{WHAT_TO_SET} ({failed})"
                )
            self.stocks_at_once = size // 2
            logger.warning(
                "the device is out of memory with %d stocks of %s at once: evaluating %d at a time, which gives the same "
                "figures to rounding",
                size,
                f"{panel.date:%Y-%m-%d}",
                self.stocks_at_once,
            )
            torch.cuda.empty_cache()


def _embed(backbone: Backbone, panel: DailyPanel, size: int) -> Tensor:
    if size >= len(panel):
        return backbone(panel)
    starts = range(0, len(panel), size)
    return torch.cat([backbone(_some(panel, slice(start, start + size))) for start in starts])  # [N, E]


def _some(panel: DailyPanel, rows: slice) -> DailyPanel:
    """The day with some of its stocks."""
    return replace(
        panel,
        features=panel.features[rows],
        instruments=panel.instruments[rows],
        market_value=None if panel.market_value is None else panel.market_value[rows],
        labels={name: values[rows] for name, values in panel.labels.items()},
        raw_labels={name: values[rows] for name, values in panel.raw_labels.items()},
        concepts=None if panel.concepts is None else panel.concepts[rows],
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
