"""Tables of side data, written into the store of a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

CALENDAR = pd.bdate_range("2020-01-01", "2020-06-30")
CODES = ["SH600000", "SH600004", "SZ000001"]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write `<tmp_path>/side/<file>`; rows are CSV lines, or a frame."""

    def write(file: str, content: str | pd.DataFrame) -> Path:
        path = tmp_path / "side" / file
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif file.endswith(".csv"):
            content.to_csv(path, index=False)
        else:
            content.to_parquet(path)
        return tmp_path

    return write


def table(*lines: str) -> str:
    return "".join(line + "\n" for line in lines)


def market_value(*rows: str) -> str:
    return table("datetime,instrument,market_value", *rows)


def industry(*rows: str) -> str:
    return table("instrument,start,end,industry", *rows)


def macro(*rows: str) -> str:
    return table("series,period,value,release_date", *rows)
