"""Prepared panels on disk, so that a second run on the same data starts at once.

The directory holds::

    CACHEDIR.TAG                      tells backup programs that it may be left out
    fingerprints/<signature>.json     the fingerprint of the store whose files looked like that
    panels/<key>/manifest.json        what an entry is, and checksums of its arrays
    panels/<key>/<number>.npy         the arrays
    panels/<key>/used                 its time of modification is when the entry was last read

A key is the hash of everything that the arrays follow from: the content of the store, the settings of the handler,
the code that made them and the versions of the libraries under it. Nothing is ever written into an entry: it is made
under another name and moved into place, so that readers see the whole of it or nothing. Nothing here runs code when
it is opened.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import qlib_ext
from qlib_ext.features.allocation import in_memory
from qlib_ext.market.store import QlibStore, Signature, StoreError, signature

logger = logging.getLogger(__name__)

T = TypeVar("T")

FORMAT = 1
LIMIT_BYTES = 10 * 10**9  # of all entries together
FINGERPRINTS_KEPT = 200
LEFTOVER_SECONDS = 24 * 3600  # what a killed run left half made is removed after a day
CHUNK_BYTES = 1 << 20
CHUNKS_LOOKED_AT = 4
# Whatever handlers and feature sets import of the package must be among these: an entry is never read by other code.
SOURCES = (
    "*.py",
    "config/*.py",
    "market/codes.py",
    "market/store.py",
    "market/finding.py",
    "market/progress.py",
    "market/rules/*.py",
    "market/side_data/*.py",
    "market/spells.py",
    "market/text_files.py",
    "market/traded_value.py",
    "features/*.py",
    "features/*/*.py",
    "data/*.py",
    "data/*/*.py",
)
MANIFEST, USED = "manifest.json", "used"
# https://bford.info/cachedir/
TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Panels that qlib-ext makes again where they are missing.\n"


@dataclass(frozen=True)
class Look:
    """A store at one moment.

    Attributes
    ----------
    store
        Opened after the look at its files.
    fingerprint
        Of its content at that time.
    signature
        What its files looked like.
    """

    store: QlibStore
    fingerprint: str
    signature: Signature

    def unchanged(self) -> bool:
        """Whether the content is still the same; where timestamps cannot tell, everything is read again."""
        try:
            if signature(self.store.root).digest != self.signature.digest:
                return False
            return self.signature.settled or QlibStore(self.store.root).fingerprint() == self.fingerprint
        except StoreError:  # it is being replaced
            return False


@dataclass(frozen=True)
class Entry:
    """What an entry of the cache holds: facts that JSON can say, and arrays, which are mapped from its files."""

    facts: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


class PanelCache:
    """Entries of facts and arrays under a key, in a directory.

    Runs may use one directory at the same time. Where the total of all entries passes `limit_bytes`, those that were
    read the longest ago are removed. A directory that cannot be written is a warning and no more.

    Parameters
    ----------
    root
        The directory; made when the first entry is.
    limit_bytes
        Of all entries together; the newest is kept whatever its size.
    """

    def __init__(self, root: str | Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.root = Path(root).expanduser()
        self.limit_bytes = limit_bytes
        self._writable = True  # until it proves not to be

    def look(self, root: Path) -> Look:
        """The store at `root` and its fingerprint: remembered where the store's files are as they were, else read."""
        seen = signature(root)
        store = QlibStore(root)
        path = self.root / "fingerprints" / f"{_hash([seen.digest, code_digest()])}.json"
        if seen.settled:
            known = _read_fingerprint(path)
            if known is not None:
                store.know_fingerprint(known)
                return Look(store, known, seen)
        look = Look(store, store.fingerprint(), seen)
        if seen.settled and look.unchanged():
            self._write(lambda: self._remember(path, look.fingerprint))
        return look

    def _remember(self, path: Path, fingerprint: str) -> None:
        self._make_folders()
        content = {"fingerprint": fingerprint, "check": _hash([path.stem, fingerprint])}
        new = path.with_name(f".new-{secrets.token_hex(8)}")
        new.write_text(json.dumps(content), encoding="utf-8")
        new.replace(path)
        known = sorted(path.parent.iterdir(), key=_modified, reverse=True)
        for old in known[FINGERPRINTS_KEPT:]:
            old.unlink(missing_ok=True)

    def load(self, key: str) -> Entry | None:
        """The entry under `key`, or None where there is none; one that is damaged is removed, with a warning."""
        folder = self.root / "panels" / key
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            entry = _open(folder, key, manifest)
        except FileNotFoundError:
            if folder.is_dir():
                self._damaged(folder, "a file is missing")
            return None
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            self._damaged(folder, str(error))
            return None
        try:
            os.utime(folder / USED)
        except OSError as error:  # a cache that may only be read serves as well
            logger.debug("the panel cache at %s cannot be marked as used: %s", self.root, error)
        return entry

    def _damaged(self, folder: Path, what: str) -> None:
        logger.warning("the panel cache at %s is damaged, so it is made again: %s", folder, what)
        self._write(lambda: _remove(folder))

    @contextlib.contextmanager
    def draft(self) -> Iterator[Draft]:
        """A place for arrays that are too large for memory, until `save` makes an entry of them; gone afterwards."""
        draft = Draft(self)
        try:
            yield draft
        finally:
            shutil.rmtree(draft.folder, ignore_errors=True)

    def save(self, key: str, entry: Entry, draft: Draft | None = None) -> None:
        """Make an entry; one that another run has made meanwhile is left as it is.

        Parameters
        ----------
        key
            From `key_of`.
        entry
            What it holds.
        draft
            In whose files some of the arrays lie already; they become those of the entry.
        """
        if draft is None:
            with self.draft() as draft:
                self.save(key, entry, draft)
        else:
            self._write(lambda: self._save(key, entry, draft))

    def _save(self, key: str, entry: Entry, draft: Draft) -> None:
        new = draft.make_folder()
        written: dict[int, dict[str, Any]] = {}
        for array in entry.arrays.values():
            if id(array) not in written:  # two names of one array are one file
                written[id(array)] = draft.write(array)
        draft.keep({described["file"] for described in written.values()})
        manifest = {
            "format": FORMAT,
            "key": key,
            "facts": entry.facts,
            "arrays": {name: written[id(array)] for name, array in entry.arrays.items()},
        }
        content = json.dumps({**manifest, "check": _hash(manifest)})
        (new / MANIFEST).write_text(content, encoding="utf-8")
        (new / USED).touch()
        panels = new.parent
        try:
            new.rename(panels / key)
        except OSError:
            if not (panels / key / MANIFEST).is_file():
                raise
        self._make_room(panels, keep=key)

    def _make_folders(self) -> None:
        for part in ("panels", "fingerprints"):
            (self.root / part).mkdir(parents=True, exist_ok=True)
        tag = self.root / "CACHEDIR.TAG"
        if not tag.exists():
            tag.write_text(TAG, encoding="utf-8")

    def _make_room(self, panels: Path, keep: str) -> None:
        sizes, used = {}, {}
        for folder in panels.iterdir():
            if not folder.name.startswith("."):
                sizes[folder] = sum(_size(path) for path in folder.glob("*"))
                used[folder] = _modified(folder / USED)
        total = sum(sizes.values())
        for folder in sorted(sizes, key=lambda folder: used[folder]):
            if total <= self.limit_bytes:
                break
            if folder.name != keep:
                _remove(folder)
                total -= sizes[folder]

    @staticmethod
    def _tidy(panels: Path) -> None:
        for folder in panels.glob(".*"):
            if time.time() - _modified(folder) > LEFTOVER_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    def _write(self, work: Callable[[], T]) -> T | None:
        """Do what writes; None, with a warning the first time, where the directory cannot be written."""
        if not self._writable:
            return None
        try:
            return work()
        except OSError as error:
            self._writable = False
            logger.warning(
                "the panel cache at %s cannot be written, so nothing is kept for the next run (%s): "
                "set `cache` to another directory, or to off",
                self.root,
                error,
            )
            return None


