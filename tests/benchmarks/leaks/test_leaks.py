"""The court's cases name what there is, its page says what was found, and a store of survivors has no others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.leaks.cases import read_cases
from benchmarks.leaks.published import ByTheHighest, CorrelationsOfAllDays, DropExtremeLabels
from benchmarks.leaks.report import write
from benchmarks.leaks.worth import LEAKS, NONE, UNIVERSE, Case, with_survivors
from benchmarks.trainings.runs import place
from qlib_ext.checks import UserError
from qlib_ext.config.build import locate
from qlib_ext.market.store import QlibStore, write_store

CALENDAR = pd.bdate_range("2020-01-01", periods=40)
SEGMENTS = ("train", "valid", "test")


@pytest.mark.parametrize("name", read_cases())
def test_a_case_names_classes_that_there_are_and_segments(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QLIB_EXT_PACKAGES", "benchmarks")
    task = read_cases()[name].task
    dataset = task["dataset"]
    for config in (dataset, dataset["kwargs"]["handler"], task["model"]):
        assert isinstance(locate(config["class"], name="class"), type)
    assert tuple(dataset["kwargs"]["segments"]) == SEGMENTS
    if "fit_end_time" in dataset["kwargs"]["handler"]["kwargs"]:
        fitted_until = pd.Timestamp(dataset["kwargs"]["handler"]["kwargs"]["fit_end_time"])
        assert fitted_until == pd.Timestamp(dataset["kwargs"]["segments"]["train"][1])


def test_a_case_like_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text("One: {source: a, commit: b, like: Two, task: {}}", encoding="utf-8")
    with pytest.raises(UserError, match="Two"):
        read_cases(file)


def labelled(labels: list[float]) -> pd.DataFrame:
    """Ten stocks on a day and the day after, with a feature and a label."""
    index = pd.MultiIndex.from_product(
        [CALENDAR[:2], [f"S{k}" for k in range(10)]], names=["datetime", "instrument"]
    )
    return pd.DataFrame({("feature", "ONE"): np.arange(20.0), ("label", "L"): labels}, index=index)


def test_extreme_labels_are_dropped_by_day_at_both_ends() -> None:
    left = DropExtremeLabels(0.2)(labelled([*range(10), *range(9, -1, -1)]))
    assert left.groupby(level="datetime").size().tolist() == [8, 8]
    assert sorted(left["label"]["L"].unique()) == [*range(1, 9)]


def test_prices_are_divided_by_the_highest_of_all_days() -> None:
    scaled = ByTheHighest([["ONE"]])(labelled([0.0] * 20))["feature"]["ONE"]
    assert scaled.iloc[10:].tolist() == [1.0] * 10
    assert scaled.iloc[:10].tolist() == [k / (10 + k) for k in range(10)]


def test_correlations_are_of_all_days() -> None:
    draw = np.random.default_rng(0)
    table = labelled(draw.normal(size=20).tolist())
    known = CorrelationsOfAllDays()(table)["feature"]["CORRMEAN"].iloc[:10]
    later = table.copy()
    later.iloc[10:, 1] = draw.normal(size=10)
    assert not np.allclose(known, CorrelationsOfAllDays()(later)["feature"]["CORRMEAN"].iloc[:10])


def test_a_leak_changes_the_dataset_and_nothing_else() -> None:
    clean = Case(NONE, 1).task()
    for leak in set(LEAKS) - {NONE}:
        task = Case(leak, 1).task()
        assert task["dataset"] != clean["dataset"]
        assert (task["model"], task["record"]) == (clean["model"], clean["record"])


def test_survivors_are_members_on_all_days(tmp_path: Path) -> None:
    codes = ["SH600000", "SH600001"]
    spells = pd.DataFrame(
        [(codes[0], CALENDAR[20], CALENDAR[-1]), (codes[1], CALENDAR[0], CALENDAR[10])],
        columns=["instrument", "start", "end"],
    )
    store = write_store(tmp_path / "store", CALENDAR, codes, {"close": np.ones((40, 2))}, {UNIVERSE: spells})
    found = QlibStore(with_survivors(store, tmp_path / "survivors"))
    members = found.membership(UNIVERSE)
    assert members["instrument"].tolist() == [codes[0]]
    assert (members["start"][0], members["end"][0]) == (CALENDAR[0], CALENDAR[-1])
    assert found.instruments() == store.instruments()


def kept(folder: Path, name: str, rank_ic: float) -> None:
    draw = np.random.default_rng(3)
    daily = pd.DataFrame({"rank_ic/RETURN": draw.normal(0, 0.05, 40) + rank_ic}, index=CALENDAR)
    daily["portfolio"] = draw.normal(0, 0.01, 40)
    target = place(folder, name)
    target.mkdir(parents=True)
    daily.to_parquet(target / "daily.parquet")
    (target / "run.json").write_text(json.dumps({"name": name}), encoding="utf-8")


def test_the_page_has_verdicts_and_what_a_leak_is_worth(tmp_path: Path) -> None:
    names = [*read_cases()]
    finding = {"kind": "not-purged", "message": "labels of `train` reach into `valid`: purge"}
    facts = {
        "dates": 24,
        "first": "2010-03-01",
        "last": "2020-07-30",
        "changed_markets": 5,
        "notes": ["a part"],
    }
    (tmp_path / "verdicts").mkdir()
    for name, findings in ((names[0], [finding]), (names[1], [])):
        file = place(tmp_path / "verdicts", name).with_suffix(".json")
        file.write_text(json.dumps({**facts, "findings": findings}), encoding="utf-8")
    for seed in range(3):
        kept(tmp_path / "runs", f"{NONE} seed {seed}", 0.03)
        kept(tmp_path / "runs", f"segments not purged seed {seed}", 0.04)
    page = write(tmp_path).read_text(encoding="utf-8")
    assert "- **not-purged**: labels of `train` reach into `valid`: purge" in page
    assert page.count("Nothing that is called known") == 1
    assert f"Not looked at yet: {'; '.join(names[2:])}." in page
    (row,) = [line for line in page.splitlines() if line.startswith("| segments not purged |")]
    assert "| 3 |" in row
    assert "+0.0100 (+0.0100 to +0.0100)" in row
