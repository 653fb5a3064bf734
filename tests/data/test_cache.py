"""The cache of panels: what it gives back, what it notices, and that a changed store is never read from it."""

from __future__ import annotations

import ast
import json
import logging
import os
import shutil
import time
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qlib_ext import files as files_module
from qlib_ext.data import cache as module
from qlib_ext.data.cache import Entry, PanelCache, code_digest, key_of
from qlib_ext.features.allocation import forget_pages
from qlib_ext.market import store as store_module
from qlib_ext.market.store import QlibStore, signature

KEY = "0123456789abcdef" * 2


@pytest.fixture
def entry() -> Entry:
    draw = np.random.default_rng(0)
    large = draw.normal(size=(40, 300, 50)).astype(np.float32)  # 2.4 MB: more chunks than are looked at
    arrays = {
        "large": large,
        "again": large,
        "bools": draw.random((5, 7)) < 0.5,
        "doubles": draw.normal(size=3),
        "nothing": np.empty((0, 4), np.float32),
    }
    return Entry({"names": ["a", "ß"], "number": 1.5, "none": None}, arrays)


@pytest.fixture
def cache(tmp_path: Path) -> PanelCache:
    return PanelCache(tmp_path / "cache")


def folder_of(cache: PanelCache) -> Path:
    return cache.root / "panels" / KEY


