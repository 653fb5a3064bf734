"""Labels in runs of days are what Qlib makes of the whole table, and whoever needs the whole table gets it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from qlib.data.dataset.processor import DropnaLabel, Processor

from qlib_ext.checks import UserError
from qlib_ext.data.handlers.panel import PanelHandler
from qlib_ext.data.labels import label_planes
from qlib_ext.data.labels.label_planes import LabelPlanes, works_per_day
from qlib_ext.data.labels.label_table import LabelTable
from qlib_ext.data.processors.cross_section_norm import CrossSectionNorm
from qlib_ext.data.processors.momentum_line import MomentumLine
from tests.data.conftest import handler_kwargs

KEYS = ("raw", "infer", "learn")


class WholeLine(MomentumLine):
    """The same line, from a class that does not say that it works per day."""

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        return super().__call__(df)


class WholeNorm(CrossSectionNorm):
    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        return super().__call__(df)


class AcrossDays(Processor):
    """A processor that looks at all days at once."""

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        df[("label", "RETURN")] -= df[("label", "RETURN")].mean()
        return df


class PerDay(Processor):
    """Says that it works per day, and does what a test makes of it."""

    per_day = True

    def __init__(self, work: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        self.work = work

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        return self.work(df)


class Fitting(CrossSectionNorm):
    per_day = True

    def fit(self, df: pd.DataFrame | None = None) -> None:
        self.fitted = True


class SaysSoAnew(WholeNorm):
    per_day = True


@pytest.fixture(scope="module")
def make(qlib_reads_the_store: None, tiny: Any) -> Callable[..., PanelHandler]:
    def of(**changes: Any) -> PanelHandler:
        return PanelHandler(**(handler_kwargs(tiny) | changes))

    return of


@pytest.fixture(scope="module")
def whole(make: Callable[..., PanelHandler]) -> PanelHandler:
    """Qlib's own way: every processor gets one table of all days."""
    return make(infer_processors=[WholeLine()], learn_processors=[WholeNorm()])


@pytest.fixture(scope="module", params=[1, 100, 1 << 18], ids=["a day", "some days", "all days"])
def blocks(request: pytest.FixtureRequest, make: Callable[..., PanelHandler]) -> Iterator[PanelHandler]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_planes, "CELLS_AT_ONCE", request.param)
        yield make()


