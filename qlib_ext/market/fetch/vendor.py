"""Vendors that are asked by the stock or by the day: which calls are needed, and what is made of the answers."""

from __future__ import annotations

import contextlib
import tempfile
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from qlib_ext.checks import counted
from qlib_ext.market.exchange_days import EXCHANGES, exchange_days
from qlib_ext.market.fetch.downloads import Downloads, mark_pending, pending
from qlib_ext.market.fetch.polite import KEPT, NotGrantedError, SourceError
from qlib_ext.market.fetch.source import Client, Fetched, Job, Source, no_session
from qlib_ext.market.importing.bars import Bars
from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.importing.ingest import read_bars

BARS = ("open", "high", "low", "close", "volume", "amount", "factor")
OVERLAP_ROWS = 10  # of a stock that are asked again, to see whether its past is what it was
TAIL_DAYS = 30  # before the store's last day that are held against it
LONG_SINCE = 7  # days after which industries with a history of their own are asked for again
DAY = "%Y-%m-%d"

Get = Callable[[pd.Timestamp, pd.Timestamp], pd.DataFrame]


class Vendor(Source):
    """A source with a Python client.

    Attributes
    ----------
    client : Client
    indices : mapping
        Universe whose members it knows to the name that it gives the index.
    past_members : bool
        Whether it knows members of the past; else only those of today.
    industry : str
        `history` where one call has all of it, `snapshots` where each date is a call of its own, `none`.
    """

    client: Client
    indices: ClassVar[dict[str, str]] = {}
    past_members: ClassVar[bool] = True
    industry: ClassVar[str] = "none"

    @property
    def refused(self) -> tuple[str, ...]:
        """Tables beside the bars that the account may not ask for."""
        return ()

    @abstractmethod
    def stocks(self) -> pd.DataFrame:
        """Every stock that it has or had: `code` as a store has it, `key` as the vendor has it, and `name` where known.

        `listed` and `delisted` are days, where they are known.
        """

    @abstractmethod
    def bars(self, key: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """Raw bars of a stock by day: `date`, the fields of `BARS`, in shares and currency.

        Further columns, where the vendor has them: `traded` (0 on suspended days), `st` (1 under special treatment) and
        `market_value` (in currency).
        """

    @abstractmethod
    def index_bars(self, code: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """Bars of an index, as those of a stock."""

    def members(self, name: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """Members of an index as of some days of a month: `date` and `code`."""
        raise SourceError(f"{self.client.name} has no members of {name}")

    def industries(self, day: pd.Timestamp) -> pd.DataFrame:
        """Industries: `code`, `industry` and `start` and `end` of a history, or `date` of a snapshot."""
        raise SourceError(f"{self.client.name} has no industries")

    def session(self) -> contextlib.AbstractContextManager[None]:
        """What is open while the client is asked."""
        return no_session()

    def fetch(self, job: Job) -> Fetched:
        """Ask for what is not on disk, and give what the store does not have."""
        with self.session():
            kept = Downloads(job.folder, self.identity)
            listed = self._listed(job)
            newest = self.newest(kept, job, listed)
            if job.nothing_beyond(newest):
                return Fetched(None)
            self.fetch_bars(kept, job, listed, newest)
            for code in job.benchmarks:
                self._stock(kept, job, code, newest, lambda a, b, code=code: self.index_bars(code, a, b))  # type: ignore[misc]
            universes = {name: self._members(kept, job, name, newest) for name in job.universes}
            side = self._side(kept, job, listed, newest)
        for what in self.refused:
            job.notes.add(
                f"{self.client.name} does not grant this account `{what}`: left out, and what it tells is not in the store"
            )
        return Fetched(self._read(kept, job, newest), universes, side)

    @abstractmethod
    def fetch_bars(self, kept: Downloads, job: Job, listed: pd.DataFrame, newest: pd.Timestamp) -> None:
        """Bring the bars of all stocks up to `newest`; a stock that is fetched again whole is marked as pending before."""

    @abstractmethod
    def newest(self, kept: Downloads, job: Job, listed: pd.DataFrame) -> pd.Timestamp:
        """The last day that the vendor has, up to the job's end."""

    def _listed(self, job: Job) -> pd.DataFrame:
        listed = self.stocks()
        listed = listed[~listed["code"].isin(job.benchmarks)].drop_duplicates("code")
        if job.codes is not None:
            unknown = sorted(job.codes - set(listed["code"]))
            if unknown:
                job.notes.gather(f"{{stock}} that {self.client.name} does not list: not fetched", unknown)
            listed = listed[listed["code"].isin(job.codes)]
        if "delisted" in listed:
            listed = listed[~(pd.to_datetime(listed["delisted"]) < job.start)]
        if listed.empty:
            raise SourceError(
                f"{self.client.name} must list stocks to fetch, found none; see `--codes`, or take another source"
            )
        return listed.reset_index(drop=True)

    def _stock(
        self, kept: Downloads, job: Job, code: str, newest: pd.Timestamp, get: Get, *, over: bool = False
    ) -> None:
        """Bring the piece of one stock up to `newest`; no bar comes after it where it is `over`."""
        said = kept.said("stocks", code)
        first, table = job.start, None
        if said is not None and pd.Timestamp(said["start"]) <= job.start:
            if pd.Timestamp(said["end"]) >= newest:
                return
            table = kept.read("stocks", code)
            first = pd.Timestamp(said["start"])
        if table is not None and len(table):
            tail = table.tail(OVERLAP_ROWS)
            new = get(tail["date"].iloc[0], newest)
            if _same_past(tail, new):
                table = pd.concat([table[table["date"] < tail["date"].iloc[0]], _of_code(new, code)])
            else:
                job.notes.gather(
                    "{stock} whose past has changed at the source (a new scale of its factors, or another value): fetched again "
                    "whole",
                    [code],
                )
                mark_pending(kept.root, [code])  # before the piece: the next call sees no change any more
                table = None
        elif table is not None:
            table = None  # asked before it had any bar
        if table is None:
            table = _of_code(get(first, newest), code)
        # Its last day may come later: it is asked again. A suspended day has a row of its own, or none.
        last = newest if over or table.empty else min(newest, table["date"].iloc[-1])
        kept.write("stocks", code, table, start=f"{first:{DAY}}", end=f"{last:{DAY}}")
        if table.empty:
            job.notes.gather(f"{{stock}} of which {self.client.name} has no bar: is the code right?", [code])

    def _members(self, kept: Downloads, job: Job, name: str, newest: pd.Timestamp) -> pd.DataFrame:
        if name not in self.indices:
            raise SourceError(
                f"{self.client.name} knows the members of {', '.join(self.indices) or 'no index'}, found {name}: leave it out, or "
                "bring its list in by `qlib-ext data universe`"
            )
        kind = f"members/{name}"
        first = (
            (job.start - pd.DateOffset(months=1)).to_period("M")
            if self.past_members
            else newest.to_period("M")
        )
        for month in pd.period_range(first, newest.to_period("M"), freq="M"):
            said = kept.said(kind, str(month))
            last = min(month.end_time.normalize(), newest)
            if said is None or pd.Timestamp(said["asked"]) < last:
                table = self.members(name, month.start_time, last)
                if not self.past_members and len(table):  # today's, which only gather as time goes by
                    kept.write(kind, f"{table['date'].iloc[0]:{DAY}}", table, asked=f"{last:{DAY}}")
                    break
                if said is not None:  # of a month that goes on: what was asked before stays
                    before = kept.read(kind, str(month))
                    table = pd.concat([before[~before["date"].isin(table["date"])], table])
                kept.write(kind, str(month), table, asked=f"{last:{DAY}}")
        table = kept.together(kind)
        if table.empty:
            raise SourceError(
                f"{self.client.name} must give members of {name}, found none from {job.start:{DAY}} on: leave it out of "
                "`--universe`, or take another source"
            )
        if not self.past_members:
            job.notes.add(
                f"{self.client.name} knows the members of {name} of today alone: before the first of them was fetched, on "
                f"{table['date'].min():{DAY}}, the universe stands as it was then, and results on those days are too good"
            )
        return table

    def _side(
        self, kept: Downloads, job: Job, listed: pd.DataFrame, newest: pd.Timestamp
    ) -> dict[str, pd.DataFrame]:
        side = beside_bars(kept)
        if "name" in listed:
            snapshot = listed[["code", "name"]].assign(date=newest)
            before = kept.keys("names")
            if not before or not _equal(kept.read("names", before[-1]), snapshot):
                kept.write("names", f"{newest:{DAY}}", snapshot)
            side["name"] = kept.together("names")
        if self.industry != "none":
            try:
                side["industry"] = self._industries(kept, job, newest)
            except NotGrantedError:
                job.notes.add(
                    f"{self.client.name} does not grant this account its industries: left as they are"
                )
        return {name: table for name, table in side.items() if len(table)}

    def _industries(self, kept: Downloads, job: Job, newest: pd.Timestamp) -> pd.DataFrame:
        if self.industry == "history":
            said = kept.said("industry", "history")
            if said is None or (newest - pd.Timestamp(said["asked"])).days >= LONG_SINCE:
                kept.write("industry", "history", self.industries(newest), asked=f"{newest:{DAY}}")
            return kept.read("industry", "history")
        for quarter in pd.period_range(job.start, newest, freq="Q"):
            day = max(quarter.start_time.normalize(), job.start)
            if kept.said("industry", str(quarter)) is None:
                kept.write("industry", str(quarter), self.industries(day), asked=f"{day:{DAY}}")
        return kept.together("industry")

    def _read(self, kept: Downloads, job: Job, newest: pd.Timestamp) -> Bars:
        """The bars that the store does not have, as an import reads them."""
        settings = ImportSettings(
            region=self.region,
            adjustment="factor",
            volume="raw",
            volume_unit=1.0,
            amount_unit=1.0,
            change="computed",
            benchmarks=job.benchmarks,
        )
        since, whole = None, frozenset[str]()
        if job.known is not None:
            since = job.known - pd.Timedelta(days=TAIL_DAYS)
            there = {*kept.keys("stocks"), *self.codes_of_days(kept)}
            whole = (pending(kept.root) or frozenset()) | (there - job.have)
        with tempfile.TemporaryDirectory(dir=job.folder, prefix=".bars.") as folder:
            path = Path(folder) / "bars.parquet"
            fields = tuple(field for field in BARS if field in self.fields)
            schema = pa.schema(
                [("date", pa.timestamp("ns")), ("code", pa.string()), *((f, pa.float64()) for f in fields)]
            )
            with pq.ParquetWriter(path, schema) as writer:
                for table in kept.rows(since, whole):
                    table = table[table["date"] <= newest]
                    if job.codes is not None:
                        table = table[table["code"].isin(job.codes | set(job.benchmarks))]
                    if "traded" in table:
                        table = table[table["traded"] != 0]
                    if len(table):
                        table = table.reindex(columns=schema.names).astype(dict.fromkeys(fields, float))
                        writer.write_table(pa.Table.from_pandas(table, schema, preserve_index=False))
            return read_bars(path, settings, progress=job.progress)

    fields: ClassVar[tuple[str, ...]] = BARS

    def codes_of_days(self, kept: Downloads) -> set[str]:
        """Codes of the last piece of days; none of a vendor that is asked by the stock."""
        days = kept.keys("days")
        return set(kept.read("days", days[-1], ["code"])["code"]) if days else set()


class ByStock(Vendor):
    """A vendor that is asked for one stock at a time."""

    def newest(self, kept: Downloads, job: Job, listed: pd.DataFrame) -> pd.Timestamp:
        """The last day of the first benchmark, or of the first stock that has any bar lately."""
        first = job.end - pd.Timedelta(days=TAIL_DAYS)
        probes: list[Get] = [lambda a, b, c=code: self.index_bars(c, a, b) for code in job.benchmarks[:1]]  # type: ignore[misc]
        probes += [lambda a, b, k=key: self.bars(k, a, b) for key in listed["key"].head(5)]  # type: ignore[misc]
        for probe in probes:
            table = probe(first, job.end)
            if len(table):
                return table["date"].max()
        raise SourceError(
            f"{self.client.name} must have bars of {first:{DAY}} to {job.end:{DAY}}, found none of {counted(len(probes), 'code')} "
            f"that it was asked for: it may have changed, or does not answer this machine. {KEPT}"
        )

    def fetch_bars(self, kept: Downloads, job: Job, listed: pd.DataFrame, newest: pd.Timestamp) -> None:
        """One piece a stock; a delisted one is asked once."""
        for done, row in enumerate(listed.itertuples(index=False)):
            delisted = pd.to_datetime(getattr(row, "delisted", None))
            over = bool(pd.notna(delisted) and delisted <= newest)
            last = delisted if over else newest
            self._stock(kept, job, row.code, last, lambda a, b, k=row.key: self.bars(k, a, b), over=over)  # type: ignore[misc]
            if job.progress is not None:
                job.progress(done + 1, len(listed), f"{self.client.name} {row.code}")


class ByDay(Vendor):
    """A vendor that is asked for all stocks of a day at once."""

    @abstractmethod
    def day_bars(self, day: pd.Timestamp) -> pd.DataFrame:
        """Bars of all stocks of a day, as those of a stock with `code`; empty where the day is not out yet."""

    def newest(self, kept: Downloads, job: Job, listed: pd.DataFrame) -> pd.Timestamp:
        """The last day of the exchange, or the one before it while the vendor does not have it yet."""
        days = exchange_days(EXCHANGES[self.region], job.end - pd.Timedelta(days=TAIL_DAYS), job.end)
        for day in days[::-1][:2]:
            if self._day(kept, day):
                return day
        raise SourceError(
            f"{self.client.name} must have bars of {days[-2]:{DAY}} or {days[-1]:{DAY}}, found none: it may have changed, or is "
            f"late. {KEPT}"
        )

    def _day(self, kept: Downloads, day: pd.Timestamp) -> bool:
        """Fetch a day that is not on disk; whether there are any bars."""
        if kept.said("days", f"{day:{DAY}}") is not None:
            return True
        table = self.day_bars(day)
        if table.empty:
            return False
        kept.write("days", f"{day:{DAY}}", table)
        return True

    def fetch_bars(self, kept: Downloads, job: Job, listed: pd.DataFrame, newest: pd.Timestamp) -> None:
        """One piece a day; stocks whose last known day has changed are fetched again whole."""
        self._changed(kept, job, listed, newest)
        days = exchange_days(EXCHANGES[self.region], job.start, newest)
        for done, day in enumerate(days):
            if not self._day(kept, day):
                raise SourceError(
                    f"{self.client.name} must have bars of {day:{DAY}}, on which the exchange traded, found none: it may lack "
                    f"the day, or have changed. {KEPT}"
                )
            if job.progress is not None:
                job.progress(done + 1, len(days), f"{self.client.name} {day:{DAY}}")

    def _changed(self, kept: Downloads, job: Job, listed: pd.DataFrame, newest: pd.Timestamp) -> None:
        """Ask for the day again that the store ends with, and for all of the stocks that are others now."""
        if job.known is None or kept.said("days", f"{job.known:{DAY}}") is None:
            return
        name = f"{job.known:{DAY}}"
        old, new = kept.read("days", name), self.day_bars(job.known)
        both = old.merge(new, on="code", suffixes=("", "_new"))
        differs = np.logical_or.reduce(
            [~np.isclose(both[f], both[f"{f}_new"], rtol=1e-6, equal_nan=True) for f in BARS]
        )
        keys = dict(zip(listed["code"], listed["key"], strict=True))
        changed = [code for code in both.loc[differs, "code"] if code in keys]
        mark_pending(kept.root, changed)  # before the pieces: the next call sees no change any more
        first = min(job.start, pd.Timestamp(kept.keys("days")[0]))  # all days of the old scale
        for code in changed:
            table = _of_code(self.bars(keys[code], first, newest), code)
            kept.write("stocks", code, table, start=f"{first:{DAY}}", end=f"{newest:{DAY}}")
        job.notes.gather(
            "{stock} whose past has changed at the source (a new scale of its factors, or another value): fetched again whole",
            changed,
        )
        kept.write("days", name, new)


def beside_bars(kept: Downloads) -> dict[str, pd.DataFrame]:
    """Market values, and the spells of special treatment, of the bars that are on disk."""
    values, flags = [], []
    one: dict[str, str] = {}  # a text for all rows of a code: each file brings its own
    for kind in ("stocks", "days"):
        for key in kept.keys(kind):
            table = kept.read(kind, key, ["date", "code", "market_value", "st"])
            table["code"] = [one.setdefault(code, code) for code in table["code"]]
            if "market_value" in table:
                values.append(table.loc[table["market_value"] > 0, ["date", "code", "market_value"]])
            if "st" in table:
                flags.append(table.loc[table["st"].notna(), ["date", "code", "st"]])
    found = {}
    if values:
        found["market_value"] = pd.concat(values, ignore_index=True).drop_duplicates(["date", "code"])
    if flags:
        found["status"] = status_spells(pd.concat(flags, ignore_index=True))
    return found


def status_spells(flags: pd.DataFrame) -> pd.DataFrame:
    """Spells of special treatment of `st` by `date` and `code`: until the day before the next row without it, or open."""
    rows = flags.drop_duplicates(["code", "date"]).sort_values(["code", "date"], ignore_index=True)
    same = rows["code"].eq(rows["code"].shift()) & rows["st"].eq(rows["st"].shift())
    runs = rows[~same].reset_index(drop=True)
    end = runs["date"].shift(-1).where(runs["code"].eq(runs["code"].shift(-1))) - pd.Timedelta(days=1)
    spells = pd.DataFrame({"code": runs["code"], "start": runs["date"], "end": end, "status": "ST"})
    return spells[runs["st"] > 0].reset_index(drop=True)


def _of_code(table: pd.DataFrame, code: str) -> pd.DataFrame:
    return table.assign(code=code).sort_values("date", ignore_index=True)


def _same_past(old: pd.DataFrame, new: pd.DataFrame) -> bool:
    """Whether what was known stands in the new rows as it was."""
    if new.empty:
        return False
    both = old.merge(new, on="date", suffixes=("", "_new"))
    fields = [field for field in BARS if field in old and field in new]
    return len(both) == len(old) and all(
        np.isclose(both[f], both[f"{f}_new"], rtol=1e-6, equal_nan=True).all() for f in fields
    )


def _equal(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    columns = ["code", "name"]
    left, right = (t[columns].sort_values("code", ignore_index=True) for t in (one, other))
    return left.equals(right)
