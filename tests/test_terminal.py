"""What libraries say of each other stays off the terminal; a whole run is held in `tests/test_workflows.py`."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest

from qlib_ext.terminal import quiet_imports, quiet_libraries, quiet_qlib, shown_progress


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
