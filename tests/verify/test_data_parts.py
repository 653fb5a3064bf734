from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from qlib_ext.market.store import QlibStore
from qlib_ext.verify.data_parts import data_parts, other_parts, side_parts


@pytest.fixture
def copy(market: QlibStore, tmp_path: Path) -> Path:
    return shutil.copytree(market.root, tmp_path / "copy")


def test_a_copy_has_the_same_parts(market: QlibStore, copy: Path) -> None:
    assert other_parts(data_parts(market), data_parts(QlibStore(copy))) == []


def test_a_changed_bar_names_its_field_and_its_stock(market: QlibStore, copy: Path) -> None:
    code = market.instruments()[-1]
    file = copy / "features" / code.lower() / "close.day.bin"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    found = other_parts(data_parts(market), data_parts(QlibStore(copy)))
    assert found == ["other field: 1 (close)", f"other stock: 1 ({code})"]


def test_days_members_and_side_data(market: QlibStore, copy: Path) -> None:
    days = (copy / "calendars" / "day.txt").read_text().splitlines()
    (copy / "calendars" / "day.txt").write_text("\n".join([*days, "2017-01-03"]) + "\n")
    (copy / "instruments" / "sse50.txt").unlink()
    table = pd.read_parquet(copy / "side" / "industry.parquet")
    table.iloc[1:].to_parquet(copy / "side" / "industry.parquet")
    found = other_parts(data_parts(market), data_parts(QlibStore(copy)))
    assert found == [
        "the calendar is 2016-01-04 to 2017-01-03, 245 days, and was 2016-01-04 to 2016-12-30, 244 days",
        "missing universe: 1 (sse50)",
        "other side data: 1 (industry)",
    ]
    assert [*side_parts(copy)] == ["side data industry", "side data market_value", "side data planted_score"]
