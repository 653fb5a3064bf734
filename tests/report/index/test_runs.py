from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from qlib_ext.report.index.runs import MOST_COLUMNS, brought, columns, read, value
from qlib_ext.tracking.runs import PARENT
from tests.report.comparison.conftest import EQUAL, Store, blank
from tests.report.index.conftest import run

__all__ = ["blank"]


@pytest.fixture(scope="module")
def store(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three runs of two experiments, and a fold of the first."""
    made = Store(tmp_path_factory.mktemp("index"), blank)
    first = made.run("equal", params=EQUAL)
    made.run(
        "cqb 2026-01-02 03:04:05.678901",
        seed=1,
        experiment="other",
        status="FAILED",
        tags={"data_fingerprint": "ffff"},
    )
    made.client.set_tag(made.run("fold"), PARENT, first)
    made.client.log_text(first, "<html></html>", "report/report.html")
    return made


class TestRead:
    def test_the_newest_comes_first_and_a_fold_is_a_part_of_its_run(self, store: Store) -> None:
        found = read(store.client)
        assert [(each.name, each.experiment, each.status) for each in found] == [
            ("cqb", "other", "FAILED"),
            ("equal", "main", "FINISHED"),
        ]
        assert found[0].seed == "1"
        assert found[0].metrics["RankIC"] == pytest.approx(0.033)
        assert found[0].traits["status"] == "failed"

    def test_experiments_and_data_can_be_chosen(self, store: Store) -> None:
        assert [each.name for each in read(store.client, experiments=["main"])] == ["equal"]
        assert [each.name for each in read(store.client, fingerprint="ff")] == ["cqb"]
        assert read(store.client, fingerprint="abc") == []

    def test_the_report_is_that_of_the_run_s_own_folder_or_its_artifact(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (without, found) = read(store.client)
        assert without.report is None
        assert found.report is not None
        assert found.report.read_text() == "<html></html>"
        own = tmp_path / "reports" / "runs" / f"main-{found.run_id[:8]}" / "report.html"
        own.parent.mkdir(parents=True)
        own.write_text("own")
        again = read(store.client)[1].report
        assert again is not None
        assert again.resolve() == own

    def test_reports_that_lie_elsewhere_are_brought(self, store: Store, tmp_path: Path) -> None:
        away = [dataclasses.replace(each, report=None) for each in read(store.client)]
        none, found = brought(store.client, away, tmp_path)
        assert none.report is None
        assert found.report == tmp_path / found.run_id / "report" / "report.html"


class TestColumns:
    def test_what_is_the_same_and_what_follows_has_none(self) -> None:
        runs = [
            run(0, traits={"model.kwargs.trainer.lr": "1e-3", "model.kwargs.beta": "1"}),
            run(1, traits={"model.kwargs.trainer.lr": "0.001"}),
            run(3, traits={"model.kwargs.trainer.lr": "2e-3"}),
        ]
        names, more = columns(runs)
        assert names == {"method": "Method", "model.kwargs.trainer.lr": "lr"}
        assert more == 0
        assert [value(each, "model.kwargs.beta") for each in runs] == ["1", "\N{EN DASH}", "\N{EN DASH}"]

    def test_two_days_are_a_stretch(self) -> None:
        days = {"dataset.kwargs.segments.test": "[2017-01-01, 2020-12-31]"}
        assert value(run(0, traits=days), *days) == "2017-01-01 to 2020-12-31"

    def test_many_settings_are_counted(self) -> None:
        runs = [
            run(k, traits={f"model.kwargs.a{key:02}": str(k >> key & 1) for key in range(14)})
            for k in (0, *(1 << key for key in range(14)))
        ]
        names, more = columns(runs)
        assert len(names) == MOST_COLUMNS
        assert more > 0
