"""A market store, opened to look at."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from qlib_ext.api import start
from qlib_ext.api.dataset import Dataset
from qlib_ext.api.picture import Picture
from qlib_ext.checks import UserError, brief
from qlib_ext.market.store import QlibStore

if TYPE_CHECKING:
    from qlib_ext.data.labels.label import Label
    from qlib_ext.market.info import StoreInfo

Labels = Any  # an expression, a `Label`, a list of them, or a mapping from names to them


class Store(QlibStore):
    """A market store in Qlib's format: `QlibStore`, with what a notebook asks of one.

    In a notebook it shows what `qlib-ext data info` says, without fingerprints.

    Parameters
    ----------
    root
        Its directory, such as `cn`; `~` is expanded.

    Raises
    ------
    StoreError
        If the directory or a part of it is missing.

    Examples
    --------
    >>> store = Store("cn")
    >>> store
    Store('cn')
    >>> store.universes()
    ['all', 'csi100', 'csi300', 'sse50']
    """

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def bars(
        self,
        instruments: str | Sequence[str],
        fields: Sequence[str] | None = None,
        start: Any = None,
        end: Any = None,
    ) -> pd.DataFrame:
        """Daily bars as a table.

        Parameters
        ----------
        instruments
            A code, or several.
        fields
            Such as `close`; by default all that the (first) instrument has.
        start, end
            First and last day; by default the instrument's own.

        Returns
        -------
        A row a day and a column a field; of several codes indexed (datetime, instrument). Days without a value in any field
        are left out.

        Raises
        ------
        StoreError
            If the store has no bars of a code.

        Examples
        --------
        >>> store.bars("SH000300", ["close", "volume"], "2016-03-01", "2016-03-02").shape
        (2, 2)
        """
        codes = [instruments] if isinstance(instruments, str) else [*instruments]
        known = [self.fields(code) for code in codes]  # a StoreError of an unknown one
        names = [*(known[0] if fields is None else fields)]
        values = self.read(names, codes)
        days = self._days(start, end)
        tables = {
            code.upper(): pd.DataFrame(values[:, :, k].T, self.calendar, names).loc[days].dropna(how="all")
            for k, code in enumerate(codes)
        }
        if isinstance(instruments, str):
            return tables[instruments.upper()].rename_axis(index="datetime")
        return pd.concat(tables, names=["instrument", "datetime"]).swaplevel().sort_index()

    def members(self, universe: str, day: Any = None) -> list[str]:
        """Codes that a universe names on a day, by default the newest, sorted.

        Raises
        ------
        StoreError
            If the store has no such universe.
        UserError
            If the day is no trading day of the store.

        Examples
        --------
        >>> len(store.members("csi300", "2016-03-01"))
        17
        """
        spells = self.membership(universe)
        when = self.day(day)
        inside = (spells["start"] <= when) & (spells["end"] >= when)
        return sorted(spells.loc[inside, "instrument"])

    def day(self, day: Any = None) -> pd.Timestamp:
        """A trading day of the store, by default the newest.

        Raises
        ------
        UserError
            If it is none; the message names the nearest.
        """
        return start.trading_day(self, day)

    def labels(
        self,
        labels: Labels = None,
        universe: str = "all",
        start: Any = None,
        end: Any = None,
        *,
        benchmark: str | None = None,
    ) -> pd.DataFrame:
        """Labels of the members of a universe, as they are before any processor.

        Parameters
        ----------
        labels
            An expression in Qlib's language, a `Label` such as `HorizonReturn(5)`, a list of them, or a mapping from names to
            them. By default the return from the close of t + 1 to that of t + 2, `RETURN`.
        universe
            Whose members; a stock without a close that day has no row.
        start, end
            First and last day; by default the store's.
        benchmark
            Instrument that a label `less="index"` is compared with.

        Returns
        -------
        A column a label, indexed (datetime, instrument).

        Raises
        ------
        UserError
            If a label is none, or the store lacks what it is made of.

        Examples
        --------
        >>> store.labels(universe="csi300", start="2016-03-01", end="2016-03-01").columns.tolist()
        ['RETURN']
        """
        _, built = _built(labels)
        from qlib_ext.data.handlers.loader import PanelLoader
        from qlib_ext.features.no_features import NoFeatures

        bound = {name: label.against(benchmark) for name, label in built.items()}
        for label in bound.values():
            label.check_store(self)
        loader = PanelLoader(bound)
        fields = sorted({field for label in bound.values() for field in label.fields})
        loader.load_panel(self, universe, NoFeatures(fields))
        days = self._days(start, end)
        return loader.load(universe, days.start, days.stop)["label"]

    def plot(
        self,
        instrument: str,
        labels: Labels = None,
        start: Any = None,
        end: Any = None,
        *,
        field: str = "close",
        universe: str = "all",
        benchmark: str | None = None,
    ) -> Picture:
        """A stock by day, and its labels below.

        Parameters
        ----------
        instrument
            Its code.
        labels, universe, benchmark
            As `labels` takes them.
        start, end
            First and last day.
        field
            What is drawn above; prices are adjusted, as the store has them.

        Raises
        ------
        UserError
            If the store has no such instrument, or no bars or labels of it in these days.

        Examples
        --------
        >>> code = store.members("csi300", "2016-03-01")[0]
        >>> picture = store.plot(code, ["Ref($close, -2) / Ref($close, -1) - 1"], "2016-01-01", "2016-03-31")
        >>> len(picture.figure.axes)
        2
        """
        code = instrument.upper()
        prices = self.bars(code, [field], start, end)[field].dropna()
        if prices.empty:
            raise UserError(
                f"`{self.root}` must have `{field}` of {code} in the days asked for, found none: it has bars from "
                f"{' to '.join(f'{day:%Y-%m-%d}' for day in self.bars(code).index[[0, -1]])}"
            )
        names, _ = _built(labels)
        table = self.labels(labels, universe, start, end, benchmark=benchmark)
        known = table.index.get_level_values("instrument") == code
        own = table[known].droplevel("instrument")
        if own.empty:
            raise UserError(f"`instrument` must be a member of `{universe}` in these days, found {code}")
        from qlib_ext.report.charts import Lines
        from qlib_ext.report.figures import COLOURS, drawn_together

        above = Lines(
            series={f"{code} {field}": prices},
            log_choice=bool((prices > 0).all()),
            ylabel=field,
            alt="",
            caption="",
            colours=COLOURS,
        )
        below = Lines(
            series={names[name]: own[name].dropna() for name in own},
            ylabel="label",
            percent=True,
            height=220,
            alt="",
            caption="",
            colours=COLOURS[1:],
        )
        return Picture(drawn_together([above, below]))

    def dataset(self, universe: str | None = None, **arguments: Any) -> Dataset:
        """A dataset of this store: `Dataset(store, universe, ...)`.

        Examples
        --------
        >>> data = store.dataset("csi300", lookback_days=None)
        Traceback (most recent call last):
        ...
        qlib_ext.checks.UserError: a dataset has no place for `lookback_days`; ...
        """
        return Dataset(self, universe, **arguments)

    @functools.cached_property
    def info(self) -> StoreInfo:
        """What is in the store, as `qlib-ext data info --no-fingerprint --json` has it."""
        from qlib_ext.market.info import store_info
        from qlib_ext.terminal import shown_progress

        with shown_progress() as progress:
            return store_info(self.root, fingerprint=False, progress=progress)

    def _repr_html_(self) -> str:
        from qlib_ext.market.info_lines import lines
        from qlib_ext.report.html import text

        return f"<pre style='white-space: pre-wrap'>{text(chr(10).join(lines(self.info)))}</pre>"

    def _days(self, start: Any, end: Any) -> slice:
        """From the first to the last day asked for, as pandas slices."""
        try:
            first = self.calendar[0] if start is None else pd.Timestamp(start)
            last = self.calendar[-1] if end is None else pd.Timestamp(end)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"`start` and `end` must be days such as 2016-03-01, found {brief(start)} and {brief(end)}"
            ) from error
        if first > last:
            raise UserError(f"`start` must not lie after `end`, found {first:%Y-%m-%d} and {last:%Y-%m-%d}")
        return slice(first, last)


def named_labels(labels: Labels) -> dict[str, Any]:
    """Labels by name: `RETURN` alone where it is one, else what they are."""
    start.start()
    from qlib_ext.data.handlers.panel import LABELS

    if labels is None:
        return {"RETURN": LABELS["RETURN"]}
    if isinstance(labels, Mapping):
        return dict(labels)
    if isinstance(labels, (list, tuple)):
        return {str(label): label for label in labels}
    return {"RETURN": labels}


def _built(labels: Labels) -> tuple[dict[str, str], dict[str, Label]]:
    """Name of each label -> how a picture calls it; and the labels."""
    named = named_labels(labels)
    from qlib_ext.data.handlers.arguments import build_labels

    built = build_labels(named, [])
    return {name: str(label) for name, label in built.items()}, built
