"""Files that somebody else wrote, opened with care: no pipe that hangs, no device without end, no size that memory cannot hold.

Every reader of a store, of side data, of imports and of YAML opens its files here. A limit lies far above what such a file
has in practice, so that it tells a mistake or an attack, and no user's data.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from qlib_ext.checks import UserError

MIB = 1 << 20
SMALL = 16 * MIB  # JSON, YAML and lists that a person could read
TABLE = 2048 * MIB  # a table in text that is read as a whole
LINE = 1 * MIB  # of a table in text
GZIP_RATIO = 200  # numbers in text are packed 3 to 20 times
GZIP_FREE = 64 * MIB  # and what is smaller than this does no harm
YAML_DEPTH, YAML_VALUES, YAML_LETTERS = 64, 100_000, 4 * MIB
_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # what no name, path or database takes

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
# A pipe is opened without waiting for its other end, and then refused.
_FLAGS = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY")
)


def open_file(path: str | Path, most: int | None = None, error: type[UserError] = UserError) -> io.FileIO:
    """Open a regular file to read its bytes.

    Parameters
    ----------
    path
        The file; links are followed.
    most
        Bytes that it may have; None for any number.
    error
        What to raise of a file that is refused.

    Raises
    ------
    UserError
        If it is no regular file, or larger.
    OSError
        As `open`.
    """
    descriptor = os.open(path, _FLAGS)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
            raise error(f"`{path}` must be a regular file, found {kind}: remove it, or name another")
        if most is not None and found.st_size > most:
            raise error(_too_large(path, most, found.st_size))
        return io.FileIO(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | Path, most: int, error: type[UserError] = UserError) -> bytes:
    """The content of a regular file of at most `most` bytes; raises as `open_file`."""
    with open_file(path, most, error) as file:
        content = file.read(most + 1)
        while len(content) <= most and (more := file.read(most + 1 - len(content))):
            content += more
    if len(content) > most:  # it grows, or says nothing of its size
        raise error(_too_large(path, most, len(content)))
    return content


def read_text(
    path: str | Path, most: int = SMALL, error: type[UserError] = UserError, encoding: str = "utf-8"
) -> str:
    """The text of a regular file of at most `most` bytes, line ends made one; raises as `open_file`, or UnicodeDecodeError."""
    return read_bytes(path, most, error).decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | Path, most: int = SMALL, error: type[UserError] = UserError) -> Any:
    """What a JSON file holds; raises as `open_file`, or ValueError where it is no JSON or nested too deep."""
    try:
        return json.loads(read_text(path, most, error))
    except RecursionError as fault:
        raise ValueError("it is nested too deep") from fault


@contextlib.contextmanager
def open_archive(path: str | Path) -> Iterator[tarfile.TarFile]:
    """Open a regular file as a tar, packed by gzip or not, to be read from its beginning to its end; nothing is unpacked.

    Who reads its members looks at their names and sizes first: they may lead anywhere. A packed one that was cut is told
    at the end, where its members alone would not show it.

    Raises
    ------
    UserError
        As `open_file`.
    tarfile.TarError, EOFError, zlib.error, OSError
        If it is none, or not whole.
    """
    with open_file(path) as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        with contextlib.closing(gzip.GzipFile(fileobj=file) if packed else file) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                yield archive
            for _ in range(GZIP_FREE // MIB):  # gzip looks at its checksum where it ends
                if not stream.read(MIB):
                    return
            raise tarfile.ReadError("much follows its end")


def _too_large(path: str | Path, most: int, found: int) -> str:
    size = f"{found / MIB:,.0f} MiB" if found >= MIB else f"{found:,} bytes"
    return (
        f"`{path}` must have at most {most:,} bytes, found {size} or more: such a file holds something else than it should; "
        "make it anew"
    )


class _TextTable(io.RawIOBase):
    """The bytes of a table in text, unpacked where the name ends in `.gz`, and looked at as they come."""

    def __init__(self, file: io.FileIO, path: str | Path, most: int, encoding: str):
        super().__init__()
        self._raw, self._path, self._most = file, path, most
        self._file: io.FileIO | gzip.GzipFile = file
        self._left, self._since = most, 0  # bytes since the last end of a line
        self._zeros = encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32"))
        self._unpacked: int | None = None
        if str(path).lower().endswith(".gz"):
            self._file = gzip.GzipFile(fileobj=file)
            self._unpacked = max(GZIP_FREE, GZIP_RATIO * os.fstat(file.fileno()).st_size)

    def refill(self) -> None:
        self._left = self._most

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        self._raw.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        block = self._file.read(min(len(buffer), MIB)) or b""
        buffer[: len(block)] = block
        self._check(block)
        return len(block)

    def _check(self, block: bytes) -> None:
        self._left -= len(block)
        if self._left < 0:
            raise UserError(
                f"`{self._path}` must have fewer than {self._most:,} bytes in what is read at once: is a quotation mark "
                "opened and never closed? Mend it, or divide the file"
            )
        if self._unpacked is not None:
            self._unpacked -= len(block)
            if self._unpacked < 0:
                raise UserError(
                    f"`{self._path}` unpacks to more than {GZIP_RATIO} times its size, which no table of numbers does; "
                    "unpack it yourself if it is right"
                )
        if not self._zeros and b"\0" in block:
            raise UserError(
                f"`{self._path}` must be text, found a zero byte: it is no table, was cut by a full disk, or has another "
                "encoding, such as utf-16"
            )
        end = max(block.rfind(b"\n"), block.rfind(b"\r"))
        self._since = self._since + len(block) if end < 0 else len(block) - 1 - end
        if self._since > LINE:
            raise UserError(f"`{self._path}` must have lines of at most {LINE:,} bytes, found a longer one")


class TextTable(io.BufferedReader):
    """The bytes of a table in text, from `open_table`."""

    def refill(self) -> None:
        """Let as many bytes be read again as at first: for whoever reads piece by piece, before each piece."""
        self.raw.refill()  # type: ignore[attr-defined]


@contextlib.contextmanager
def open_table(path: str | Path, most: int | None = None, encoding: str = "utf-8") -> Iterator[TextTable]:
    """Open a table in text, unpacked where its name ends in `.gz`; what would fill the memory is refused.

    Parameters
    ----------
    path
        A CSV file or its like.
    most
        Bytes that may be read at once; `TABLE` by default.
    encoding
        Of the text: those of two or four bytes a letter have zero bytes.

    Yields
    ------
    TextTable
        A binary stream.

    Raises
    ------
    UserError
        At once, or as it is read: it is no regular file, has a line of more than `LINE` bytes or a zero byte, more than
        `most` bytes come at once, or a gz file unpacks to more than `GZIP_RATIO` times its size.
    """
    with open_file(path) as file:
        stream = _TextTable(file, path, TABLE if most is None else most, encoding)
        with TextTable(stream, buffer_size=MIB // 4) as table:
            yield table


def load_yaml(text: str) -> Any:
    """What YAML 1.1 holds, without objects of Python; ValueError where it is none, or as `check_yaml`."""
    try:
        check_yaml(yaml.parse(text, Loader=yaml.SafeLoader))
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def check_yaml(events: Iterable[Any]) -> None:
    """Refuse YAML that is small as text and endless as values: aliases of aliases, or nesting without end.

    Parameters
    ----------
    events
        From `parse` of PyYAML or ruamel.yaml, before anything is built of them.

    Raises
    ------
    ValueError
        If it is nested deeper than `YAML_DEPTH`, or written out has more than `YAML_VALUES` values or `YAML_LETTERS`
        letters, holds itself, or has a zero character or half a pair of UTF-16.
    """
    sizes: dict[str, tuple[int, int]] = {}  # by anchor: values and letters, written out
    open_: list[tuple[str | None, int, int]] = [(None, 0, 0)]
    for event in events:
        kind = type(event).__name__  # both libraries call them the same
        if kind in ("SequenceStartEvent", "MappingStartEvent"):
            open_.append((event.anchor, 1, 0))
            if len(open_) > YAML_DEPTH:
                raise ValueError(f"it is nested deeper than {YAML_DEPTH} levels")
            continue
        if kind in ("SequenceEndEvent", "MappingEndEvent"):
            anchor, values, letters = open_.pop()
        elif kind == "ScalarEvent":
            anchor, values, letters = event.anchor, 1, len(event.value)
            wrong = _NO_TEXT.search(event.value)
            if wrong:
                raise ValueError(
                    f"it has the character U+{ord(wrong[0]):04X}, which no name and no path may have"
                )
        elif kind == "AliasEvent":
            anchor, (values, letters) = None, sizes.get(event.anchor, (1, 0))
            if any(around == event.anchor for around, _, _ in open_):
                raise ValueError(f"it holds itself, by the alias `*{event.anchor}`")
        else:
            continue
        if anchor is not None:
            sizes[anchor] = values, letters
        around, all_values, all_letters = open_.pop()
        open_.append((around, all_values + values, all_letters + letters))
        if all_values + values > YAML_VALUES or all_letters + letters > YAML_LETTERS:
            raise ValueError(
                f"it has more than {YAML_VALUES:,} values or {YAML_LETTERS:,} letters when its aliases are written out"
            )


def write_whole(path: Path, text: str) -> None:
    """Write a small text file, whole or not at all: beside its place first, then into it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_text(text, encoding="utf-8", newline="\n")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
