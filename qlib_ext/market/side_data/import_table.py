"""A user's table brought into a store as side data: columns, codes, days and release dates as the store has them.

Beside the shapes that a store holds (`qlib_ext.market.side_data.side_data`), three more are read:

- snapshots: a date, a code and an industry or concept, a row for each stock of each date; one holds until the day
  before the next;
- values in wide form: a date, and a column a stock;
- series in wide form: a period, and a column a series.

What would look ahead is refused: industries without a day from which they were known, and figures without a release
date or a stated lag.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, nearest, one_of
from qlib_ext.market.codes import code_in_store
from qlib_ext.market.columns import recognise
from qlib_ext.market.finding import listed
from qlib_ext.market.replace import copy_store, locked
from qlib_ext.market.side_data.side_data import FOLDER, SUFFIXES, SideDataError, beside_store
from qlib_ext.market.side_data.side_table import (
    BLANK,
    INDUSTRY,
    KEYS,
    LAG,
    Rows,
    SideTable,
    check_frame,
    parse_periods,
    read_frame,
    read_header,
)
from qlib_ext.market.spells import UNTIL
from qlib_ext.market.store import QlibStore

T = TypeVar("T")

# Names under which columns are known, without case and punctuation; others are named by the user.
NAMES: Mapping[str, tuple[frozenset[str], ...]] = {
    field: (frozenset(names.split()),)
    for field, names in {
        "instrument": "instrument code symbol ticker tscode stockcode secucode wincode 代码 股票代码 证券代码",
        "datetime": "datetime date day tradedate tradingdate snapshot 日期 交易日期",
        "start": "start startdate from fromdate begin begindate indate datein effectivedate 纳入日期",
        "end": "end enddate to todate outdate dateout 剔除日期",
        "series": "series seriesid indicator variable",
        "period": "period referenceperiod referencedate quarter month observationdate",
        "value": "value figure",
        "release_date": "releasedate released publicationdate publishdate published anndate announcementdate vintage",
        LAG: "statedlag",
    }.items()
}
TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
FREQUENCIES = {"day": "D", "month": "M", "quarter": "Q", "year": "Y"}
# What stands in for release dates by the kind of a series, where nothing better is known. Each is later than most
# figures are published: in the United States GDP comes out about a month after its quarter and again after two, the
# consumer prices and the labour market of a month within the first half of the next.
LAGS = {
    "quarterly": "end+60d",  # 60 days after the period's end
    "monthly": "month+45d",  # 45 days after the first day of the period's last month
    "rate": "end+1b",  # the next business day, Monday to Friday
}
_LAG = re.compile(r"(?:(end|month|start)\+)?(\d{1,4})([db])")
EVERY = ""  # the key of a lag or frequency that holds for all series that have none of their own
SPACED_DAYS = 20  # days that lie further apart are stamps of months or quarters


@dataclass(frozen=True)
class ImportedTable:
    """What `import_table` has written.

    Attributes
    ----------
    path : Path
        The file in the store.
    table : SideTable
        Its content.
    notes : tuple of str
        What was changed, left out or is worth a look, in counted sentences.
    """

    path: Path
    table: SideTable
    notes: tuple[str, ...]


def import_table(
    root: str | Path,
    name: str,
    source: str | Path,
    *,
    shape: str | None = None,
    columns: Mapping[str, str] | None = None,
    lags: Mapping[str, str] | None = None,
    frequencies: Mapping[str, str] | None = None,
    until: str = "last-day",
    encoding: str = "utf-8",
    replace: bool = False,
) -> ImportedTable:
    """Bring a table into the side data of a store, whole or not at all.

    Parameters
    ----------
    root
        The store.
    name
        What the table is to be called: `market_value`, `industry`, `concepts`, `macro`, or any other name.
    source
        CSV (`.csv`, `.tsv`, `.txt`, `.gz` too) or Parquet.
    shape
        spells, values or series; by default as the columns tell.
    columns
        Field to column of the source, for those that are not recognised: one of `NAMES`, `name` itself for the column
        that the table is about, or a series to be called so. An empty column says that there is none, or that the
        column of this name is to be left out.
    lags
        Series to lag, for figures without a release date: a key of `LAGS`, or `[ANCHOR+]N(d|b)` with N calendar or
        business days after the `end` of the period (the default), after the first day of its last `month`, or after
        its `start`. The key `EVERY` holds for all other series.
    frequencies
        Series to day, month, quarter or year: what the periods are, where the source writes them as days.
    until
        What the `end` of a spell is in the source: its `last-day`, or the `first-day-out`.
    encoding
        Of a CSV file.
    replace
        Whether a table of the same name may be replaced.

    Raises
    ------
    UserError
        If something would look ahead, an option does not fit, the name is taken, or the table has a fault of
        severity `error`. Nothing has been written then.
    """
    store, path = QlibStore(root), Path(source).expanduser()
    _check_target(store.root, name, replace)
    if shape is not None:
        one_of("shape", shape, KEYS)
    one_of("until", until, UNTIL)
    codes = set(store.instruments())
    reader = _Source(
        path, name, shape, dict(columns or {}), encoding, codes, lagged=bool(lags or frequencies)
    )
    frame = reader.frame()
    notes = list(reader.notes)
    if until == "first-day-out" and (reader.shape != "spells" or "end" not in reader.found):
        raise UserError(f"`until` is for the ends of spells, found none in `{path}`")
    if until == "first-day-out":
        frame = _ended_before(frame, path)
    if reader.shape == "series":
        frame = _released(frame, dict(lags or {}), dict(frequencies or {}), path, notes)
    elif lags or frequencies:
        raise UserError(
            f"lags and frequencies are for tables of series, found one of {reader.shape} in `{path}`"
        )
    table, findings = check_frame(name, frame, f"`{path}`")
    if table is not None:
        findings += beside_store(table, store.calendar, store.instruments())
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors or table is None:
        more = f"; there are {len(errors) - 1} other kinds of fault" if len(errors) > 1 else ""
        raise SideDataError(f"{errors[0].message}{more}. Nothing was written")
    blank = len(frame) - len(table.frame)
    if blank:
        notes.append(f"{blank} of {len(frame)} rows have no number: left out")
    notes += [finding.message for finding in findings]
    order = {
        "spells": ["instrument", "start"],
        "values": ["datetime", "instrument"],
        "series": ["series", "release_date", "period"],
    }[reader.shape]
    written = table.frame.sort_values(order, kind="stable", ignore_index=True)
    inside = Path(FOLDER) / f"{name}.parquet"
    old = {Path(FOLDER) / (name + suffix) for suffix in SUFFIXES}
    with locked(store.root) as lock:
        _check_target(store.root, name, replace)
        with lock.replaced() as made:
            copy_store(store.root, made, leave_out=lambda relative: relative in old)
            (made / FOLDER).mkdir(exist_ok=True)
            written.to_parquet(made / inside, index=False)
    done = SideTable(name, table.shape, table.column, written)
    return ImportedTable(store.root / inside, done, tuple(notes))


def _check_target(root: Path, name: str, replace: bool) -> None:
    if not re.fullmatch(r"\w[\w-]*", name, flags=re.ASCII):
        raise UserError(f"the name of side data must be made of letters, digits, `_` and `-`, found {name!r}")
    there = [suffix for suffix in SUFFIXES if (root / FOLDER / (name + suffix)).exists()]
    if there and not replace:
        raise UserError(
            f"`{root}` has {FOLDER}/{name}{there[0]} already: choose another name, or add --replace"
        )


class _Source:
    """A user's file, and the frame in a shape of the store that it becomes.

    Attributes
    ----------
    shape
        spells, values or series.
    notes
        What was changed.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        shape: str | None,
        columns: dict[str, str],
        encoding: str,
        codes: set[str],
        lagged: bool,
    ) -> None:
        self.path, self.name, self.columns, self.encoding, self.codes = path, name, columns, encoding, codes
        self.notes: list[str] = []
        self.header = self._header()
        given = {field: column for field, column in columns.items() if field in NAMES}
        found = recognise(self.header, given, where=f"`{path}`", known=NAMES, required=())
        if shape is None and lagged and "instrument" not in found:  # nothing else has lags
            shape = "series"
        if shape == "series" and "period" not in found and "datetime" in found:
            found["period"] = found.pop("datetime")
        self.found = found
        own = {field: column for field, column in columns.items() if field not in NAMES}
        for field, column in own.items():
            if (column or field) not in self.header:
                raise UserError(
                    f"`--column {field}={column}` must name a column of `{path}`"
                    f"{nearest(column or field, self.header)}, which has {', '.join(self.header)}"
                )
        left_out = {field for field, column in own.items() if not column}
        renamed = {column: field for field, column in own.items() if column}
        # The columns that the table is about, with the names that they shall have.
        self.rest = {
            column: renamed.get(column, column)
            for column in self.header
            if column not in found.values() and column not in left_out
        }
        self.shape = shape or self._guess()

    def frame(self) -> pd.DataFrame:
        """The whole table, with the columns of its shape."""
        raw = self._read()
        fields = {column: field for field, column in self.found.items()}
        frame = raw[[*fields, *self.rest]].rename(columns={**fields, **self.rest})
        frame = {"spells": self._spells, "values": self._values, "series": self._series}[self.shape](frame)
        if "instrument" in frame:
            frame["instrument"] = self._spelled(frame["instrument"])
        return frame

    def _guess(self) -> str:
        """The shape, by the columns that there are."""
        found = set(self.found)
        if found & {"period", "series", "release_date"}:
            return "series"
        if found & {"start", "end"}:
            return "spells"
        if "instrument" in found:
            return "spells" if self.name in (INDUSTRY, "concepts") else "values"
        known = [column for column in self.rest if self._spell(column) in self.codes]
        if "datetime" in found and known:
            return "values"
        raise UserError(
            f"`{self.path}` has the columns {', '.join(self.header)}, and they tell no shape: name them with "
            "`--column FIELD=COLUMN` (instrument and datetime for values; instrument, start and end for spells; "
            "period and release_date for series), or say `--shape`"
        )

    def _spells(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Spells as they are, or made of snapshots."""
        self._require("instrument")
        column = self._about()
        frame = frame.rename(columns={column: self.name})
        if "start" in self.found:
            if "end" not in self.found:
                frame["end"] = pd.NaT
            return frame[["instrument", "start", "end", self.name]]
        if "datetime" not in self.found:
            raise UserError(
                f"`{self.path}` does not say from when on a stock belongs to its {self.name}: today's list, taken "
                "for the past, would look ahead. Give `start` and `end` of each spell, or the `datetime` of a snapshot"
            )
        rows = Rows(frame, f"`{self.path}`")
        codes, names, dates = rows.texts("instrument"), rows.texts(self.name), rows.days("datetime")
        if rows.found:
            raise SideDataError(rows.found[0].message)
        days = np.sort(dates.unique())
        table = pd.DataFrame({"code": codes, "name": names, "snapshot": days.searchsorted(dates.to_numpy())})
        repeated = int(table.duplicated().sum())
        table = table.drop_duplicates().sort_values(["code", "name", "snapshot"], kind="stable")
        goes_on = (
            table["code"].eq(table["code"].shift())
            & table["name"].eq(table["name"].shift())
            & table["snapshot"].eq(table["snapshot"].shift() + 1)
        )
        runs = table.groupby((~goes_on).cumsum())
        first, last = runs["snapshot"].first().to_numpy(), runs["snapshot"].last().to_numpy()
        ends = np.append(days[1:] - np.timedelta64(1, "D"), np.datetime64("NaT"))
        first_day, last_day = (f"{pd.Timestamp(day):%Y-%m-%d}" for day in (days[0], days[-1]))
        self.notes.append(
            f"{len(days)} snapshots from {first_day} to {last_day}: each holds until the next, earlier days have none"
        )
        if repeated:
            self.notes.append(f"{repeated} of {len(frame)} rows repeat another one: counted once")
        return pd.DataFrame(
            {
                "instrument": runs["code"].first().to_numpy(),
                "start": days[first],
                "end": ends[last],
                self.name: runs["name"].first().to_numpy(),
            }
        )

    def _values(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Values as they are, or a column a stock turned into rows."""
        self._require("datetime")
        if "instrument" not in self.found:
            frame = frame.melt("datetime", var_name="instrument", value_name=self.name)
            return frame[frame[self.name].notna() & ~frame[self.name].isin(BLANK)].reset_index(drop=True)
        return frame.rename(columns={self._about(): self.name})[["datetime", "instrument", self.name]]

    def _series(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Series as they are, or a column a series turned into rows; release dates may be missing."""
        self._require("period")
        if "value" in self.found:
            if "series" not in self.found:
                frame["series"] = self.name
        else:
            if not self.rest:
                raise UserError(f"`{self.path}` has no column with figures, found {', '.join(self.header)}")
            keys = [key for key in ("period", "release_date", LAG) if key in frame]
            frame = frame.melt(keys, var_name="series", value_name="value")
        for key in ("release_date", LAG):
            if key not in frame:
                frame[key] = ""
        return frame[[*KEYS["series"], LAG]]

    def _require(self, field: str) -> None:
        if field not in self.found:
            raise UserError(
                f"`{self.path}` must have a column {field} to be a table of {self.shape}: name it with "
                f"`--column {field}=COLUMN`; it has {', '.join(self.header)}"
            )

    def _about(self) -> str:
        """The column that the table is about, by the name that it has by now."""
        names = list(self.rest.values())
        if self.name in names:
            return self.name
        if len(names) == 1:
            return names[0]
        if not names and "value" in self.found:
            return "value"
        raise UserError(
            f"`{self.path}` must tell which column is {self.name}: `--column {self.name}=COLUMN`, one of "
            f"{', '.join(self.header)}"
        )

    def _spell(self, code: str) -> str:
        try:
            return code_in_store(code, self.codes)
        except UserError:  # what is no code at all is a fault of the table, told with its row
            return code.strip().upper()

    def _spelled(self, column: pd.Series) -> pd.Series:
        """Codes as the store has them."""
        codes, uniques = pd.factorize(column)
        number = pd.api.types.is_integer_dtype(
            column.dtype
        )  # 1 was 000001 before somebody took it for a number
        words = [f"{word:06d}" if number else str(word) for word in uniques]
        spelt = [self._spell(word) if word.strip() else "" for word in words]
        changed = [word for word, code in zip(words, spelt, strict=True) if word.strip().upper() != code]
        if changed:
            self.notes.append(f"{len(changed)} codes written as the store does, such as {changed[0]}")
        return pd.Series(pd.Categorical([*spelt, ""])[codes])  # a missing one is the last

    def _header(self) -> list[str]:
        if not self.path.is_file():
            raise UserError(f"expected a CSV or Parquet file, found none at `{self.path}`")
        if not self.path.name.lower().endswith((".parquet", *TEXT_SUFFIXES)):
            raise UserError(f"`{self.path}` must be one of .parquet, {', '.join(TEXT_SUFFIXES)} by its name")
        if self.path.suffix == ".parquet":
            return self._guarded(lambda: read_header(self.path))
        table = self._guarded(
            lambda: pd.read_csv(self.path, nrows=0, sep=self._separator(), encoding=self._codec())
        )
        return [str(column) for column in table.columns]

    def _read(self) -> pd.DataFrame:
        if self.path.suffix == ".parquet":
            return self._guarded(lambda: read_frame(self.path))
        texts = {column for field, column in self.found.items() if field != "value"}
        if self.shape == "spells":
            texts |= set(self.rest)
        return self._guarded(
            lambda: pd.read_csv(
                self.path,
                sep=self._separator(),
                encoding=self._codec(),
                dtype=dict.fromkeys(texts, "category"),
                keep_default_na=False,
                na_values={column: list(BLANK) for column in self.header if column not in texts},
                low_memory=False,
            )
        )

    def _separator(self) -> str:
        """What divides the first line most often, a comma where nothing does."""
        with gzip.open(self.path, "rb") if self.path.suffix == ".gz" else self.path.open("rb") as file:
            line = file.readline().decode("latin-1")
        return max(",;\t|", key=line.count)

    def _codec(self) -> str:
        return "utf-8-sig" if self.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else self.encoding

    def _guarded(self, read: Callable[[], T]) -> T:
        """What `read` gives; whatever the libraries say against the file becomes one message that names it."""
        try:
            return read()
        except UnicodeError as error:
            raise UserError(
                f"`{self.path}` is not in the encoding {self.encoding}: name its own, such as `--encoding gbk`"
            ) from error
        except LookupError as error:
            raise UserError(
                f"`encoding` must be one such as utf-8 or gbk, found {self.encoding!r}"
            ) from error
        except (ValueError, OSError, EOFError) as error:  # pyarrow's, pandas' and zlib's
            raise UserError(f"`{self.path}` cannot be read: {' '.join(str(error).split())}") from error


def _ended_before(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Spells whose `end` was the first day out, with their last day instead."""
    rows = Rows(frame, f"`{path}`")
    ends = rows.days("end", open_ended=True)
    if rows.found:
        raise SideDataError(rows.found[0].message)
    return frame.assign(end=ends - pd.Timedelta(days=1))


def _released(
    frame: pd.DataFrame,
    lags: dict[str, str],
    frequencies: dict[str, str],
    path: Path,
    notes: list[str],
) -> pd.DataFrame:
    """Give every figure a release date: its own, or that of its series' lag."""
    series = frame["series"].astype(str).str.strip()
    names = [str(name) for name in series.unique()]
    for option, given in (("lag", lags), ("frequency", frequencies)):
        for name in given:
            if name not in names and name != EVERY:
                raise UserError(
                    f"`--{option} {name}={given[name]}` must name a series of `{path}`{nearest(name, names)}, which "
                    f"has {', '.join(names)}"
                )
    periods = parse_periods(frame["period"])
    own = frame["release_date"].astype(object)
    own = own.where(own.notna(), "")
    missing = own.astype(str).str.strip().eq("")
    lag_of = frame[LAG].astype(object).where(frame[LAG].notna(), "")
    lacking = []
    for name in names:
        rows = series.eq(name)
        frequency = frequencies.get(name, frequencies.get(EVERY))
        if frequency is not None:
            one_of(f"frequency of {name}", frequency, FREQUENCIES)
            ends = periods.loc[rows, "end"]
            words = ["" if pd.isna(end) else str(pd.Period(end, freq=FREQUENCIES[frequency])) for end in ends]
            periods.loc[rows] = parse_periods(pd.Series(words, index=ends.index))
        else:
            _check_stamps(name, periods[rows], path)
        unknown = rows & missing
        lag = lags.get(name, lags.get(EVERY))
        if lag is not None:
            lag = check_lag(name, lag)
        if not unknown.any():
            if name in lags:
                notes.append(f"the lag of {name} is not used: all its figures have release dates")
            continue
        if lag is None:
            lacking.append(name)
            continue
        days = release_days(periods[unknown], lag)
        own.loc[unknown] = days.dt.strftime("%Y-%m-%d").where(days.notna(), "").to_numpy()
        lag_of.loc[unknown] = lag
        notes.append(f"release dates of {name} follow from its periods and the stated lag {lag}")
    if lacking:
        known = ", ".join(f"{kind} ({lag})" for kind, lag in LAGS.items())
        raise UserError(
            f"`{path}` has figures of {listed(lacking)} without a release date: taken as known in the period that "
            "they are of, they would look ahead. Add a column `release_date`, or state a lag for each series, such "
            f"as `--lag {lacking[0]}=45d` (calendar days after the period's end) or by its kind, {known}"
        )
    done = frame.assign(period=periods["text"].where(periods["text"].notna(), frame["period"].astype(object)))
    done["release_date"] = own
    return done.drop(columns=LAG) if lag_of.eq("").all() else done.assign(**{LAG: lag_of})


def _check_stamps(name: str, periods: pd.DataFrame, path: Path) -> None:
    """Refuse days that stand for months or quarters: GDP of 1998-01-01 is that of the quarter that begins there."""
    days = periods.loc[periods["frequency"].eq("D"), "end"].drop_duplicates().sort_values()
    if len(days) < 3 or days.diff().dt.days.median() < SPACED_DAYS:
        return
    if (days.dt.days_in_month - days.dt.day <= 3).all():  # the last days of periods say when these end
        return
    raise UserError(
        f"the periods of {name} in `{path}` are days that lie {days.diff().dt.days.median():.0f} days apart, such as "
        f"{days.iloc[0]:%Y-%m-%d}: if they stand for months or quarters, the figures are known later than it seems. "
        f"Say what they are: `--frequency {name}=month` (or quarter, year, day)"
    )


def check_lag(name: str, lag: str) -> str:
    """The lag of a series as it is recorded, such as `end+60d`; otherwise a UserError that lists the forms."""
    match = _LAG.fullmatch(LAGS.get(lag, lag).replace(" ", ""))
    if match is None:
        raise UserError(
            f"the lag of {name} must be {', '.join(LAGS)}, or days after the period's end such as 60d or 1b (business "
            f"days), or after another day such as month+45d or start+100d; found {lag!r}"
        )
    anchor, number, unit = match.groups()
    return f"{anchor or 'end'}+{int(number)}{unit}"


def release_days(periods: pd.DataFrame, lag: str) -> pd.Series:
    """Release dates of `parse_periods` by a lag that `check_lag` has checked; NaT without a period."""
    anchor, count = lag.split("+")
    number, unit = int(count[:-1]), count[-1]
    end = periods["end"]
    first = {"end": end, "month": end - pd.to_timedelta(end.dt.day - 1, unit="D"), "start": periods["start"]}
    day = first[anchor]
    if unit == "d":
        return day + pd.Timedelta(days=number)
    known = day.notna().to_numpy()
    found = np.full(len(day), np.datetime64("NaT"), dtype="M8[D]")
    # From a Saturday the next business day is Monday, as it is from the Friday before.
    found[known] = np.busday_offset(day[known].to_numpy().astype("M8[D]"), number, roll="backward")
    return pd.Series(found.astype("M8[ns]"), index=day.index)
