"""Backbone and heads as one module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from qlib_ext.config.build import build
from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.backbones.base import build_backbone
from qlib_ext.model.memory import ChunkedEmbedding
from qlib_ext.model.task import Task


class MultiTaskNetwork(nn.Module):
    """A shared backbone and one head a task (hard parameter sharing; MiM-StocR, Figure 1).

    Parameters
    ----------
    backbone
        `{class, kwargs}` of a `Backbone`.
    tasks
        K tasks; the heads carry their names.
    num_features, lookback_days, num_market
        F, T and M of the panels.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        tasks: Sequence[Task],
        *,
        num_features: int,
        lookback_days: int,
        num_market: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(
            backbone, num_features=num_features, lookback_days=lookback_days, num_market=num_market
        )
        self.heads = nn.ModuleDict(
            {
                task.name: build(
                    task.head,
                    nn.Module,
                    name=f"tasks.{task.name}.head",
                    in_features=self.backbone.out_features,
                    out_features=task.out_features,
                )
                for task in tasks
            }
        )
        self._chunked_embedding = ChunkedEmbedding()

    def forward(self, panel: DailyPanel, precision: str = "float32") -> dict[str, Tensor]:
        """Predictions by task: `[N]` for a regression, logits `[N, C]` for a classification.

        Heads run in float32 whatever the `precision` of the backbone: rounded scores would tie stocks.
        """
        with autocast(panel.features.device, precision):
            embedding = self.embed(panel)  # [N, E]
        return self.predict_heads(embedding)

    def embed(self, panel: DailyPanel) -> Tensor:
        """Embeddings `[N, E]`; in evaluation part by part where the device has no room for the whole day."""
        return self.backbone(panel) if self.training else self._chunked_embedding(self.backbone, panel)

    def predict_heads(self, embedding: Tensor) -> dict[str, Tensor]:
        """Heads alone, on embeddings `[N, E]`."""
        embedding = embedding.float()
        return {name: head(embedding) for name, head in self.heads.items()}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Where torch computes in bfloat16 what bears it, if that is the precision."""
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
