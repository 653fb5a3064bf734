"""A disk that is full: a real file system of a few hundred kilobytes where the tests may mount one, else a limit of the
size of a file; both end in an error of the system in the middle of a real write."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model import checkpoint
from qlib_ext.model.checkpoint import CheckpointFolder, TrainingState
from qlib_ext.tracking.artifacts import put
from qlib_ext.tracking.outbox import Outbox
from qlib_ext.workflow.process_end import NO_ROOM, Excepthook

WHOSE = {"run_id": "run"}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own with 512 kB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a file system can only be mounted by root: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the system refuse what would make a file larger than `size` bytes, for this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def fill(place: Path, leave: int = 0) -> Path:
    """Take all room but `leave` bytes."""
    file = place / "others"
    free = os.statvfs(place)
    file.write_bytes(b"x" * (free.f_bavail * free.f_bsize - leave))
    return file


def state(epoch: int, numbers: int = 20_000) -> TrainingState:
    return TrainingState(epoch, {"network": {"w": torch.full((numbers,), float(epoch))}}, {"history": []})


class TestCheckpoint:
    MESSAGE = (
        r"the checkpoint of epoch 1 cannot be written .*make room or name another `checkpoint_dir`; RESUME=1"
    )

    def test_the_one_before_stays_and_is_taken_up_again(self, small: Path) -> None:
        folder = CheckpointFolder(small, {"a": "configuration"})
        path = folder.new_path()
        checkpoint.save(path, state(1))
        others = fill(small, leave=20_000)
        with pytest.raises(UserError, match=self.MESSAGE) as told:
            checkpoint.save(path, state(2))
        assert os.strerror(errno.ENOSPC) in str(told.value)
        assert list(folder.folder.glob("*.safetensors")) == [path]
        assert folder.newest_unfinished(lambda state: False)[1].epoch == 1
        others.unlink()
        checkpoint.save(path, state(2))
        assert checkpoint.load(path).tensors["network"]["w"][0] == 2

    def test_by_the_size_of_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "1.safetensors"
        checkpoint.save(path, state(1, numbers=10))
        with files_of_at_most(10_000), pytest.raises(UserError, match=self.MESSAGE):
            checkpoint.save(path, state(2))
        assert checkpoint.load(path).epoch == 1
        assert list(tmp_path.iterdir()) == [path]


class TestOutbox:
    def test_what_was_kept_is_whole_and_goes_on_when_there_is_room(self, small: Path) -> None:
        box = Outbox(small / "run")
        box.keep({"params": [["a", "1"]]}, WHOSE)
        others = fill(small, leave=4096)
        told = []
        for step in range(200):
            try:
                box.keep({"params": [[f"p{step}", "x" * 500]]}, WHOSE)
            except UserError as error:
                told.append(str(error))
        assert "cannot be kept in" in told[0]
        assert "No space left on device" in told[0]
        assert "MLFLOW_OUTBOX" in told[0]
        kept = [entry["params"][0][0] for entry in box.entries()]
        others.unlink()
        box.keep({"params": [["z", "1"]]}, WHOSE)
        assert [entry["params"][0][0] for entry in box.entries()] == [*kept, "z"]

    def test_an_artifact_is_kept_whole_or_not_at_all(self, small: Path, tmp_path: Path) -> None:
        source = tmp_path / "table.parquet"
        source.write_bytes(np.random.default_rng(0).bytes(300_000))
        box = Outbox(small / "run")
        box.keep_file(source, "signal/table.parquet", WHOSE)
        with pytest.raises(UserError, match="cannot be kept"):
            box.keep_file(source, "signal/again.parquet", WHOSE)
        assert [entry["artifact"] for entry in box.entries()] == ["signal/table.parquet"]
        files = {path.name for path in (small / "run" / "artifacts").rglob("*") if path.is_file()}
        assert files == {"table.parquet"}
        assert (small / "run" / "artifacts" / "signal" / "table.parquet").read_bytes() == source.read_bytes()


class TestReport:
    def test_the_page_that_was_there_stays(self, small: Path) -> None:
        page = small / "runs" / "report.html"
        put(page, "<html>old")
        fill(small, leave=8192)
        with pytest.raises(OSError, match="No space left"):
            put(page, "<html>new" + "x" * 100_000)
        assert page.read_text() == "<html>old"
        assert list(page.parent.iterdir()) == [page]


class TestMessage:
    """Whatever else meets a full disk ends the run with one line."""

    @pytest.fixture(autouse=True)
    def goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """This process does not end with the hook, as an interactive one does not."""
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)

    @pytest.mark.parametrize("number", NO_ROOM)
    def test_it_says_what_to_do(self, number: int, capsys: pytest.CaptureFixture[str]) -> None:
        error = OSError(number, os.strerror(number), "reports/runs/x/report.html")
        Excepthook(previous=None)(OSError, error, None)
        shown = capsys.readouterr().err
        assert shown.count("\n") == 2
        assert "no room left on the disk" in shown
        assert "reports/runs/x/report.html" in shown
        assert "RESUME=1" in shown

    def test_what_else_the_system_refuses_is_one_line_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        Excepthook(previous=None)(PermissionError, PermissionError(errno.EACCES, "no", "x"), None)
        assert "the system says of x: no; name another place" in capsys.readouterr().err

    def test_another_error_is_left_to_qlib(self) -> None:
        seen = []
        error = FileNotFoundError(errno.ENOENT, "no")
        Excepthook(previous=lambda *error: seen.append(error))(FileNotFoundError, error, None)
        assert seen == [(FileNotFoundError, error, None)]
