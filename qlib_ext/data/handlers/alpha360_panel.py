"""Qlib's Alpha360 as a handler that never builds the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qlib_ext.data.handlers.panel import LABELS, PanelHandler
from qlib_ext.features.alpha360 import FIELDS, Alpha360Windows

INFER_PROCESSORS = ({"class": "qlib_ext.data.processors.momentum_line.MomentumLine"},)
LEARN_PROCESSORS = ({"class": "qlib_ext.data.processors.cross_section_norm.CrossSectionNorm"},)


class Alpha360Panel(PanelHandler):
    """Alpha360 features as windows of a panel, and labels as a table that Qlib's processors work on.

    Features never pass through a table unless one is asked for (`fetch` with `feature`), which models such as
    LightGBM do. Labels are Qlib expressions; `infer_processors` work on raw labels (the momentum line is made
    there), `learn_processors` turn them into what training sees.

    Parameters
    ----------
    instruments
        Universe: the name of a file in the store's `instruments/`.
    fit_start_time, fit_end_time
        Days on which the features' medians and deviations are fitted: the training segment.
    start_time, end_time
        Range of the labels; the store's own by default.
    fields
        Fields of the windows, in order.
    optional_fields
        Fields that a store may lack; their features are 0 then, as they are under Qlib's processors.
    lookback_days
        Length of a window, in trading days.
    labels
        Label name -> Qlib expression.
    infer_processors, learn_processors
        Qlib processors of label columns, `{class: dotted path, kwargs: ...}`; by default MomentumLine, and
        CrossSectionNorm of RETURN.
    cache
        A directory in which what is prepared is kept for later runs (see `qlib_ext.data.cache`); None, or `off`
        from a workflow, keeps nothing.
    init_data
        Whether to load everything at once, as in Qlib. Without it `setup_data` is the caller's: for a handler that
        takes the statistics of another day's training (`windows.restore`) and must not fit its own.

    Notes
    -----
    A row is a member of the universe that has a close that day. A missing label is NaN and stays so.

    Where all processors work a day at a time and say so (`per_day`, see `qlib_ext.data.labels.label_planes`), labels are held
    as planes of days and stocks, and a table is made of the days that are asked for, when they are. Processors that
    do not say so are given the whole table, as Qlib does it; then nothing is cached.

    Departures from Qlib's Alpha360: members without a close that day (suspended) are no rows, since nothing is
    known of them at its close and they cannot be traded; Qlib keeps them with all features 0.
    """

    def __init__(
        self,
        instruments: str,
        fit_start_time: Any = None,
        fit_end_time: Any = None,
        start_time: Any = None,
        end_time: Any = None,
        fields: Sequence[str] = FIELDS,
        optional_fields: Sequence[str] = ("vwap",),
        lookback_days: int = 60,
        labels: Mapping[str, str] | None = None,
        infer_processors: Sequence[Any] | None = None,
        learn_processors: Sequence[Any] | None = None,
        cache: str | Path | None = None,
        init_data: bool = True,
    ) -> None:
        super().__init__(
            instruments,
            windows=Alpha360Windows(fields, lookback_days),
            fields=fields,
            fit_start_time=fit_start_time,
            fit_end_time=fit_end_time,
            start_time=start_time,
            end_time=end_time,
            optional_fields=optional_fields,
            labels=LABELS if labels is None else labels,
            infer_processors=INFER_PROCESSORS if infer_processors is None else infer_processors,
            learn_processors=LEARN_PROCESSORS if learn_processors is None else learn_processors,
            cache=cache,
            init_data=init_data,
        )

    @property
    def padded(self) -> np.ndarray:
        """`[D + T - 1, S, F]`: the market with T - 1 empty days in front, as windows are gathered from it."""
        held = self.panel.padded
        return self.windows.pad(self.panel.values) if held is None else held
