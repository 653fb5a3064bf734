"""Stores that are the same as another up to a day, and another market on later days."""

from __future__ import annotations

import functools
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from qlib_ext.market.side_data.side_data import SideData, SideDataError
from qlib_ext.market.side_data.table import KEYS, LAG, MARKET_VALUE, SideTable
from qlib_ext.market.store import QlibStore, StoreError, read_bin
from qlib_ext.market.traded_value import volume_kind
from qlib_ext.paths import is_stray

BARS, MEMBERSHIP, SIDE = "bars", "membership", "side/"
SUFFIX = ".day.bin"
PRICES = ("open", "high", "low", "close", "vwap")
SIGNED = ("change",)  # fields whose values may be of either sign
GONE, COME = 0.08, 0.5  # chance that a bar goes missing, and that a missing one is filled
LEAVE, JOIN = 0.2, 0.1  # of the members of a day
RENAMED = 0.5  # of the stocks with an industry or a concept

Block = tuple[int, int]  # first position of a run of days in the calendar, and the one after its last


class ChangedMarkets:
    """Versions of a store in which some days are others, as they might have come instead.

    Bars get other prices and volumes, some go missing and some that were missing are there; members leave and others
    join; industries and concepts become others from the first day of a block to its last, and values and figures of
    series that become known in it are others (on the day after it, what they were is given back). Nothing that is known
    at the close of the day before a block is touched: neither a value nor the end of a spell.

    Parameters
    ----------
    store
        The store to start from; it is only read.
    seed
        The same seed makes the same market: a day that two versions change is the same other day in both, as long as
        the blocks that it lies in begin on the same day.

    Attributes
    ----------
    sources : tuple of str
        What can be changed: bars, membership, and each table of side data that can be read (`side/NAME`).
    """

    def __init__(self, store: QlibStore, seed: int) -> None:
        self.store, self.seed = store, seed
        self.calendar = store.calendar
        self._side = SideData(store)
        self._tables = _readable(self._side)
        self._universes = {name: _Universe(store, name) for name in store.universes()}
        self.sources = (BARS, MEMBERSHIP, *(f"{SIDE}{name}" for name in self._tables))

    def write(self, root: Path, blocks: Sequence[Block], changed: Sequence[str] | None = None) -> None:
        """Write a version.

        Parameters
        ----------
        root
            A directory that does not exist yet; what is not changed is a link to the store.
        blocks
            Runs of days that become others.
        changed
            Of `sources`, all by default.
        """
        changed = self.sources if changed is None else changed
        inside = np.zeros(len(self.calendar), dtype=bool)
        for first, stop in blocks:
            inside[first:stop] = True
        root.mkdir(parents=True)
        _link(self.store.root, root, "calendars")
        if BARS in changed:
            for folder in _folders(self.store):
                _change_bars(folder, root / "features" / folder.name, inside, self._draw(folder.name))
        else:
            _link(self.store.root, root, "features")
        if MEMBERSHIP in changed:
            (root / "instruments").mkdir()
            for name, universe in self._universes.items():
                lines = universe.changed(blocks, functools.partial(self._draw, name))
                (root / "instruments" / f"{name}.txt").write_text(lines, encoding="utf-8")
        else:
            _link(self.store.root, root, "instruments")
        if self._side.names():
            (root / "side").mkdir()
        for name in self._side.names():
            if f"{SIDE}{name}" in changed and name in self._tables:
                table = self._tables[name]
                changes = {
                    "values": _change_values,
                    "market": _change_values,
                    "spells": _change_spells,
                    "series": _change_series,
                }
                frame = changes[table.shape](table, self.calendar, blocks, self._draw(name))
                frame.to_parquet(root / "side" / f"{name}.parquet", index=False)
            else:
                path = self._side.path(name)
                (root / "side" / path.name).symlink_to(path.resolve())

    def _draw(self, name: str, *more: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(name.encode()), *more])


