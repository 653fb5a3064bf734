from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qlib_ext.cli import main as cli
from qlib_ext.market.side_data.side_data import SideData
from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic.sample import SampleMarket

MACRO = "period,gdp,cpi\n2013Q4,100,50\n2014Q1,101,51\n"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit status of `qlib-ext data side-data` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["qlib-ext", "data", "side-data", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.fixture
def market(tmp_path: Path) -> str:
    SampleMarket(stocks=20, start="2014-01-01", end="2014-08-01").write(tmp_path / "m")
    (tmp_path / "macro.csv").write_text(MACRO)
    return str(tmp_path / "m")


class TestSide:
    def test_it_says_what_it_has_written_and_what_it_did(
        self, market: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = str(tmp_path / "macro.csv")
        assert run(monkeypatch, market, "macro", file, "--lag", "gdp=quarterly,cpi=monthly") == 0
        assert capsys.readouterr().out.splitlines() == [
            f"{market}/side/macro.parquet: 4 figures, 2 series (cpi, gdp), released from 2014-01-15 to 2014-05-30",
            "  note: release dates of gdp follow from its periods and the stated lag end+60d",
            "  note: release dates of cpi follow from its periods and the stated lag month+45d",
        ]
        assert SideData(market).shape("macro") == "series"
        assert run(monkeypatch, market, "macro", file, "--lag", "gdp=90d", "--lag", "45d", "--replace") == 0
        assert "stated lag end+45d" in capsys.readouterr().out

    def test_each_shape_is_told(
        self, market: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code = QlibStore(market).instruments()[-1]
        for name, rows in {
            "concepts": f"code,start,concept\n{code},2014-01-02,5G\n{code},2014-02-02,AI\n",
            "float_value": f"day,code,a,b\n2014-01-02,{code},5,6\n",
        }.items():
            (tmp_path / f"{name}.csv").write_text(rows)
        assert run(monkeypatch, market, "concepts", str(tmp_path / "concepts.csv")) == 0
        assert "2 spells, 1 stock, 2 names, the first from 2014-01-02" in capsys.readouterr().out
        arguments = market, "float_value", str(tmp_path / "float_value.csv"), "--column", "float_value=b"
        assert run(monkeypatch, *arguments, "--column", "a=") == 0
        assert "1 value, 1 stock, 1 day from 2014-01-02 to 2014-01-02" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ([], "has figures of gdp, cpi without a release date"),
            (
                ["--lag", "60d", "--lag", "30d"],
                "`--lag` must be given once for all others, found '30d' again",
            ),
            (["--column", "gdp"], "`--column` must be as in FIELD=COLUMN, found 'gdp'"),
            (["--lag", "60d", "--frequency", "gdp=decade"], "must be one of day, month, quarter, year"),
            (
                ["--lag", "60d", "--shape", "table"],
                "`shape` must be one of market, series, spells, values, found 'table'",
            ),
        ],
    )
    def test_what_the_user_got_wrong_is_one_line(
        self,
        options: list[str],
        message: str,
        market: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert run(monkeypatch, market, "macro", str(tmp_path / "macro.csv"), *options) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert message in captured.err
        assert len(captured.err.splitlines()) == 1
        assert "macro" not in SideData(market)
