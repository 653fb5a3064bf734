"""A bundle of somebody else's, unpacked with care: refused where it is not whole, holds more than it says, or leads out."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from qlib_ext.checks import UserError, brief
from qlib_ext.files import GZIP_FREE, GZIP_RATIO, SMALL, load_yaml, open_file, read_json, read_text
from qlib_ext.model.trainings.below import PREDICTIONS
from qlib_ext.paths import inside
from qlib_ext.tracking.checksums import MANIFEST, checksum, from_text
from qlib_ext.verify.bundle import FOLDER, FORMAT, INDEX, NEEDED, ORDERS, WORKFLOW
from qlib_ext.verify.content import read_content
from qlib_ext.verify.task import CONFIG, below, task_of

GIB = 1 << 30
MOST_FILES = 50_000
MOST_BYTES = 16 * GIB  # unpacked
MOST_FILE = 4 * GIB
_SAID: Mapping[str, type] = {
    "run": str,
    "scores": str,
    "data": dict,
    "environment": dict,
    "files": dict,
    "runs": dict,
}


class BundleError(UserError):
    """A bundle that is damaged, was changed, or is none."""


@dataclass(frozen=True)
class Bundle:
    """A bundle that was unpacked and is whole.

    Attributes
    ----------
    path
        The file.
    root
        The folder that holds what it does.
    index
        What its `bundle.json` says.
    """

    path: Path
    root: Path
    index: Mapping[str, Any]

    @property
    def run(self) -> str:
        """The id of the run."""
        return str(self.index["run"])

    def folder(self, run_id: str) -> Path:
        """The folder of a run's artifacts."""
        return inside(self.root, f"{FOLDER}/{run_id}", what="a run of the bundle")

    def artifacts(self, run_id: str) -> Mapping[str, Mapping[str, Any]]:
        """Artifact path -> `bytes`, `sha256` and `content`."""
        return self.index["runs"][run_id]["artifacts"]

    def tags(self, run_id: str) -> Mapping[str, str]:
        """Those tags of a run that decide how it is executed."""
        return self.index["runs"][run_id].get("tags", {})

    def workflow(self) -> Mapping[str, Any]:
        """The workflow, `qlib_init` and task."""
        return load_yaml(read_text(self.root / WORKFLOW))


def open_bundle(path: Path, root: Path) -> Bundle:
    """Unpack a bundle into the empty folder `root`, and hold everything in it against its hashes.

    Raises
    ------
    BundleError
        If it is none, a file is missing, more than it says or not what it says, a hash of content is not that of the
        content, a name leads out of the folder, or it unpacks to more than a run has.
    """
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            entries = _entries(path, archive)
            index = _index(path, archive, entries, root)
            expected = _expected(index)
            missing = sorted(expected.keys() - entries.keys())
            more = sorted(entries.keys() - expected.keys() - {INDEX})
            if missing or more:
                what, names = ("lacks", missing) if missing else ("has more than its index says:", more)
                raise BundleError(f"{_refused(path)}: it {what} {brief(names[0])}{_others(names)}")
            for name, said in expected.items():
                _unpack(
                    path,
                    archive,
                    entries[name],
                    inside(root, name, what="a file of a bundle"),
                    int(said["bytes"]),
                )
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BundleError(f"{_refused(path)}: it is no whole zip file ({error})") from error
    except OSError as error:
        raise BundleError(f"the bundle {path} cannot be read: {error.strerror or error}") from error
    for name, said in expected.items():
        if checksum(root / name) != said["sha256"]:
            raise BundleError(
                f"{_refused(path)}: `{name}` is not what its hash says, so one of them was changed"
            )
    bundle = Bundle(path, root, index)
    _check_contents(bundle)
    return bundle


def _check_contents(bundle: Bundle) -> None:
    """The hashes of contents, those of the runs themselves, and that the runs below are those that are named."""
    reached = []
    waiting = [bundle.run]
    while waiting:
        run_id = waiting.pop()
        root = bundle.folder(run_id)
        artifacts = bundle.artifacts(run_id)
        lacking = [name for name in NEEDED if name not in artifacts]
        if lacking:
            raise BundleError(f"{_refused(bundle.path)}: its run {brief(run_id)} lacks {', '.join(lacking)}")
        for name, said in artifacts.items():
            if name not in (CONFIG, MANIFEST) and read_content(root / name, name).digest() != said["content"]:
                raise BundleError(
                    f"{_refused(bundle.path)}: `{name}` does not say what its hash of content does, so one of them was changed"
                )
        if MANIFEST in artifacts:
            _check_manifest(bundle, run_id)
        task_of(root)
        reached.append(run_id)
        named = [each for each in below(root) if each in bundle.index["runs"]]
        waiting += [each for each in named if each not in reached]
    alone = [run_id for run_id in bundle.index["runs"] if run_id not in reached]
    if alone:
        raise BundleError(
            f"{_refused(bundle.path)}: its run {brief(alone[0])} is none of those below the others"
        )
    own = bundle.artifacts(bundle.run)
    for what, name in (("scores", PREDICTIONS), ("orders", ORDERS)):
        if bundle.index.get(what) != own.get(name, {}).get("content"):
            raise BundleError(f"{_refused(bundle.path)}: its hash of the {what} is not that of `{name}`")


