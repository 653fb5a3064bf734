"""A part of a market in place of the whole: which, and that what leaks leaks there too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qlib_ext.lookahead import sampled_market
from qlib_ext.lookahead.sampled_market import sampled, write_sample
from qlib_ext.market.store import QlibStore


@pytest.fixture
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled_market, "STOCKS", 8)


class TestAudit:
    @pytest.mark.usefixtures("few_at_a_time")
    def test_no_alarm_and_a_note(self, table_task: Any, audited: Any) -> None:
        result = audited(table_task(infer=[{"class": "CSZScoreNorm", "kwargs": {"fields_group": "feature"}}]))
        assert result.findings == ()
        assert "8 of the 16 stocks of `few` were looked at" in result.notes[0]
        assert result.facts["store"] == "store"

    @pytest.mark.usefixtures("few_at_a_time")
    def test_a_leak_is_found(self, table_task: Any, audited: Any) -> None:
        result = audited(table_task({"LEAK": "Ref($close, -1)/$close-1"}))
        assert [finding.kind for finding in result.findings] == ["feature-looks-ahead"]

    @pytest.mark.usefixtures("few_at_a_time")
    def test_it_says_how_long_it_will_take(self, table_task: Any, audited: Any) -> None:
        told: list[str] = []
        audited(table_task(), progress=lambda done, total, what: told.append(what))
        assert told[0] == "building the dataset"
        assert all("min in all)" in what for what in told[1:])


class TestSampled:
    def test_a_small_universe_is_looked_at_as_a_whole(
        self, table_task: Any, store: QlibStore, tmp_path: Path
    ) -> None:
        with sampled(table_task(), store, tmp_path / "part") as (part, said):
            assert part is store
            assert said == ""

    @pytest.mark.usefixtures("few_at_a_time")
    def test_so_are_the_packages_own_handlers(self, task: Any, store: QlibStore, tmp_path: Path) -> None:
        with sampled(task(), store, tmp_path / "part") as (part, _):
            assert part is store

    def test_lists_and_bars_name_the_same_stocks(self, store: QlibStore, tmp_path: Path) -> None:
        kept = {"SH600003", "SH600014"}
        write_sample(store, tmp_path / "part", kept)
        part = QlibStore(tmp_path / "part")
        assert {*part.instruments()} == kept
        spells = part.membership("few")
        assert {*spells["instrument"]} == kept
        whole = store.membership("few")
        assert spells.equals(whole[whole["instrument"].isin(kept)].reset_index(drop=True))
        assert part.calendar.equals(store.calendar)