def change_byte(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def with_times(path: Path, work: Callable[[Path], None]) -> None:
    """Do something to a file, and put its time of modification back."""
    found = path.stat()
    work(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


class TestEntries:
    def test_what_was_saved_is_loaded(self, cache: PanelCache, entry: Entry) -> None:
        assert cache.load(KEY) is None
        cache.save(KEY, entry)
        found = PanelCache(cache.root).load(KEY)
        assert found is not None
        assert found.facts == entry.facts
        assert list(found.arrays) == list(entry.arrays)
        for name, array in entry.arrays.items():
            assert found.arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(found.arrays[name], array)
        assert cache.load(KEY[::-1]) is None

    def test_one_array_of_two_names_is_held_once(self, cache: PanelCache, entry: Entry) -> None:
        cache.save(KEY, entry)
        assert len(list(folder_of(cache).glob("*.npy"))) == len(entry.arrays) - 1
        found = cache.load(KEY)
        assert found is not None
        assert found.arrays["again"] is found.arrays["large"]

    def test_arrays_are_mapped_and_what_is_written_to_them_stays_here(
        self, cache: PanelCache, entry: Entry
    ) -> None:
        cache.save(KEY, entry)
        found = cache.load(KEY)
        assert found is not None
        assert isinstance(found.arrays["large"].base, np.memmap)
        found.arrays["large"][0, 0, 0] = 99
        again = cache.load(KEY)
        assert again is not None
        np.testing.assert_array_equal(again.arrays["large"], entry.arrays["large"])

    def test_an_entry_that_is_there_is_left_as_it_is(self, cache: PanelCache, entry: Entry) -> None:
        cache.save(KEY, entry)
        inode = folder_of(cache).stat().st_ino
        cache.save(KEY, entry)
        assert folder_of(cache).stat().st_ino == inode
        assert [path.name for path in folder_of(cache).parent.iterdir()] == [KEY]

    def test_many_at_once(self, cache: PanelCache, entry: Entry) -> None:
        def save_and_load(_: int) -> bool:
            own = PanelCache(cache.root)
            own.save(KEY, entry)
            return own.load(KEY) is not None

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(save_and_load, range(16)))
        assert [path.name for path in folder_of(cache).parent.iterdir()] == [KEY]

    def test_backup_programs_are_told(self, cache: PanelCache, entry: Entry) -> None:
        cache.save(KEY, entry)
        tag = (cache.root / "CACHEDIR.TAG").read_text()
        assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55")

    def test_a_large_array_is_made_in_its_file(self, cache: PanelCache, entry: Entry) -> None:
        large = entry.arrays["large"]
        with cache.draft() as draft:
            unused, array = draft.allocate((3, 2)), draft.allocate(large.shape)
            array[:20] = large[:20]
            forget_pages(array[3:, 1])  # whichever part
            array[20:] = large[20:]
            cache.save(KEY, Entry({}, {"a": array, "b": large}), draft)
        assert sorted(path.name for path in folder_of(cache).glob("*.npy")) == ["1.npy", "2.npy"]
        found = cache.load(KEY)
        assert found is not None
        for each in (array, found.arrays["a"], found.arrays["b"]):
            np.testing.assert_array_equal(each, large)
        assert unused.shape == (3, 2)

    def test_a_draft_that_is_not_saved_is_gone_and_its_arrays_stay(self, cache: PanelCache) -> None:
        with cache.draft() as draft:
            array = draft.allocate((100,))
            array[:] = 7
            assert draft.folder.is_dir()
        assert not list((cache.root / "panels").iterdir())
        assert (array == 7).all()

    def test_nothing_is_made_before_there_is_something_to_keep(self, cache: PanelCache) -> None:
        cache.load(KEY)
        assert not cache.root.exists()


def rewrite_manifest(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


LARGE = "0.npy"
DAMAGES: dict[str, Callable[[Path], None]] = {
    "a file is cut": lambda folder: os.truncate(folder / LARGE, 2_000_000),
    "a file is cut to nothing": lambda folder: os.truncate(folder / LARGE, 0),
    "a file has grown": lambda folder: (folder / LARGE).write_bytes((folder / LARGE).read_bytes() + b"1"),
    "a file is gone": lambda folder: (folder / LARGE).unlink(),
    "another byte, wherever": lambda folder: change_byte(folder / LARGE, 1_500_000),
    "another byte in the header, at the same time": lambda folder: with_times(
        folder / LARGE, lambda path: change_byte(path, 20)
    ),
    "another last byte, at the same time": lambda folder: with_times(
        folder / LARGE, lambda path: change_byte(path, -1)
    ),
    "another array's file": lambda folder: shutil.copy(folder / "1.npy", folder / "2.npy"),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "half a manifest": lambda folder: os.truncate(folder / "manifest.json", 100),
    "an empty manifest": lambda folder: os.truncate(folder / "manifest.json", 0),
    "a manifest that is no mapping": lambda folder: (folder / "manifest.json").write_text("[]"),
    "other facts": lambda folder: rewrite_manifest(
        folder / "manifest.json", lambda content: content["facts"].update(number=2)
    ),
    "another shape": lambda folder: rewrite_manifest(
        folder / "manifest.json", lambda content: content["arrays"]["large"].update(shape=[40, 50, 300])
    ),
    "another format": lambda folder: rewrite_manifest(
        folder / "manifest.json", lambda content: content.update(format=0)
    ),
    "no checksum": lambda folder: rewrite_manifest(
        folder / "manifest.json", lambda content: content.pop("check")
    ),
}


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
    def test_it_is_noticed_told_and_made_again(
        self,
        damage: Callable[[Path], None],
        cache: PanelCache,
        entry: Entry,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        cache.save(KEY, entry)
        damage(folder_of(cache))
        with caplog.at_level(logging.WARNING, logger="qlib_ext"):
            assert cache.load(KEY) is None
        (record,) = caplog.records
        assert str(folder_of(cache)) in record.message
        assert "is damaged, so it is made again: " in record.message
        cache.save(KEY, entry)
        again = cache.load(KEY)
        assert again is not None
        np.testing.assert_array_equal(again.arrays["large"], entry.arrays["large"])

    def test_an_entry_under_another_key_is_none(
        self, cache: PanelCache, entry: Entry, caplog: pytest.LogCaptureFixture
    ) -> None:
        cache.save(KEY, entry)
        folder_of(cache).rename(cache.root / "panels" / KEY[::-1])
        assert cache.load(KEY[::-1]) is None
        assert "is damaged" in caplog.text

    def test_a_copy_with_other_times_is_read_in_full_and_serves(
        self, cache: PanelCache, entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache.save(KEY, entry)
        shutil.copytree(cache.root, tmp_path / "copy", copy_function=shutil.copyfile)
        looked: list[int] = []
        checksums = module._checksums
        monkeypatch.setattr(
            module,
            "_checksums",
            lambda path, chunks: (looked.append(len(list(chunks))), checksums(path, chunks))[1],
        )
        assert PanelCache(tmp_path / "copy").load(KEY) is not None
        assert max(looked) == 3  # all chunks of the large one
        change_byte(tmp_path / "copy" / "panels" / KEY / LARGE, 1_500_000)
        assert PanelCache(tmp_path / "copy").load(KEY) is None

    def test_an_entry_that_vanishes_meanwhile_is_none(
        self, cache: PanelCache, entry: Entry, monkeypatch: pytest.MonkeyPatch, caplog: Any
    ) -> None:
        cache.save(KEY, entry)
        opened = module._open_array

        def vanish(path: Path, described: Any) -> np.ndarray:
            shutil.rmtree(path.parent, ignore_errors=True)
            return opened(path, described)

        monkeypatch.setattr(module, "_open_array", vanish)
        assert cache.load(KEY) is None
        assert not caplog.records

    def test_a_run_that_is_killed_leaves_no_entry(
        self, cache: PanelCache, entry: Entry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def die(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(module.Draft, "write", die)
            with pytest.raises(KeyboardInterrupt):
                cache.save(KEY, entry)
        assert not list((cache.root / "panels").iterdir())
        assert cache.load(KEY) is None

    def test_leftovers_are_removed_after_a_day(self, cache: PanelCache, entry: Entry) -> None:
        for name in (".new-killed", ".old-killed", ".new-at-work"):
            (cache.root / "panels" / name).mkdir(parents=True)
        for name in (".new-killed", ".old-killed"):
            os.utime(cache.root / "panels" / name, (0, time.time() - 25 * 3600))
        cache.save(KEY, entry)
        assert sorted(path.name for path in (cache.root / "panels").iterdir()) == [".new-at-work", KEY]


class TestLimit:
    def test_what_was_read_the_longest_ago_goes(self, tmp_path: Path, entry: Entry) -> None:
        cache = PanelCache(tmp_path / "cache", limit_bytes=3 * 2_410_000)
        for i, key in enumerate("abc"):
            cache.save(key, entry)
            os.utime(cache.root / "panels" / key / "used", (i, i))
        assert cache.load("a") is not None  # read now: the oldest is b
        cache.save("d", entry)
        assert sorted(path.name for path in (cache.root / "panels").iterdir()) == ["a", "c", "d"]

    def test_the_newest_is_kept_whatever_its_size(self, tmp_path: Path, entry: Entry) -> None:
        cache = PanelCache(tmp_path / "cache", limit_bytes=10)
        for key in "ab":
            cache.save(key, entry)
        assert [path.name for path in (cache.root / "panels").iterdir()] == ["b"]

    def test_what_is_mapped_stays_readable(self, tmp_path: Path, entry: Entry) -> None:
        cache = PanelCache(tmp_path / "cache", limit_bytes=10)
        cache.save("a", entry)
        found = cache.load("a")
        cache.save("b", entry)
        assert found is not None
        np.testing.assert_array_equal(found.arrays["large"], entry.arrays["large"])


class TestNotWritable:
    @pytest.fixture
    def blocked(self, tmp_path: Path) -> PanelCache:
        (tmp_path / "cache").write_text("no directory")
        return PanelCache(tmp_path / "cache")

    def test_one_warning_and_no_more(
        self, blocked: PanelCache, entry: Entry, store: QlibStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert blocked.look(store.root).fingerprint == store.fingerprint()
        blocked.save(KEY, entry)
        blocked.save(KEY, entry)
        assert blocked.load(KEY) is None
        messages = [record.message for record in caplog.records if "cannot be written" in record.message]
        assert len(messages) == 1
        assert str(blocked.root) in messages[0]
        assert "set `cache` to another directory, or to off" in messages[0]

    def test_a_full_disk_leaves_nothing(
        self, cache: PanelCache, entry: Entry, monkeypatch: pytest.MonkeyPatch, caplog: Any
    ) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(np, "save", full)
        cache.save(KEY, entry)
        assert "No space left on device" in caplog.text
        assert not list((cache.root / "panels").iterdir())

    def test_without_room_for_a_large_array_it_is_in_memory(
        self, cache: PanelCache, monkeypatch: pytest.MonkeyPatch, caplog: Any
    ) -> None:
        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
        with cache.draft() as draft:
            array = draft.allocate((4, 5))
            assert (array.shape, array.dtype) == ((4, 5), np.float32)
            assert not isinstance(array, np.memmap)
            cache.save(KEY, Entry({}, {"a": array}), draft)
        assert caplog.text.count("No space left on device") == 1
        assert not list((cache.root / "panels").iterdir())


@pytest.fixture
def own_store(store: QlibStore, tmp_path: Path) -> Path:
    """A store to be changed."""
    shutil.copytree(store.root, tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust files that were written a moment ago: a test has not the time to wait."""
    monkeypatch.setattr(store_module, "UNSETTLED_SECONDS", 0.0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The bins that were read since."""
    opened: list[str] = []
    reader = files_module.open_file

    def seen(path: str, *given: Any, **named: Any) -> Any:
        opened.extend([str(path)] * str(path).endswith(".bin"))
        return reader(path, *given, **named)

    for place in (files_module, store_module):
        monkeypatch.setattr(place, "open_file", seen)
    return opened


def change_calendar(root: Path) -> None:
    path = root / "calendars" / "day.txt"
    days = path.read_text().splitlines()
    last = np.datetime64(days[-1]) + 1
    path.write_text("\n".join([*days[:-1], str(last)]) + "\n")


def change_universe(root: Path) -> None:
    path = root / "instruments" / "few.txt"
    path.write_text(path.read_text().replace("SH600009", "SH600010"))


CHANGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a bin": (
        "features/sh600003/open.day.bin",
        lambda root: change_byte(root / "features/sh600003/open.day.bin", 42),
    ),
    "the last byte of the last bin": (
        "features/sh600011/vwap.day.bin",
        lambda root: change_byte(root / "features/sh600011/vwap.day.bin", -1),
    ),
    "the universe": ("instruments/few.txt", change_universe),
    "the calendar": ("calendars/day.txt", change_calendar),
}


class TestFingerprint:
    @pytest.mark.usefixtures("settled")
    def test_it_is_read_once_and_then_remembered(
        self, cache: PanelCache, own_store: Path, store: QlibStore, read: list[str]
    ) -> None:
        assert cache.look(own_store).fingerprint == store.fingerprint()
        assert len(read) >= 70
        read.clear()
        look = PanelCache(cache.root).look(own_store)
        assert look.fingerprint == look.store.fingerprint() == store.fingerprint()
        assert not read

    @pytest.mark.usefixtures("settled")
    @pytest.mark.parametrize("name", CHANGES)
    def test_a_change_of_the_same_size_and_time_is_seen(
        self, name: str, cache: PanelCache, own_store: Path
    ) -> None:
        path, change = CHANGES[name]
        before = cache.look(own_store)
        size = (own_store / path).stat().st_size
        with_times(own_store / path, lambda _: change(own_store))
        assert (own_store / path).stat().st_size == size
        assert not before.unchanged()
        after = cache.look(own_store)
        assert after.fingerprint == QlibStore(own_store).fingerprint() != before.fingerprint

    def test_a_store_that_is_gone_is_another(self, cache: PanelCache, own_store: Path) -> None:
        look = cache.look(own_store)
        own_store.rename(own_store.with_name("elsewhere"))
        assert not look.unchanged()

    @pytest.mark.usefixtures("settled")
    def test_files_that_come_and_go_are_seen(self, cache: PanelCache, own_store: Path) -> None:
        seen = [cache.look(own_store).fingerprint]
        (own_store / "features" / "sh600002" / "vwap.day.bin").unlink()
        seen.append(cache.look(own_store).fingerprint)
        shutil.copytree(own_store / "features" / "sh600001", own_store / "features" / "sh600099")
        seen.append(cache.look(own_store).fingerprint)
        (own_store / "instruments" / "new.txt").write_text("SH600001\t2018-01-01\t2018-02-01\n")
        seen.append(cache.look(own_store).fingerprint)
        assert len(set(seen)) == 4

    @pytest.mark.usefixtures("settled")
    def test_what_the_fingerprint_does_not_cover_does_not_count(
        self, cache: PanelCache, own_store: Path, read: list[str]
    ) -> None:
        before = cache.look(own_store)
        (own_store / "side").mkdir()
        (own_store / "side" / "note.txt").write_text("new")
        read.clear()
        assert before.unchanged()
        assert cache.look(own_store).fingerprint == before.fingerprint
        assert not read

    def test_of_files_changed_a_moment_ago_nothing_is_remembered(
        self, cache: PanelCache, own_store: Path, read: list[str]
    ) -> None:
        look = cache.look(own_store)
        assert not look.signature.settled
        assert not (cache.root / "fingerprints").exists()
        read.clear()
        assert cache.look(own_store).fingerprint == look.fingerprint
        assert len(read) >= 70

    def test_of_files_changed_a_moment_ago_a_change_without_a_trace_is_seen(
        self, cache: PanelCache, own_store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The clock of the file system stands still: nothing but the content tells."""
        look = cache.look(own_store)
        assert look.unchanged()
        change_byte(own_store / "features/sh600003/open.day.bin", 42)
        monkeypatch.setattr(module, "signature", lambda root: look.signature)
        assert not look.unchanged()

    @pytest.mark.usefixtures("settled")
    def test_a_time_to_come_and_times_in_whole_seconds_are_not_trusted(
        self, own_store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert signature(own_store).settled
        path = own_store / "features/sh600003/open.day.bin"
        later = time.time_ns() + 3600 * 10**9
        os.utime(path, ns=(later, later))
        assert not signature(own_store).settled
        second = {"st_mtime_ns": 10**12, "st_ctime_ns": 10**12}
        stamp = types.SimpleNamespace(st_dev=1, st_ino=1, st_size=4, **second)
        monkeypatch.setattr(store_module, "_covered_files", lambda root: iter([("a", stamp), ("b", stamp)]))
        assert not signature(own_store).settled

    @pytest.mark.usefixtures("settled")
    def test_a_store_that_changes_while_it_is_read_is_not_remembered(
        self, cache: PanelCache, own_store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fingerprint = QlibStore.fingerprint

        def slowly(store: QlibStore) -> str:
            found = fingerprint(store)
            change_byte(own_store / "features/sh600003/open.day.bin", 42)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(QlibStore, "fingerprint", slowly)
            cache.look(own_store)
        assert not list(cache.root.glob("fingerprints/*"))
        assert cache.look(own_store).fingerprint == QlibStore(own_store).fingerprint()

    @pytest.mark.usefixtures("settled")
    @pytest.mark.parametrize("content", ["", "{", "[]", '{"fingerprint": "0123456789abcdef", "check": "0"}'])
    def test_a_damaged_memory_is_told_and_not_believed(
        self, content: str, cache: PanelCache, own_store: Path, store: QlibStore, caplog: Any
    ) -> None:
        cache.look(own_store)
        (path,) = (cache.root / "fingerprints").iterdir()
        path.write_text(content)
        assert cache.look(own_store).fingerprint == store.fingerprint()
        assert "so the store is read instead" in caplog.text
        caplog.clear()
        cache.look(own_store)
        assert not caplog.records  # it was made again

    @pytest.mark.usefixtures("settled")
    def test_only_the_newest_are_kept(
        self, cache: PanelCache, own_store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "FINGERPRINTS_KEPT", 2)
        for i in range(4):
            (own_store / "instruments" / f"new{i}.txt").write_text("SH600001\t2018-01-01\t2018-02-01\n")
            cache.look(own_store)
        assert len(list((cache.root / "fingerprints").iterdir())) == 2


def own_imports(path: Path, root: Path) -> list[Path]:
    """The modules of the package that a source names in an import, wherever it stands."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            file = root.parent.joinpath(*name.split(".")).with_suffix(".py")
            if name.startswith("qlib_ext.") and file.is_file():
                found.append(file)
    return found


class TestKey:
    def test_it_follows_from_everything(self, monkeypatch: pytest.MonkeyPatch) -> None:
        facts = {"universe": "few", "labels": [["RETURN", "$close"]]}
        key = key_of(facts)
        assert key == key_of(dict(reversed(facts.items())))
        assert len({key, key_of({**facts, "universe": "all"}), key_of({**facts, "more": 1})}) == 3
        with monkeypatch.context() as patch:
            patch.setattr(module, "code_digest", lambda: "other code")
            assert key_of(facts) != key
        with monkeypatch.context() as patch:
            patch.setattr(module, "version", lambda name: "another")
            assert key_of(facts) != key
        monkeypatch.setattr(module, "FORMAT", 2)
        assert key_of(facts) != key

    def test_every_source_that_panels_are_made_by_is_in_it(self) -> None:
        root = Path(module.__file__).parents[1]
        covered = {path for pattern in module.SOURCES for path in root.glob(pattern)}
        waiting = [
            path
            for folder in ("data/handlers", "data/processors", "features", "features/side_data")
            for path in (root / folder).glob("*.py")
        ]
        reached: set[Path] = set()
        while waiting:
            path = waiting.pop()
            if path not in reached:
                reached.add(path)
                waiting += own_imports(path, root)
        assert root / "market" / "store.py" in reached
        assert reached <= covered

    def test_another_line_of_code_is_another_digest(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = Path(module.__file__).parents[1]
        shutil.copytree(root, tmp_path / "qlib_ext")
        monkeypatch.setattr(module.qlib_ext, "__file__", str(tmp_path / "qlib_ext" / "__init__.py"))
        digest = code_digest.__wrapped__
        assert digest() == code_digest()
        for part in (
            "market/store.py",
            "features/alpha360.py",
            "features/side_data/macro.py",
            "data/processors/momentum_line.py",
        ):
            before = digest()
            with (tmp_path / "qlib_ext" / part).open("a") as file:
                file.write("# another line\n")
            assert digest() != before
