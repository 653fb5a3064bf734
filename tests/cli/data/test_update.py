from __future__ import annotations

import inspect
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qlib_ext.cli import main as cli
from qlib_ext.cli.data.import_bars import import_bars
from qlib_ext.cli.data.update import update
from qlib_ext.market.exchange_days import exchange_days
from qlib_ext.market.store import QlibStore

DAYS = exchange_days("XSHG", pd.Timestamp("2020-01-02"), pd.Timestamp("2020-03-31"))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `qlib-ext data` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["qlib-ext", "data", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.fixture
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    tables = []
    for code in ("SH600000", "SZ000001"):
        close = np.round(10 * np.exp(np.cumsum(rng.normal(0, 0.02, len(DAYS)))), 2)
        table = pd.DataFrame(
            {"date": DAYS, "code": code, "open": close, "high": close + 0.1, "low": close - 0.1}
        )
        tables.append(table.assign(close=close, volume=1e5, amount=1e5 * close, factor=1.0))
    return pd.concat(tables)


@pytest.fixture
def store(
    tmp_path: Path, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    """The first 40 days, imported."""
    rows[rows["date"] < DAYS[40]].to_csv(tmp_path / "first.csv", index=False)
    assert run(monkeypatch, "import", tmp_path / "first.csv", "--out", tmp_path / "store") == 0
    capsys.readouterr()
    return tmp_path / "store"


class TestDataUpdate:
    def test_it_says_what_was_added_and_a_second_time_that_nothing_is(
        self,
        store: Path,
        rows: pd.DataFrame,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        source = tmp_path / "all.csv"
        new = rows[rows["code"] == "SZ000001"].assign(code="SZ000002")
        pd.concat([rows, new]).to_csv(source, index=False)
        assert run(monkeypatch, "update", store, source) == 0
        text = capsys.readouterr().out
        days = f"{DAYS[40].date()} to {DAYS[-1].date()}"
        assert (
            f"{store}: {len(DAYS) - 40} days added, {days}, 1 instrument, {2 * (len(DAYS) - 40) + len(DAYS)} bars; "
            f"0 values revised. It has 3 instruments and {len(DAYS)} days now"
        ) in text
        assert f"qlib-ext data check {store}" in text
        fingerprint = QlibStore(store).fingerprint()
        assert run(monkeypatch, "update", store, source) == 0
        text = capsys.readouterr().out
        assert f"{store} has everything that {source} has, up to {DAYS[-1].date()}: left as it is" in text
        assert QlibStore(store).fingerprint() == fingerprint

    def test_a_contradiction_ends_it_and_revise_shows_it(
        self,
        store: Path,
        rows: pd.DataFrame,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        changed = rows.reset_index(drop=True)
        changed.loc[20:34, "volume"] += 10
        changed.to_csv(tmp_path / "all.csv", index=False)
        arguments = ("update", store, tmp_path / "all.csv")
        assert run(monkeypatch, *arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: the source contradicts the store: SH600000 {DAYS[20].date()} ")
        assert error.count("\n") == 1
        assert run(monkeypatch, *arguments, "--revise") == 0
        text = capsys.readouterr().out
        assert text.count("revised: SH600000 ") == 10
        assert "revised: and " in text

    def test_the_options_of_import_say_where_a_source_differs(
        self,
        store: Path,
        rows: pd.DataFrame,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        other = rows.rename(columns={"close": "Letzter"})
        other["date"] = other["date"].dt.strftime("%d.%m.%Y")
        other.to_csv(tmp_path / "other.csv", index=False)
        arguments = ("update", store, tmp_path / "other.csv")
        assert run(monkeypatch, *arguments) == 2
        assert "`close`" in capsys.readouterr().err
        assert run(monkeypatch, *arguments, "--column", "close=Letzter", "--date-format", "%d.%m.%Y") == 0
        assert len(QlibStore(store).calendar) == len(DAYS)

    def test_gaps_and_universes(
        self,
        store: Path,
        rows: pd.DataFrame,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (store / "instruments" / "few.txt").write_text(f"SH600000\t2020-01-02\t{DAYS[39].date()}\n")
        rows[rows["date"] >= DAYS[42]].to_csv(tmp_path / "rest.csv", index=False)
        arguments = ("update", store, tmp_path / "rest.csv", "--universes", "keep")
        assert run(monkeypatch, *arguments) == 2
        assert "XSHG traded on 2 days between them" in capsys.readouterr().err
        assert run(monkeypatch, *arguments, "--allow-gap") == 0
        assert "note: universe `few` left as it is" in capsys.readouterr().out
        assert (store / "instruments" / "few.txt").read_text().split()[2] == str(DAYS[39].date())

    def test_what_is_no_store_is_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(monkeypatch, "update", tmp_path / "nowhere", tmp_path / "bars.csv") == 2
        assert capsys.readouterr().err.startswith(
            "error: expected a Qlib data directory, found no directory at"
        )

    def test_it_has_the_options_of_import_for_reading(self) -> None:
        written = {"out", "replace", "universe", "benchmark", "source"}  # what a new store is made with
        expected = set(inspect.signature(import_bars).parameters) - written
        own = {"store", "source", "revise", "allow_gap", "universes"}
        assert set(inspect.signature(update).parameters) - own == expected
