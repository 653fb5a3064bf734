"""The page on exchange rules says what the tables say."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from qlib_ext.market.rules.exchange_rules import read_rules

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "exchange-rules.md").read_text(encoding="utf-8")
TABLE = yaml.safe_load((ROOT / "qlib_ext" / "market" / "rules" / "cn.yaml").read_text(encoding="utf-8"))


def test_every_date_of_the_table_is_on_the_page() -> None:
    rows = [row for kind in ("price_limit", "resale", "lots", "commission") for row in TABLE[kind]]
    rows += [row for levy in TABLE["levies"].values() for row in levy if row["buy"] or row["sell"]]
    assert len(rows) > 30
    missing = {str(row["from"]) for row in rows} - {*re.findall(r"\d{4}-\d\d-\d\d", PAGE)}
    assert missing == set()


def test_its_own_table_can_be_read(tmp_path: Path) -> None:
    (text,) = [
        block
        for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
        if block.startswith("extends: cn #")
    ]
    (tmp_path / "my_rules.yaml").write_text(text, encoding="utf-8")
    rules = read_rules(tmp_path / "my_rules.yaml")
    assert rules.board("SH510300") == "fund"
    assert rules.fees("main", pd.Timestamp("2024-01-02")).commission == 0.0002
    assert rules.price_limit("main", pd.Timestamp("2030-01-02"), status="ST").up == 0.20


@pytest.mark.parametrize("key", ["limit", "after_days", "minimum", "rate", "first_days", "until", "of"])
def test_every_key_is_explained(key: str) -> None:
    assert f"`{key}`" in PAGE
