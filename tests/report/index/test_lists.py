from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qlib_ext.checks import UserError
from qlib_ext.report.index.lists import newest_list


def written(folder: Path, day: str, **more: Any) -> None:
    said = {
        "day": day,
        "run": "0" * 32,
        "run_name": "mine",
        "universe": "csi300",
        "warnings": [],
        "orders": None,
        "list": [
            {"instrument": "SZ000001", "rank": 2, "score": 0.1, "close": 10.0, "name": "Ping An"},
            {"instrument": "SH600000", "rank": 1, "score": 0.2, "close": 9.5},
            {"instrument": "SH600001", "rank": None, "score": None, "close": None},
        ],
        **more,
    }
    (folder / f"{day}.json").write_text(json.dumps(said))


def test_the_newest_day_counts_and_ranks_are_in_order(tmp_path: Path) -> None:
    written(tmp_path, "2026-01-05")
    written(tmp_path, "2026-01-06", orders=[{}, {}], warnings=["old"])
    (tmp_path / "2026-01-06.html").write_text("page")
    (tmp_path / "status.json").write_text("{}")
    found = newest_list(tmp_path)
    assert found is not None
    assert found.day == "2026-01-06"
    assert [row["instrument"] for row in found.rows] == ["SH600000", "SZ000001"]
    assert (found.orders, found.warnings) == (2, ["old"])
    assert found.page == tmp_path / "2026-01-06.html"


def test_a_folder_without_one_has_none(tmp_path: Path) -> None:
    assert newest_list(tmp_path / "none") is None
    assert newest_list(tmp_path) is None


@pytest.mark.parametrize("content", ["{", "[]", '{"list": [1]}', '{"list": []}'])
def test_what_is_no_list_is_told(content: str, tmp_path: Path) -> None:
    (tmp_path / "2026-01-06.json").write_text(content)
    with pytest.raises(UserError, match="must be a list that `qlib-ext daily` wrote"):
        newest_list(tmp_path)
