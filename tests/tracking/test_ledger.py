from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from qlib_ext.tracking import ledger
from qlib_ext.tracking.ledger import LedgerError, Trial


def trial(
    what: str, first: str = "2017-01-03", last: str = "2020-12-31", ratio: float | None = 0.05
) -> Trial:
    return Trial(
        time="2026-01-02T03:04:05+00:00",
        what=what,
        fingerprint="0123456789abcdef",
        universe="csi300",
        first=first,
        last=last,
        run_id=f"run-{what}",
        name="中证300",
        user="a researcher",
        rank_ic=0.05,
        ratio=ratio,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "store.trials.jsonl"
    for what in "abc":
        ledger.enter(found, trial(what))
    return found


def test_it_lies_beside_the_store_or_where_the_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ledger.ledger_path(tmp_path / "cn_data") == tmp_path / "cn_data.trials.jsonl"
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "team" / "trials.jsonl"))
    assert ledger.ledger_path(tmp_path / "cn_data") == tmp_path / "team" / "trials.jsonl"


def test_each_line_is_numbered_and_read_back(path: Path) -> None:
    found = ledger.entries(path)
    assert [entry.number for entry in found] == [1, 2, 3]
    assert [entry.trial for entry in found] == [trial(what) for what in "abc"]


def test_the_same_again_is_no_new_trial(path: Path) -> None:
    entry, known = ledger.enter(path, replace(trial("b"), run_id="another", time="2027"))
    assert entry == known[1]
    assert len(known) == len(ledger.entries(path)) == 3


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_changed_line_is_noticed(path: Path, line: int) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[line] = lines[line].replace("0.05", "0.06")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(LedgerError, match=f"line {line + 1} of the ledger"):
        ledger.entries(path)
    with pytest.raises(LedgerError):
        ledger.enter(path, trial("d"))
    assert path.read_text(encoding="utf-8").splitlines() == lines, "nothing was added"


@pytest.mark.parametrize("line", [0, 1])
def test_a_line_that_was_taken_out_is_noticed(path: Path, line: int) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:line] + lines[line + 1 :]), encoding="utf-8")
    with pytest.raises(LedgerError, match="changed or taken out"):
        ledger.entries(path)


def test_the_last_line_is_missed_by_its_run(path: Path) -> None:
    tags = {entry.trial.run_id: entry.tag(path) for entry in ledger.entries(path)}
    assert ledger.taken_out(path, tags) == []
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:2]), encoding="utf-8")
    assert ledger.taken_out(path, tags) == ["run-c"]
    ledger.enter(path, trial("d"))
    assert ledger.taken_out(path, tags) == ["run-c"], "another third line is not its own"
    assert ledger.taken_out(path, {"other": "9 0123 other.trials.jsonl"}) == [], "another ledger's"


def test_a_line_that_a_crash_cut_off_never_was(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"number": 4, "trial"')
    entry, known = ledger.enter(path, trial("d"))
    assert entry.number == len(known) == len(ledger.entries(path)) == 4


def test_what_is_no_line_is_told(path: Path) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"number": 4}) + "\n")
    with pytest.raises(LedgerError, match=r"line 4 of the ledger .* cannot be read"):
        ledger.entries(path)


def _enter_some(path: Path, name: str) -> None:
    for k in range(8):
        ledger.enter(path, trial(f"{name}{k}"))


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "trials.jsonl"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_enter_some, args=(path, name)) for name in "xyz"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(entry.trial.what for entry in ledger.entries(path)) == sorted(
        f"{name}{k}" for name in "xyz" for k in range(8)
    )


def test_days_in_common(path: Path) -> None:
    ledger.enter(path, trial("old", "2015-01-05", "2016-12-30"))
    known = ledger.entries(path)
    same = ledger.on_the_same_days(known, trial("new", "2020-12-31", "2021-12-31"))
    assert [entry.trial.what for entry in same] == ["a", "b", "c"]
    assert ledger.tabulate(same).loc[2, "run_id"] == "run-b"
