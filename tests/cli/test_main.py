from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qlib_ext.cli import main as cli
from qlib_ext.market.store import QlibStore

TINY = ["--stocks", "20", "--start", "2014-01-01", "--end", "2014-08-01"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit status of `qlib-ext` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["qlib-ext", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


class TestDataSample:
    def test_it_writes_a_store_and_says_how_to_use_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "deep" / "market"
        assert run(monkeypatch, "data", "sample", "--out", str(out), "--seed", "7", *TINY) == 0
        text = capsys.readouterr().out
        assert f"{out}: a sample market of 23 instruments, 143 days from 2014-01-02 to 2014-08-01" in text
        assert "universes all, csi100, csi300, sse50" in text
        assert f"QLIB_DATA={out}" in text
        assert len(QlibStore(out).instruments()) == 23

    def test_a_second_run_leaves_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["data", "sample", "--out", str(tmp_path / "m"), *TINY]
        run(monkeypatch, *arguments)
        capsys.readouterr()
        assert run(monkeypatch, *arguments) == 0
        assert (
            capsys.readouterr().out == f"{tmp_path / 'm'} already holds this sample market: left as it is\n"
        )

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--stocks", "3"], "error: `stocks` must be at least 20, found 3\n"),
            (["--seed", "-1"], "error: `seed` must be at least 0, found -1\n"),
            (["--start", "then"], "error: `start` must be a day such as 2010-01-04, found 'then'\n"),
        ],
    )
    def test_what_the_user_got_wrong_is_one_line(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        message: str,
    ) -> None:
        assert run(monkeypatch, "data", "sample", "--out", str(tmp_path / "m"), *arguments) == 2
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", message)
        assert not (tmp_path / "m").exists()

    def test_a_directory_with_something_else_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "mine.txt").write_text("dear")
        assert run(monkeypatch, "data", "sample", "--out", str(tmp_path), *TINY) == 2
        assert "nothing was written" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

    def test_out_is_required(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(monkeypatch, "data", "sample") == 2
        assert "--out" in capsys.readouterr().err


class TestMain:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("audit w.yaml", "audit` is `qlib-ext lookahead`"),
            ("data side x", "data side` is `qlib-ext data side-data`"),
        ],
    )
    def test_an_old_command_names_the_new_one(
        self, old: str, new: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(monkeypatch, *old.split()) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: `qlib-ext {new}")

    def test_it_runs_as_a_module(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "qlib_ext.cli.main", "--help"], capture_output=True, text=True, check=True
        )
        assert "data" in done.stdout

    def test_without_a_command_it_helps(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run(monkeypatch, "data")
        assert "sample" in "".join(capsys.readouterr())
