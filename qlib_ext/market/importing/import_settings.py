"""How a user's bars are read: the options of `qlib-ext data import`, kept in the store for the next update."""

from __future__ import annotations

import json
import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from qlib_ext.checks import UserError, above, brief, nearest, one_of
from qlib_ext.files import read_json
from qlib_ext.market.store import StoreError

FILE = "import.json"
VERSION = 1
REGIONS = {"cn": "XSHG", "us": "XNYS"}  # and the exchange whose days are taken by default
CHOICES = {
    "region": tuple(REGIONS),
    "adjustment": ("auto", "factor", "adj_close", "actions", "change", "adjusted", "none"),
    "volume": ("auto", "raw", "adjusted"),
    "change": ("auto", "fraction", "percent", "computed"),
    "calendar": ("exchange", "data"),
    "duplicates": ("error", "first", "last"),
    "decimal": ("auto", "point", "comma"),
    "bad_values": ("nan", "error"),
    "zero_volume": ("keep", "suspended"),
}
NAME = re.compile(r"[a-z_][a-z0-9_]*")
UNIVERSE = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class ImportSettings:
    """How `qlib_ext.market.importing.ingest.read_bars` reads a source.

    Parameters
    ----------
    region
        `cn` or `us`: the default exchange, and how codes are written.
    columns
        Field to column of the source, for those that are not recognised; an empty column says that the source
        has no such field. A field of another name than those of a bar is imported as it stands.
    adjustment
        `factor` (raw prices and a column of adjusted / raw), `adj_close` (raw prices and an adjusted close),
        `actions` (raw prices, and splits and dividends of a table or of columns), `change` (raw prices, and a change
        that knows the ex-days), `adjusted` (prices are adjusted; the factor is the source's column or unknown), `none`
        (raw prices that stay so, factor 1), or `auto`: by what is there and what the prices say.
    volume
        Whether the source's shares are `raw` or `adjusted` (raw / factor); `auto`: as its prices are.
    volume_unit, amount_unit
        Shares and currency in one unit of the source's columns, such as 100 and 1000; None: read off the prices.
    change
        Unit of the source's `change`: `fraction`, `percent`, `computed` (not used: made from the closes), or
        `auto`: read off the closes.
    calendar
        `exchange`: the days of an exchange; `data`: every day on which any instrument has a row.
    exchange
        Name in `exchange_calendars`, such as XSHG; None: that of the region.
    timezone
        In which the day of a timestamp is taken, such as America/New_York; None: that of the exchange.
    date_format
        As `strptime` takes it, for dates that are not ISO 8601; None: ISO 8601, YYYYMMDD or epochs.
    pattern
        Which files of a folder are read, such as `*.csv`; None: all of a known suffix.
    encoding
        Of CSV files.
    decimal
        The sign before the decimals of CSV files, `point` or `comma`; `auto`: by numbers that leave no doubt.
    duplicates
        Of rows of the same instrument and day that contradict each other: an `error`, or the `first` or the
        `last` is taken.
    bad_values
        Values that are no number, infinite, or negative where they cannot be: `nan` or an `error`.
    zero_volume
        Rows with a volume of 0: `keep` them, or `suspended`: a day without a bar.
    universe
        Name of the universe of all instruments but the benchmarks.
    benchmarks
        Codes of indices or funds that are not stocks to choose from.

    Raises
    ------
    UserError
        If an argument is none of its choices.
    """

    region: str = "cn"
    columns: Mapping[str, str] = field(default_factory=dict)
    adjustment: str = "auto"
    volume: str = "auto"
    volume_unit: float | None = None
    amount_unit: float | None = None
    change: str = "auto"
    calendar: str = "exchange"
    exchange: str | None = None
    timezone: str | None = None
    date_format: str | None = None
    pattern: str | None = None
    encoding: str = "utf-8"
    decimal: str = "auto"
    duplicates: str = "error"
    bad_values: str = "nan"
    zero_volume: str = "keep"
    universe: str = "stocks"
    benchmarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            one_of(name, getattr(self, name), choices)
        for name in ("volume_unit", "amount_unit"):
            if getattr(self, name) is not None:
                above(name, getattr(self, name), 0)
        for target in self.columns:
            if not NAME.fullmatch(target):
                raise UserError(
                    f"`columns` must name fields in lower case such as close or market_value, found {brief(target)}"
                )
        for needed in ("date", "close"):
            if self.columns.get(needed) == "":
                raise UserError(f"`columns` must name a column of `{needed}`: no bar is without it")
        if self.timezone is not None and self.timezone not in zoneinfo.available_timezones():
            raise UserError(
                f"`timezone` must be a time zone such as Asia/Shanghai, found {brief(self.timezone)}"
                + nearest(self.timezone, zoneinfo.available_timezones())
            )
        if not UNIVERSE.fullmatch(self.universe) or self.universe == "all":
            raise UserError(
                "`universe` must be a file name of letters and digits other than `all`, which holds every "
                f"instrument, found {brief(self.universe)}"
            )
        object.__setattr__(self, "benchmarks", tuple(self.benchmarks))

    def save(self, store: str | Path, *, source: str = "", notes: tuple[str, ...] = ()) -> None:
        """Write `import.json` into a store: these settings, and for the reader where from and what was noted."""
        content = {
            "made_by": "qlib-ext data import",
            "version": VERSION,
            "source": source,
            "settings": asdict(self),
            "notes": list(notes),
        }
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (Path(store) / FILE).write_text(text, encoding="utf-8", newline="\n")

    @classmethod
    def load(cls, store: str | Path) -> ImportSettings:
        """Read `import.json` of a store.

        Raises
        ------
        StoreError
            If there is none, or it cannot be read or is of another version.
        """
        path = Path(store).expanduser() / FILE
        if not path.is_file():
            raise StoreError(
                f"`{path}` is not there: the store was not made by `qlib-ext data import`, so nothing says how "
                "its source is read"
            )
        try:
            content = read_json(path, error=StoreError)
        except StoreError:
            raise
        except ValueError as error:
            raise StoreError(f"`{path}` cannot be read: {error}") from error
        settings: Any = content.get("settings") if isinstance(content, dict) else None
        known = {one.name for one in fields(cls)}
        if not isinstance(settings, dict) or content.get("version") != VERSION or set(settings) - known:
            raise StoreError(f"`{path}` is not of version {VERSION} of `qlib-ext data import`; import anew")
        try:
            return cls(**settings)
        except (UserError, TypeError, AttributeError) as error:
            raise StoreError(f"`{path}` holds settings that cannot be: {error}") from error
