"""LSTM backbone."""

from __future__ import annotations

from qlib_ext.model.backbones.recurrent import Recurrent


class LSTM(Recurrent):
    """`Recurrent` with the long short-term memory.

    Source: Hochreiter and Schmidhuber, Long Short-Term Memory, 1997; as MiM-StocR uses it (section 4.1).
    """

    cell = "LSTM"
