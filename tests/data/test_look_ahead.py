"""Nothing that is known only later reaches a feature, a statistic or a label before its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from qlib_ext.data.dataset import DailyPanelDataset

Make = Callable[..., DailyPanelDataset]
CHANGED = [125, 150, 197]  # the day t after which everything becomes another market


@dataclass(frozen=True)
class Twins:
    """A dataset, and one of a market that is the same up to day t."""

    t: int
    before: DailyPanelDataset
    after: DailyPanelDataset

    def features(self) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Position of the day, and both features, for the days of all segments."""
        calendar = self.before.handler.panel.calendar
        for name in self.before.segments:
            for ours, theirs in zip(self.before.panels(name), self.after.panels(name), strict=True):
                assert ours.date == theirs.date
                assert torch.equal(ours.instruments, theirs.instruments)
                yield calendar.get_loc(ours.date), ours.features, theirs.features

    def labels(self, name: str, data_key: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The label in both markets, a row a day and a column a stock."""
        first, second = (
            dataset.handler.fetch(col_set="label", data_key=data_key)[name].unstack()
            for dataset in (self.before, self.after)
        )
        assert first.index.equals(self.before.handler.panel.calendar)
        return first, second


@pytest.fixture(scope="module", params=CHANGED)
def twins(
    request: pytest.FixtureRequest,
    qlib_reads_the_store: None,
    dataset: DailyPanelDataset,
    make_dataset: Make,
    tiny: Any,
    tmp_path_factory: pytest.TempPathFactory,
    read: Callable[[Any], None],
) -> Twins:
    other = tiny.moved(slice(request.param + 1, None)).write(tmp_path_factory.mktemp("twin") / "store")
    read(other)
    twins = Twins(request.param, dataset, make_dataset())
    read(dataset.store)
    return twins


class TestFeatures:
    def test_every_price_after_t_may_change_and_features_up_to_t_stay_bit_equal(self, twins: Twins) -> None:
        later = []
        for day, ours, theirs in twins.features():
            if day <= twins.t:
                assert torch.equal(ours, theirs), day
            else:
                later.append(torch.equal(ours, theirs))
        assert later
        assert not any(later)

    def test_who_is_scored_up_to_t_stays_the_same(self, twins: Twins) -> None:
        for name in twins.before.segments:
            first, second = (dataset.panels(name).index() for dataset in (twins.before, twins.after))
            days = twins.before.handler.panel.calendar[: twins.t + 1]
            assert first[first.isin(days, level="datetime")].equals(
                second[second.isin(days, level="datetime")]
            )

    def test_scores_up_to_t_stay_bit_equal(self, twins: Twins) -> None:
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(360, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
        )
        with torch.no_grad():
            for day, ours, theirs in twins.features():
                assert torch.equal(network(ours), network(theirs)) == (day <= twins.t)

    def test_the_table_of_features_too(self, twins: Twins, tiny: Any) -> None:
        days = slice(tiny.day(0), tiny.day(twins.t))
        first, second = (
            dataset.handler.fetch(days, col_set="feature") for dataset in (twins.before, twins.after)
        )
        pd.testing.assert_frame_equal(first, second, check_exact=True)


class TestStatistics:
    def test_they_do_not_move_with_what_comes_after_the_fit(self, twins: Twins) -> None:
        first, second = twins.before.handler.features, twins.after.handler.features
        np.testing.assert_array_equal(first.median, second.median)
        np.testing.assert_array_equal(first.scale, second.scale)

    @pytest.mark.parametrize(("day", "moves"), [(119, True), (120, False)])
    def test_the_last_day_of_the_fit_is_the_last_that_counts(
        self,
        day: int,
        moves: bool,
        dataset: DailyPanelDataset,
        make_dataset: Make,
        tiny: Any,
        tmp_path: Path,
        use: Callable[[Any], None],
    ) -> None:
        use(tiny.moved(slice(day, day + 1)).write(tmp_path / "store"))
        assert moves != np.array_equal(make_dataset().handler.features.scale, dataset.handler.features.scale)

    def test_who_joins_the_universe_later_does_not_count(
        self,
        dataset: DailyPanelDataset,
        make_dataset: Make,
        tiny: Any,
        tmp_path: Path,
        use: Callable[[Any], None],
    ) -> None:
        newcomer = pd.DataFrame(
            {"instrument": ["SH600010"], "start": [tiny.calendar[150]], "end": [tiny.calendar[-1]]}
        )
        few = pd.concat([tiny.memberships["few"], newcomer])
        use(replace(tiny, memberships={"few": few}).write(tmp_path / "store"))
        other = make_dataset()
        assert len(other.instruments) == len(dataset.instruments) + 1
        np.testing.assert_array_equal(other.handler.features.scale, dataset.handler.features.scale)
        days = slice(tiny.day(0), tiny.day(149))
        for key in ("raw", "learn"):
            first, second = (x.handler.fetch(days, data_key=key) for x in (dataset, other))
            pd.testing.assert_frame_equal(first, second, check_exact=True)


STATUS = {
    "class": "qlib_ext.features.side_data.market_status.IndexStatus",
    "kwargs": {"indices": ["SH000300"], "windows": [5, 20]},
}
SOURCES: dict[str, dict[str, Any]] = {
    "from files": {
        "market_value": {"class": "qlib_ext.features.side_data.market_value.SideMarketValue"},
        "concepts": {"class": "qlib_ext.features.side_data.concepts.SideConcepts"},
    },
    "from bars": {
        "market_value": {
            "class": "qlib_ext.features.side_data.market_value.TrailingTradedValue",
            "kwargs": {"window_days": 20, "min_days": 5},
        },
        "concepts": {
            "class": "qlib_ext.features.side_data.concepts.CorrelationClusters",
            "kwargs": {"n_clusters": 3, "window_days": 40, "min_days": 20, "refit_every_days": 7},
        },
    },
}
for sources in SOURCES.values():
    sources["market_status"] = STATUS


def write_side(root: Path, tiny: Any, t: int | None) -> None:
    """Market values and industries; with t, of a market that is another one from the day after t on."""
    draw = np.random.default_rng(5)
    days = tiny.calendar
    values = draw.uniform(1, 9, (len(days), len(tiny.codes))) * (
        draw.random((len(days), len(tiny.codes))) < 0.7
    )
    starts = np.sort(draw.integers(0, len(days), (len(tiny.codes), 6)), axis=1)
    starts[:, 0] = 0
    names = draw.integers(0, 4, starts.shape)
    if t is not None:
        other = np.random.default_rng(t)
        values[t + 1 :] = other.uniform(1, 9, values[t + 1 :].shape)
        later = starts > t  # with them the end of the spell of day t moves, though not to t or before
        names[later] = other.integers(4, 7, names.shape)[later]
        starts[later] = other.integers(t + 1, len(days), starts.shape)[later]
        starts.sort(axis=1)
    folder = root / "side"
    folder.mkdir()
    rows = [
        (days[d], code, values[d, s])
        for s, code in enumerate(tiny.codes)
        for d in np.flatnonzero(values[:, s])
    ]
    pd.DataFrame(rows, columns=["datetime", "instrument", "market_value"]).to_parquet(
        folder / "market_value.parquet"
    )
    spells = []
    for code, begin, name in zip(tiny.codes, starts, names, strict=True):
        for i in range(len(begin)):
            end = days[begin[i + 1] - 1] if i + 1 < len(begin) else days[-1]
            if i + 1 == len(begin) or begin[i] < begin[i + 1]:
                spells.append((code, days[begin[i]], end, f"industry {name[i]}"))
    pd.DataFrame(spells, columns=["instrument", "start", "end", "industry"]).to_parquet(
        folder / "industry.parquet"
    )


class TestSideData:
    @pytest.fixture(params=[(t, kind) for t in CHANGED for kind in SOURCES], ids=lambda x: f"{x[1]}, {x[0]}")
    def sided(
        self,
        request: pytest.FixtureRequest,
        make_dataset: Make,
        tiny: Any,
        tmp_path: Path,
        use: Callable[[Any], None],
    ) -> Twins:
        t, kind = request.param
        stores = tiny.write(tmp_path / "a"), tiny.moved(slice(t + 1, None)).write(tmp_path / "b")
        made = []
        for store, other in zip(stores, (None, t), strict=True):
            write_side(store.root, tiny, other)
            use(store)
            made.append(make_dataset(**SOURCES[kind]))
        return Twins(t, *made)

    def test_everything_after_t_may_change_and_side_data_up_to_t_stay_bit_equal(self, sided: Twins) -> None:
        calendar = sided.before.handler.panel.calendar
        later = {"market_value": [], "concepts": [], "market_status": []}  # type: dict[str, list[bool]]
        for name in sided.before.segments:
            for ours, theirs in zip(sided.before.panels(name), sided.after.panels(name), strict=True):
                for what, equal in later.items():
                    one, other = getattr(ours, what), getattr(theirs, what)
                    assert one is not None
                    assert other is not None
                    # Names of industries that only one of the stores has are columns without stocks up to t.
                    width = min(one.shape[-1], other.shape[-1]) if one.ndim == 2 else None
                    same = torch.equal(one[..., :width], other[..., :width])
                    if calendar.get_loc(ours.date) <= sided.t:
                        assert same, (what, ours.date)
                        if width is not None:
                            assert not one[:, width:].any()
                            assert not other[:, width:].any()
                    else:
                        equal.append(same)
        assert not all(later["market_value"])
        if sided.t < 190:
            assert not all(later["concepts"])


class TestLabels:
    """A label of day d knows prices up to d + reach, and no further."""

    @pytest.mark.parametrize("data_key", ["raw", "learn"])
    @pytest.mark.parametrize(
        ("name", "reach"),
        [("RETURN", 2), ("NEXT_RETURN", 1), ("MOMENTUM", 2), ("MOMENTUM_PERSISTENCE", 0)],
    )
    def test_how_far_it_sees(self, name: str, reach: int, data_key: str, twins: Twins) -> None:
        first, second = twins.labels(name, data_key)
        known = twins.t - reach
        pd.testing.assert_frame_equal(first[: known + 1], second[: known + 1], check_exact=True)
        if twins.t < 190:  # and it does see that far: some stock's label changes with day t + 1
            beyond = first.iloc[known + 1], second.iloc[known + 1]
            assert not beyond[0].equals(beyond[1])

    def test_the_days_of_train_and_of_validation_know_nothing_of_the_next_segment(
        self,
        dataset: DailyPanelDataset,
        make_dataset: Make,
        tiny: Any,
        tmp_path: Path,
        use: Callable[[Any], None],
    ) -> None:
        """With purged segments, not a number that training sees moves with the days of the segments after it."""
        use(tiny.moved(slice(tiny.segments["valid"][0], None)).write(tmp_path / "store"))
        for ours, theirs in zip(dataset.panels("train"), make_dataset().panels("train"), strict=True):
            assert torch.equal(ours.features, theirs.features)
            for name in ours.labels:
                torch.testing.assert_close(
                    ours.labels[name], theirs.labels[name], rtol=0, atol=0, equal_nan=True
                )
