from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from qlib_ext.cli import main as cli
from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.store import QlibStore


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit status of `qlib-ext data import` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["qlib-ext", "data", "import", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    days = pd.bdate_range("2000-01-03", "2000-01-14").strftime("%m/%d/%Y")
    for code, price in (("AAPL", 100.0), ("QQQ", 50.0)):
        table = pd.DataFrame(
            {"Day": days, "Open": price, "High": price * 1.1, "Low": 0.0, "Last": price, "Volume": 5}
        )
        table.to_csv(folder / f"{code}.csv.gz", index=False)
    return folder


OPTIONS = ["--region", "us", "--column", "close=Last", "--date-format", "%m/%d/%Y", "--benchmark", "QQQ"]


class TestImport:
    def test_it_writes_a_store_and_says_what_is_next(
        self,
        source: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        out = tmp_path / "store"
        assert run(monkeypatch, str(source), "--out", str(out), "--universe", "mine", *OPTIONS) == 0
        captured = capsys.readouterr()
        assert captured.err == ""  # no progress where nobody looks
        first, *others = captured.out.splitlines()
        assert first.startswith(
            f"{out}: 2 instruments, 10 days from 2000-01-03 to 2000-01-14, fields open, high, close, volume, "
            "change, universes all, mine ("
        )
        assert "note: no `low`: it has no value on any day" in others
        assert any(line.startswith("note: 20 prices of 0 in `low`: made missing") for line in others)
        assert any(
            line.startswith("The audit has ") and line.endswith(f"qlib-ext data check {out}")
            for line in others
        )
        assert others[-1] == f"To use it: QLIB_DATA={out} UNIVERSE=mine qrun workflows/mimstocr_us.yaml"
        assert QlibStore(out).membership("mine")["instrument"].tolist() == ["AAPL"]
        settings = ImportSettings.load(out)
        assert (settings.columns, settings.date_format) == ({"close": "Last"}, "%m/%d/%Y")

    def test_a_second_time(
        self,
        source: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        arguments = [str(source), "--out", str(tmp_path / "store"), *OPTIONS]
        assert run(monkeypatch, *arguments) == 0
        assert run(monkeypatch, *arguments) == 2
        assert "error: " in capsys.readouterr().err
        assert run(monkeypatch, *arguments, "--replace") == 0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["--column", "close"],
                "error: `--column` must be as in close=Last, found 'close'\n",
            ),
            (
                ["--column", "close=Last", "--column", "close=Open"],
                "error: `--column` must be given once for close, found 'close=Open' again\n",
            ),
            (["--region", "uk"], "error: `region` must be one of cn, us, found 'uk'\n"),
            (
                ["--region", "us"],
                "error: no column is known to be `close`: name it with `--column close=NAME`",
            ),
        ],
    )
    def test_what_the_user_got_wrong_is_one_line(
        self,
        source: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        message: str,
    ) -> None:
        assert run(monkeypatch, str(source), "--out", str(tmp_path / "store"), *arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(message)
        assert captured.err.count("\n") == 1
        assert not (tmp_path / "store").exists()