class TestWhoWorksPerDay:
    @pytest.mark.parametrize(
        ("processor", "expected"),
        [
            (CrossSectionNorm(), True),
            (MomentumLine(), True),
            (SaysSoAnew(), True),
            (WholeNorm(), False),
            (WholeLine(), False),
            (AcrossDays(), False),
            (Fitting(), False),
            (DropnaLabel(), False),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_who_says_so_where_the_code_stands(self, processor: Processor, expected: bool) -> None:
        assert works_per_day(processor) is expected


class TestAgainstTheWholeTable:
    def test_the_ways_differ(self, whole: PanelHandler, blocks: PanelHandler) -> None:
        assert isinstance(whole.labels, LabelTable)
        assert isinstance(blocks.labels, LabelPlanes)

    @pytest.mark.parametrize("key", KEYS)
    def test_the_table(self, key: str, whole: PanelHandler, blocks: PanelHandler) -> None:
        ours, theirs = (handler.fetch(col_set="label", data_key=key) for handler in (blocks, whole))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
        assert blocks.get_cols("label", key) == whole.get_cols("label", key) == list(theirs.columns)
        assert blocks.get_cols(data_key=key) == whole.get_cols(data_key=key)

    @pytest.mark.parametrize("key", KEYS)
    def test_the_planes(self, key: str, whole: PanelHandler, blocks: PanelHandler) -> None:
        ours, theirs = (handler.label_planes(key) for handler in (blocks, whole))
        assert list(ours) == list(theirs)
        for name, plane in ours.items():
            assert plane.dtype == np.float32
            np.testing.assert_array_equal(plane, theirs[name])

    @pytest.mark.parametrize("key", ["raw", "learn"])
    @pytest.mark.parametrize(
        "choose",
        [
            lambda day: slice(day(20), day(60)),
            lambda day: slice(None, day(60)),
            lambda day: slice(pd.Timestamp(day(150)), None),
            lambda day: (day(20), day(21)),
            lambda day: [day(20), day(40)],
            lambda day: pd.Timestamp(day(33)),
            lambda day: day(33),
            lambda day: "2018-03",
            lambda day: slice("2018-02", "2018-03"),
            lambda day: slice("2001-01-01", "2002-01-01"),
            lambda day: slice("2018-01-06", "2018-01-07"),
        ],
    )
    def test_some_days(
        self, choose: Callable[[Any], Any], key: str, whole: PanelHandler, make: Any, tiny: Any
    ) -> None:
        chosen = choose(tiny.day)
        ours, theirs = (handler.fetch(chosen, col_set="label", data_key=key) for handler in (make(), whole))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)

    def test_some_stocks(self, whole: PanelHandler, make: Callable[..., PanelHandler]) -> None:
        for chosen in ("SH600003", slice("SH600003", "SH600005")):
            ours, theirs = (x.fetch(chosen, level="instrument", col_set="label") for x in (make(), whole))
            pd.testing.assert_frame_equal(ours, theirs, check_exact=True)

    def test_a_range(self, make: Callable[..., PanelHandler], tiny: Any) -> None:
        limits = {"start_time": tiny.day(30), "end_time": tiny.day(60)}
        theirs = make(infer_processors=[WholeLine()], learn_processors=[WholeNorm()], **limits)
        for key in KEYS:
            ours = make(**limits).fetch(col_set="label", data_key=key)
            pd.testing.assert_frame_equal(ours, theirs.fetch(col_set="label", data_key=key), check_exact=True)

    def test_zscores(self, make: Callable[..., PanelHandler], monkeypatch: pytest.MonkeyPatch) -> None:
        theirs = make(learn_processors=[WholeNorm(method="zscore")]).fetch(data_key="learn", col_set="label")
        monkeypatch.setattr(label_planes, "CELLS_AT_ONCE", 30)
        ours = make(learn_processors=[CrossSectionNorm(method="zscore")]).fetch(
            data_key="learn", col_set="label"
        )
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)

    def test_a_column_of_doubles(self, make: Callable[..., PanelHandler], whole: PanelHandler) -> None:
        """What a processor makes of more bits than a panel holds is still in the table."""
        twice = make(infer_processors=[PerDay(lambda df: df.astype(np.float64) / 3)], learn_processors=[])
        expected = (
            make(infer_processors=[], learn_processors=[]).fetch(col_set="label").astype(np.float64) / 3
        )
        pd.testing.assert_frame_equal(twice.fetch(col_set="label"), expected, check_exact=True)
        planes = twice.label_planes("raw")
        assert planes["RETURN"].dtype == np.float32
        assert planes["RETURN"] is twice.label_planes("raw")["RETURN"]
        rows = whole.panel.present
        np.testing.assert_array_equal(planes["RETURN"][rows], expected["RETURN"].to_numpy(np.float32))


class TestMemory:
    def test_labels_that_training_sees_as_they_are_are_held_once(self, blocks: PanelHandler) -> None:
        raw, learn = blocks.label_planes("raw"), blocks.label_planes("learn")
        for name in ("NEXT_RETURN", "MOMENTUM", "MOMENTUM_PERSISTENCE"):
            assert np.shares_memory(raw[name], learn[name])
        assert not np.shares_memory(raw["RETURN"], learn["RETURN"])

    def test_a_label_that_changes_on_some_days_only(
        self, make: Callable[..., PanelHandler], monkeypatch: pytest.MonkeyPatch, tiny: Any
    ) -> None:
        def later(df: pd.DataFrame) -> pd.DataFrame:
            days = df.index.get_level_values("datetime")
            df.loc[days >= tiny.calendar[100], ("label", "RETURN")] = 7.0
            return df

        monkeypatch.setattr(label_planes, "CELLS_AT_ONCE", 50)
        handler = make(learn_processors=[PerDay(later)])
        raw, learn = (handler.label_planes(key)["RETURN"] for key in ("raw", "learn"))
        np.testing.assert_array_equal(learn[:100], raw[:100])
        there = handler.panel.present[100:]
        assert (learn[100:][there] == 7).all()
        assert np.isnan(learn[100:][~there]).all()
        assert not (raw == 7).any()


