"""A small chart that several tests draw, and the numbers that Plotly packs."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.report.charts import Lines

DAYS = pd.bdate_range("2020-01-01", periods=40)
TOLD: dict[str, Any] = {"alt": "what it is", "caption": "how it was made"}


def numbers(packed: dict[str, Any]) -> np.ndarray:
    """Plotly's typed array, unpacked."""
    assert packed["dtype"] == "f4"
    values = np.frombuffer(base64.b64decode(packed["bdata"]), dtype="<f4")
    return values.reshape([int(size) for size in packed["shape"].split(",")]) if "shape" in packed else values


def lines(**options: Any) -> Lines:
    growth = pd.Series(np.linspace(1, 2, len(DAYS)), DAYS)
    return Lines(series={"a": growth, "b": growth * 2}, **TOLD, **options)
