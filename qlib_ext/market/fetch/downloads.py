"""What came from a source, on disk: one small Parquet file a stock, a day or a month, each whole or not there.

A file says in its own metadata for which days it was asked, so that a later call knows what it need not ask for again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from qlib_ext.checks import UserError
from qlib_ext.files import read_json, write_whole
from qlib_ext.market.text_files import check_parquet
from qlib_ext.paths import inside, is_stray

SAID = b"qlib_ext"  # the key of what a file says of itself
ABOUT = "source.json"
PENDING = "pending.json"  # there while the store does not have all that came


class Downloads:
    """The folder of what came from one source.

    Parameters
    ----------
    root
        The folder; it is made.
    source
        Class of the source, and what decides its numbers: another one must not continue the folder.

    Raises
    ------
    UserError
        If the folder holds something else, or what came from another source.
    """

    def __init__(self, root: Path, source: str) -> None:
        self.root = root
        about = root / ABOUT
        if about.is_file():
            try:
                found = read_json(about)
            except ValueError as error:
                raise UserError(f"`{about}` must be JSON: {error}; name another folder") from error
            if not isinstance(found, dict) or found.get("source") != source:
                raise UserError(
                    f"`{root}` must hold what came from {source}, found {found}; name another folder with `--folder`"
                )
        elif root.is_dir() and any(not is_stray(path.name) for path in root.iterdir()):
            raise UserError(f"`{root}` must be a new or an empty folder, or one of downloads; name another")
        root.mkdir(parents=True, exist_ok=True)
        self.write_text(ABOUT, json.dumps({"source": source}) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a small file, whole or not at all."""
        write_whole(self.root / name, text)

    def keys(self, kind: str) -> list[str]:
        """Names of the pieces of a kind, sorted."""
        return sorted(path.stem for path in (self.root / kind).glob("*.parquet") if not is_stray(path.name))

    def path(self, kind: str, key: str) -> Path:
        """Where a piece lies; a key that leads elsewhere is a UserError."""
        return inside(self.root / kind, f"{key}.parquet", what="the name of a download")

    def write(self, kind: str, key: str, table: pd.DataFrame, **said: Any) -> None:
        """Write a piece, whole or not at all, with what it says of itself."""
        path = self.path(kind, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrow = pa.Table.from_pandas(table, preserve_index=False)
        arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), SAID: json.dumps(said)})
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            pq.write_table(arrow, aside)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    def said(self, kind: str, key: str) -> dict[str, Any] | None:
        """What a piece says of itself; None where it is not there."""
        path = self.path(kind, key)
        if not path.is_file():
            return None
        try:
            check_parquet(path)
            return json.loads((pq.read_schema(path).metadata or {})[SAID])
        except (OSError, ValueError, KeyError) as error:
            raise _damaged(path, error) from error

    def read(self, kind: str, key: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The table of a piece; of `columns` those that it has."""
        path = self.path(kind, key)
        try:
            check_parquet(path)
            have = None if columns is None else [c for c in pq.read_schema(path).names if c in columns]
            return pq.read_table(path, columns=have).to_pandas()
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error

    def together(self, kind: str, keys: Iterable[str] | None = None) -> pd.DataFrame:
        """All pieces of a kind as one table; empty where there is none."""
        parts = [self.read(kind, key) for key in (self.keys(kind) if keys is None else keys)]
        parts = [part for part in parts if len(part)]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def rows(self, since: pd.Timestamp | None, whole: frozenset[str]) -> Iterator[pd.DataFrame]:
        """Bars of all pieces: of the days from `since` on, and all of the stocks in `whole`.

        Pieces of days give way to those of a stock, on the days for which that was asked.
        """
        starts: dict[str, pd.Timestamp] = {}
        ends: dict[str, pd.Timestamp] = {}
        for code in self.keys("stocks"):
            said = self.said("stocks", code) or {}
            starts[code], ends[code] = pd.Timestamp(said["start"]), pd.Timestamp(said["end"])
            yield _of(self.read("stocks", code), since, whole)
        for day in self.keys("days"):
            table = self.read("days", day)
            start, end = table["code"].map(starts), table["code"].map(ends)
            table = table[~((start <= pd.Timestamp(day)) & (end >= pd.Timestamp(day)))]
            yield _of(table, since, whole)


def pending(folder: Path) -> frozenset[str] | None:
    """Stocks that came again whole and are not so in the store yet; None where the store has all that came."""
    path = folder / PENDING
    if not path.is_file():
        return None
    try:
        found = read_json(path)
    except ValueError as error:
        raise UserError(
            f"`{path}` must hold codes: {error}; delete `{folder}`, and all is fetched anew"
        ) from error
    return frozenset(map(str, found))


def mark_pending(folder: Path, codes: Iterable[str] = ()) -> None:
    """Say that the store does not have all that came: of these stocks, and of those before, not the past either."""
    write_whole(folder / PENDING, json.dumps(sorted({*codes, *(pending(folder) or ())})) + "\n")


def _of(table: pd.DataFrame, since: pd.Timestamp | None, whole: frozenset[str]) -> pd.DataFrame:
    if since is None:
        return table
    return table[(table["date"] >= since) | table["code"].isin(whole)]


def _damaged(path: Path, error: Exception) -> UserError:
    said = " ".join(str(error).split())
    return UserError(
        f"`{path}` must be a download of this program, found none: {said}; delete it, and it is fetched again"
    )