class _Universe:
    """A membership file: its lines, and its members day by day."""

    def __init__(self, store: QlibStore, name: str) -> None:
        spells = store.membership(name)
        self.calendar = store.calendar
        self.codes = sorted({*spells["instrument"], *store.instruments()})
        self.mask = store.member_mask(name, self.codes)
        dates = [spells[end].dt.strftime("%Y-%m-%d") for end in ("start", "end")]
        self.lines = list(zip(spells["instrument"], *dates, strict=True))

    def changed(self, blocks: Sequence[Block], draws: Callable[[int], np.random.Generator]) -> str:
        """The file with other members in the blocks; who is not touched keeps the lines as they are."""
        mask = self.mask.copy()
        touched: set[int] = set()
        for first, stop in blocks:
            draw = draws(first)
            members, others = np.flatnonzero(mask[first]), np.flatnonzero(~mask[first:stop].any(axis=0))
            leaving = members[draw.random(len(members)) < LEAVE]
            joining = others[draw.random(len(others)) < JOIN * len(members) / max(1, len(others))]
            mask[first:stop, leaving] = False
            mask[first:stop, joining] = True
            touched |= {*leaving.tolist(), *joining.tolist()}
        names = {self.codes[column] for column in touched}
        rows = [row for row in self.lines if row[0] not in names]
        for column in sorted(touched):
            edges = np.flatnonzero(np.diff(mask[:, column].astype(np.int8), prepend=0, append=0))
            for first, stop in edges.reshape(-1, 2):
                begin, end = self.calendar[first], self.calendar[stop - 1]
                rows.append((self.codes[column], f"{begin:%Y-%m-%d}", f"{end:%Y-%m-%d}"))
        return "".join("\t".join(row) + "\n" for row in rows)


def remove(root: Path) -> None:
    """Remove a market that was written; what it links to stays."""
    shutil.rmtree(root)


def write_split(store: QlibStore, root: Path, seed: int) -> None:
    """Write the store as a vendor who adjusts backwards has it after half of the shares were split, two for one.

    Prices and `factor` of all days are halved and volumes doubled, which loses no digit. Volumes that are raw shares stay as
    they are: no later split changes what was traded.
    """
    volumes = 1.0 if _has_raw_volumes(store) else 2.0
    times = {**dict.fromkeys((*PRICES, "factor"), 0.5), "volume": volumes}

    def halved(file: Path) -> np.ndarray | None:
        by = times.get(file.name.removesuffix(SUFFIX), 1.0)
        if by == 1.0 or zlib.crc32(f"{seed} {file.parent.name}".encode()) % 2:
            return None
        content = _content(file, len(store.calendar))
        content[1:] *= np.float32(by)
        return content

    _write_with(store, root, halved)


def write_shortened(store: QlibStore, root: Path, first: int) -> None:
    """Write the store with no bar before the day at a position; all else is a link."""

    def shortened(file: Path) -> np.ndarray | None:
        content = _content(file, len(store.calendar))
        start = int(content[0])
        if start >= first:
            return None
        left = content[1 + first - start :]
        if not len(left):  # it ended before; a file there must be, since lists name the stock
            return np.array([start, np.nan], dtype=np.float32)
        return np.concatenate([np.array([first], dtype=np.float32), left])

    _write_with(store, root, shortened)


def _write_with(store: QlibStore, root: Path, changed: Callable[[Path], np.ndarray | None]) -> None:
    """Write the store with other bars: what is made of a file of them, or a link to it where that is None."""
    root.mkdir(parents=True)
    for part in ("calendars", "instruments", "side"):
        _link(store.root, root, part)
    for source in _folders(store):
        folder = root / "features" / source.name
        folder.mkdir(parents=True)
        for file in _files(source):
            content = changed(file)
            if content is None:
                (folder / file.name).symlink_to(file)
            else:
                content.tofile(folder / file.name)


