from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.panel import DailyPanels
from qlib_ext.features.market_panel import MarketPanel


@pytest.fixture
def panels(dataset: DailyPanelDataset) -> DailyPanels:
    return dataset.panels("test")


class TestDay:
    def test_a_panel_is_the_members_of_one_day(self, dataset: DailyPanelDataset, tiny: Any) -> None:
        members = tiny.members()
        for name in tiny.segments:
            for day in dataset.panels(name):
                assert [dataset.instruments[i] for i in day.instruments] == members[day.date]
                assert day.features.shape == (len(members[day.date]), 60, 6)
                assert len(day) == len(members[day.date])

    def test_shapes_and_types(self, panels: DailyPanels, dataset: DailyPanelDataset) -> None:
        day = panels[3]
        assert day.features.dtype == torch.float32
        assert day.features.isfinite().all()
        assert day.instruments.dtype == torch.int64
        assert day.market_value is None
        assert set(day.labels) == set(day.raw_labels) == set(dataset.label_names)
        for label in [*day.labels.values(), *day.raw_labels.values()]:
            assert label.shape == (len(day),)
            assert label.dtype == torch.float32

    def test_features_are_the_stocks_own(self, panels: DailyPanels, panel: MarketPanel) -> None:
        """The window of close over today's close, undone: the prices that were written."""
        features = panels.features
        for position in (0, 20):
            day = panels[position]
            t = panel.calendar.get_loc(day.date)
            ratio = day.features[:, :, 0] * torch.from_numpy(features.scale[:, 0]) + torch.from_numpy(
                features.median[:, 0]
            )
            for i, stock in enumerate(day.instruments):
                expected = panel.field("close")[t - 59 : t + 1, stock] / panel.field("close")[t, stock]
                unclipped = ~np.isnan(expected) & (day.features[i, :, 0].abs().numpy() < 3)
                assert unclipped.sum() > 5
                np.testing.assert_allclose(ratio[i].numpy()[unclipped], expected[unclipped], rtol=1e-5)

    def test_labels_are_the_tables_rows(self, dataset: DailyPanelDataset) -> None:
        raw = dataset.prepare("test", col_set="label", data_key="raw")
        learn = dataset.handler.fetch(col_set="label", data_key="learn")
        for day in dataset.panels("test"):
            for name in raw.columns:
                np.testing.assert_array_equal(day.raw_labels[name], raw.loc[day.date, name])
                np.testing.assert_allclose(day.labels[name], learn.loc[day.date, name], rtol=1e-6)


class TestSequence:
    def test_iteration_and_indexing_agree(self, panels: DailyPanels) -> None:
        days = list(panels)
        assert len(days) == len(panels) == len(panels.dates)
        assert [day.date for day in days] == list(panels.dates)
        assert panels.dates.is_monotonic_increasing
        for position in (0, 7, len(panels) - 1):
            assert torch.equal(panels[position].features, days[position].features)

    def test_index_is_the_order_in_which_days_are_gathered(
        self, panels: DailyPanels, dataset: DailyPanelDataset
    ) -> None:
        expected = [(day.date, dataset.instruments[i]) for day in panels for i in day.instruments]
        assert list(panels.index()) == expected
        assert panels.index().names == ["datetime", "instrument"]

    def test_scores_come_back_on_the_right_day_and_stock(
        self, panels: DailyPanels, panel: MarketPanel
    ) -> None:
        """A model whose score is a number that names day and stock, put together as a prediction is."""
        code = {name: i for i, name in enumerate(panel.instruments)}
        scores = torch.cat([1000.0 * panel.calendar.get_loc(day.date) + day.instruments for day in panels])
        for (date, instrument), score in pd.Series(scores, index=panels.index()).items():
            assert divmod(int(score), 1000) == (panel.calendar.get_loc(date), code[instrument])

    def test_raw_matrix_has_the_days_stocks_and_no_others(self, panels: DailyPanels) -> None:
        matrix = panels.raw_matrix("NEXT_RETURN")
        assert matrix.shape == (len(panels), len(panels.instruments))
        expected = np.full_like(matrix, np.nan)
        for i, day in enumerate(panels):
            expected[i, day.instruments] = day.raw_labels["NEXT_RETURN"]
        np.testing.assert_array_equal(matrix, expected)

    def test_values_in_the_order_of_the_index_go_back_to_their_place(self, panels: DailyPanels) -> None:
        values = np.concatenate([day.raw_labels["NEXT_RETURN"] for day in panels])
        np.testing.assert_array_equal(panels.scattered(values), panels.raw_matrix("NEXT_RETURN"))

    def test_matrix_is_as_training_sees_the_label(self, panels: DailyPanels) -> None:
        matrix = panels.matrix("NEXT_RETURN")
        for i, day in enumerate(panels):
            np.testing.assert_array_equal(matrix[i, day.instruments], day.labels["NEXT_RETURN"])
        assert (~np.isnan(matrix)).sum() <= sum(map(len, panels))

    def test_a_label_of_who_is_no_member_that_day_is_left_out(self, dataset: DailyPanelDataset) -> None:
        present = dataset.handler.panel.present
        day = int(np.flatnonzero(~present.all(axis=1))[0])
        panels = self.made(dataset, [day], raw_labels={"ONE": np.ones(present.shape, np.float32)})
        np.testing.assert_array_equal(panels.raw_matrix("ONE")[0], np.where(present[day], 1, np.nan))

    def test_no_days_have_an_empty_index(self, dataset: DailyPanelDataset) -> None:
        none = self.made(dataset, [])
        assert len(none) == len(none.index()) == len(list(none)) == 0

    @staticmethod
    def made(dataset: DailyPanelDataset, days: list[int], **labels: Any) -> DailyPanels:
        whole = dataset.panels("test")
        return DailyPanels(
            features=whole.features,
            padded=whole.padded,
            calendar=whole.calendar,
            instruments=whole.instruments,
            days=np.array(days, dtype=int),
            present=dataset.handler.panel.present,
            **({"labels": {}, "raw_labels": {}} | labels),
        )


class TestLabelled:
    def test_days_on_which_a_label_is_missing_are_told(self, dataset: DailyPanelDataset) -> None:
        panels = dataset.panels("test")  # the store ends with it: no return on its last two days
        for names in (("RETURN",), ("NEXT_RETURN",), ("RETURN", "MOMENTUM")):
            expected = [
                i
                for i, day in enumerate(panels)
                if all(int((~day.labels[name].isnan()).sum()) >= 2 for name in names)
            ]
            assert panels.labelled(names).tolist() == expected
        assert panels.labelled(("RETURN",)).tolist() == list(range(len(panels) - 2))
        assert panels.labelled(("NEXT_RETURN",)).tolist() == list(range(len(panels) - 1))

    def test_stocks_of_a_day_that_have_a_label(self, dataset: DailyPanelDataset) -> None:
        panels = dataset.panels("test")
        for day in panels:
            for name, values in day.labels.items():
                assert day.labelled(name).tolist() == np.flatnonzero(~np.isnan(values.numpy())).tolist()
                by_hand = dataclasses.replace(day, rows={})
                assert torch.equal(day.labelled(name), by_hand.labelled(name))
        assert len(panels[len(panels) - 1].labelled("NEXT_RETURN")) == 0

    def test_a_minimum_of_stocks(self, dataset: DailyPanelDataset) -> None:
        panels = dataset.panels("test")
        assert len(panels.labelled(("RETURN",), minimum=100)) == 0
        assert len(panels.labelled(("RETURN",), minimum=0)) == len(panels)
