"""How data reach a model in scripts around Qlib, as datasets that the audit can look at."""

from __future__ import annotations

from typing import Any

from qlib.data.dataset import DatasetH
from qlib.data.dataset.handler import DataHandlerLP


class LearnedFromEverywhere(DatasetH):
    """Hands out every segment as it is learned from, the test days too: what `DropnaLabel` drops there has no score."""

    def prepare(self, segments: Any, *args: Any, **kwargs: Any) -> Any:
        """As Qlib's, with the processors of learning."""
        kwargs["data_key"] = DataHandlerLP.DK_L
        return super().prepare(segments, *args, **kwargs)