class TestOnesOwnProcessors:
    def test_one_that_looks_across_days_gets_all_of_them(self, make: Callable[..., PanelHandler]) -> None:
        raw = make().fetch(col_set="label")["RETURN"]
        learn = make(learn_processors=[AcrossDays()]).fetch(col_set="label", data_key="learn")["RETURN"]
        np.testing.assert_array_equal(learn, raw - raw.mean())

    def test_one_that_drops_rows_drops_them(self, make: Callable[..., PanelHandler]) -> None:
        handler = make(learn_processors=[DropnaLabel()])
        raw, learn = (handler.fetch(col_set="label", data_key=key) for key in ("raw", "learn"))
        pd.testing.assert_frame_equal(learn, raw.dropna(), check_exact=True)
        assert 0 < len(learn) < len(raw)
        plane = handler.label_planes("learn")["NEXT_RETURN"]
        assert np.isnan(plane).sum() > np.isnan(handler.label_planes("raw")["NEXT_RETURN"]).sum()

    def test_the_one_of_the_docs(self, make: Callable[..., PanelHandler]) -> None:
        page = (Path(__file__).parents[3] / "docs" / "data" / "scale.md").read_text(encoding="utf-8")
        (code,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
        module: dict[str, Any] = {"__name__": "demean"}
        exec(compile(code, "demean", "exec"), module)  # noqa: S102 - our own page
        handler = make(learn_processors=[module["Demean"]()])
        assert isinstance(handler.labels, LabelPlanes)
        learn = handler.fetch(col_set="label", data_key="learn")["RETURN"]
        raw = handler.fetch(col_set="label")["RETURN"]
        np.testing.assert_allclose(learn, raw - raw.groupby("datetime").transform("mean"), atol=1e-7)
        assert not np.allclose(learn, raw, equal_nan=True)

    @pytest.mark.parametrize(
        ("work", "message"),
        [
            (lambda df: df.dropna(), "PerDay says `per_day`, so it must leave the rows as they are, found"),
            (lambda df: df.iloc[::-1], "PerDay says `per_day`, so it must leave the rows as they are, found"),
            (
                lambda df: df.fillna(0).astype(int),
                r"must give columns of floats, found int64 in \('label', 'RETURN'\): leave out `per_day`",
            ),
        ],
    )
    def test_one_that_is_not_what_it_says_is_told(
        self, work: Callable[[pd.DataFrame], pd.DataFrame], message: str, make: Callable[..., PanelHandler]
    ) -> None:
        with pytest.raises(UserError, match=message):
            make(infer_processors=[PerDay(work)], learn_processors=[])

    @pytest.mark.parametrize("where", ["infer_processors", "learn_processors"])
    def test_columns_that_come_and_go_are_told(
        self, where: str, make: Callable[..., PanelHandler], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(label_planes, "CELLS_AT_ONCE", 100)
        calls: list[int] = []

        def work(df: pd.DataFrame) -> pd.DataFrame:
            calls.append(1)
            return df if len(calls) < 3 else df.iloc[:, :1]

        with pytest.raises(UserError, match="must give the same columns on all days, found"):
            make(**{"infer_processors": [], "learn_processors": [], where: [PerDay(work)]})

    def test_one_for_labels_alone_is_refused_for_inference(self, make: Callable[..., PanelHandler]) -> None:
        with pytest.raises(UserError, match="found CrossSectionNorm: it belongs to `learn_processors`"):
            make(infer_processors=[CrossSectionNorm()])
