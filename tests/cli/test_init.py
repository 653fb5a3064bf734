"""`qlib-ext init` and `qlib-ext quickstart`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.workflow import starter

Command = Callable[..., tuple[int, str, str]]


class TestInit:
    def test_it_fills_an_empty_folder_and_says_what_comes_next(
        self, command: Command, tmp_path: Path
    ) -> None:
        status, out, err = command("init", "mine")
        count = len([*(tmp_path / "mine" / "workflows").glob("*.yaml")])
        assert (status, err) == (0, "")
        assert out.splitlines() == [
            f"{tmp_path / 'mine'}: {count} workflows and a README, which tells their variables",
            "Next:",
            "  cd mine",
            "  qlib-ext quickstart .",
            f"  {starter.sample_command()}",
        ]

    def test_here_is_the_default(self, command: Command, tmp_path: Path) -> None:
        status, out, _ = command("init")
        assert status == 0
        assert "  cd" not in out
        assert starter.is_begun(tmp_path)

    def test_a_folder_in_use_is_refused_in_one_line(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("dear")
        status, out, err = command("init")
        assert (status, out) == (2, "")
        assert err.startswith("error: `DIR` must be empty, found notes.txt")
        assert len(err.splitlines()) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


class TestQuickstart:
    @pytest.fixture
    def ran(self, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
        """The folders in which the main workflow would have run, on a little market."""
        ran: list[Path] = []

        def run(folder: Path) -> Path:
            assert (folder / starter.SAMPLE / "calendars" / "day.txt").is_file()
            ran.append(folder)
            return folder / "report.html"

        monkeypatch.setattr(starter, "run_main", run)
        little = {"seed": 3, "stocks": 20, "start": "2015-11-02", "end": "2016-05-31"}
        monkeypatch.setattr(starter, "SAMPLE_ARGUMENTS", little)
        return ran

    def test_it_begins_makes_the_market_runs_and_ends_with_the_report(
        self, ran: list[Path], command: Command, tmp_path: Path
    ) -> None:
        status, out, _ = command("quickstart", "mine")
        assert status == 0
        assert starter.is_begun(tmp_path / "mine")
        assert ran == [Path("mine")]
        end = out.partition("The report: ")[2].splitlines()
        assert end[:3] == ["mine/report.html", "Next:", "  cd mine"]
        assert any("qlib-ext recommend" in line for line in end)

    def test_what_init_wrote_is_kept_and_the_market_too(
        self, ran: list[Path], command: Command, tmp_path: Path
    ) -> None:
        starter.begin(tmp_path)
        (tmp_path / "workflows" / starter.MAIN).write_text("mine")
        SampleMarket(**starter.SAMPLE_ARGUMENTS).write(tmp_path / starter.SAMPLE)  # type: ignore[arg-type]
        before = (tmp_path / starter.SAMPLE).stat().st_ino
        assert command("quickstart", ".")[0] == 0
        assert (tmp_path / starter.SAMPLE).stat().st_ino == before
        assert (tmp_path / "workflows" / starter.MAIN).read_text() == "mine"

    def test_a_folder_in_use_is_refused(self, ran: list[Path], command: Command, tmp_path: Path) -> None:
        (tmp_path / "quickstart").mkdir()
        (tmp_path / "quickstart" / "notes.txt").write_text("dear")
        status, _, err = command("quickstart")
        assert status == 2
        assert "nothing was written" in err
        assert ran == []
