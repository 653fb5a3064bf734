from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.store import QlibStore, StoreError, write_store
from qlib_ext.market.universes.universes import (
    Universe,
    universe_rules,
    write_universe,
)

CALENDAR = pd.bdate_range("2020-01-01", periods=20)
CODES = ["SH600000", "SH600004", "SZ000001"]


@pytest.fixture
def store(tmp_path: Path) -> QlibStore:
    close = np.random.default_rng(0).uniform(5, 9, (len(CALENDAR), 3))
    everyone = pd.DataFrame({"instrument": CODES, "start": CALENDAR[0], "end": CALENDAR[-1]})
    return write_store(tmp_path / "store", CALENDAR, CODES, {"close": close}, {"wide": everyone})


def spells(*rows: tuple[str, int, int]) -> pd.DataFrame:
    """Rows (code, first day, last day), days as indices of the calendar."""
    return pd.DataFrame(
        [(code, CALENDAR[first], CALENDAR[last]) for code, first, last in rows],
        columns=["instrument", "start", "end"],
    )


SMALL = Universe(
    "small", spells(("SH600000", 2, 5), ("SZ000001", 0, 19)), 2, "two of them", "make it", ("a note",)
)


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class TestWrite:
    def test_the_store_has_it_and_says_what_it_is(self, store: QlibStore) -> None:
        before = tree(store.root)
        written = write_universe(store.root, SMALL)
        pd.testing.assert_frame_equal(written.membership("small"), SMALL.spells, check_dtype=False)
        assert (store.root / "instruments" / "small.txt").read_text() == (
            "SH600000\t2020-01-03\t2020-01-08\nSZ000001\t2020-01-01\t2020-01-28\n"
        )
        said = {"small": {"size": 2, "rule": "two of them", "command": "make it"}}
        assert universe_rules(store.root) == said
        after = tree(store.root)
        assert set(after) - set(before) == {"instruments/small.txt", "universes.json"}
        assert all(after[path] == content for path, content in before.items())

    def test_nothing_is_left_beside_it(self, store: QlibStore) -> None:
        write_universe(store.root, SMALL)
        assert [path.name for path in store.root.parent.iterdir()] == ["store"]

    def test_one_of_the_name_is_kept_unless_told(self, store: QlibStore) -> None:
        write_universe(store.root, SMALL)
        other = Universe("small", spells(("SH600004", 1, 1)), None, "another")
        before = tree(store.root)
        with pytest.raises(
            UserError, match="has a universe `small` already: choose another name, or add --replace"
        ):
            write_universe(store.root, other)
        assert tree(store.root) == before
        written = write_universe(store.root, other, replace=True)
        assert written.membership("small")["instrument"].tolist() == ["SH600004"]
        assert universe_rules(store.root)["small"]["rule"] == "another"

    def test_rules_of_others_stay(self, store: QlibStore) -> None:
        write_universe(store.root, SMALL)
        write_universe(store.root, Universe("tiny", spells(("SH600004", 1, 1)), 1, "one"))
        assert {name: rule["size"] for name, rule in universe_rules(store.root).items()} == {
            "small": 2,
            "tiny": 1,
        }

    def test_a_new_store_leaves_the_old_one_and_shares_its_files(
        self, store: QlibStore, tmp_path: Path
    ) -> None:
        before = tree(store.root)
        written = write_universe(store.root, SMALL, out=tmp_path / "deep" / "new")
        assert written.root == tmp_path / "deep" / "new"
        assert written.universes() == ["all", "small", "wide"]
        assert tree(store.root) == before
        bars = Path("features") / "sh600000" / "close.day.bin"
        assert (store.root / bars).samefile(written.root / bars)

    def test_a_store_that_must_not_be_written_will_do(self, store: QlibStore, tmp_path: Path) -> None:
        for path in [store.root, *store.root.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        written = write_universe(store.root, SMALL, out=tmp_path / "new")
        assert "small" in written.universes()
        again = write_universe(written.root, Universe("tiny", spells(("SH600004", 1, 1)), 1, "one"))
        assert again.universes() == ["all", "small", "tiny", "wide"]

    def test_a_directory_with_something_in_it_is_refused(self, store: QlibStore, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "dear.txt").write_text("dear")
        with pytest.raises(UserError, match="`out` must be a new or an empty directory, found something at"):
            write_universe(store.root, SMALL, out=tmp_path / "mine")
        assert tree(tmp_path / "mine") == {"dear.txt": b"dear"}

    @pytest.mark.parametrize("name", ["all", "ALL", "", ".hidden", "a/b", "a b", "..", "名"])
    def test_names(self, name: str) -> None:
        with pytest.raises(UserError, match="the name of a universe must be made of letters, digits"):
            Universe(name, SMALL.spells, None, "")


class TestRules:
    def test_a_store_that_says_nothing(self, store: QlibStore) -> None:
        assert universe_rules(store.root) == {}

    @pytest.mark.parametrize("content", ["{", "[]", '{"small": 2}'])
    def test_a_file_that_says_something_else(self, store: QlibStore, content: str) -> None:
        (store.root / "universes.json").write_text(content)
        with pytest.raises(
            StoreError, match=r"universes.json` must .*; delete it if nothing in it is needed"
        ):
            universe_rules(store.root)

    def test_it_is_json_that_others_read(self, store: QlibStore) -> None:
        write_universe(store.root, SMALL)
        assert json.loads((store.root / "universes.json").read_text())["small"]["size"] == 2
