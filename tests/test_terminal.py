"""What libraries say of each other stays off the terminal; a whole run is held in `tests/test_workflows.py`."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import types
import unicodedata
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from qlib_ext.terminal import (
    bar,
    cell,
    console,
    quiet_imports,
    quiet_libraries,
    quiet_qlib,
    say,
    shown_progress,
    visible,
)

# A name that would begin a line, clear the screen, hide and turn what stands beside it.
NAME = "run\nwarning: not this program's\r\x1b[2J\x9b1m\u202e\u2066\u2028\u200b\x7f\U000e0041[red]"
SHOWN = r"run\nwarning: not this program's\r\u001b[2J\u009b1m\u202e\u2066\u2028\u200b\u007f\udb40\udc41[red]"


def raw(text: str) -> list[str]:
    """What of a text a terminal would do or hide instead of showing it; newlines apart."""
    return [mark for mark in text if mark != "\n" and unicodedata.category(mark)[0] in "CZ" and mark != " "]


class TestVisible:
    def test_a_name_is_one_line_that_is_seen(self) -> None:
        assert visible(NAME) == SHOWN

    def test_text_of_any_language_stays(self) -> None:
        for text in ("沪深300　指数", "Übung é ½", "a\u00a0b", "नमस्ते", "{}[]<>\\n"):
            assert visible(text) == text

    @given(st.text())
    def test_nothing_gets_through_and_nothing_changes_twice(self, text: str) -> None:
        shown = visible(text)
        assert [mark for mark in raw(shown) if unicodedata.category(mark) != "Zs"] == []
        assert "\n" not in shown
        assert visible(shown) == shown

    @given(st.dictionaries(st.text(), st.text()))
    def test_json_stays_json(self, content: dict[str, str]) -> None:
        written = json.dumps(content, ensure_ascii=False, indent=2)
        assert json.loads(visible(written, "\n")) == content

    def test_a_name_that_is_no_text_is_shown(self) -> None:
        assert visible(b"a\xff".decode("utf-8", "surrogateescape")) == r"a\udcff"


class TestSay:
    def test_a_line_is_a_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        say(f"note: {NAME}")
        say(NAME, err=True)
        assert capsys.readouterr() == (f"note: {SHOWN}\n", f"{SHOWN}\n")

    def test_lines_are_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        say("{\n  \x1b\n}", lines=True)
        assert capsys.readouterr().out == "{\n  \\u001b\n}\n"


class TestConsole:
    def test_a_cell_is_one_line_without_markup(self, capsys: pytest.CaptureFixture[str]) -> None:
        console().print(cell(NAME), soft_wrap=True)
        assert capsys.readouterr().out == f"{SHOWN}\n"

    def test_text_that_nobody_looked_at_moves_no_cursor(self, capsys: pytest.CaptureFixture[str]) -> None:
        table = Table("code", title="a\x1b[2J")
        table.add_row("b\x9b1m\u202e")
        console().print(table)
        console().print("[bold]c[/bold]\x1b[2J")
        told = capsys.readouterr().out
        assert raw(told) == []
        assert "\\u001b[2J" in told


@pytest.fixture
def qlibs_handler() -> Iterator[logging.Handler]:
    """A handler of Qlib's logger, as Qlib sets one up."""
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger("qlib").addHandler(handler)
    yield handler
    logging.getLogger("qlib").removeHandler(handler)


class TestQuietImports:
    def test_nothing_is_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        with quiet_imports():
            sys.stdout.write("CatBoostModel are skipped")
            sys.stderr.write("Gym has been unmaintained")
        assert capsys.readouterr() == ("", "")

    def test_an_error_is_not_held_back(self) -> None:
        with pytest.raises(ModuleNotFoundError, match="no_such_module"), quiet_imports():
            import no_such_module  # noqa: F401

    @pytest.mark.parametrize(
        "code",
        [
            "import qlib_ext.workflow.experiment",
            "from qlib_ext.config.build import locate; locate('qlib.contrib.model.linear.LinearModel', name='x')",
        ],
    )
    def test_what_a_run_imports_says_nothing(self, code: str) -> None:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout + done.stderr == ""


class TestQuietLibraries:
    def warned(self, module: str) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.resetwarnings()
            quiet_libraries()
            warnings.warn_explicit("of slices", UserWarning, "file.py", 1, module=module)
        return [str(warning.message) for warning in caught]

    def test_warnings_that_qlibs_code_causes(self) -> None:
        assert self.warned("qlib.data.dataset.processor") == []

    def test_others_are_shown(self) -> None:
        assert self.warned("qlib_ext.data.dataset") == self.warned("my_losses") == ["of slices"]

    def test_qlibs_messages(self, qlibs_handler: logging.Handler) -> None:
        with warnings.catch_warnings():
            quiet_libraries()
            assert qlibs_handler.level == logging.WARNING
            with quiet_qlib():
                assert qlibs_handler.level == logging.ERROR
            assert qlibs_handler.level == logging.WARNING
            quiet_libraries(logging.INFO)
            assert qlibs_handler.level == logging.INFO


class TestShownProgress:
    def test_nothing_where_stderr_is_no_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        with shown_progress() as progress:
            assert progress is None
        assert capsys.readouterr() == ("", "")

    def test_a_bar_in_a_notebook(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kernel = types.SimpleNamespace(config={"IPKernelApp": {}})
        monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: kernel))
        with shown_progress() as progress:
            assert progress is not None
            progress(1, 4, "reading")
            progress(4, 4, "reading")
            progress(2, 2, "writing")
        assert "reading" in capsys.readouterr().err
        assert [*bar(range(3), desc="days")] == [0, 1, 2]
        assert "3/3" in capsys.readouterr().err

    @pytest.mark.parametrize("shell", [None, types.SimpleNamespace(config={})])
    def test_none_in_a_console(
        self, shell: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
        assert [*bar(range(3))] == [0, 1, 2]
        assert capsys.readouterr() == ("", "")
