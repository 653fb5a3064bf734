"""Packages that the environment allows, and where they are found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOCATE = """
import sys
sys.path = [folder for folder in sys.path if folder not in ("", ".")]  # as for a command, which lies in another folder
from qlib_ext.config.build import locate
print(locate({path!r}, name="loss").__module__)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with a package and two modules."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").touch()
    (tmp_path / "mine" / "losses.py").write_text("class Huber: pass\n", encoding="utf-8")
    (tmp_path / "alone.py").write_text("class Huber: pass\n", encoding="utf-8")
    (tmp_path / "yaml.py").write_text(
        "class Huber: pass\n", encoding="utf-8"
    )  # the name of what is installed
    return tmp_path


def located(path: str, packages: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A class looked up by a process that works in a folder."""
    environment = {**os.environ, "QLIB_EXT_PACKAGES": packages}
    command = [sys.executable, "-c", LOCATE.format(path=path)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


class TestWorkingFolder:
    @pytest.mark.parametrize("path", ["mine.losses.Huber", "alone.Huber"])
    def test_what_is_allowed_is_found(self, path: str, folder: Path) -> None:
        done = located(path, "mine,alone", folder)
        assert done.stdout.strip() == path.rpartition(".")[0], done.stderr

    def test_what_is_not_allowed_is_refused(self, folder: Path) -> None:
        done = located("alone.Huber", "mine", folder)
        assert "QLIB_EXT_PACKAGES=alone" in done.stderr

    def test_what_is_installed_comes_first(self, folder: Path) -> None:
        done = located("yaml.Huber", "yaml", folder)
        assert "`Huber` is not in `yaml`" in done.stderr

    def test_no_other_module_of_the_folder_is_found(self, folder: Path) -> None:
        (folder / "mine" / "losses.py").write_text("import alone\nclass Huber: pass\n", encoding="utf-8")
        done = located("mine.losses.Huber", "mine", folder)
        assert "No module named 'alone'" in done.stderr
