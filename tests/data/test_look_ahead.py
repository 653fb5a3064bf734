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
        first, second = twins.before.handler.windows, twins.after.handler.windows
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
        assert moves != np.array_equal(make_dataset().handler.windows.scale, dataset.handler.windows.scale)

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
        np.testing.assert_array_equal(other.handler.windows.scale, dataset.handler.windows.scale)
        days = slice(tiny.day(0), tiny.day(149))
        for key in ("raw", "learn"):
            first, second = (x.handler.fetch(days, data_key=key) for x in (dataset, other))
            pd.testing.assert_frame_equal(first, second, check_exact=True)


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