def _check_manifest(bundle: Bundle, run_id: str) -> None:
    """What the run itself wrote of its artifacts as it ended."""
    try:
        own = from_text(read_text(bundle.folder(run_id) / MANIFEST))
    except ValueError as error:
        raise BundleError(
            f"{_refused(bundle.path)}: `{MANIFEST}` of its run {run_id} is damaged ({error})"
        ) from error
    for name, said in bundle.artifacts(run_id).items():
        if own.get(name, said["sha256"]) != said["sha256"]:
            raise BundleError(
                f"{_refused(bundle.path)}: `{name}` is not what the run {run_id} wrote, as its own `{MANIFEST}` has it"
            )


def _entries(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Name -> entry, of a zip in which no name leads out, comes twice or is no plain file, and which has an end."""
    found: dict[str, zipfile.ZipInfo] = {}
    infos = archive.infolist()
    if len(infos) > MOST_FILES:
        raise BundleError(
            f"{_refused(path)}: it must have at most {MOST_FILES:,} files, found {len(infos):,}"
        )
    for entry in infos:
        name = entry.filename
        parts = PurePosixPath(name).parts
        if (
            not parts
            or name.startswith("/")
            or ".." in parts
            or "\\" in name
            or ":" in name
            or not name.isprintable()
        ):
            raise BundleError(f"{_refused(path)}: it names {brief(name)}, which leads out of its folder")
        if (
            entry.is_dir()
            or stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG)
            or entry.flag_bits & 1
        ):
            raise BundleError(
                f"{_refused(path)}: {brief(name)} must be a plain file, found a folder, a link or a secret"
            )
        if name in found:
            raise BundleError(f"{_refused(path)}: it has {brief(name)} twice")
        if entry.file_size > MOST_FILE or entry.file_size > max(GZIP_FREE, GZIP_RATIO * entry.compress_size):
            raise BundleError(
                f"{_refused(path)}: {brief(name)} unpacks to {entry.file_size:,} bytes of {entry.compress_size:,}"
            )
        found[name] = entry
    total = sum(entry.file_size for entry in infos)
    if total > MOST_BYTES:
        raise BundleError(
            f"{_refused(path)}: it unpacks to {total:,} bytes, and a bundle has at most {MOST_BYTES:,}"
        )
    return found


def _index(
    path: Path, archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], root: Path
) -> Mapping[str, Any]:
    if INDEX not in entries:
        raise BundleError(f"{path} is no bundle: it has no {INDEX}; `qlib-ext bundle RUN` writes one")
    if entries[INDEX].file_size > SMALL:
        raise BundleError(f"{_refused(path)}: its {INDEX} has {entries[INDEX].file_size:,} bytes")
    _unpack(path, archive, entries[INDEX], root / INDEX, entries[INDEX].file_size)
    try:
        index = read_json(root / INDEX)
        if index["format"] != FORMAT:
            raise BundleError(
                f"the bundle {path} is of the format {brief(index['format'])}, and this version reads {FORMAT}: install the "
                f"qlib-ext that wrote it ({brief(index.get('written_by'))})"
            )
        for name, kind in _SAID.items():
            if not isinstance(index[name], kind):
                raise TypeError(f"its {name} is {brief(index[name])}")
        str(index["data"]["fingerprint"]), dict(index["data"]["parts"]), index["runs"][index["run"]]
        _expected(index)
    except UserError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{_refused(path)}: its {INDEX} does not say what a bundle holds ({error})"
        ) from error
    return index


def _expected(index: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Name in the zip -> what the index says of it."""
    found = dict(index["files"])
    for run_id, run in index["runs"].items():
        found |= {f"{FOLDER}/{run_id}/{name}": said for name, said in run["artifacts"].items()}
    for name, said in found.items():
        if not (isinstance(said["bytes"], int) and isinstance(said["sha256"], str)):
            raise TypeError(f"of {brief(name)} it says {brief(said)}")
    return found


def _unpack(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, size: int) -> None:
    """Write a file of exactly `size` bytes; what has more is not written further."""
    target.parent.mkdir(parents=True, exist_ok=True)
    left = size
    with archive.open(entry) as content, target.open("xb") as file:
        while block := content.read(min(1 << 20, left + 1)):
            left -= len(block)
            if left < 0:
                break
            file.write(block)
    if left:
        raise BundleError(
            f"{_refused(path)}: {brief(entry.filename)} must have {size:,} bytes, as its index says"
        )


def _refused(path: Path) -> str:
    return f"the bundle {path} is refused"


def _others(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