class Draft:
    """An entry that is being made: a folder beside the others, which are moved into place as a whole.

    Parameters
    ----------
    cache
        That it will be an entry of.

    Attributes
    ----------
    folder
        Made when something is written.
    """

    def __init__(self, cache: PanelCache) -> None:
        self.cache = cache
        self.folder = cache.root / "panels" / f".new-{secrets.token_hex(8)}"
        self._files = 0
        self._mapped: list[tuple[np.ndarray, Path]] = []

    def make_folder(self) -> Path:
        """Its folder; leftovers of others are removed first."""
        if not self.folder.is_dir():
            self.cache._make_folders()
            self.cache._tidy(self.folder.parent)
            self.folder.mkdir()
        return self.folder

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """A float32 array in a file of the draft, which is mapped; in memory where that cannot be written.

        The disk has room for all of it then: a page that found none later would end the process.
        """
        mapped = self.cache._write(lambda: self._map(shape))
        return in_memory(shape) if mapped is None else mapped

    def _map(self, shape: tuple[int, ...]) -> np.ndarray:
        path = self._new_file()
        array = np.lib.format.open_memmap(path, "w+", np.dtype(np.float32), shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        self._mapped.append((array, path))
        return array

    def _new_file(self) -> Path:
        self._files += 1
        return self.make_folder() / f"{self._files - 1}.npy"

    def keep(self, names: Collection[str]) -> None:
        """Remove the files of arrays that were not used after all."""
        for _, path in self._mapped:
            if path.name not in names:
                path.unlink()

    def write(self, array: np.ndarray) -> dict[str, Any]:
        """Write an array, or what of it is not on the disk yet, and describe its file."""
        for mapped, path in self._mapped:
            if mapped is array:
                mapped.flush()  # type: ignore[attr-defined]
                return _describe(path, array)
        path = self._new_file()
        with path.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        return _describe(path, array)


def key_of(facts: Mapping[str, Any]) -> str:
    """The key of an entry that follows from `facts`, which JSON can say, and from the code of this package."""
    libraries = {name: version(name) for name in ("numpy", "pandas", "pyqlib", "scipy")}
    return _hash({"format": FORMAT, "facts": facts, "code": code_digest(), "libraries": libraries})


@functools.cache
def code_digest() -> str:
    """Hash of the sources that panels and fingerprints are made by."""
    root = Path(qlib_ext.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in root.glob(pattern)):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _read_fingerprint(path: Path) -> str | None:
    """The remembered fingerprint, or None where there is none that its checksum agrees with."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        fingerprint = str(content["fingerprint"])
        if content["check"] != _hash([path.stem, fingerprint]):
            raise ValueError("its checksum is another")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s cannot be read, so the store is read instead: %s", path, error)
        return None
    return fingerprint


def _describe(path: Path, array: np.ndarray) -> dict[str, Any]:
    """The file of an array, all of which is on the disk then."""
    with path.open("rb") as file:
        os.fsync(file.fileno())  # or a power cut could leave an entry in place whose bytes are not there
    found = path.stat()
    return {
        "file": path.name,
        "shape": list(array.shape),
        "type": array.dtype.str,
        "bytes": found.st_size,
        "mtime_ns": found.st_mtime_ns,
        "chunks": _checksums(path, range(-(-found.st_size // CHUNK_BYTES))),
    }


def _checksums(path: Path, chunks: Iterable[int]) -> list[int]:
    with path.open("rb") as file:
        sums = []
        for chunk in chunks:
            file.seek(chunk * CHUNK_BYTES)
            sums.append(zlib.crc32(file.read(CHUNK_BYTES)))
    return sums


def _open(folder: Path, key: str, manifest: dict[str, Any]) -> Entry:
    """Map the arrays of an entry; ValueError says what is wrong with it."""
    check = manifest.pop("check")
    if manifest["format"] != FORMAT or manifest["key"] != key or check != _hash(manifest):
        raise ValueError(f"{MANIFEST} is not what was written")
    opened: dict[str, np.ndarray] = {}
    arrays = {}
    for name, described in manifest["arrays"].items():
        file = str(described["file"])
        if file not in opened:
            opened[file] = _open_array(folder / file, described)
        arrays[name] = opened[file]
    return Entry(manifest["facts"], arrays)


def _open_array(path: Path, described: Mapping[str, Any]) -> np.ndarray:
    found = path.stat()
    if found.st_size != described["bytes"]:
        raise ValueError(f"{path.name} must have {described['bytes']} bytes, found {found.st_size}")
    sums = described["chunks"]
    chunks: Iterable[int] = range(len(sums))
    if found.st_mtime_ns == described["mtime_ns"]:  # written by us and by nobody since: a look here and there
        chunks = sorted({round(x) for x in np.linspace(0, len(sums) - 1, CHUNKS_LOOKED_AT)})
    if _checksums(path, chunks) != [sums[chunk] for chunk in chunks]:
        raise ValueError(f"{path.name} has other bytes than were written")
    # pages are read when they are needed; what is written to them stays in this process
    array = np.load(path, mmap_mode="c" if 0 not in described["shape"] else None, allow_pickle=False)
    if list(array.shape) != described["shape"] or array.dtype.str != described["type"]:
        raise ValueError(
            f"{path.name} must hold {described['type']} {described['shape']}, found another array"
        )
    return array.view(np.ndarray)


def _remove(folder: Path) -> None:
    """Out of the way in one step, so that nobody finds half of it, then off the disk."""
    old = folder.with_name(f".old-{secrets.token_hex(8)}")
    try:
        folder.rename(old)
    except FileNotFoundError:  # another run was quicker
        return
    shutil.rmtree(old, ignore_errors=True)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another run has removed it
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
