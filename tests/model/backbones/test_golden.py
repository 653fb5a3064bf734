"""Two numbers of every backbone's embeddings, from weights and features that are written down here."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.backbones.alstm import ALSTM
from qlib_ext.model.backbones.dsn import DSN
from qlib_ext.model.backbones.gats import GATs
from qlib_ext.model.backbones.gru import GRU
from qlib_ext.model.backbones.hist import HIST
from qlib_ext.model.backbones.master import MASTER
from qlib_ext.model.backbones.mccnn import MCCNN
from qlib_ext.model.backbones.resnext import ResNeXt
from qlib_ext.model.backbones.rsr import RSR
from qlib_ext.model.backbones.transformer import Transformer

RESNEXT = {"cardinality": 2, "width": 4, "stages": 2, "stem_channels": 4, "stem_days": 3}
GOLDEN = [
    (GRU, {}, (0.2074025, -0.9539453)),
    (ALSTM, {}, (0.0863571, -0.4788144)),
    (ALSTM, {"rnn": "GRU"}, (0.0667952, -0.7801652)),
    (Transformer, {"num_heads": 2, "feedforward_size": 3}, (2.3193789, 0.4704949)),
    (Transformer, {"num_heads": 2, "feedforward_size": 3, "pooling": "mean"}, (2.3196743, 0.4705142)),
    (GATs, {}, (-0.0028968, -0.0097433)),
    (GATs, {"rnn": "LSTM"}, (0.1435147, -0.0045847)),
    (RSR, {}, (0.1327521, -0.4540035)),
    (RSR, {"strength": "implicit", "num_concepts": 2}, (0.1327521, -0.4544252)),
    (HIST, {}, (5.9491482, 2.5264978)),
    (HIST, {"correct_concepts": True}, (6.4571924, 2.6209619)),
    (ResNeXt, {**RESNEXT, "norm": "batch"}, (4.5727134, 0.4233512)),
    (ResNeXt, {**RESNEXT, "blocks": 2}, (6.2697296, 0.8681377)),
    (ResNeXt, {**RESNEXT, "norm": "batch", "pooling": "attention"}, (4.5742865, 0.4224346)),
    (DSN, {"layer_sizes": (3,)}, (1.4955173, 0.5380614)),
    (MCCNN, {"layers": 1, "filters": 3, "filter_days": 3}, (0.0, 0.8352555)),
    (MASTER, {"num_heads": 2, "num_market": 3}, (6.0071812, -1.1650960)),
    (MASTER, {"num_heads": 2, "num_stock_heads": 4, "beta": None}, (6.0069408, -1.1649057)),
]


def waves(count: int) -> np.ndarray:
    """Numbers in [-1, 1] that no library's generator can change."""
    return np.sin(np.arange(1, count + 1) ** 1.5 + 1)


def embeddings(kind, kwargs):
    panel = DailyPanel(
        date=pd.Timestamp("2020-01-02"),
        features=torch.from_numpy(waves(5 * 3 * 2)).float().view(5, 3, 2),
        instruments=torch.arange(5),
        market_value=torch.tensor([1.0, 2.0, 4.0, 3.0, 5.0]),
        labels={},
        raw_labels={},
        concepts=torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]]),
        market_status=torch.tensor([0.5, -1.0, 2.0]),
    )
    backbone = kind(num_features=2, lookback_days=3, hidden_size=4, **kwargs).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.copy_(torch.from_numpy(waves(parameter.numel())).view(parameter.shape))
        return backbone(panel)


@pytest.mark.parametrize(("kind", "kwargs", "expected"), GOLDEN)
def test_golden(kind, kwargs, expected):
    found = embeddings(kind, kwargs)
    torch.testing.assert_close(found[1, 0].item(), expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[4, -1].item(), expected[1], atol=1e-5, rtol=1e-5)