def _has_raw_volumes(store: QlibStore) -> bool:
    """Whether volumes are shares as they were traded, as far as they tell."""
    codes = store.instruments()
    if not all("factor" in store.fields(code) and "volume" in store.fields(code) for code in codes[:1]):
        return False
    return volume_kind(*store.read(["volume", "factor"], codes)) == "raw"


def _link(source: Path, root: Path, part: str) -> None:
    if (source / part).is_dir():
        (root / part).symlink_to((source / part).resolve())


def _folders(store: QlibStore) -> list[Path]:
    """The folders of bars, one an instrument."""
    inside = (store.root / "features").resolve().iterdir()
    return sorted(path for path in inside if path.is_dir() and not is_stray(path.name))


def _files(folder: Path) -> list[Path]:
    """The daily bars of an instrument, a file a field; in order, so that draws are the same each time."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if not is_stray(path.name))


def _content(file: Path, days: int) -> np.ndarray:
    """A file of bars: its start, then the values."""
    found = read_bin(file, days)
    if found is None:
        raise StoreError(f"`{file}` was there a moment ago: nothing else may change the store meanwhile")
    return np.concatenate([np.array([found[0]], dtype=np.float32), found[1]])


def _change_bars(source: Path, folder: Path, inside: np.ndarray, draw: np.random.Generator) -> None:
    days = len(inside)
    move = np.exp(draw.normal(0, 0.25, days))
    gone, come = draw.random(days) < GONE, draw.random(days) < COME
    folder.mkdir(parents=True)
    for file in _files(source):
        own = draw.normal(0, 0.1, days)
        content = _content(file, days)
        start = int(content[0])
        values, here = content[1:], slice(start, start + len(content) - 1)
        there = inside[here]
        missing = np.isnan(values)
        last = np.maximum.accumulate(np.where(missing, -1, np.arange(len(values))))
        filled = np.where(missing & come[here] & (last >= 0), values[np.maximum(last, 0)], values)
        if file.name.removesuffix(SUFFIX) in SIGNED:
            other = filled * (1 + 3 * own[here]) + 0.1 * own[here]
        else:
            other = filled * move[here] * np.exp(own[here])
        other[gone[here]] = np.nan
        values[there] = other[there]
        content.tofile(folder / file.name)


def _dates(calendar: pd.DatetimeIndex, block: Block) -> tuple[pd.Timestamp, pd.Timestamp]:
    """After which date and up to which date something is known first in a block."""
    first, stop = block
    after = calendar[first - 1] if first else pd.Timestamp.min
    return after, (calendar[stop - 1] if stop < len(calendar) else pd.Timestamp.max)


def _in_blocks(dates: pd.Series, calendar: pd.DatetimeIndex, blocks: Sequence[Block]) -> np.ndarray:
    found = np.zeros(len(dates), dtype=bool)
    for block in blocks:
        after, last = _dates(calendar, block)
        found |= ((dates > after) & (dates <= last)).to_numpy()
    return found


def _plain(table: SideTable) -> pd.DataFrame:
    columns = [*KEYS[table.shape], *([] if table.shape == "series" else table.columns)]
    frame = table.frame[[*columns, *([LAG] if LAG in table.frame else [])]].copy()
    for name in frame:
        if isinstance(frame[name].dtype, pd.CategoricalDtype):
            frame[name] = frame[name].astype(object)
    return frame


def _change_values(
    table: SideTable, calendar: pd.DatetimeIndex, blocks: Sequence[Block], draw: np.random.Generator
) -> pd.DataFrame:
    frame = _plain(table)
    given = frame.copy()
    there = _in_blocks(frame["datetime"], calendar, blocks)
    for column in table.columns:
        value = frame[column].to_numpy(dtype=float)
        other = value * np.exp(draw.normal(0, 0.5, len(frame)))
        if table.name != MARKET_VALUE:  # which is above 0, and always there where its row is
            other += 0.1 * np.nanstd(value) * draw.normal(size=len(frame))
            other[draw.random(len(frame)) < GONE] = np.nan
        frame[column] = np.where(there, other, value)
    return _given_back(frame, given, list(table.columns), calendar, blocks)


def _given_back(
    frame: pd.DataFrame,
    given: pd.DataFrame,
    columns: list[str],
    calendar: pd.DatetimeIndex,
    blocks: Sequence[Block],
) -> pd.DataFrame:
    """The table with a row on the first day after each block, of what would be known then had the block not been."""
    stocks = [key for key in ("instrument",) if key in given]
    for block in blocks:
        after, last = _dates(calendar, block)
        if last == pd.Timestamp.max:
            continue
        day = calendar[block[1]]
        inside = given[(given["datetime"] > after) & (given["datetime"] <= day)]
        newest = inside.sort_values("datetime", kind="stable").assign(datetime=day)
        restored = newest.groupby(["datetime", *stocks], sort=False)[columns].last().reset_index()
        told = frame["datetime"] == day
        if stocks:
            told &= frame["instrument"].isin(restored["instrument"])
        frame = pd.concat([frame[~told | restored.empty], restored], ignore_index=True)
    return frame


def _change_spells(
    table: SideTable, calendar: pd.DatetimeIndex, blocks: Sequence[Block], draw: np.random.Generator
) -> pd.DataFrame:
    frame = _plain(table)
    names = sorted(set(frame[table.column]))
    one_day = pd.Timedelta(days=1)
    for block in blocks:
        after, last = _dates(calendar, block)
        end = frame["end"].fillna(pd.Timestamp.max)
        over = (frame["start"] <= last) & (end > after)
        chosen = frame["instrument"].isin(
            [code for code in sorted(set(frame.loc[over, "instrument"])) if draw.random() < RENAMED]
        )
        rows = frame[over & chosen]
        ends = end[over & chosen]
        before = rows[rows["start"] <= after].assign(end=after)
        within = rows.assign(start=rows["start"].clip(lower=after + one_day), end=ends.clip(upper=last))
        turned = [names[(names.index(name) + 1) % len(names)] for name in within[table.column]]
        within = within.assign(**{table.column: turned})
        if last == pd.Timestamp.max:
            within, later = within.assign(end=rows["end"]), rows[:0]
        else:
            later = rows[ends > last].assign(start=last + one_day)
        frame = pd.concat([frame[~(over & chosen)], before, within, later], ignore_index=True)
    return frame


def _change_series(
    table: SideTable, calendar: pd.DatetimeIndex, blocks: Sequence[Block], draw: np.random.Generator
) -> pd.DataFrame:
    frame = _plain(table)
    keys = ["series", "period"]
    given = frame.copy()
    value = frame["value"].to_numpy(dtype=float)
    other = value * np.exp(draw.normal(0, 0.3, len(frame))) + 0.01 * draw.normal(size=len(frame))
    there = _in_blocks(frame["release_date"], calendar, blocks)
    frame["value"] = np.where(there, other, value)
    restored = []
    for block in blocks:
        after, last = _dates(calendar, block)
        if last == pd.Timestamp.max:
            continue
        day = calendar[block[1]]  # the first after the block
        released = given[(given["release_date"] > after) & (given["release_date"] <= last)]
        newest = released.sort_values("release_date").drop_duplicates(keys, keep="last")
        that_day = given[given["release_date"] == day][keys]
        merged = newest.merge(that_day, on=keys, how="left", indicator=True)
        restored.append(
            merged[merged["_merge"] == "left_only"].drop(columns="_merge").assign(release_date=day)
        )
    return pd.concat([frame, *restored], ignore_index=True)


def _readable(side: SideData) -> dict[str, SideTable]:
    """The tables without a fault; what reads another one is told so by the reader."""
    found = {}
    for name in side.names():
        try:
            found[name] = side.read(name)
        except SideDataError:
            continue
    return found
