"""A user's table in a shape that a store holds: its columns recognised, its codes written as the store has them.

Beside the shapes of a store (`qlib_ext.market.side_data.side_data`), more are read:

- snapshots: a date, a code and an industry or concept, a row for each stock of each date; one holds until the day
  before the next;
- values in wide form: a date, and a column a stock;
- series in wide form: a period, and a column a series;
- values and figures of the whole market with a time of day, and figures of reports with the day on which they were
  announced (`qlib_ext.market.side_data.known_rows`).

What does not say since when it was known would look ahead, and is refused.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, brief, nearest
from qlib_ext.files import open_table
from qlib_ext.market.codes import code_in_store
from qlib_ext.market.columns import recognise
from qlib_ext.market.side_data.known_rows import known_days, one_row_a_day
from qlib_ext.market.side_data.release_dates import SPACED_DAYS
from qlib_ext.market.side_data.rows import BLANK, Rows
from qlib_ext.market.side_data.side_data import SideDataError
from qlib_ext.market.side_data.table import INDUSTRY, KEYS, LAG, MARKET_VALUE, read_frame, read_header
from qlib_ext.market.text_files import reading, separator

# Names under which columns are known, without case and punctuation; others are named by the user.
NAMES: Mapping[str, tuple[frozenset[str], ...]] = {
    field: (frozenset(names.split()),)
    for field, names in {
        "instrument": "instrument code symbol ticker tscode stockcode secucode wincode 代码 股票代码 证券代码",
        "datetime": "datetime date day tradedate tradingdate time snapshot 日期 交易日期",
        "start": "start startdate from fromdate begin begindate indate datein effectivedate 纳入日期",
        "end": "end enddate to todate outdate dateout 剔除日期 报告期",
        "series": "series seriesid indicator variable",
        "period": "period referenceperiod referencedate quarter month observationdate statdate reportperiod",
        "value": "value figure",
        "release_date": "releasedate released publicationdate publishdate published anndate announcementdate vintage "
        "pubdate publishtime publishedat timestamp 公告日期",
        LAG: "statedlag",
    }.items()
}
TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")


def _of_values(found: dict[str, str]) -> dict[str, str]:
    """The columns that say of what stock, period and day a value is; a day beside one of announcement is a period."""
    given = dict(found)
    if "release_date" in given:
        for other in ("datetime", "end"):
            if other in given and "period" not in given:
                given["period"] = given.pop(other)
        given["datetime"] = given.pop("release_date")
    return {field: column for field, column in given.items() if field in ("instrument", "datetime", "period")}


class UserTable:
    """A user's file, and the frame in a shape of the store that it becomes.

    Parameters
    ----------
    exchange
        Whose close a time of day is held against.
    several, after_close
        As `known_rows.one_row_a_day` takes them.

    Attributes
    ----------
    shape
        spells, values, market or series.
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
        exchange: str | None = None,
        several: str = "newest",
        after_close: bool = False,
    ) -> None:
        self.path, self.name, self.columns, self.encoding, self.codes = path, name, columns, encoding, codes
        self.exchange, self.several, self.after_close = exchange, several, after_close
        self.notes: list[str] = []
        self.header = self._header()
        given = {field: column for field, column in columns.items() if field in NAMES}
        found = recognise(self.header, given, where=f"`{path}`", known=NAMES, required=())
        if shape is None and lagged and "instrument" not in found:  # nothing else has lags
            shape = "series"
        if shape == "series" and "period" not in found and "datetime" in found:
            found["period"] = found.pop("datetime")
        self.found = found
        # The columns that the table is about, with the names that they shall have.
        self.rest = self._rest(columns)
        self.shape = shape or self._guess()
        self._dated = "release_date" in found or shape is not None or name == MARKET_VALUE
        if self.shape in ("values", "market"):
            self.found = _of_values(found)
            self.rest = self._rest(columns)

    def _rest(self, columns: dict[str, str]) -> dict[str, str]:
        """Columns that have no meaning of their own, with the names that they shall have."""
        own = {field: column for field, column in columns.items() if field not in NAMES}
        for field, column in own.items():
            if (column or field) not in self.header:
                raise UserError(
                    f"`--column {field}={column}` must name a column of `{self.path}`"
                    f"{nearest(column or field, self.header)}, which has {', '.join(self.header)}"
                )
        left_out = {field for field, column in own.items() if not column}
        renamed = {column: field for field, column in own.items() if column}
        return {
            column: renamed.get(column, column)
            for column in self.header
            if column not in self.found.values() and column not in left_out
        }

    def frame(self) -> pd.DataFrame:
        """The whole table, with the columns of its shape."""
        raw = self._read()
        fields = {column: field for field, column in self.found.items()}
        frame = raw[[*fields, *self.rest]].rename(columns={**fields, **self.rest})
        if "instrument" in frame:
            frame["instrument"] = self._spelled(frame["instrument"])
        make = {
            "spells": self._spells,
            "values": self._values,
            "market": self._values,
            "series": self._series,
        }
        return make[self.shape](frame)

    def _guess(self) -> str:
        """The shape, by the columns that there are."""
        found = set(self.found)
        if {"instrument"} < found and found & {"period", "release_date"} and "series" not in found:
            return "values"  # of reports
        if "release_date" in found and not found & {"period", "series", "datetime"}:
            return "market"
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
            "`--column FIELD=COLUMN` (instrument and datetime for values; instrument, start and end for "
            "spells; period and release_date for series), or say `--shape`: market for values of the whole market that "
            "were known on the day that they are dated"
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
        """Values of stocks or of the whole market, by the day on which they were known; a column a stock becomes rows."""
        if "period" in self.found and "datetime" not in self.found:
            raise UserError(
                f"`{self.path}` does not say when the figures of a period were announced: taken as known in their "
                "period, they would look ahead. Name the column with the day of announcement, "
                "`--column release_date=COLUMN`; it has " + ", ".join(self.header)
            )
        self._require("datetime")
        if self.shape == "values" and "instrument" not in self.found:
            frame = frame.melt("datetime", var_name="instrument", value_name=self.name)
            frame = frame[frame[self.name].notna() & ~frame[self.name].isin(BLANK)].reset_index(drop=True)
            frame["instrument"] = self._spelled(frame["instrument"])
            fields = [self.name]
        elif self.name == MARKET_VALUE:
            frame, fields = frame.rename(columns={self._about(): self.name}), [self.name]
        else:
            fields = self._fields(frame)
        if not self._dated:
            self._check_days(frame["datetime"])
        where = f"`{self.path}`"
        table, notes = one_row_a_day(frame, fields, self.exchange, self.several, self.after_close, where)
        self.notes += notes
        return table

    def _fields(self, frame: pd.DataFrame) -> list[str]:
        """The columns that hold numbers, by names that an expression can say."""
        blank = [*BLANK, None]
        texts = [
            name
            for name in self.rest.values()
            if not pd.api.types.is_numeric_dtype(frame[name].dtype)
            and pd.to_numeric(frame[name].astype(object), errors="coerce").isna().all()
            and not frame[name].isin(blank).all()
        ]
        fields = [name for name in self.rest.values() if name not in texts]
        if texts:
            self.notes.append(f"left out, as they hold no number: {', '.join(texts)}")
        if not fields:
            raise UserError(f"`{self.path}` has no column with numbers, found {', '.join(self.header)}")
        for name in fields:
            if not name.isidentifier() or keyword.iskeyword(name):
                raise UserError(
                    f"a field of side data must have a name of letters, digits and `_`, found {brief(name)}: call it "
                    f"otherwise, such as `--column {re.sub(r'[^0-9A-Za-z]+', '_', name).strip('_') or 'field'}={name}`"
                )
        return fields

    def _check_days(self, column: pd.Series) -> None:
        """Refuse days that are ends of reports' periods, from the look of them."""
        days, _ = known_days(column, self.exchange, f"`{self.path}`")
        apart = days.dropna().dt.normalize().drop_duplicates().sort_values().diff().dt.days
        if len(apart) > 2 and apart.median() >= SPACED_DAYS:
            raise UserError(
                f"the days of `{self.path}` lie {apart.median():.0f} days apart, such as {days.min():%Y-%m-%d}: if they are "
                "those of reports' periods, the figures are known later than it seems. Name the column with the day of "
                f"announcement, `--column release_date=COLUMN`, or say `--shape {self.shape}` if they were known on these days"
            )

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
        days, moments = known_days(frame["release_date"], self.exchange, f"`{self.path}`")
        if (days != moments).any() or (moments.dropna() != moments.dropna().dt.normalize()).any():
            frame["release_date"] = days.where(days.notna(), frame["release_date"].astype(object))
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
            with reading(self.path, self.encoding):
                return read_header(self.path)
        with reading(self.path, self.encoding), open_table(self.path, encoding=self.encoding) as stream:
            table = pd.read_csv(
                stream, nrows=0, sep=separator(self.path, self.encoding), encoding=self._codec()
            )
        return [str(column) for column in table.columns]

    def _read(self) -> pd.DataFrame:
        texts = {column for field, column in self.found.items() if field != "value"}
        if self.shape == "spells":
            texts |= set(self.rest)
        with reading(self.path, self.encoding):
            if self.path.suffix == ".parquet":
                return read_frame(self.path)
            with open_table(self.path, encoding=self.encoding) as stream:
                return pd.read_csv(
                    stream,
                    sep=separator(self.path, self.encoding),
                    encoding=self._codec(),
                    dtype=dict.fromkeys(texts, "category"),
                    keep_default_na=False,
                    na_values={column: list(BLANK) for column in self.header if column not in texts},
                    low_memory=False,
                )

    def _codec(self) -> str:
        return "utf-8-sig" if self.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else self.encoding
