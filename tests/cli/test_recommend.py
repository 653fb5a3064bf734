from __future__ import annotations

import errno
import io
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from rich.table import Table

from qlib_ext.cli.main import main
from qlib_ext.cli.recommend import _order_table, _table
from qlib_ext.recommend.recommendation import Recommendation


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["qlib-ext", "recommend", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_place_that_cannot_be_written_is_told_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run(monkeypatch, "--run", "nothing", "--out", str(tmp_path / "file" / "list.csv")) == 2
    assert capsys.readouterr().err.startswith(
        "error: the folder of `--out` must be a folder that can be written"
    )


def test_the_list_is_shown_though_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "rank": 1,
        "score": 0.5,
        "close": 10.0,
        "suspended": False,
        "limit_up": False,
        "limit_down": False,
        "new": True,
    }
    listed = pd.DataFrame([row], index=["SH600000"])
    source = {"day": "2020-01-02", "run": "0123456789", "run_name": "mine", "universe": "csi300"}
    found = Recommendation(pd.Timestamp("2020-01-02"), listed, None, [], [], source)

    def refused(*_: object) -> None:
        raise OSError(errno.EACCES, "Permission denied", "list.csv")

    monkeypatch.setattr("qlib_ext.recommend.recommendation.recommend", lambda *_, **__: found)
    monkeypatch.setattr("qlib_ext.tracking.runs.connect", lambda uri: None)
    monkeypatch.setattr("qlib_ext.cli.recommend._write", refused)
    assert run(monkeypatch, "--run", "mine", "--out", str(tmp_path / "list.csv")) == 2
    told = capsys.readouterr()
    assert "SH600000" in told.out
    assert told.err == (
        "error: the system says of list.csv: Permission denied; name another place, change its rights or make room\n"
    )


class TestWidth:
    """Eighty columns hold the tables, and no word is cut."""

    @staticmethod
    def shown(table: Table) -> str:
        written = Console(width=80, file=io.StringIO())
        written.print(table)
        text = written.file.getvalue()  # type: ignore[attr-defined]
        assert max(map(len, text.splitlines())) <= 80
        assert "\N{HORIZONTAL ELLIPSIS}" not in text
        return text

    def test_the_list(self) -> None:
        row = {"rank": 123, "score": -12.34567, "momentum_class": 4, "momentum_4": 0.61}
        row |= {"close": 12345.67, "name": "Ping An Insurance (Group) Company of China"}
        row |= {"industry": "insurance_and_financial_services", "suspended": True, "limit_up": True}
        row |= {"limit_down": True, "new": True}
        text = self.shown(_table(pd.DataFrame([row], index=["SH600000.LONG"])))
        line = next(line for line in text.splitlines() if "SH600000.LONG" in line)
        assert line.split()[:6] == ["123", "SH600000.LONG", "-12.34567", "4", "61%", "12345.67"]
        assert {"Insurance", "(Group)", "suspended,"} <= {*text.split()}

    def test_a_member_without_a_score(self) -> None:
        row: dict[str, Any] = {"rank": pd.NA, "score": np.nan, "close": 12.5}
        row |= dict.fromkeys(("suspended", "limit_up", "limit_down", "new"), False)
        text = self.shown(_table(pd.DataFrame([row], index=["SH600000"])))
        assert re.search(r"SH600000 .* 12\.50", text)

    def test_the_orders(self) -> None:
        row = ("SELL", "SH600000.LONG", 1234567890.0, 12345.67, 123456789012.0, "rank 1234 of 5000; " * 6)
        columns = ["side", "instrument", "shares", "price", "value", "reason"]
        text = self.shown(_order_table(pd.DataFrame([row], columns=columns)))
        assert re.search(r"SELL +SH600000.LONG +1,234,567,890 +12,345.67 +123,456,789,012", text)
