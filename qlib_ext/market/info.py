"""What is in a store: range, fields, universes, side data, where it comes from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.market.importing import import_settings
from qlib_ext.market.progress import Progress
from qlib_ext.market.side_data.side_data import SideData, SideDataError
from qlib_ext.market.spells import daily_size
from qlib_ext.market.store import QlibStore, read_mapping
from qlib_ext.market.traded_value import volume_kind
from qlib_ext.market.universes.universes import universe_rules
from qlib_ext.paths import leads_out

_STOCKS_AT_ONCE = 128
_CELLS_AT_ONCE = 1 << 19  # fewer stocks of a long calendar
_STOCKS_TO_TELL = 300  # whose volumes are looked at


@dataclass(frozen=True)
class FieldInfo:
    """A field of the bars.

    Attributes
    ----------
    name : str
    instruments : int
        How many have a file of it.
    share : float
        Their share of all instruments.
    missing : float
        Of their days, from the first to the last with a value of any field, the share without one of this field:
        suspended days, mostly.
    """

    name: str
    instruments: int
    share: float
    missing: float


@dataclass(frozen=True)
class UniverseInfo:
    """A universe.

    Attributes
    ----------
    name : str
    codes, without_bars : int
        Codes that it names, and those of them that have no folder of bars.
    first_day, last_day : str or None
        With a member; None if no day of the calendar has one.
    least, median, most : float
        Members that the list names, on days with any.
    median_with_close : float
        Members that have a close, on these days.
    size, rule, command : int or None, str or None, str or None
        Nominal size, how its members are chosen and the command for it, where `universes.json` says so.
    """

    name: str
    codes: int
    without_bars: int
    first_day: str | None
    last_day: str | None
    least: float
    median: float
    most: float
    median_with_close: float
    size: int | None
    rule: str | None
    command: str | None


@dataclass(frozen=True)
class SideInfo:
    """A table of side data.

    Attributes
    ----------
    name : str
    shape : str or None
        As `qlib_ext.market.side_data.side_data` has them; None where it has none of them.
    bytes : int
        On disk.
    problem : str or None
        Why it has none.
    """

    name: str
    shape: str | None
    bytes: int
    problem: str | None = None


@dataclass(frozen=True, eq=False)
class StoreInfo:
    """What is in a store.

    Attributes
    ----------
    root : str
    first_day, last_day : str
    days, instruments, files, bytes : int
        Trading days, codes with bars, files and bytes on disk.
    fields, universes, side
        By name.
    volume : str or None
        `raw` or `adjusted` shares, None where there are none or they do not tell.
    sample : mapping or None
        The arguments of a synthetic market.
    import_settings : mapping or None
        How the bars were read, as `qlib-ext data import` noted it.
    links_out : tuple of str
        Links that lead out of the store: path within it, and where they lead.
    fingerprint, side_fingerprint : str or None
        Of calendar, memberships and bars, and of the side data; None where not asked for or without side data.
    daily : DataFrame
        Members that each universe names by day: a column a universe.
    """

    root: str
    first_day: str
    last_day: str
    days: int
    instruments: int
    files: int
    bytes: int
    fields: tuple[FieldInfo, ...]
    universes: tuple[UniverseInfo, ...]
    side: tuple[SideInfo, ...]
    volume: str | None
    sample: dict[str, Any] | None
    import_settings: dict[str, Any] | None
    links_out: tuple[str, ...]
    fingerprint: str | None
    side_fingerprint: str | None
    daily: pd.DataFrame

    def to_json(self) -> dict[str, Any]:
        """All of it but the daily sizes, as plain mappings, lists, texts and numbers; null for NaN."""
        plain = {name: value for name, value in vars(self).items() if name != "daily"}
        plain["links_out"] = list(self.links_out)
        for name in ("fields", "universes", "side"):
            plain[name] = [
                {key: _without_nan(value) for key, value in asdict(part).items()} for part in plain[name]
            ]
        return plain


def _without_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def store_info(root: str | Path, *, fingerprint: bool = True, progress: Progress | None = None) -> StoreInfo:
    """Look at all of a store.

    Parameters
    ----------
    root
        The store.
    fingerprint
        Whether to take the fingerprints, which reads every file once more.
    progress
        Called with (done, total, what).

    Raises
    ------
    StoreError
        If the store or a part of it cannot be read; `qlib-ext data check` then says more.
    """
    store = QlibStore(root)
    report = progress or (lambda done, total, what: None)
    codes = store.instruments()
    fields, closes, kind = _look_at_bars(store, codes, report)
    sizes = {name: daily_size(store.calendar, store.membership(name)) for name in store.universes()}
    rules = universe_rules(store.root)
    there = list(store.root.rglob("*"))
    paths = [path for path in there if path.is_file()]
    ends = {path: leads_out(store.root, path) for path in there}
    side, side_print = _side(store, fingerprint)
    if fingerprint:
        report(0, 1, "fingerprint")
    return StoreInfo(
        root=str(store.root),
        first_day=f"{store.calendar[0]:%Y-%m-%d}",
        last_day=f"{store.calendar[-1]:%Y-%m-%d}",
        days=len(store.calendar),
        instruments=len(codes),
        files=len(paths),
        bytes=sum(path.stat().st_size for path in paths),
        fields=fields,
        universes=tuple(
            _universe(store, name, size, codes, closes, rules.get(name, {})) for name, size in sizes.items()
        ),
        side=side,
        volume=kind,
        sample=store.sample or None,
        import_settings=read_mapping(store.root / import_settings.FILE) or None,
        links_out=tuple(
            f"{path.relative_to(store.root).as_posix()} to {end}"
            for path, end in ends.items()
            if end is not None
        ),
        fingerprint=store.fingerprint() if fingerprint else None,
        side_fingerprint=side_print,
        daily=pd.DataFrame(sizes, index=store.calendar),
    )


def _look_at_bars(
    store: QlibStore, codes: list[str], report: Progress
) -> tuple[tuple[FieldInfo, ...], np.ndarray, str | None]:
    """Fields; whether there is a close, bool [D, S]; and what volumes are."""
    of_code = {code: store.fields(code) for code in codes}
    names = sorted({name for found in of_code.values() for name in found})
    have = {name: sum(name in found for found in of_code.values()) for name in names}
    days, there = np.zeros(len(names)), np.zeros(len(names))
    closes = np.zeros((len(store.calendar), len(codes)), dtype=bool)
    step = max(1, min(_STOCKS_AT_ONCE, _CELLS_AT_ONCE // len(store.calendar)))
    for first in range(0, len(codes), step):
        report(first, len(codes), "bars")
        some = codes[first : first + step]
        present = ~np.isnan(store.read(names, some))  # [F, D, S]
        if "close" in have:
            closes[:, first : first + len(some)] = present[names.index("close")]
        listed = np.logical_or.accumulate(present.any(axis=0), axis=0)
        listed &= np.logical_or.accumulate(present.any(axis=0)[::-1], axis=0)[::-1]
        for k, name in enumerate(names):
            with_file = [name in of_code[code] for code in some]
            days[k] += listed[:, with_file].sum()
            there[k] += present[k][:, with_file].sum()
    with np.errstate(invalid="ignore"):
        missing = 1 - there / days
    fields = tuple(
        FieldInfo(name, have[name], have[name] / len(codes), float(missing[k]))
        for k, name in enumerate(names)
    )
    kind = None
    if "volume" in have and "factor" in have:
        sample = codes[:: max(1, len(codes) // _STOCKS_TO_TELL)]
        kind = volume_kind(*store.read(["volume", "factor"], sample))
    return fields, closes, kind


def _universe(
    store: QlibStore,
    name: str,
    size: pd.Series,
    codes: list[str],
    closes: np.ndarray,
    said: dict[str, Any],
) -> UniverseInfo:
    named = set(store.membership(name)["instrument"])
    there = size[size > 0]
    days = size.to_numpy() > 0
    with_close = (store.member_mask(name, codes) & closes).sum(axis=1)[days]
    return UniverseInfo(
        name=name,
        codes=len(named),
        without_bars=len(named - set(codes)),
        first_day=f"{there.index[0]:%Y-%m-%d}" if len(there) else None,
        last_day=f"{there.index[-1]:%Y-%m-%d}" if len(there) else None,
        least=float(there.min()),
        median=float(there.median()),
        most=float(there.max()),
        median_with_close=float(np.median(with_close)) if len(there) else float("nan"),
        size=said.get("size"),
        rule=said.get("rule"),
        command=said.get("command"),
    )


def _side(store: QlibStore, fingerprint: bool) -> tuple[tuple[SideInfo, ...], str | None]:
    try:
        data = SideData(store)
    except SideDataError as error:
        return (SideInfo("side", None, 0, str(error)),), None
    found = []
    for name in data.names():
        size = data.path(name).stat().st_size
        try:
            found.append(SideInfo(name, data.shape(name), size))
        except SideDataError as error:
            found.append(SideInfo(name, None, size, str(error)))
    return tuple(found), data.fingerprint() if found and fingerprint else None
