from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qlib_ext.cli import main as cli
from qlib_ext.market.quality.check import check_store
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.report.sections.quality import in_short


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample market with a truncated file."""
    root = tmp_path_factory.mktemp("made") / "market"
    store, _ = SampleMarket(seed=3, stocks=20, start="2014-01-01", end="2014-07-31").write(root)
    file = root / "features" / store.instruments()[3].lower() / "close.day.bin"
    file.write_bytes(file.read_bytes()[:-2])
    return root


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["qlib-ext", "data", "check", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_the_page_says_what_the_terminal_says(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, market, "--html", tmp_path / "audit.html") == 1
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    found = check_store(market)
    assert page.startswith("<!DOCTYPE html>")
    assert "<h1>Audit of market</h1>" in page
    assert in_short(found) in page
    assert "bin-not-float32" in page
    assert "bin-not-float32" in capsys.readouterr().out


def test_a_place_that_is_not_there_is_refused_before_the_work(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, market, "--html", tmp_path / "nowhere" / "audit.html") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: `--html` must be a file in a directory that is there, found `")
