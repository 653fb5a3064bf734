"""GRU backbone."""

from __future__ import annotations

from qlib_ext.model.backbones.recurrent import Recurrent


class GRU(Recurrent):
    """`Recurrent` with the gated recurrent unit.

    Source: Cho et al., Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation,
    2014; the recurrent part of MiM-StocR's GATs and HIST.
    """

    cell = "GRU"
