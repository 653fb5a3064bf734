from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qlib_ext.cli import main as cli


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Exit status, stdout and stderr of `qlib-ext` with these arguments, in the folder `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def called(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qlib-ext", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    return called
