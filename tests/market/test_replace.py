from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qlib_ext import lock
from qlib_ext.checks import UserError
from qlib_ext.market import replace
from qlib_ext.market.replace import copy_store, locked, recover, replaced

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")

# Runs one replacement in a child that dies at its n-th look at the file system, for n = 0, 1, ... until one lives.
# After each it writes down what is at the root, before and after the next replacement.
KILLED = """
import json, os, pathlib, shutil, signal, sys
from qlib_ext.market import replace

root, mode, others = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "others"
if mode == "renames":
    replace._exchange = lambda first, second: False
WATCHED = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.chmod", "os.link",
           "os.listdir", "shutil.rmtree", "fcntl.flock", "ctypes.dlsym", "os.truncate"}

def fill(directory, text):
    (directory / "features" / "a").mkdir(parents=True)
    for name in "pqr":
        (directory / "features" / "a" / name).write_text(text)
    (directory / "day.txt").write_text(text)

def read(directory):
    if not directory.exists():
        return None
    return sorted({path.read_text() for path in directory.rglob("*") if path.is_file()}), sum(
        path.is_file() for path in directory.rglob("*"))

def replace_once():
    with replace.replaced(root) as new:
        fill(new, "new")

for point in range(1000):
    shutil.rmtree(root, ignore_errors=True)
    if others:
        fill(root, "old")
    child = os.fork()
    if child == 0:
        count = 0
        def die(event, arguments):
            global count
            if event in WATCHED:
                if count == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
        sys.addaudithook(die)
        replace_once()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    seen = read(root)
    replace.recover(root)
    recovered = read(root)
    replace_once()
    beside = [path.name for path in root.parent.iterdir() if path != root]
    print(json.dumps([os.WIFSIGNALED(status), seen, recovered, read(root), beside]))
    if not os.WIFSIGNALED(status):
        break
"""
OLD, NEW = [["old"], 4], [["new"], 4]


def killed(root: Path, mode: str, before: str) -> list[list[object]]:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(root), mode, before],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def write_then_raise(root: Path, error: BaseException) -> None:
    with replaced(root) as new:
        (new / "a").write_text("new")
        raise error


