"""Daily bars and macro indicators as a handler of panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qlib_ext.checks import UserError
from qlib_ext.config.build import build
from qlib_ext.data.handlers.panel import LABELS, PanelHandler
from qlib_ext.data.side_data.macro import Macro
from qlib_ext.features.daily_bars import BARS, DailyBarsWindows
from qlib_ext.market.store import QlibStore

INFER_PROCESSORS = (
    {"class": "qlib_ext.data.processors.rise_or_fall.RiseOrFall", "kwargs": {"source": "NEXT_RETURN"}},
)


class DailyBarsPanel(PanelHandler):
    """Windows of daily bars joined with macro indicators, and labels as a table that Qlib's processors work on.

    Source: "Collaborative Optimization in Financial Data Mining Through Deep Learning and ResNeXt", section IV.A. What the
    features are is told in `qlib_ext.features.daily_bars.DailyBarsWindows`, labels and rows in
    `qlib_ext.data.handlers.panel.PanelHandler`.

    Parameters
    ----------
    instruments
        Universe: the name of a file in the store's `instruments/`.
    fit_start_time, fit_end_time
        Days on which means and deviations are fitted: the training segment. They may be left to a dataset that splits
        the days itself.
    start_time, end_time
        Range of the labels; the store's own by default.
    bars
        Fields of the windows, in order.
    macro
        A `Macro` that names its series, or `{class, kwargs}` of one; None joins none. A figure enters on its release.
    lookback_days
        T, the length of a window, in trading days.
    form
        `change` or `level`.
    fill
        `forward` or `linear` for missing bars; macro figures have a `fill` of their own. `linear` reads the future and is
        told as `look_ahead` in what describes the data.
    fill_limit_days
        The longest gap that is filled, in trading days.
    clip
        In standard deviations; None clips nothing.
    labels
        Label name -> Qlib expression; by default the return that can be traded and that of the next day.
    infer_processors, learn_processors
        Qlib processors of label columns; by default RiseOrFall of the next day's return, and none.
    cache
        A directory in which what is prepared is kept for later runs, or `off`.
    init_data
        Whether to load everything at once.

    Raises
    ------
    UserError
        If an argument is out of range, the macro table is missing or names no series.
    """

    windows: DailyBarsWindows
    _macro_facts: dict[str, Any] | None = None  # of the class too: a pickled handler comes back without them

    def __init__(
        self,
        instruments: str,
        fit_start_time: Any = None,
        fit_end_time: Any = None,
        start_time: Any = None,
        end_time: Any = None,
        bars: Sequence[str] = BARS,
        macro: Mapping[str, Any] | Macro | None = None,
        lookback_days: int = 20,
        form: str = "change",
        fill: str = "forward",
        fill_limit_days: int = 5,
        clip: float | None = 10.0,
        labels: Mapping[str, str] | None = None,
        infer_processors: Sequence[Any] | None = None,
        learn_processors: Sequence[Any] = (),
        cache: str | Path | None = None,
        init_data: bool = True,
    ) -> None:
        self.macro = None if macro is None else build(macro, Macro, name="macro")
        indicators = () if self.macro is None else self.macro.names
        if indicators is None:
            raise UserError(
                "`macro.series` must name the series, so that the features do not change with the store; found none"
            )
        super().__init__(
            instruments,
            windows=DailyBarsWindows(bars, indicators, lookback_days, form, fill, fill_limit_days, clip),
            fields=tuple(bars) if "close" in bars else (*bars, "close"),
            fit_start_time=fit_start_time,
            fit_end_time=fit_end_time,
            start_time=start_time,
            end_time=end_time,
            labels=LABELS if labels is None else labels,
            infer_processors=INFER_PROCESSORS if infer_processors is None else infer_processors,
            learn_processors=learn_processors,
            cache=cache,
            init_data=init_data,
        )

    def check_store(self, store: QlibStore) -> None:
        """Raise a UserError if there is no macro table where one is asked for."""
        reason = None if self.macro is None else self.macro.lacks(store)
        if reason is not None:
            raise UserError(
                f"`macro` does not fit the store {store.root}: {reason}; bring a table in (`qlib-ext data side-data DIR "
                "NAME FILE`), make a market that has one (`qlib-ext data sample --region us --out DIR`), or leave it out"
            )
        # what is read now, whatever becomes of the file: a run tells of this
        self._macro_facts = None if self.macro is None else self.macro.describe(store)

    def complete(self) -> None:
        """Join the macro indicators, as each day's close knew them."""
        if self.macro is not None:
            self.windows.join(self.macro.load(self.store, self.panel.calendar).values)

    def features_identity(self) -> dict[str, Any]:
        """What decides the indicators."""
        return {} if self._macro_facts is None else {"macro": self._macro_facts}

    def look_ahead(self) -> list[str]:
        """What of the features is known only later, as sentences; empty where nothing is."""
        found = self.windows.look_ahead()
        if self.macro is not None and self.macro.fill == "linear":
            found.append(
                "macro figures are interpolated between releases, so a figure counts before it is published"
            )
        return found

    def describe(self) -> dict[str, Any]:
        """Form, filling, indicators and what looks ahead, for the description of a run."""
        windows = self.windows
        return {
            "bars": list(windows.bars),
            "form": windows.form,
            "fill": {"method": windows.fill, "limit_days": windows.fill_limit_days},
            "clip": windows.clip,
            **self.features_identity(),
            "look_ahead": self.look_ahead(),
        }

    def notes(self) -> list[str]:
        """What a reader of the results should know of the features."""
        looking = [f"LOOK-AHEAD: {sentence}" for sentence in self.look_ahead()]
        stated = [] if self.macro is None else self.macro.notes(self.store)
        return [*super().notes(), *looking, *stated]