def contents(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture(params=["exchange", "renames"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to swap."""
    if request.param == "renames":
        monkeypatch.setattr(replace, "_exchange", lambda first, second: False)
    return str(request.param)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "market"
    (root / "features").mkdir(parents=True)
    (root / "features" / "close").write_text("old")
    (root / "day.txt").write_text("old")
    return root


@pytest.mark.usefixtures("either")
class TestReplaced:
    def test_the_new_version_takes_the_place(self, store: Path) -> None:
        with replaced(store) as new:
            assert not any(new.iterdir())
            assert new.parent == store.parent
            (new / "a").write_text("new")
            assert contents(store) == {"features/close": "old", "day.txt": "old"}
        assert contents(store) == {"a": "new"}
        assert names(store.parent) == ["market"]

    def test_where_nothing_was_it_is_made(self, tmp_path: Path) -> None:
        with replaced(tmp_path / "deep" / "market") as new:
            (new / "a").write_text("new")
        assert contents(tmp_path) == {"deep/market/a": "new"}

    def test_an_empty_directory_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "market").mkdir()
        with replaced(tmp_path / "market") as new:
            (new / "a").write_text("new")
        assert contents(tmp_path) == {"market/a": "new"}

    @pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()], ids=["error", "interrupt"])
    def test_an_error_leaves_the_old_one(self, store: Path, error: BaseException) -> None:
        with pytest.raises(type(error)):
            write_then_raise(store, error)
        assert contents(store) == {"features/close": "old", "day.txt": "old"}
        assert names(store.parent) == ["market"]

    def test_a_link_to_a_store_stays_a_link(self, store: Path, tmp_path: Path) -> None:
        link = tmp_path / "elsewhere" / "link"
        link.parent.mkdir()
        link.symlink_to(store)
        with replaced(link) as new:
            assert new.parent == store.parent
            (new / "a").write_text("new")
        assert link.is_symlink()
        assert contents(store) == {"a": "new"}
        assert names(link.parent) == ["link"]

    @POSIX
    def test_access_rights_stay(self, store: Path) -> None:
        store.chmod(0o750)
        with replaced(store):
            pass
        assert stat.S_IMODE(store.stat().st_mode) == 0o750

    def test_whoever_has_a_file_open_reads_on(self, store: Path) -> None:
        with (store / "features" / "close").open() as stream:
            with replaced(store) as new:
                (new / "features").mkdir()
                (new / "features" / "close").write_text("new")
            assert stream.read() == "old"

    def test_leftovers_of_a_killed_run_are_removed(self, store: Path) -> None:
        (store.parent / ".market.qlib-ext.new" / "half").mkdir(parents=True)
        (store.parent / ".market.qlib-ext.lock").write_text("1 elsewhere\n")  # which nobody holds
        with replaced(store) as new:
            assert not any(new.iterdir())
        assert names(store.parent) == ["market"]

    def test_content_is_on_the_disk_before_the_swap(
        self, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order = []
        flush, swap = replace._flush, replace._swap
        monkeypatch.setattr(replace, "_flush", lambda new: (order.append(("flush", names(new))), flush(new)))
        monkeypatch.setattr(
            replace, "_swap", lambda new, root: (order.append(("swap", names(new))), swap(new, root))
        )
        with replaced(store) as new:
            (new / "a").write_text("new")
        assert order == [("flush", ["a"]), ("swap", ["a"])]


class TestSwap:
    def test_one_call_where_the_system_has_it(self, tmp_path: Path) -> None:
        one, other = tmp_path / "one", tmp_path / "other"
        for path in (one, other):
            path.mkdir()
            (path / "name").write_text(path.name)
        if not replace._exchange(one, other):
            pytest.skip("this system or file system cannot swap two names")
        assert contents(tmp_path) == {"one/name": "other", "other/name": "one"}

    def test_an_error_of_the_system_is_no_missing_feature(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        if not replace._exchange(tmp_path / "there", tmp_path / "there"):
            pytest.skip("this system or file system cannot swap two names")
        with pytest.raises(FileNotFoundError):
            replace._exchange(tmp_path / "there", tmp_path / "nowhere")

    def test_the_disk_gets_each_file_where_there_is_no_syncfs(
        self, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flushed = []
        fsync = os.fsync
        monkeypatch.setattr(replace.sys, "platform", "darwin")
        monkeypatch.setattr(
            os, "fsync", lambda number: (flushed.append(os.fstat(number).st_ino), fsync(number))
        )
        shared = store.parent / "shared"
        os.link(store / "day.txt", shared)
        replace._flush(store)
        expected = [store, store / "features", store / "features" / "close"]
        assert sorted(flushed) == sorted(path.stat().st_ino for path in expected)

    def test_a_second_rename_that_fails_is_undone(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rename = Path.rename

        def fail_once(self: Path, target: Path) -> Path:
            if self.name.endswith(".new"):
                raise OSError(errno.EIO, "I/O error")
            return rename(self, target)

        monkeypatch.setattr(replace, "_exchange", lambda first, second: False)
        monkeypatch.setattr(Path, "rename", fail_once)
        with pytest.raises(OSError, match="I/O error"), replaced(store):
            pass
        assert contents(store) == {"features/close": "old", "day.txt": "old"}
        assert names(store.parent) == ["market"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestKilled:
    @pytest.mark.parametrize("mode", ["exchange", "renames"])
    def test_at_every_point_it_is_the_old_one_or_the_new_one(self, tmp_path: Path, mode: str) -> None:
        runs = killed(tmp_path / "market", mode, "others")
        assert len(runs) > 30
        assert [signalled for signalled, *_ in runs] == [True] * (len(runs) - 1) + [False]
        for point, (_, seen, recovered, after, beside) in enumerate(runs):
            assert seen in ((OLD, NEW) if mode == "exchange" else (OLD, NEW, None)), point
            assert recovered in (OLD, NEW), point
            assert after == NEW, point
            assert beside == [], point
        states = [recovered for _, _, recovered, *_ in runs]
        assert states == sorted(states, key=[OLD, NEW].index)  # old up to the swap, new from then on
        if mode == "exchange":
            assert {str(state) for state in states} == {str(OLD), str(NEW)}
        else:
            assert None in [seen for _, seen, *_ in runs]  # a kill between the two renames was among them

    def test_where_nothing_was_it_is_nothing_or_the_new_one(self, tmp_path: Path) -> None:
        for _, seen, recovered, after, beside in killed(tmp_path / "market", "exchange", "nothing"):
            assert seen == recovered
            assert seen in (None, NEW)
            assert (after, beside) == (NEW, [])


class TestRecover:
    def test_the_old_version_comes_back(self, store: Path) -> None:
        store.rename(store.parent / ".market.qlib-ext.old")
        recover(store)
        assert contents(store) == {"features/close": "old", "day.txt": "old"}
        assert names(store.parent) == ["market"]

    def test_a_store_that_is_there_is_left_alone(self, store: Path) -> None:
        (store.parent / ".market.qlib-ext.old").mkdir()
        recover(store)
        assert contents(store) == {"features/close": "old", "day.txt": "old"}

    def test_nothing_becomes_of_nothing(self, tmp_path: Path) -> None:
        recover(tmp_path / "market")
        assert names(tmp_path) == []

    def test_not_while_it_is_being_replaced(self, store: Path) -> None:
        with locked(store):
            store.rename(store.parent / ".market.qlib-ext.old")
            with pytest.raises(UserError, match="is changing"):
                recover(store)


class TestLock:
    @pytest.fixture(params=["flock", "existence"], autouse=True)
    def kind(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        if request.param == "existence":
            monkeypatch.setattr(lock, "_flock", lambda descriptor: None)
        elif lock.fcntl is None:
            pytest.skip("this system has no flock")
        return str(request.param)

    @pytest.fixture
    def held(self, store: Path, kind: str) -> Iterator[int]:
        """Process id of another process that is changing the store."""
        code = (
            "import sys; from qlib_ext import lock; from qlib_ext.market import replace\n"
            f"if {kind == 'existence'}: lock._flock = lambda descriptor: None\n"
            "with replace.replaced(sys.argv[1]): print('in', flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline().strip() == b"in"
            yield child.pid
            child.kill()

    def test_the_second_is_told_who_is_first(self, store: Path, held: int) -> None:
        expected = rf"process {held} on \S+ is changing `{store}` at this moment; wait for it to end"
        with pytest.raises(UserError, match=expected), replaced(store):
            pass
        assert (store / "day.txt").read_text() == "old"

    def test_a_killed_holder_holds_no_more(self, store: Path, held: int) -> None:
        os.kill(held, 9)
        os.waitpid(held, 0)
        assert ".market.qlib-ext.lock" in names(store.parent)
        with replaced(store) as new:
            (new / "a").write_text("new")
        assert contents(store.parent) == {"market/a": "new"}

    def test_threads_of_one_process_exclude_each_other(self, store: Path) -> None:
        errors: list[str] = []

        def second() -> None:
            try:
                with locked(store):
                    pass
            except UserError as error:
                errors.append(str(error))

        with locked(store):
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()
        assert len(errors) == 1
        assert f"process {os.getpid()} " in errors[0]
        second()
        assert len(errors) == 1

    def test_stores_side_by_side_do_not_touch_each_other(self, tmp_path: Path) -> None:
        with locked(tmp_path / "a"), locked(tmp_path / "a.b"), replaced(tmp_path / "b") as new:
            (new / "a").write_text("new")
        assert names(tmp_path) == ["b"]

    def test_a_lock_of_another_machine_is_not_taken_over(self, store: Path, kind: str) -> None:
        if kind == "flock":
            pytest.skip("the system's lock knows without the process id")
        lock = store.parent / ".market.qlib-ext.lock"
        lock.write_text("1 elsewhere\n")
        with (
            pytest.raises(UserError, match=r"process 1 on elsewhere .*\(if it runs no more, delete"),
            locked(store),
        ):
            pass
        assert lock.exists()


class TestRefused:
    def test_a_file(self, store: Path) -> None:
        with (
            pytest.raises(UserError, match="expected a directory to replace, found a file"),
            replaced(store / "day.txt"),
        ):
            pass

    def test_a_mount_point(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Path, "is_mount", lambda self: self == store)
        with pytest.raises(UserError, match=r"is a mount point, .*; name one below it"), replaced(store):
            pass

    @POSIX
    def test_links_in_a_circle(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        with pytest.raises(UserError), replaced(tmp_path / "a"):
            pass

    def test_a_directory_that_cannot_be_written(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> int:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(os, "open", refuse)  # as root, whom no mode keeps out, would not see it
        with (
            pytest.raises(UserError, match=r"cannot be written \(Permission denied\); choose"),
            replaced(store),
        ):
            pass

    @pytest.mark.parametrize(
        ("number", "message"),
        [
            (errno.EXDEV, "another file system, or in the image of a container"),
            (errno.EPERM, "may belong to somebody else"),
        ],
    )
    def test_a_store_that_cannot_be_renamed(
        self, store: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
    ) -> None:
        def refuse(*_: object) -> bool:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(replace, "_exchange", refuse)
        with pytest.raises(UserError, match=message), replaced(store):
            pass
        assert contents(store) == {"features/close": "old", "day.txt": "old"}
        assert names(store.parent) == ["market"]

    def test_a_full_disk(self, store: Path) -> None:
        with pytest.raises(UserError, match=r"no room left .* Nothing was changed"):
            write_then_raise(store, OSError(errno.ENOSPC, "No space left on device"))
        assert contents(store) == {"features/close": "old", "day.txt": "old"}
        assert names(store.parent) == ["market"]


class TestCopyStore:
    def test_files_are_shared(self, store: Path, tmp_path: Path) -> None:
        copy_store(store, tmp_path / "copy")
        assert contents(tmp_path / "copy") == contents(store)
        assert (tmp_path / "copy" / "day.txt").samefile(store / "day.txt")

    def test_on_demand_they_are_not(self, store: Path, tmp_path: Path) -> None:
        os.utime(store / "day.txt", (1e9, 1e9))
        copy_store(store, tmp_path / "copy", links=False)
        assert contents(tmp_path / "copy") == contents(store)
        assert not (tmp_path / "copy" / "day.txt").samefile(store / "day.txt")
        assert (tmp_path / "copy" / "day.txt").stat().st_mtime == 1e9

    def test_without_hard_links_they_are_copied(
        self, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
        copy_store(store, tmp_path / "copy")
        assert contents(tmp_path / "copy") == contents(store)

    def test_some_can_be_left_out(self, store: Path, tmp_path: Path) -> None:
        asked = []
        copy_store(
            store,
            tmp_path / "copy",
            leave_out=lambda path: (asked.append(str(path)), path.name == "features")[1],
        )
        assert contents(tmp_path / "copy") == {"day.txt": "old"}
        assert asked == ["day.txt", "features"]  # and nothing below what is left out

    @POSIX
    def test_links_are_followed(self, store: Path, tmp_path: Path) -> None:
        (tmp_path / "big").mkdir()
        (tmp_path / "big" / "open").write_text("far")
        (store / "far").symlink_to(tmp_path / "big")
        (store / "one").symlink_to("day.txt")
        copy_store(store, tmp_path / "copy")
        copy = tmp_path / "copy"
        assert contents(copy) == {"features/close": "old", "day.txt": "old", "far/open": "far", "one": "old"}
        assert not any(path.is_symlink() for path in copy.rglob("*"))

    @POSIX
    def test_a_link_to_above_and_one_to_nowhere_are_refused(self, store: Path, tmp_path: Path) -> None:
        (store / "features" / "up").symlink_to(store)
        with pytest.raises(UserError, match=r"features/up` is a link to a directory above it"):
            copy_store(store, tmp_path / "copy")
        (store / "features" / "up").unlink()
        (store / "gone").symlink_to(tmp_path / "nowhere")
        with pytest.raises(
            UserError, match=r"expected a file, a directory or a link to one, found neither at .*gone`"
        ):
            copy_store(store, tmp_path / "copy2")

    def test_a_file_that_is_there_is_not_overwritten(self, store: Path, tmp_path: Path) -> None:
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "day.txt").write_text("mine")
        with pytest.raises(FileExistsError):
            copy_store(store, tmp_path / "copy")
